"""Collected rollout steps: rows, order and number."""

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


def make_step(
    episode: list[int], running: list[bool], mark: int, masks: bool = True, dicts: bool = True
) -> Step:
    """A step of two environments; every number is 10 x `mark` + the environment, or a hundredth of it."""
    marks = np.array([10 * mark, 10 * mark + 1])
    image = np.broadcast_to(marks[:, None, None, None], (2, H, W, 3)).astype(np.uint8)
    attention = torch.zeros(2, 3, 2, 2)
    attention[..., 1, 1] = torch.as_tensor(marks / 100)[:, None]
    attention[..., 0, 0] = 1 - attention[..., 1, 1]
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


def collect(steps: list[Step]) -> StepBatch:
    collector = StepCollector(GRID)
    for step in steps:
        collector(step)
    return collector.batch()


STEPS = [
    ([0, 1], [True, True], 0),
    ([0, 1], [False, True], 1),
    ([0, 1], [False, True], 2),
    ([2, 2], [True, False], 3),  # three episodes in two environments: one is surplus
    ([2, 2], [True, False], 4),
]


def test_running_rows_are_sorted_by_episode_and_time() -> None:
    batch = collect([make_step(*step) for step in STEPS])
    assert_array_equal(batch.episode, [0, 1, 1, 1, 2, 2])
    assert_array_equal(batch.step, [0, 0, 1, 2, 0, 1])
    assert_array_equal(batch.rewards, [0, 1, 11, 21, 30, 40])
    assert_array_equal(batch.actions[:, 0], batch.rewards)
    assert isinstance(batch.observation, dict)
    assert_array_equal(batch.observation["state"][:, 0], batch.rewards)
    assert_array_equal(batch.observation["image"][:, 0, 0, 0], batch.rewards)
    assert_allclose(batch.maps.weights[:, 2, 1, 1], batch.rewards / 100, rtol=1e-6)
    assert_allclose(batch.combined.weights[:, 1, 1], batch.rewards / 100, rtol=1e-6)
    assert batch.masks is not None
    assert_array_equal(batch.masks[:, 3, 3], [True, False, False, False, True, True])


def test_maps_are_combined_with_the_heads_weights() -> None:
    step = make_step(*STEPS[0])
    assert step.percept is not None
    attention = torch.zeros(2, 3, 2, 2)
    attention[..., 0, 1] = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.4]])
    attention[..., 1, 0] = 1 - attention[..., 0, 1]
    collector = StepCollector(GRID)
    collector(step._replace(percept=step.percept._replace(attention=attention)))
    combined = collector.batch(np.array([1.0, 0.0, 3.0])).combined.weights
    assert_allclose(combined[:, 0, 1], [0, (0.1 + 3 * 0.4) / 4], rtol=1e-6)


def test_array_observations_without_masks() -> None:
    batch = collect([make_step(*step, masks=False, dicts=False) for step in STEPS])
    assert batch.masks is None
    assert isinstance(batch.observation, np.ndarray) and batch.observation.shape == (6, H, W, 3)


def test_collected_steps_are_copies() -> None:
    """The environment may write its next frames into the same memory."""
    step = make_step(*STEPS[0], dicts=False)
    frames: Any = np.array(step.observation)
    collector = StepCollector(GRID)
    collector(step._replace(observation=frames))
    frames[:] = 99
    observation = collector.batch().observation
    assert isinstance(observation, np.ndarray) and observation.max() == 1


def test_every_second_step_is_kept_beyond_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    row = H * W * 3 + 4 + H * W + 4 * 3 * 4
    monkeypatch.setattr(module, "MAX_BYTES", 5 * row)  # for 5 of the 6 rows
    batch = collect([make_step(*step) for step in STEPS])
    assert_array_equal(batch.episode, [0, 1, 1, 2])
    assert_array_equal(batch.step, [0, 0, 2, 0])


def test_subsampled_steps_are_evenly_spaced() -> None:
    batch = collect([make_step(*step) for step in STEPS])
    assert_array_equal(batch.subsample(3).rewards, [0, 11, 40])
    assert_array_equal(batch.subsample(100).rewards, batch.rewards)
    assert_array_equal(batch.take(np.array([4, 0])).episode, [2, 0])


def test_no_steps_and_no_attention_are_rejected() -> None:
    with pytest.raises(ValueError, match="expected at least one step, got none"):
        collect([])
    with pytest.raises(ValueError, match="expected attention, got none"):
        collect([make_step(*STEPS[0])._replace(percept=None)])
