"""Push: rewards and terminations by hand, guarantees of the layout, and that a block can be pushed."""

from typing import Any

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.tasks.push import (
    CLEAR,
    MARKS,
    NEAR,
    PUSHING_HEIGHT,
    PUSHING_SIDE,
    SPACING,
    STARTS,
    WAY,
    Push,
    _behind,
    _to_line,
)
from robot_attn_envs.worlds import Worlds

ID = "RobotAttn/Push-v0"
STILL = np.zeros((1, 3))


def make(num_worlds: int = 1, seed: int = 0, **options: Any) -> Worlds:
    worlds = Worlds(Push, num_worlds, image_size=32, threads=1, **options)
    worlds.seed(range(seed, seed + num_worlds))
    worlds.reset(np.arange(num_worlds))
    return worlds


def put(worlds: Worlds, slot: int, x: float, y: float) -> None:
    """Move a block of world 0 to (x, y), m; its height and orientation stay."""
    at = int(worlds.model.joint(worlds.task.objects.names[slot]).qposadr[0])
    worlds.batch.bind("qpos")[0, at : at + 2] = x, y
    worlds.batch.forward()


def score(worlds: Worlds) -> tuple[float, bool, bool]:
    reward, terminated, success = worlds.task.compute_reward(worlds.steps)
    return float(reward[0]), bool(terminated[0]), bool(success[0])


def test_the_targets_progress_by_hand() -> None:
    worlds = make(distractors=0)
    task: Any = worlds.task
    # A path of 20 cm, 16 cm of which have to be covered. The gripper keeps its distance to the pushing side.
    task._marks[0] = 0.60, 0.0
    put(worlds, 0, 0.40, 0.0)
    task._start[0] = task._away[0] = 0.16

    def pushed(x: float) -> tuple[float, bool, bool]:
        put(worlds, 0, x, 0.0)
        side = np.array([x - PUSHING_SIDE, 0.0, PUSHING_HEIGHT])
        task._grip_away[0] = min(np.linalg.norm(side - task._arm.grip[0]), 2 * task._grip_start[0])
        return score(worlds)

    assert pushed(0.40) == (pytest.approx(0.0), False, False)
    assert pushed(0.44) == (pytest.approx(0.25), False, False)
    assert pushed(0.36) == (pytest.approx(-0.5), False, False)
    assert pushed(0.60 - NEAR - 0.001) == (pytest.approx(1.25 - 0.001 / 0.16), False, False)
    assert pushed(0.60 - NEAR + 0.001) == (pytest.approx(0.001 / 0.16 + 1.0), True, True)
    worlds.close()


def test_the_grippers_progress_by_hand() -> None:
    worlds = make(distractors=0)
    task: Any = worlds.task
    target = task._table.target()[0, :2]
    side = _behind(target, PUSHING_SIDE)
    assert np.hypot(*side[:2]) == pytest.approx(np.hypot(*target) - PUSHING_SIDE)
    assert side[2] == PUSHING_HEIGHT
    start = float(task._grip_start[0])
    task._arm.reset(0, np.add(side, (0.0, 0.0, start / 2)))
    worlds.batch.forward()
    assert score(worlds)[0] == pytest.approx(0.125, abs=1e-6)
    task._arm.reset(0, side)
    worlds.batch.forward()
    assert score(worlds)[0] == pytest.approx(0.125, abs=1e-6)
    worlds.close()


def test_the_cost_of_moving_away_is_bounded() -> None:
    worlds = make(distractors=0)
    task: Any = worlds.task
    x, y = task._table.target()[0, :2]
    # Target and gripper both more than twice their starting distances away: -1 and -0.25.
    put(worlds, 0, x + 3.0, y)
    assert score(worlds) == (pytest.approx(-1.25), False, False)
    put(worlds, 0, x + 5.0, y)
    assert score(worlds)[0] == pytest.approx(0.0)
    worlds.close()


@pytest.mark.parametrize(("moved", "cost"), [(0.1, 0.15), (0.2, 0.3), (0.5, 0.3)])
def test_moving_other_blocks_costs(moved: float, cost: float) -> None:
    worlds = make(distractors=1)
    task: Any = worlds.task
    x, y, _ = task._table.starts[0, 1]
    put(worlds, 1, x + moved, y)
    assert score(worlds) == (pytest.approx(-cost), False, False)
    put(worlds, 1, x, y)  # back again
    assert score(worlds)[0] == pytest.approx(cost)
    worlds.close()


def test_layouts_keep_the_path_free() -> None:
    worlds = make(40, distractors=4)
    task: Any = worlds.task
    starts, marks = task._table.starts[:, :, :2], task._marks
    targets = starts[:, 0]
    way = np.hypot(*(marks - targets).T)
    assert ((way >= WAY[0]) & (way <= WAY[1])).all()
    assert ((targets >= STARTS[0]) & (targets <= STARTS[1])).all()
    assert ((marks >= MARKS[0]) & (marks <= MARKS[1])).all()
    for world in range(40):
        others = starts[world, 1:]
        assert (_to_line(others, targets[world], marks[world]) >= CLEAR - 1e-9).all()
        gaps = np.linalg.norm(starts[world, :, None] - starts[world], axis=2)[np.triu_indices(5, 1)]
        assert (gaps >= SPACING - 1e-9).all()
    worlds.close()


def test_untouched_blocks_stand_still() -> None:
    worlds = make(6, distractors=4)
    task: Any = worlds.task
    up = np.tile([0.0, 0.0, 1.0], (6, 1))
    for _ in range(20):
        worlds.step(up)
    assert task._table.moved().max() < 0.003
    worlds.close()


def test_the_oracle_pushes_the_target_to_the_mark_and_moves_no_other_block() -> None:
    worlds = make(8, distractors=4)
    task: Any = worlds.task
    done = np.zeros(8, bool)
    for _ in range(worlds.task.horizon):
        before = task._table.moved()[:, 1:].max(axis=1)
        _, _, _, success = worlds.step(worlds.oracle())
        assert (before[~done] < 0.03).all()
        done |= success
        if done.all():
            break
    assert done.all()
    worlds.close()


def test_mark_and_target_are_visible() -> None:
    worlds = Worlds(Push, 12, image_size=64, threads=2)
    worlds.seed(range(12))
    worlds.reset(np.arange(12))
    mark = worlds.model.geom("mark").id
    assert ((worlds.camera.geom_id == mark).sum(axis=(1, 2)) >= 8).all()
    assert (worlds.target_mask().sum(axis=(1, 2)) >= 12).all()
    worlds.close()


def test_instructions_name_boxes_and_cylinders() -> None:
    env = gymnasium.make_vec(ID, num_envs=40, instruction=True, image_size=32)
    _, infos = env.reset(seed=0)
    assert {text.split()[2] for text in infos["instruction"]} == {"box", "cylinder"}
    env.close()
