"""Environments of other packages, through our cameras and our command line. Run by tests/test_stacks.py.

Not collected by `make test`: it needs another MuJoCo than ours.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from robot_attn_envs import CameraObservation, CameraVectorEnv
from robot_attn_scripts.cli import main

Make = Callable[[], gymnasium.Env[Any, Any]]

# Task and options on the command line, by the package that has it; target and camera are among the options.
ENVIRONMENTS = {
    "gymnasium_robotics": [
        ("gymnasium_robotics:FetchPickAndPlace-v4", {"target": "object0", "camera": "external_camera_0"}),
        ("gymnasium_robotics:AdroitHandDoor-v1", {"target": "latch", "camera": "fixed"}),
    ],
    "metaworld": [
        (
            "metaworld:Meta-World/MT1",
            {"env_name": "drawer-open-v3", "seed": 0, "target": "drawer_link", "camera": "corner2"},
        ),
    ],
}
INSTALLED = [
    case for package, cases in ENVIRONMENTS.items() if importlib.util.find_spec(package) for case in cases
]
OURS = ("target", "camera")


def maker(task: str, options: dict[str, Any]) -> Make:
    own = {name: value for name, value in options.items() if name not in OURS}
    return lambda: gymnasium.make(task, **own)


@pytest.fixture(params=INSTALLED, ids=lambda case: case[0])
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param


def test_there_is_something_to_check() -> None:
    assert INSTALLED


def test_frames_and_masks_are_the_same_at_any_number_of_environments_and_threads(
    case: tuple[str, dict[str, Any]],
) -> None:
    task, options = case
    make, seen = maker(task, options), {name: options[name] for name in OURS}
    single = CameraObservation(make(), image_size=(40, 56), threads=1, **seen)
    batch = CameraVectorEnv([make] * 3, image_size=(40, 56), threads=2, **seen)
    frames, infos = batch.reset(seed=5)
    frame, info = single.reset(seed=7)
    action = single.action_space.sample() * 0.3
    for _ in range(4):
        np.testing.assert_array_equal(frame["image"], frames["image"][2])
        np.testing.assert_array_equal(info["target_mask"], infos["target_mask"][2])
        frame, *_, info = single.step(action)
        frames, *_, infos = batch.step(np.stack([action] * 3))
    assert info["target_visible"] and info["target_mask"].mean() < 0.5
    assert len(np.unique(frame["image"].reshape(-1, 3), axis=0)) > 20
    single.close()
    batch.close()


def test_removing_the_target_changes_its_pixels_alone(case: tuple[str, dict[str, Any]]) -> None:
    task, options = case
    env = CameraVectorEnv([maker(task, options)], threads=1, **{name: options[name] for name in OURS})
    frames, infos = env.reset(seed=1)
    edit = env.render_counterfactual("target", removed=True)
    np.testing.assert_array_equal(edit["before"], infos["target_mask"])
    assert not edit["after"].any()
    changed = (edit["image"] != frames["image"]).any(axis=-1)
    assert changed.any() and not (changed & ~edit["before"]).any()
    env.close()


def test_train_evaluate_replay_explain_and_compare(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    task, options = case
    run = tmp_path / "run"
    scene = [f"{name}={value}" for name, value in options.items()] + ["max_episode_steps=12"]
    steps = ["--steps", "64", "--ppo", "n_envs=2", "n_steps=32", "batch_size=32", "--eval-every", "0"]
    few = ["--episodes", "2", "--calibration-episodes", "2"]
    trusted = [str(run), "--which", "last", "--module", task.partition(":")[0]]

    def robot_attn(*arguments: str) -> None:
        assert main(arguments) == 0

    robot_attn("train", task, "--env", *scene, "--threads", "1", *steps, "--out", str(run))
    robot_attn("evaluate", *trusted, *few, "--json", str(tmp_path / "scores.json"))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "localisation" in json.dumps(scores) or "mass" in json.dumps(scores)
    robot_attn("replay", *trusted, *few[2:], "--out", str(tmp_path / "replay.mp4"))
    robot_attn("explain", *trusted, *few, "--out", str(tmp_path / "report.html"))
    suite = ["--suite", "medium", "--jobs", "1"]
    robot_attn("compare", *trusted, *suite, *few, "--out", str(tmp_path / "table"))
    assert (tmp_path / "replay.mp4").exists() and (tmp_path / "report.html").exists()
