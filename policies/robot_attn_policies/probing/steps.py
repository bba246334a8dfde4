"""Rollout steps kept for analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.rollouts.camera import MASK, THINGS
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.sb3.context import NO_CONTEXT, Context, concatenate_contexts

MAX_BYTES = 512 * 2**20
"""Most bytes that a `StepCollector` stores: 64 episodes of 150 steps with frames of 64 x 64 take 271 MB.
Beyond it, only every second step is kept, or every fourth, etc."""


SUM_TOLERANCE = 0.01
"""Largest deviation of a map's sum from 1, as of rounding in half precision."""


@dataclass(frozen=True)
class StepBatch:
    """N steps of E episodes, sorted by episode and then by time.

    Attributes:
        observation: what the policy observed, each entry [N, ...].
        maps: attention maps [N, heads, rows, cols].
        weights: float64 [heads], the weight of each head in `combined`, sum 1.
        actions: [N, ...].
        rewards: float64 [N].
        masks: bool [N, H, W], True on the target, or None where the environment gives no masks.
        things: uint8 [N, H, W], what each pixel shows as a label into the environment's `thing_names`
            (`HasThings`), or None where it gives no labels.
        episode: int64 [N], index of the episode, from 0.
        step: int64 [N], index of the step within its episode, from 0.
        context: what the policy acted on besides `observation`.
    """

    observation: ObservationBatch
    maps: AttentionMaps
    weights: NDArray[np.float64]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    masks: NDArray[np.bool_] | None
    episode: NDArray[np.int64]
    step: NDArray[np.int64]
    context: Context = NO_CONTEXT
    things: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    @cached_property
    def combined(self) -> AttentionMaps:
        """[N, rows, cols], the weighted mean of the heads' maps."""
        return self.maps.mean_over_heads(self.weights)

    def take(self, rows: NDArray[np.int64]) -> StepBatch:
        """Select the steps with these indices, int64 [n]."""
        return replace(
            self,
            observation=take_rows(self.observation, rows),
            maps=self.maps[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            masks=None if self.masks is None else self.masks[rows],
            episode=self.episode[rows],
            step=self.step[rows],
            context=self.context.take(rows),
            things=None if self.things is None else self.things[rows],
        )

    def subsample(self, count: int) -> StepBatch:
        """Select at most `count` steps, evenly spaced over the batch."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)))


def take_rows(observation: ObservationBatch, rows: NDArray[Any]) -> ObservationBatch:
    """Select rows of a batch of observations."""
    if isinstance(observation, Mapping):
        return {name: entry[rows] for name, entry in observation.items()}
    return np.asarray(observation[rows])


def concatenate_observations(observations: Sequence[ObservationBatch]) -> ObservationBatch:
    """Concatenate batches of observations along their first axis."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: _concatenate([cast(Any, rows)[name] for rows in observations]) for name in first}
    return _concatenate(observations)


@dataclass
class StepCollector:
    """Callback for `rollout_episodes` that stores its steps for a `StepBatch`.

    Args:
        grid: positions of the maps' cells in the frame.
    """

    grid: AttentionGrid
    _kept: list[tuple[int, Step]] = field(default_factory=list)
    _first_episode: int = -1
    _step: int = 0
    _stride: int = 1
    _rows: int = 0

    def __call__(self, step: Step) -> None:
        """Store the running rows of a step."""
        if step.episode[0] != self._first_episode:
            self._first_episode, self._step = int(step.episode[0]), 0  # the batch has started new episodes
        if self._step % self._stride == 0:
            self._kept.append((self._step, _running_rows(step)))
            self._rows += int(step.running.sum())
            if self._rows * _bytes_per_row(step) > MAX_BYTES:
                self._stride *= 2
                self._kept = [(index, kept) for index, kept in self._kept if index % self._stride == 0]
                self._rows = sum(len(kept.episode) for _, kept in self._kept)
        self._step += 1

    def batch(self, weights: NDArray[np.float64] | None = None) -> StepBatch:
        """Return the collected steps.

        Args:
            weights: float64 [heads], weight of each head; scaled to sum 1. None weights all heads equally.

        Returns:
            The steps, sorted by episode and then by time.

        Raises:
            ValueError: no steps were collected, the policy returned no `Percept`, or attention that does not
                sum to 1 for every head.
        """
        if not self._kept:
            raise ValueError("expected at least one step, got none: run an episode first")
        steps = [step for _, step in self._kept]
        percepts = [step.percept for step in steps if step.percept is not None]
        if len(percepts) != len(steps):
            raise ValueError("expected attention, got none: give an actor that returns a Percept")
        masks, things = (
            _concatenate([step.info[name] for step in steps])
            if all(name in step.info for step in steps)
            else None
            for name in (MASK, THINGS)
        )
        episode = _concatenate([step.episode for step in steps])
        index = np.concatenate([np.full(len(step.episode), index) for index, step in self._kept])
        attention = _concatenate(
            [percept.attention.numpy(force=True).astype(np.float32) for percept in percepts]
        )
        check_sums(attention)
        heads = attention.shape[1]
        batch = StepBatch(
            concatenate_observations([step.observation for step in steps]),
            AttentionMaps(attention, self.grid),
            np.full(heads, 1 / heads) if weights is None else weights / weights.sum(),
            _concatenate([step.actions for step in steps]),
            _concatenate([step.rewards for step in steps]).astype(np.float64),
            masks,
            episode,
            index,
            concatenate_contexts([step.context for step in steps]),
            things,
        )
        return batch.take(np.lexsort((index, episode)))


def check_sums(attention: NDArray[np.floating]) -> None:
    """Check that attention [N, heads, rows, cols] sums to 1 over the cells of every head.

    Maps with NaN, and empty ones, are accepted: no map is drawn for them.

    Raises:
        ValueError: another sum, which would make masses on objects meaningless.
    """
    sums = attention.sum(axis=(-2, -1), dtype=np.float64)
    wrong = np.isfinite(sums) & (sums != 0) & (np.abs(sums - 1) > SUM_TOLERANCE)
    if wrong.any():
        raise ValueError(
            f"expected attention that sums to 1 over the cells of every head, got sums from "
            f"{sums[wrong].min():.3g} to {sums[wrong].max():.3g}: normalise it in `perceive`"
        )


def _concatenate(parts: Sequence[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(part) for part in parts])


def _running_rows(step: Step) -> Step:
    """Copy the running rows of a step: the environment may write its next frames into the same memory."""
    rows = np.flatnonzero(step.running)
    info = {name: np.array(step.info[name])[rows] for name in (MASK, THINGS) if name in step.info}
    percept = step.percept
    return Step(
        step.episode[rows],
        step.running[rows],
        take_rows(step.observation, rows),
        info,
        None if percept is None else type(percept)(percept.features[rows], percept.attention[rows]),
        np.array(step.actions)[rows],
        np.array(step.rewards)[rows],
        step.done[rows],
        step.context.take(rows),
    )


def _bytes_per_row(step: Step) -> int:
    entries = step.observation.values() if isinstance(step.observation, Mapping) else [step.observation]
    parts = [*entries, *(step.info[name] for name in (MASK, THINGS) if name in step.info)]
    attention = 0 if step.percept is None else 4 * step.percept.attention[0].numel()  # stored as float32
    memory = sum(part[:, 0].nbytes for part in step.context.memory or ())
    return attention + memory + sum(int(part[0].nbytes) for part in parts)
