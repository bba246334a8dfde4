"""Attribution over time: how far back does a frame matter to a policy with a memory or with stacked frames?

The frame of one recorded step is replaced, and the steps after it are replayed: their frames and all other
inputs are the recorded ones (teacher forcing), and only the memory is computed again. The change in the
action k steps later is the effect of a frame at lag k. It is occlusion (Zeiler & Fergus 2014,
https://arxiv.org/abs/1311.2901) with a frame in place of a patch. Gradients would not do: through a recurrent
network they vanish over time, whether or not a frame matters (Ismail et al. 2019,
https://arxiv.org/abs/1910.12370).

A whole frame can be replaced without an absurd input: by the frame of another episode at the same step, which
is as likely as the policy's own. A blank frame is simpler and out of distribution.

Frames are redundant: a memory that holds an object's place after one frame learns little from the next. A
single frame then has a small effect, and replacing all of the last frames together a large one. Both are
measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain._causal import MAX_PIXELS
from robot_attn.explain._perturb import Frames, action_change
from robot_attn.stretches import stretches

Advance: TypeAlias = Callable[[Frames, NDArray[np.int64], Any], "tuple[NDArray[Any], Any]"]
"""Frames [B, H, W, C], the recorded steps to which they belong, int64 [B], and a memory, to actions [B, ...]
and the memory after them. All inputs but the frames and the memory are those of the recorded steps. The
memory is None for the one recorded before the steps, or what the last call returned for the same B rows."""

MAX_FRAME_LAG = 50
"""Default largest lag, in steps."""
STARTS_PER_EPISODE = 4
"""Default number of frames that are replaced in each episode."""
MIN_FRAME_EFFECT = 0.02
"""Share of the change with all frames replaced that a frame's effect must exceed to count as remembered."""
LEVEL = 0.05
"""Probability that any lag at all counts as remembered by chance."""
MIN_SPAN_EPISODES = 8
"""Fewest episodes for a statement on how far back a policy remembers."""
_RESAMPLES = 4096  # of signs; all of them where there are fewer
_VARIANTS = 3  # unchanged, one frame replaced, all since then replaced


@dataclass(frozen=True)
class LagEffects:
    """Changes in action after P frames were replaced, each at K + 1 lags; NaN after the end of an episode.

    Attributes:
        alone: float64 [P, K + 1], change in action at lag k after one frame was replaced.
        together: float64 [P, K + 1], change in action when that frame and all k after it are replaced: the
            last k + 1 frames.
        total: float64 [P, K + 1], change in the same actions when all frames since the start of the episode
            are replaced: what effects are relative to.
        episode: int64 [P], episode of each frame.
    """

    alone: NDArray[np.float64]
    together: NDArray[np.float64]
    total: NDArray[np.float64]
    episode: NDArray[np.int64]

    @cached_property
    def alone_by_episode(self) -> NDArray[np.float64]:
        """Mean of `alone` in each of E episodes, float64 [E, K + 1]."""
        return self._means(self.alone)

    @cached_property
    def together_by_episode(self) -> NDArray[np.float64]:
        """Mean of `together` in each of E episodes, float64 [E, K + 1]."""
        return self._means(self.together)

    @cached_property
    def total_by_episode(self) -> NDArray[np.float64]:
        """Mean of `total` in each of E episodes, float64 [E, K + 1]."""
        return self._means(self.total)

    def _means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        _, index = np.unique(self.episode, return_inverse=True)
        known = np.isfinite(values)
        sums, counts = np.zeros((2, int(index.max()) + 1, values.shape[1]))
        np.add.at(sums, index, np.where(known, values, 0.0))
        np.add.at(counts, index, known)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True)
class MemorySpan:
    """How far back a policy remembers.

    Attributes:
        lag: largest lag, in steps, at which a single frame has an effect; None if no frame has one.
        half_lag: smallest lag within which half of the effects of single frames lie; None if there are none.
        max_lag: largest lag that was measured. If `lag` equals it, the policy may remember further back.
    """

    lag: int | None
    half_lag: int | None
    max_lag: int


def frame_lag_effects(
    advance: Advance,
    frames: Frames,
    replacements: Frames,
    episode: NDArray[np.integer],
    *,
    max_lag: int = MAX_FRAME_LAG,
    starts_per_episode: int = STARTS_PER_EPISODE,
    stack: int = 1,
) -> LagEffects:
    """Replace single frames of recorded episodes, and measure how much later actions change.

    Args:
        advance: the policy.
        frames: [T, H, W, C], the recorded frames of consecutive steps, episode after episode.
        replacements: [T, H, W, C], what replaces the frame of each step, such as `other_episodes`.
        episode: int [T], episode of each frame.
        max_lag: largest lag in steps, 0 or more; at most the longest episode's length less one.
        starts_per_episode: number of frames to replace in each episode, evenly spaced, 1 or more.
        stack: number of frames in one observation, the newest last among the channels. A frame is replaced in
            every observation that holds it.

    Returns:
        The effects.

    Raises:
        ValueError: arrays or numbers of other shapes or ranges, or channels that are not a stack of frames.
    """
    _check(frames, replacements, episode, stack)
    if max_lag < 0 or starts_per_episode < 1:
        raise ValueError(
            f"expected a max_lag of at least 0 and starts_per_episode of at least 1, got {max_lag} and "
            f"{starts_per_episode}"
        )
    parts = stretches(np.asarray(episode))
    max_lag = min(max_lag, max(part.rows for part in parts) - 1)
    starts, stops = [], []
    for part in parts:
        last = max(part.first, part.stop - 1 - max_lag)
        found = np.unique(np.linspace(part.first, last, starts_per_episode).round().astype(np.int64))
        starts.append(found)
        stops.append(np.full(len(found), part.stop))
    first, stop = np.concatenate(starts), np.concatenate(stops)
    size = max(1, MAX_PIXELS // (_VARIANTS * frames.shape[1] * frames.shape[2]))

    def replay(first: NDArray[np.int64], stop: NDArray[np.int64], lags: int) -> NDArray[np.float64]:
        chunks = [slice(at, at + size) for at in range(0, len(first), size)]
        effects = [
            _replay(advance, frames, replacements, first[rows], stop[rows], lags, stack) for rows in chunks
        ]
        return np.concatenate(effects, axis=1)

    alone, together = replay(first, stop, max_lag)
    begin, end = (np.array(column) for column in zip(*parts, strict=True))
    own = np.searchsorted(begin, first, side="right") - 1
    since = first - begin[own]
    # Replaced from the start of each episode, up to the last action that is compared.
    _, everything = replay(begin, end, int(since.max()) + max_lag)
    total = everything[own[:, None], since[:, None] + np.arange(max_lag + 1)]
    return LagEffects(alone, together, total, np.asarray(episode, np.int64)[first])


def _replay(
    advance: Advance,
    frames: Frames,
    replacements: Frames,
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
    max_lag: int,
    stack: int,
) -> NDArray[np.float64]:
    """Effects [2, P, K + 1] of the frames in the rows `first`, alone and together with those after them."""
    effects = np.full((2, len(first), max_lag + 1), np.nan)
    colors = frames.shape[3] // stack
    memory = None
    for lag in range(max_lag + 1):
        rows = np.minimum(first + lag, stop - 1)  # the rows of episodes that have ended are not used
        own, other = frames[rows], replacements[rows]
        # The channels of the first replaced frame, and of those after it, in the stack of `lag` steps later.
        oldest, newer = (max(0, stack - slot - lag) * colors for slot in (1, 0))
        changed = [own, own.copy(), own.copy()]
        changed[1][..., oldest:newer] = other[..., oldest:newer]
        changed[2][..., oldest:] = other[..., oldest:]
        actions, memory = advance(np.concatenate(changed), np.tile(rows, _VARIANTS), memory)
        unchanged, alone, together = np.split(np.asarray(actions), _VARIANTS)
        running = first + lag < stop
        for row, actions_after in enumerate((alone, together)):
            effects[row, running, lag] = action_change(unchanged, actions_after)[running]
    return effects


def other_episodes(frames: Frames, episode: NDArray[np.integer], *, seed: int = 0) -> Frames:
    """Return the frame of another episode at the same step, for each of the frames [T, H, W, C].

    Episodes are paired at random in a cycle, so that no two episodes get the same frames. The last frame of
    an episode that is shorter stands for those that it does not have.

    Raises:
        ValueError: fewer than two episodes, or a number of episodes that does not fit the frames.
    """
    _check(frames, frames, episode, 1)
    parts = stretches(np.asarray(episode))
    if len(parts) < 2:
        raise ValueError(f"expected at least two episodes, got {len(parts)}: run more episodes")
    order = np.random.default_rng(seed).permutation(len(parts))
    others = np.empty_like(frames)
    for own, other in zip(order, np.roll(order, 1), strict=True):
        rows = parts[other].first + np.minimum(np.arange(parts[own].rows), parts[other].rows - 1)
        others[parts[own].first : parts[own].stop] = frames[rows]
    return others


def memory_span(
    effects: LagEffects, *, min_share: float = MIN_FRAME_EFFECT, level: float = LEVEL, seed: int = 0
) -> MemorySpan:
    """Find how far back a frame matters.

    A lag counts if the effect of a single frame exceeds `min_share` of the change with all frames replaced,
    by a one-sided sign-flip test over episodes. The largest statistic over all lags gives the critical value,
    so that the probability of one lag too many is `level` whatever the number of lags (Nichols & Holmes 2002,
    https://doi.org/10.1002/hbm.1058).

    Args:
        effects: as returned by `frame_lag_effects`, over at least `MIN_SPAN_EPISODES` episodes.
        min_share: share of the change, in [0, 1).
        level: probability of an error, in (0, 1).
        seed: random seed of the signs.

    Raises:
        ValueError: too few episodes, or a share or level out of range.
    """
    alone, total = effects.alone_by_episode, effects.total_by_episode
    if len(total) < MIN_SPAN_EPISODES:
        raise ValueError(
            f"expected at least {MIN_SPAN_EPISODES} episodes, got {len(total)}: run more episodes"
        )
    if not 0 <= min_share < 1 or not 0 < level < 1:
        raise ValueError(
            f"expected a share in [0, 1) and a level in (0, 1), got {min_share} and {level}: use the defaults"
        )
    excess = alone - min_share * total
    counts = np.isfinite(excess).sum(axis=0) >= MIN_SPAN_EPISODES
    excess = np.where(counts & np.isfinite(excess), excess, 0.0)
    scale = np.sqrt((excess**2).sum(axis=0))
    scale[scale == 0] = 1.0
    statistic = excess.sum(axis=0) / scale
    largest = (_signs(len(excess), seed) @ excess / scale).max(axis=1)
    significant = statistic > max(0.0, float(np.quantile(largest, 1 - level, method="higher")))
    lags = np.flatnonzero(significant)
    means = np.nan_to_num(np.nanmean(alone[:, counts], axis=0)).cumsum()
    half = None if means[-1] == 0 else int(np.argmax(means >= means[-1] / 2))
    return MemorySpan(int(lags[-1]) if len(lags) else None, half, int(np.flatnonzero(counts)[-1]))


def _signs(count: int, seed: int) -> NDArray[np.float64]:
    """Signs to flip episodes by, float64 [N, count]: all if there are few, else random ones."""
    if 2**count <= _RESAMPLES:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1), np.float64)
    return np.random.default_rng(seed).choice([-1.0, 1.0], (_RESAMPLES, count))


def _check(frames: Frames, replacements: Frames, episode: NDArray[np.integer], stack: int) -> None:
    if frames.ndim != 4 or replacements.shape != frames.shape or episode.shape != frames.shape[:1]:
        raise ValueError(
            f"expected frames [T, H, W, C], as many replacements, and an episode for each, got "
            f"{list(frames.shape)}, {list(replacements.shape)} and {list(episode.shape)}"
        )
    if not len(frames):
        raise ValueError("expected at least one frame, got none: run an episode first")
    if stack < 1 or frames.shape[3] % stack:
        raise ValueError(
            f"expected channels that are a stack of {stack} frames, got {frames.shape[3]} channels: give the "
            "number of frames in one observation"
        )
