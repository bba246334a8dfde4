"""The occluder: when it appears, where it stands, and how long it hides the target."""

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.tasks.occluders import HALF_HEIGHT, HALF_WIDTH, NEARNESS, PARKED
from robot_attn_envs.tasks.track import Track
from robot_attn_envs.worlds import Worlds

STAY = {1: 40, 2: 40, 3: 30, 7: 12}  # control steps of 0.05 s: 2 s, or 60 % of a part of the 150


@pytest.fixture
def worlds() -> Worlds:
    worlds = Worlds(Track, 3, image_size=48, threads=1, distractors=0, occluders=2)
    worlds.seed([0, 1, 2])
    worlds.reset(np.arange(3))
    return worlds


@pytest.mark.parametrize("count", STAY)
def test_it_appears_once_in_each_part_and_stays_for_its_full_time(count: int) -> None:
    worlds = Worlds(Track, 5, image_size=32, threads=1, distractors=0, occluders=count)
    worlds.seed(range(5))
    worlds.reset(np.arange(5))
    screen = worlds.batch.bind("mocap_pos")[:, -1]
    visible = np.zeros((150, 5), bool)
    for step in range(150):
        worlds.step(worlds.oracle())
        visible[step] = screen[:, 2] > PARKED[2]
    part = 150 // count
    parts = visible[: part * count].reshape(count, part, 5)
    assert (parts.sum(axis=1) == STAY[count]).all()
    # Without interruption: it appears once in each part.
    appears = np.diff(visible.astype(int), axis=0, prepend=0) == 1
    assert (appears.sum(axis=0) == count).all()
    worlds.close()


def test_it_stands_half_way_to_the_target_and_hides_it(worlds: Worlds) -> None:
    starts = worlds.occluders.episode["starts"]
    screen = worlds.batch.bind("mocap_pos")[:, -1]
    camera = worlds.model.camera("eye").id
    eye, geoms = worlds.batch.bind("cam_xpos")[:, camera], worlds.batch.bind("geom_xpos")
    target = int(worlds.task.objects.target_geoms()[0])
    first = int(starts[0, 0])
    for _ in range(first):
        worlds.step(worlds.oracle())
    assert worlds.target_mask()[0].any()
    middle = eye[0] + NEARNESS * (geoms[0, target] - eye[0])
    worlds.step(worlds.oracle())
    np.testing.assert_allclose(np.linalg.norm(screen[0] - middle), 1.5 * HALF_WIDTH * 0.15, rtol=1e-9)
    for _ in range(7):  # 0.15 of its 40 steps to slide in
        worlds.step(worlds.oracle())
    np.testing.assert_allclose(screen[0], middle, atol=1e-9)
    size = worlds.model.geom("screen").size
    np.testing.assert_allclose(size, [0.01, HALF_WIDTH * 0.15, HALF_HEIGHT * 0.15])
    worlds.close()


def test_the_target_is_hidden_for_two_seconds_at_most() -> None:
    env = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=24, distractors=0, occluders=2)
    _, infos = env.reset(seed=3)
    hidden = []
    for _ in range(149):
        _, _, _, _, infos = env.step(env.unwrapped.oracle_actions())
        hidden.append(~infos["target_visible"])
    lengths = []
    for world in np.array(hidden).T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], world.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
    assert max(lengths) <= 40 and np.mean(lengths) > 5
    assert sum(lengths) / 24 / 149 > 0.1
    env.close()


def test_frames_are_the_same_until_the_screen_appears(worlds: Worlds) -> None:
    plain = Worlds(Track, 3, image_size=48, threads=1, distractors=0)
    plain.seed([0, 1, 2])
    plain.reset(np.arange(3))
    first = int(worlds.occluders.episode["starts"].min())
    for step in range(first + 1):
        np.testing.assert_array_equal(plain.camera.rgb, worlds.camera.rgb, err_msg=f"step {step}")
        plain.step(plain.oracle())
        worlds.step(worlds.oracle())
    plain.close()
    worlds.close()


@pytest.mark.parametrize("count", [-1, 9, 1.5])
def test_a_count_out_of_range_raises(count: float) -> None:
    with pytest.raises(ValueError, match="expected occluders to be an integer from 0 to 8"):
        Worlds(Track, 1, occluders=count)  # type: ignore[arg-type]
