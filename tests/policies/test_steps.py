"""Steps that are kept: which rows, in which order, and how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from robot_attn import AttentionGrid, Percept
from robot_attn_policies.probing import steps as module
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.rollouts.rollout import Step

H, W = 5, 7
GRID = AttentionGrid.even((2, 2), (H, W))


def played(
    episode: list[int], running: list[bool], mark: int, masks: bool = True, dicts: bool = True
) -> Step:
    """A step of two environments whose every number is 10 x `mark` + the environment."""
    marks = np.array([10 * mark, 10 * mark + 1])
    image = np.broadcast_to(marks[:, None, None, None], (2, H, W, 3)).astype(np.uint8)
    attention = torch.as_tensor(marks, dtype=torch.float32)[:, None, None, None].expand(2, 3, 2, 2)
    return Step(
        np.array(episode),
        np.array(running),
        {"image": image, "state": marks[:, None].astype(np.float32)} if dicts else image,
        {"target_mask": np.broadcast_to(marks[:, None, None] % 2 == 0, (2, H, W))} if masks else {},
        Percept(torch.zeros(2, 1), attention),
        marks[:, None].astype(np.float32),
        marks.astype(np.float64),
        np.zeros(2, bool),
    )


def kept(steps: list[Step], horizon: int = 4, episodes: int = 3) -> StepBatch:
    keeper = StepCollector(horizon, episodes, GRID)
    for step in steps:
        keeper(step)
    return keeper.seen()


STEPS = [
    ([0, 1], [True, True], 0),
    ([0, 1], [False, True], 1),
    ([0, 1], [False, True], 2),
    ([2, 2], [True, False], 3),  # three episodes in two environments: one has nothing left to do
    ([2, 2], [True, False], 4),
]


def test_rows_that_count_come_episode_by_episode() -> None:
    seen = kept([played(*step) for step in STEPS])
    assert_array_equal(seen.episode, [0, 1, 1, 1, 2, 2])
    assert_array_equal(seen.step, [0, 0, 1, 2, 0, 1])
    assert_array_equal(seen.rewards, [0, 1, 11, 21, 30, 40])
    assert_array_equal(seen.actions[:, 0], seen.rewards)
    assert isinstance(seen.observation, dict)
    assert_array_equal(seen.observation["state"][:, 0], seen.rewards)
    assert_array_equal(seen.observation["image"][:, 0, 0, 0], seen.rewards)
    assert_array_equal(seen.maps.weights[:, 2, 1, 1], seen.rewards)
    assert_allclose(seen.together.weights[:, 1, 1], seen.rewards)
    assert seen.masks is not None
    assert_array_equal(seen.masks[:, 3, 3], [True, False, False, False, True, True])


def test_heads_count_by_their_weights() -> None:
    step = played(*STEPS[0])
    assert step.percept is not None
    scaled = step.percept.attention * torch.tensor([1.0, 2.0, 4.0])[:, None, None] + 1
    keeper = StepCollector(4, 1, GRID)
    keeper(step._replace(percept=step.percept._replace(attention=scaled)))
    assert_allclose(keeper.seen(np.array([1.0, 0.0, 3.0])).together.weights[:, 0, 0], [1, 1 + 13 / 4])


def test_without_masks_and_without_keys() -> None:
    seen = kept([played(*step, masks=False, dicts=False) for step in STEPS])
    assert seen.masks is None
    assert isinstance(seen.observation, np.ndarray) and seen.observation.shape == (6, H, W, 3)


def test_what_is_kept_does_not_change_with_the_environment() -> None:
    """Environments write their next frames where the last ones were."""
    step = played(*STEPS[0], dicts=False)
    frames: Any = np.array(step.observation)
    keeper = StepCollector(4, 1, GRID)
    keeper(step._replace(observation=frames))
    frames[:] = 99
    observation = keeper.seen().observation
    assert isinstance(observation, np.ndarray) and observation.max() == 1


def test_of_too_many_steps_every_nth_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    row = H * W * 3 + 4 + H * W + 4 * 3 * 4
    monkeypatch.setattr(module, "LARGEST", 4 * 3 * row // 2)  # half of 4 steps of 3 episodes
    seen = kept([played(*step) for step in STEPS])
    assert_array_equal(seen.episode, [0, 1, 1, 2])
    assert_array_equal(seen.step, [0, 0, 2, 0])


def test_some_are_spread_evenly() -> None:
    seen = kept([played(*step) for step in STEPS])
    assert_array_equal(seen.some(3).rewards, [0, 11, 40])
    assert_array_equal(seen.some(100).rewards, seen.rewards)
    assert_array_equal(seen.take(np.array([4, 0])).episode, [2, 0])


def test_there_must_be_steps_and_attention() -> None:
    with pytest.raises(ValueError, match="no step was played"):
        kept([])
    with pytest.raises(ValueError, match="gave no attention"):
        kept([played(*STEPS[0])._replace(percept=None)])
