"""`robot-attn benchmark render`: the figures are what was measured, on the same worlds for all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robot_attn_envs import BatchCamera
from robot_attn_scripts.benchmarks.render import Options, load_scene, run


@pytest.mark.parametrize("task", ["track", "navigate", "reach", "push"])
def test_all_peers_draw_worlds_on_their_way_with_the_target_in_view(task: str) -> None:
    scene = load_scene(task, 8)
    camera = BatchCamera(scene.model, 8, scene.camera, (64, 64), threads=1)
    camera.geom_rgba[:] = scene.colors
    camera.render(scene.kinematics, recolor=True)
    target = scene.model.geom("target").id
    assert (camera.geom_id == target).any(axis=(1, 2)).sum() >= 2
    # The states are of the same moment as the kinematics.
    data = mujoco.MjData(scene.model)
    mujoco.mj_setState(scene.model, data, scene.states[1], mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_kinematics(scene.model, data)
    np.testing.assert_allclose(data.geom_xpos, scene.kinematics["geom_xpos"][1], atol=1e-9)


def test_a_file_is_a_scene_too(tmp_path: Path) -> None:
    path = tmp_path / "one.xml"
    path.write_text(
        '<mujoco><worldbody><camera name="eye" pos="0 0 2"/><body pos="0 0 .5"><freejoint/>'
        '<geom size=".1"/></body></worldbody></mujoco>'
    )
    scene = load_scene(f"{path}:eye", 2)
    assert scene.camera == "eye"
    # It falls between the two states.
    assert scene.kinematics["geom_xpos"][1, 0, 2] < scene.kinematics["geom_xpos"][0, 0, 2] < 0.5
    with pytest.raises(ValueError, match="expected a task or PATH:CAMERA of an MJCF file, got no file at"):
        load_scene(f"{path}x:eye", 2)


def test_options_of_an_environment_name_its_camera_and_are_for_no_task() -> None:
    assert load_scene("HalfCheetah-v5", 2, env={"camera": "track"}).camera == 0
    with pytest.raises(ValueError, match="expected --env with environments only"):
        load_scene("track", 2, env={"camera": "eye"})


def test_an_environment_is_a_scene_too() -> None:
    scene = load_scene("Pusher-v5", 3)
    camera = BatchCamera(scene.model, 3, scene.camera, (64, 64), threads=1, **scene.drawn_whole)
    camera.render(scene.kinematics)
    assert len(np.unique(camera.rgb.reshape(3, -1), axis=0)) == 3  # the arm moves
    assert scene.peers_camera().distance == scene.gymnasiums_camera()["default_cam_config"]["distance"] == 4.0
    with pytest.raises(ValueError, match="expected only tasks with --suite, got Pusher-v5"):
        load_scene("Pusher-v5", 3, "hard")


@pytest.fixture
def two_cores() -> Iterator[list[int]]:
    """Two of the cores, or one where there are no more: each takes two more processes."""
    all_of_them = os.sched_getaffinity(0)
    some = sorted(all_of_them)[:2]
    os.sched_setaffinity(0, some)
    yield some
    os.sched_setaffinity(0, all_of_them)


@pytest.mark.slow
def test_a_small_benchmark_gives_its_figures(tmp_path: Path, two_cores: list[int]) -> None:
    path = tmp_path / "render.json"
    amount = {"size": (32, 40), "suite": "hard", "rounds": 1, "worlds": 2, "frames": 6}
    figures = run(Options(scenes=("reach",), json=path, **amount))
    assert json.loads(path.read_text()) == json.loads(json.dumps(figures))
    assert figures["sizes"]["height and width"] == [32, 40]
    assert (figures["worlds"], figures["frames"]) == (2, {"in a round of ours": 6})
    cases = ["reach, 32 x 32", "reach, 40 x 40"]
    assert list(figures["frames_per_second_on_one_core"]) == cases
    for scene, rates in figures["frames_per_second_on_one_core"].items():
        assert min(rates[name]["median"] for name in ("ours", "mujoco_warp")) > 0
        assert rates["ours"]["unit"] == "frames/s"
        assert "ours / ours, hard" in figures["ratios"][scene]
        for name, figure in figures["ratios"][scene].items():
            peer = rates[name.split(" / ")[1]]
            assert figure["rounds"] == [rates["ours"]["rounds"][0] / peer["rounds"][0]]
    cores = len(two_cores)
    expected = [f"{threads} threads" for threads in range(1, cores + 1)] + [f"{cores} processes"]
    assert list(figures["efficiency_by_threads"]) == expected
    assert figures["efficiency_by_threads"]["1 threads"]["rounds"] == [1.0]


def test_a_suite_changes_what_is_drawn() -> None:
    plain, hard = load_scene("track", 4), load_scene("track", 4, "hard")
    assert plain.lens is None
    assert (hard.lens.settings["noise"] > 0.0).all()
    moved = np.abs(hard.kinematics["cam_xpos"] - plain.kinematics["cam_xpos"]).max(axis=(1, 2))
    assert (moved > 0.0).all()
    with pytest.raises(ValueError, match="expected only tasks with --suite, got door"):
        run(Options(scenes=("track", "door.xml:fixed"), suite="hard"))


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="expected at least one scene"):
        run(Options(scenes=()))
    with pytest.raises(ValueError, match="--frames of 8 or more, one a world, got 7"):
        run(Options(worlds=8, frames=7))
