"""Nuisance: the share of a policy's causal mass that lies on what cannot matter to its task.

After the Nuisance Mass Ratio of Zhang et al. 2026 (ISS), https://arxiv.org/abs/2605.00321. Any policy has it,
with attention or without, since it takes only the change of the action under masks. Three choices decide what
the figure means.

- *Weights.* Only pixels whose importance is significant count. Importance that is clipped at 0 instead would
  keep half of the noise of the pixels that play no part, which are most of the frame: a policy on Track with
  3 % of its significant mass off the target has 48 % of its clipped mass there. The price: dependence that is
  too faint at each place to be significant is not counted. `Nuisance.clipped` is the other figure.
- *Resolution.* A causal map cannot tell apart pixels that are less than a cell of its masks away from each
  other. Mass within a cell of something that can matter counts as mass on it, so nuisance is a lower bound.
- *Frames.* Those with nothing in view that can matter are left out and counted: all mass is on nuisance
  there, and the figure would only repeat that the target was lost. So are those without a significant pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn.explain import CausalMaps
from robot_attn.focus import grow, mass_by_label, uniform_map
from robot_attn.things import CANNOT_MATTER, TARGET_ONLY, thing_kind
from robot_attn_policies.probing.steps import concatenate_observations, take_rows
from robot_attn_policies.rollouts.actor import Actor, ObservationBatch
from robot_attn_policies.rollouts.camera import MASK, THINGS
from robot_attn_policies.rollouts.protocols import HasThings, ability
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.sb3.context import Context, concatenate_contexts

Explain: TypeAlias = Callable[[ObservationBatch, Context], CausalMaps]
"""Maps a batch of observations and their context to causal maps of their frames."""

_Rows: TypeAlias = tuple[NDArray[np.int64], ObservationBatch, Context, NDArray[np.uint8]]
"""Steps: episode of each, observation, context, and the thing at each pixel."""

EPISODES = 16
"""Episodes, the first ones of an evaluation, in which nuisance is measured."""
FRAMES = 64
"""Default number of frames, spread evenly over the longest possible episodes."""
FRAMES_AT_ONCE = 8
"""Frames of one call of `Explain`. All of them take as many masks as the one that needs most."""


@dataclass(frozen=True)
class Nuisance:
    """Shares of causal mass, summed over the scored frames of each of E episodes."""

    backdrop: NDArray[np.float64]
    """[E] share on the backdrop."""
    distractors: NDArray[np.float64]
    """[E] share on distractors."""
    occluder: NDArray[np.float64]
    """[E] share on an occluder."""
    clipped: NDArray[np.float64]
    """[E] share on all of these of importance that is clipped at 0, significant or not."""
    uniform: NDArray[np.float64]
    """[E] share on all of these of a uniform map."""
    scored: NDArray[np.int64]
    """[E] number of frames that are scored."""
    blank: NDArray[np.int64]
    """[E] number of frames that are left out because no pixel is significant."""
    hidden: NDArray[np.int64]
    """[E] number of frames that are left out because nothing that can matter is in view."""

    @property
    def total(self) -> NDArray[np.float64]:
        """[E] share on all that cannot matter."""
        return self.backdrop + self.distractors + self.occluder


def measure_nuisance(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    explain: Explain,
    *,
    horizon: int,
    frames: int = FRAMES,
    on_step: Callable[[Step], None] | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> Nuisance:
    """Run one episode per seed, and measure nuisance in some of its frames.

    Args:
        act: maps observations to actions.
        env: the environments, made with `masks=True`. Where they give no things (`HasThings`), all but the
            target is backdrop.
        seeds: one episode per seed.
        explain: computes causal maps of frames.
        horizon: steps of the longest possible episode.
        frames: number of frames if no episode ends early; otherwise there are fewer.
        on_step: called with every step.
        on_frames: called with the number of frames since the last call, left out or not.

    Returns:
        The shares of each episode.

    Raises:
        ValueError: an error of `rollout_episodes` or of `explain`, neither labels nor target masks, or fewer
            than one frame.
    """
    if frames < 1:
        raise ValueError(f"expected at least one frame, got {frames}: choose {FRAMES}")
    things = ability(env, HasThings)
    names = TARGET_ONLY if things is None else things.thing_names
    sample = _Sample(max(1, -(-horizon * len(seeds) // frames)), MASK if things is None else THINGS)

    def add_step(step: Step) -> None:
        sample.add(step)
        if on_step is not None:
            on_step(step)

    rollout_episodes(act, env, seeds, on_step=add_step)
    groups = _groups(names)
    sums = np.zeros((len(CANNOT_MATTER) + 2, len(seeds)))
    counts = np.zeros((3, len(seeds)), np.int64)
    for episode, observation, context, labels in sample.batches():
        hidden = ~(groups[labels] == len(CANNOT_MATTER)).any(axis=(1, 2))
        np.add.at(counts[2], episode[hidden], 1)
        rows = np.flatnonzero(~hidden)
        if rows.size:
            maps = explain(take_rows(observation, rows), context.take(rows))
            weights = maps.significant()
            blank = ~weights.any(axis=(1, 2))
            np.add.at(counts[1], episode[rows[blank]], 1)
            np.add.at(counts[0], episode[rows[~blank]], 1)
            kept = rows[~blank]
            shares, clipped, uniform = (
                nuisance_shares(each, labels[kept], names, maps.cell)
                for each in (
                    weights[~blank],
                    _clipped(maps.importance[~blank]),
                    np.broadcast_to(uniform_map(labels.shape[1:]), labels[kept].shape),
                )
            )
            for total, share in zip(sums, [*shares.T, clipped.sum(axis=1), uniform.sum(axis=1)], strict=True):
                np.add.at(total, episode[kept], share)
        if on_frames is not None:
            on_frames(len(episode))
    return Nuisance(*sums, *counts)


def nuisance_shares(
    weights: NDArray[np.floating], labels: NDArray[np.integer], names: Sequence[str], cell: int
) -> NDArray[np.float64]:
    """Compute the share of each map's mass on the things that cannot matter.

    Args:
        weights: maps [T, H, W], each of sum 1.
        labels: int [T, H, W], the thing at each pixel, as its index in `names`.
        names: names of the things, as in `HasThings`. What is not of a kind in `CANNOT_MATTER` can matter.
        cell: distance in pixels from a thing that can matter within which mass counts as mass on it.

    Returns:
        float64 [T, 3], in the order of `robot_attn.things.CANNOT_MATTER`.

    Raises:
        ValueError: a label without a name, or incompatible shapes.
    """
    groups = _groups(names)
    if labels.size and labels.max() >= len(groups):
        raise ValueError(
            f"expected labels of the {len(groups)} things {list(names)}, got labels up to {labels.max()}"
        )
    group = groups[labels]
    group[grow(group == len(CANNOT_MATTER), cell)] = len(CANNOT_MATTER)
    return mass_by_label(weights[:, None], group, len(CANNOT_MATTER) + 1)[:, 0, : len(CANNOT_MATTER)]


def _clipped(importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return importance [T, H, W], of which some is above 0, as maps of sum 1 that are 0 where it is less."""
    positive = np.maximum(importance, 0.0)
    return np.asarray(positive / positive.sum(axis=(1, 2), keepdims=True))


def _groups(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the index in `CANNOT_MATTER` of each thing, or its length for what can matter."""
    return np.array([[*CANNOT_MATTER, thing_kind(name)].index(thing_kind(name)) for name in names])


class _Sample:
    """Every k-th step of all episodes, from the middle of the first k on, with the labels in infos."""

    def __init__(self, every: int, key: str) -> None:
        self._every, self._key = every, key
        self._first_episode, self._step = -1, 0
        self._kept: list[_Rows] = []

    def add(self, step: Step) -> None:
        if step.episode[0] != self._first_episode:
            self._first_episode, self._step = int(step.episode[0]), 0  # the batch has started new episodes
        if self._step % self._every == self._every // 2:
            if self._key not in step.info:
                raise ValueError(
                    f"expected {self._key} in the infos of the environment, got none: make it with masks=True"
                )
            rows = np.flatnonzero(step.running)
            labels = np.asarray(step.info[self._key])[rows].astype(np.uint8)
            self._kept.append(
                (step.episode[rows], take_rows(step.observation, rows), step.context.take(rows), labels)
            )
        self._step += 1

    def batches(self) -> list[_Rows]:
        """The steps, at most `FRAMES_AT_ONCE` together; none if all episodes ended before the first."""
        if not self._kept:
            return []
        episodes, observations, contexts, labels = zip(*self._kept, strict=True)
        episode, observation = np.concatenate(episodes), concatenate_observations(observations)
        context, label = concatenate_contexts(contexts), np.concatenate(labels)
        parts = np.array_split(np.arange(len(episode)), -(-len(episode) // FRAMES_AT_ONCE))
        return [(episode[p], take_rows(observation, p), context.take(p), label[p]) for p in parts]
