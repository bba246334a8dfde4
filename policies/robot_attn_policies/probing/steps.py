"""What a policy saw, looked at, did and earned, kept step by step for whatever explains it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn_policies.rollouts.rollout import ObservationBatch, Step

LARGEST = 256 * 2**20
"""Bytes that are kept: of longer or larger episodes every second step is, or every third, and so on."""


@dataclass(frozen=True)
class StepBatch:
    """N steps of E episodes, episode by episode, in the order of time."""

    observation: ObservationBatch
    """What the policy saw, of each entry [N, ...]."""
    maps: AttentionMaps
    """[N, heads, rows, cols]."""
    weights: NDArray[np.float64]
    """[heads] how much each counts, with sum 1."""
    actions: NDArray[Any]
    """[N, ...]."""
    rewards: NDArray[np.float64]
    """[N]."""
    masks: NDArray[np.bool_] | None
    """[N, H, W] True on the target, where it is known."""
    episode: NDArray[np.int64]
    """[N] which episode, from 0."""
    step: NDArray[np.int64]
    """[N] which step of it, from 0."""

    def __len__(self) -> int:
        return len(self.rewards)

    @cached_property
    def together(self) -> AttentionMaps:
        """[N, rows, cols] the heads' maps as one."""
        return self.maps.mean_over_heads(self.weights)

    def take(self, rows: NDArray[np.int64]) -> StepBatch:
        """Some of the steps."""
        return replace(
            self,
            observation=rows_of(self.observation, rows),
            maps=self.maps[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            masks=None if self.masks is None else self.masks[rows],
            episode=self.episode[rows],
            step=self.step[rows],
        )

    def some(self, count: int) -> StepBatch:
        """At most `count` steps, spread evenly over all of them."""
        return self.take(np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)))


def rows_of(observation: ObservationBatch, rows: NDArray[Any]) -> ObservationBatch:
    """Some rows of a batch of observations."""
    if isinstance(observation, Mapping):
        return {name: entry[rows] for name, entry in observation.items()}
    return np.asarray(observation[rows])


def joined(observations: Sequence[ObservationBatch]) -> ObservationBatch:
    """Batches of observations as one."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: _joined([cast(Any, rows)[name] for rows in observations]) for name in first}
    return _joined(observations)


@dataclass
class StepCollector:
    """Collects `StepBatch` as what a rollout calls after every step."""

    horizon: int
    """The most steps of an episode."""
    episodes: int
    grid: AttentionGrid
    """Where the cells of the maps lie."""
    _kept: list[tuple[int, Step]] = field(default_factory=list)
    _first: int = -1
    _step: int = 0
    _stride: int = 0

    def __call__(self, step: Step) -> None:
        """Keep the rows of `step` that count."""
        if step.episode[0] != self._first:
            self._first, self._step = int(step.episode[0]), 0  # the next episodes of the batch
        if self._stride == 0:
            self._stride = max(1, -(-self.horizon * self.episodes * _bytes(step) // LARGEST))
        if self._step % self._stride == 0:
            self._kept.append((self._step, _running(step)))
        self._step += 1

    def seen(self, weights: NDArray[np.float64] | None = None) -> StepBatch:
        """The collected steps, the heads weighted by `weights` [heads]; equally by default.

        Raises:
            ValueError: nothing was, or the policy does not say where it looks.
        """
        if not self._kept:
            raise ValueError("no step was played: there is nothing to explain")
        steps = [step for _, step in self._kept]
        percepts = [step.percept for step in steps if step.percept is not None]
        if len(percepts) != len(steps):
            raise ValueError("the policy gave no attention; give an actor that returns a Percept")
        known = all("target_mask" in step.info for step in steps)
        episode = _joined([step.episode for step in steps])
        at = np.concatenate([np.full(len(step.episode), index) for index, step in self._kept])
        attention = _joined([percept.attention.numpy(force=True).astype(np.float32) for percept in percepts])
        heads = attention.shape[1]
        seen = StepBatch(
            joined([step.observation for step in steps]),
            AttentionMaps(attention, self.grid),
            np.full(heads, 1 / heads) if weights is None else weights / weights.sum(),
            _joined([step.actions for step in steps]),
            _joined([step.rewards for step in steps]).astype(np.float64),
            _joined([step.info["target_mask"] for step in steps]) if known else None,
            episode,
            at,
        )
        return seen.take(np.lexsort((at, episode)))


def _joined(parts: Sequence[Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(part) for part in parts])


def _running(step: Step) -> Step:
    """The rows of a step that count, copied: environments may write their next frames in the same place."""
    on = np.flatnonzero(step.running)
    info = {name: np.array(step.info[name])[on] for name in ("target_mask",) if name in step.info}
    percept = step.percept
    return Step(
        step.episode[on],
        step.running[on],
        rows_of(step.observation, on),
        info,
        None if percept is None else type(percept)(percept.features[on], percept.attention[on]),
        np.array(step.actions)[on],
        np.array(step.rewards)[on],
        step.done[on],
    )


def _bytes(step: Step) -> int:
    """Of one row."""
    entries = step.observation.values() if isinstance(step.observation, Mapping) else [step.observation]
    parts = [*entries, *(step.info[name] for name in ("target_mask",) if name in step.info)]
    looked = 0 if step.percept is None else 4 * step.percept.attention[0].numel()
    return looked + sum(int(part[0].nbytes) for part in parts)
