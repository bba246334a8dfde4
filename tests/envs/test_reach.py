"""Reach: rewards and terminations by hand, and the layout of the table."""

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.tasks.reach import HOLD, NEAR, START_HIGH, START_LOW, Reach
from robot_attn_envs.tasks.table import PLACES, SPACING, SPARE_PLACES
from robot_attn_envs.worlds import Worlds

ID = "RobotAttn/Reach-v0"
STILL = np.zeros((1, 3))
BOX_HEIGHT = 0.033  # of the target's centre


def make(num_worlds: int = 1, seed: int = 0, **options: Any) -> Worlds:
    worlds = Worlds(Reach, num_worlds, image_size=32, threads=1, **options)
    worlds.seed(range(seed, seed + num_worlds))
    worlds.reset(np.arange(num_worlds))
    return worlds


def lift(worlds: Worlds, slot: int, offset: tuple[float, float, float]) -> None:
    """Move an object of world 0 by an offset, m."""
    joint = worlds.model.joint(worlds.task.objects.names[slot])
    at = int(joint.qposadr[0])
    worlds.batch.bind("qpos")[0, at : at + 3] += offset
    worlds.batch.forward()


def bring(worlds: Worlds, offset: tuple[float, float, float]) -> None:
    """Put the grip point of world 0 at an offset from the target's centre, m."""
    task: Any = worlds.task
    task._arm.reset(0, task._table.target()[0] + offset)
    worlds.batch.forward()


def score(worlds: Worlds) -> tuple[float, bool, bool]:
    reward, terminated, success = worlds.task.compute_reward(worlds.steps)
    return float(reward[0]), bool(terminated[0]), bool(success[0])


def test_progress_by_hand() -> None:
    worlds = make(distractors=0)
    task: Any = worlds.task
    start = np.linalg.norm(task._arm.grip[0] - task._table.target()[0])
    assert score(worlds) == (pytest.approx(0.0), False, False)
    bring(worlds, (0.0, 0.0, 0.10))  # 5 cm still to go
    assert score(worlds) == (pytest.approx(1 - 0.05 / (start - 0.05)), False, False)
    bring(worlds, (0.0, 0.06, 0.08))  # 10 cm from the centre as well
    assert score(worlds) == (pytest.approx(0.0), False, False)
    bring(worlds, (0.0, 0.0, 0.12))
    assert score(worlds) == (pytest.approx(-0.02 / (start - 0.05)), False, False)
    bring(worlds, (0.0, 0.0, 0.04))
    assert score(worlds) == (pytest.approx(0.07 / (start - 0.05)), False, False)
    bring(worlds, (0.0, 0.0, 0.035))  # already near: no further progress
    assert score(worlds) == (pytest.approx(0.0), False, False)


def test_moving_away_costs_no_more_than_the_progress_made() -> None:
    worlds = make(distractors=0)
    task: Any = worlds.task
    task._arm.reset(0, np.array([0.45, 0.0, 0.3]))
    worlds.batch.forward()
    start = score(worlds)[0]
    lift(worlds, 0, (5.0, 0.0, 0.0))
    assert score(worlds)[0] == pytest.approx(-start, abs=1e-12)
    lift(worlds, 0, (5.0, 0.0, 0.0))
    assert score(worlds)[0] == 0.0


def test_success_takes_half_a_second() -> None:
    worlds = make()
    bring(worlds, (0.0, 0.0, 0.045))
    assert HOLD * worlds.dt == pytest.approx(0.5)
    rewards = []
    for step in range(1, HOLD + 1):
        reward, terminated, truncated, success = worlds.step(STILL)
        assert (terminated[0], truncated[0], success[0]) == (step == HOLD, False, step == HOLD)
        rewards.append(reward[0])
    assert rewards[0] == pytest.approx(1.0) and rewards[-1] == pytest.approx(1.0)
    assert rewards[1:-1] == pytest.approx([0.0] * (HOLD - 2))


def test_success_takes_consecutive_steps() -> None:
    worlds = make()
    near, outside = (0.0, 0.0, NEAR - 0.002), (0.0, 0.0, NEAR + 0.002)
    for offset, steps in ((near, HOLD - 1), (outside, 1), (near, HOLD - 1)):
        bring(worlds, offset)
        for _ in range(steps):
            assert not worlds.step(STILL)[1].any()
    _, terminated, _, success = worlds.step(STILL)
    assert terminated[0] and success[0]


@pytest.mark.parametrize(("far", "failed"), [(0.039, False), (0.041, True)])
def test_moving_another_object_is_failure(far: float, failed: bool) -> None:
    worlds = make()
    lift(worlds, 2, (-far, 0.0, 0.0))
    assert score(worlds) == (pytest.approx(-0.5 if failed else 0.0), failed, False)


def test_moving_the_target_or_a_parked_object_is_not_a_failure() -> None:
    worlds = make(spare_distractors=3)
    lift(worlds, 0, (0.2, 0.1, 0.0))
    lift(worlds, 6, (0.2, 0.1, 0.0))
    assert score(worlds)[1:] == (False, False)


@pytest.mark.parametrize(("slot", "shape"), [(4, "box"), (1, "cylinder")])
def test_knocking_an_object_over_is_failure(slot: int, shape: str) -> None:
    worlds = make(seed=3)
    assert worlds.task.objects.shapes[slot] == shape
    worlds.step(STILL)
    joint = worlds.model.joint(worlds.task.objects.names[slot])
    at, dof = int(joint.qposadr[0]), int(joint.dofadr[0])
    worlds.batch.bind("qpos")[0, at + 3 : at + 7] = 1.0, 0.0, 0.0, 0.0
    worlds.batch.bind("qvel")[0, dof : dof + 6] = 0.6, 0.0, 0.0, 0.0, 18.0, 0.0  # along x, about y
    for _ in range(20):
        reward, terminated, _, success = worlds.step(STILL)
        if terminated[0]:
            break
    assert terminated[0] and not success[0] and reward[0] == pytest.approx(-0.5, abs=1e-3)


def test_the_fingers_push_the_object_they_touch() -> None:
    worlds = make(distractors=0)
    bring(worlds, (0.0, 0.09, 0.0))
    task: Any = worlds.task
    before = task._table.target()[0].copy()
    for _ in range(6):
        worlds.step(np.array([[0.0, -1.0, 0.0]]))
    assert task._table.target()[0, 1] < before[1] - 0.03


def test_untouched_objects_stand_still() -> None:
    # Of every kind and orientation: MuJoCo misses the contact of a cylinder that stands too upright.
    worlds = make(30, distractors=7)
    task: Any = worlds.task
    for _ in range(Reach.horizon):
        task.act(np.zeros((30, 3)), worlds.steps)
        worlds.batch.step(nstep=Reach.substeps, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        assert task._table.moved().max() < 0.001


def test_layouts_differ_and_leave_room() -> None:
    worlds = make(40, distractors=6, spare_distractors=4)
    task: Any = worlds.task
    table = task._table
    places = table.starts[:, :7, :2]
    assert (places >= PLACES[0]).all() and (places <= PLACES[1]).all()
    assert len(np.unique(places[:, 0], axis=0)) == 40
    assert ((task._arm.grip >= START_LOW - 1e-9) & (task._arm.grip <= START_HIGH + 1e-9)).all()
    assert not worlds.task.objects.present[:, 7:].any() and (table.positions[:, 7:, 2] > 100).all()
    for world in range(40):
        slots = worlds.task.objects.add(world, 4, np.random.default_rng(world))
        worlds.task.place_distractors(world, slots, np.random.default_rng(world))
    worlds.batch.forward()
    np.testing.assert_allclose(table.positions, table.starts, atol=1e-12)
    assert (table.starts[:, 7:, :2] >= SPARE_PLACES[0]).all()
    assert (table.starts[:, 7:, :2] <= SPARE_PLACES[1]).all()
    between = np.linalg.norm(table.starts[:, :, None] - table.starts[:, None], axis=-1)
    assert between[:, ~np.eye(11, dtype=bool)].min() >= SPACING


def test_without_room_objects_stand_closer() -> None:
    worlds = make(2, distractors=32)
    task: Any = worlds.task
    places = task._table.starts
    assert (places[:, :, :2] >= PLACES[0]).all() and (places[:, :, :2] <= PLACES[1]).all()
    worlds.step(np.zeros((2, 3)))
    assert not worlds.diverged.any()


@settings(max_examples=15)
@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 3), min_size=1, max_size=25))
def test_returns_are_bounded(actions: list[tuple[float, float, float]]) -> None:
    worlds, total = BOUNDED, 0.0
    worlds.reset(np.arange(1))
    for action in actions:
        reward, terminated, _, _ = worlds.step(np.array([action]))
        total += reward[0]
        assert -1.5 <= reward[0] <= 2.0 and -0.5 - 1e-9 <= total <= 2.0 + 1e-9
        if terminated[0]:
            break


BOUNDED = make()


def play(kind: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns and successes of 25 first episodes."""
    worlds = make(25, seed=100, **options)
    rng = np.random.default_rng(0)
    total, success, running = np.zeros(25), np.zeros(25, bool), np.ones(25, bool)
    for _ in range(Reach.horizon):
        actions = worlds.oracle() if kind == "oracle" else rng.uniform(-1, 1, (25, 3))
        reward, terminated, _, succeeded = worlds.step(actions)
        total[running] += reward[running]
        success |= succeeded & running
        running &= ~terminated
        if not running.any():
            break
    return total, success


@pytest.mark.parametrize("options", [{}, {"distractors": 8}, {"instruction": True}], ids=str)
def test_the_oracle_succeeds(options: dict[str, Any]) -> None:
    total, success = play("oracle", **options)
    assert success.mean() >= 0.95
    assert total[success] == pytest.approx(2.0)


def test_a_random_policy_does_not_succeed() -> None:
    total, success = play("random")
    assert not success.any() and total.mean() < 0.3


def test_the_target_is_visible_and_large_enough() -> None:
    env = gymnasium.make_vec(ID, num_envs=40, masks=True)
    _, infos = env.reset(seed=0)
    widths = [np.ptp(np.flatnonzero(mask.any(axis=0))) + 1 for mask in infos["target_mask"] if mask.any()]
    assert infos["target_visible"].mean() >= 0.95 and np.median(widths) >= 6
    env.close()


def test_the_wrist_camera_sees_the_object_below_the_gripper() -> None:
    env = gymnasium.make_vec(ID, num_envs=8, masks=True, view="wrist")
    env.reset(seed=0)
    worlds = env.unwrapped.worlds
    task = worlds.task
    for world in range(8):
        task._arm.reset(world, task._table.target()[world] + (0.0, 0.0, 0.1))
    worlds.batch.forward()
    worlds.render()
    masks = worlds.target_mask()
    assert (masks.sum(axis=(1, 2)) > 60).all()
    columns = [np.flatnonzero(mask.any(axis=0)).mean() for mask in masks]
    assert columns == pytest.approx([31.5] * 8, abs=3)  # between the fingers
    env.close()


def test_invalid_options_raise() -> None:
    with pytest.raises(ValueError, match='expected view to be "fixed" or "wrist", got \'front\''):
        gymnasium.make(ID, view="front")
    with pytest.raises(ValueError, match=r"distractors .*33"):
        gymnasium.make(ID, distractors=33)
