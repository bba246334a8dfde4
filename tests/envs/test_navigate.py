"""Navigate: rewards and terminations by hand, the robot's dynamics, and guarantees of the layout."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.tasks.navigate import (
    ARENA,
    BUMPER_RADIUS,
    HANGING_HEIGHT,
    PARKED,
    PASSAGE,
    START_DISTANCE,
    SUCCESS_DISTANCE,
    Navigate,
    _next_corner,
)
from robot_attn_envs.tasks.rewards import progress
from robot_attn_envs.worlds import Worlds

ID = "RobotAttn/Navigate-v0"


@pytest.fixture
def worlds() -> Worlds:
    """Two empty arenas; in world 0 the robot stands in the middle and faces along x."""
    worlds = Worlds(Navigate, 2, image_size=32, threads=1, distractors=0, obstacles=0)
    worlds.seed([0, 1])
    worlds.reset(np.arange(2))
    qpos = worlds.batch.bind("qpos")
    qpos[0, :2], qpos[0, 3:7] = 0.0, (1.0, 0.0, 0.0, 0.0)
    return worlds


def put_target(worlds: Worlds, x: float, y: float, start: float) -> None:
    worlds.batch.bind("mocap_pos")[0, 0] = x, y, HANGING_HEIGHT
    worlds.task.episode["start"][0] = start
    worlds.task.episode["distance"][0] = math.hypot(x, y)
    worlds.batch.forward()


def test_reward_by_hand(worlds: Worlds) -> None:
    put_target(worlds, 2.0, 0.0, start=2.0)
    qpos, steps = worlds.batch.bind("qpos"), np.ones(2, np.int64)
    qpos[0, 0] = 0.5  # a quarter of the distance
    reward, ended, success = worlds.task.compute_reward(steps)
    assert reward[0] == pytest.approx(0.25) and not ended[0]
    qpos[0, 0] = 0.3  # and back
    assert worlds.task.compute_reward(steps)[0][0] == pytest.approx(-0.1)
    qpos[0, 0] = 2.0 - SUCCESS_DISTANCE + 0.01
    reward, ended, success = worlds.task.compute_reward(steps)
    assert reward[0] == pytest.approx((1.7 - 0.39) / 2 + 1) and ended[0] and success[0]
    worlds.close()


def test_success_is_at_the_documented_distance(worlds: Worlds) -> None:
    put_target(worlds, 2.0, 0.0, start=2.0)
    qpos, steps = worlds.batch.bind("qpos"), np.ones(2, np.int64)
    for x, near in ((2.0 - SUCCESS_DISTANCE - 1e-6, False), (2.0 - SUCCESS_DISTANCE + 1e-6, True)):
        qpos[0, 0] = x
        assert worlds.task.compute_reward(steps)[2][0] == near
    worlds.close()


@given(st.lists(st.floats(0, 9), min_size=1, max_size=9), st.floats(0.1, 9))
def test_progress_sums_to_the_distance_covered(distances: list[float], start: float) -> None:
    way = np.array([start, *distances])
    total = sum(float(progress(a, b, np.float64(start))) for a, b in itertools.pairwise(way))
    assert total == pytest.approx((start - way[-1]) / start, abs=1e-9) and total <= 1 + 1e-9


@pytest.mark.parametrize(
    ("action", "speed", "turn"), [((1, 0), 1.0, 0.0), ((-1, 0), -1.0, 0.0), ((0, 1), 0.0, 2.5)]
)
def test_actions_have_their_documented_scale(
    worlds: Worlds, action: tuple[float, float], speed: float, turn: float
) -> None:
    put_target(worlds, 0.0, 2.9, start=2.9)
    for _ in range(10):
        worlds.step(np.array([action, (0, 0)], np.float32))
    qpos, before = worlds.batch.bind("qpos"), worlds.batch.bind("qpos")[0].copy()
    for _ in range(5):  # half a second, once it is up to speed
        worlds.step(np.array([action, (0, 0)], np.float32))
    assert (qpos[0, 0] - before[0]) / 0.5 == pytest.approx(speed, abs=0.05)
    assert worlds.batch.bind("qvel")[0, 5] == pytest.approx(turn, abs=0.15)
    assert qpos[0, 2] == pytest.approx(before[2], abs=1e-3)  # on the ground
    worlds.close()


def test_without_contact_the_reward_is_progress_alone(worlds: Worlds) -> None:
    put_target(worlds, 0.0, 2.5, start=2.5)
    qpos, ahead = worlds.batch.bind("qpos"), np.array([(1, 0.3), (0, 0)], np.float32)
    for _ in range(12):  # wheels and caster touch the floor throughout
        before = math.hypot(qpos[0, 0], qpos[0, 1] - 2.5)
        reward = worlds.step(ahead)[0][0]
        assert reward == pytest.approx((before - math.hypot(qpos[0, 0], qpos[0, 1] - 2.5)) / 2.5, abs=1e-9)
    worlds.close()


def test_a_wall_stops_it_and_costs(worlds: Worlds) -> None:
    put_target(worlds, -2.5, 0.0, start=2.5)
    forward = np.array([(1, 0), (0, 0)], np.float32)
    rewards = [worlds.step(forward)[0][0] for _ in range(60)]
    assert worlds.batch.bind("qpos")[0, 0] == pytest.approx(ARENA - BUMPER_RADIUS, abs=0.03)
    assert rewards[-1] == pytest.approx(-0.01, abs=0.002)
    worlds.close()


def test_the_target_appears_on_its_side_of_the_frame(worlds: Worlds) -> None:
    for y, side in ((0.6, slice(0, 16)), (-0.6, slice(16, 32))):
        put_target(worlds, 2.0, y, start=2.0)
        worlds.render()
        mask = worlds.target_mask()[0]
        assert mask[:, side].sum() == mask.sum() > 4
    # An upright pillar is upright in the frame: the horizon is level.
    put_target(worlds, 2.5, 0.0, start=2.0)
    worlds.render()
    _, cols = np.nonzero(worlds.target_mask()[0])
    assert cols.mean() == pytest.approx(15.5, abs=0.3)
    worlds.close()


@pytest.mark.parametrize(("in_view", "share"), [(True, 1.0), (False, 0.0), (0.5, 0.5)])
def test_start_in_view_sets_how_often_the_target_is_visible(in_view: bool | float, share: float) -> None:
    env = gymnasium.make_vec(
        ID, num_envs=80, image_size=32, distractors=0, obstacles=0, start_in_view=in_view
    )
    _, infos = env.reset(seed=5)
    assert infos["target_visible"].mean() == pytest.approx(share, abs=0.12 if share == 0.5 else 0)
    env.close()


def test_some_layouts_hide_the_target_behind_a_pillar() -> None:
    env = gymnasium.make_vec(ID, num_envs=200, image_size=48, distractors=0)
    _, infos = env.reset(seed=5)
    assert 0.15 < 1 - infos["target_visible"].mean() < 0.45
    env.close()


def test_layouts_leave_room_and_differ() -> None:
    worlds = Worlds(Navigate, 60, image_size=32, threads=2)
    worlds.seed(range(60))
    worlds.reset(np.arange(60))
    mocap, robots = worlds.batch.bind("mocap_pos"), worlds.batch.bind("qpos")[:, :2]
    targets, pillars = mocap[:, 0, :2], mocap[:, 5:9]
    radii = worlds.task._radii  # type: ignore[attr-defined]
    distance = np.hypot(*(targets - robots).T)
    assert (START_DISTANCE[0] <= distance).all() and (distance <= START_DISTANCE[1]).all()
    standing = pillars[..., 2] > 0
    assert standing.mean() > 0.8
    for world in range(60):
        here = [
            (xy, r) for xy, r, up in zip(pillars[world, :, :2], radii, standing[world], strict=True) if up
        ]
        for i, (place, radius) in enumerate(here):
            others = [(robots[world], BUMPER_RADIUS), (targets[world], 0.0), *here[:i]]
            assert all(np.hypot(*(place - xy)) - radius - r >= PASSAGE - 1e-9 for xy, r in others)
            assert np.abs(place).max() <= ARENA - radius - PASSAGE + 1e-9
    assert len(np.unique(targets.round(6), axis=0)) == 60
    worlds.close()


def test_the_path_goes_straight_or_around() -> None:
    robot, target = np.array([[0.0, 0.0]]), np.array([[4.0, 0.0]])
    free = _next_corner(robot, target, np.array([[[2.0, 3.0]]]), np.array([0.3]))
    np.testing.assert_allclose(free, target)
    around = _next_corner(robot, target, np.array([[[2.0, 0.1]]]), np.array([0.3]))[0]
    assert around[1] < -0.3 and 1.0 < around[0] < 3.0  # the shorter side


def test_parked_pillars_do_not_block_the_path() -> None:
    worlds = Worlds(Navigate, 1, image_size=32, threads=1, distractors=1, obstacles=4)
    worlds.seed([0])
    worlds.reset(np.arange(1))
    mocap, qpos = worlds.batch.bind("mocap_pos"), worlds.batch.bind("qpos")
    mocap[0, 2:] = PARKED  # the pillars, as if none of them had fitted
    mocap[0, 0] = 0.2, 0.0, HANGING_HEIGHT
    qpos[0, :2], qpos[0, 3:7] = (-2.0, 0.0), (1.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(worlds.oracle()[0], (1.0, 0.0), atol=1e-6)
    mocap[0, 2] = -0.9, 0.1, 0.6
    assert worlds.oracle()[0, 1] < -0.2  # to the right, around the one that stands
    worlds.close()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"obstacles": 13}, "expected obstacles to be an integer from 0 to 12, got 13"),
        ({"obstacles": 1.0}, "obstacles"),
        ({"start_in_view": 1.5}, "start_in_view to be True, False, or a fraction"),
        ({"start_in_view": "yes"}, "start_in_view"),
        ({"distractors": 33}, "expected distractors to be an integer from 0 to 32"),
    ],
)
def test_options_out_of_range_raise(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        gymnasium.make(ID, **options)
