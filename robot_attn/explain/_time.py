"""Attention over the steps of an episode: its entropy, jumps, dwell times and delay behind the target.

All functions take arrays with one row per step. Where rows belong to several episodes, `episode` [T] holds
the episode of each row, and nothing is measured across episode boundaries. Rows are assumed to be one step
apart: if only every second step was kept, jumps span two steps, and dwell times and delays count in units of
two.

Positions are (y, x) in pixels of the frame, where 0 is the centre of the first pixel; NaN where undefined: an
unusable map, or a target out of view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_attn.maps import AttentionGrid, AttentionMaps, usable_maps
from robot_attn.stretches import Stretch, stretches, stretches_of

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

MAX_LAG = 10
"""Largest delay considered, in steps."""
MIN_MOTION = 1.0
"""Smallest root-mean-square displacement of the target, in pixels, from which a delay can be estimated."""
MIN_CORRELATION = 0.3
"""Smallest correlation at which attention counts as following the target."""
_TIE = 1e-6  # relative difference to the maximum within which cells tie: they differ by rounding


def entropy(maps: Floats) -> NDArray[np.float64]:
    """Normalised entropy of attention maps, in [0, 1]: 0 for all mass in one cell, 1 for a uniform map.

    The entropy of the normalised weights over that of the uniform distribution.

    Args:
        maps: float [..., rows, cols], non-negative.

    Returns:
        float64 [...]; NaN for an unusable map, 0 for a map of one cell.
    """
    usable = usable_maps(maps)
    weights = np.where(usable[..., None, None], maps, np.nan).astype(np.float64)
    weights /= weights.sum(axis=(-2, -1), keepdims=True)
    logs = np.log(np.where(weights > 0, weights, 1.0))
    cells = max(2, maps.shape[-2] * maps.shape[-1])
    relative = -(np.where(weights > 0, weights, 0.0) * logs).sum(axis=(-2, -1)) / math.log(cells)
    return np.where(usable, np.clip(relative, 0.0, 1.0), np.nan)


def expected_places(maps: AttentionMaps) -> NDArray[np.float64]:
    """Compute the centres of mass of attention maps [..., rows, cols].

    For a map with two peaks it lies between them: pass each head separately, or use `peak_places`.

    Returns:
        float64 [..., 2], (y, x) in pixels; NaN for an unusable map.
    """
    weights, grid = maps.weights, maps.grid
    sums = (weights.sum(axis=axis, dtype=np.float64) for axis in (-1, -2))
    moments = np.stack([part @ at for part, at in zip(sums, (grid.ys, grid.xs), strict=True)], axis=-1)
    total = np.where(maps.usable, weights.sum(axis=(-2, -1), dtype=np.float64), np.nan)
    return np.asarray(moments / total[..., None])


def peak_places(maps: AttentionMaps) -> NDArray[np.float64]:
    """Find the centres of the highest cells of attention maps [..., rows, cols]; of ties their mean.

    Returns:
        float64 [..., 2], (y, x) in pixels; NaN for an unusable map.
    """
    weights = maps.weights
    highest = weights >= weights.max(axis=(-2, -1), keepdims=True) * (1 - _TIE)
    return expected_places(AttentionMaps(np.where(maps.usable[..., None, None], highest, 0.0), maps.grid))


def target_places(masks: Bools) -> NDArray[np.float64]:
    """Compute the centres of target masks bool [T, H, W]: float64 [T, 2], (y, x) in pixels; NaN if empty."""
    height, width = masks.shape[-2:]
    pixels = AttentionGrid(np.arange(height), np.arange(width), (height, width))
    return expected_places(AttentionMaps(masks.astype(np.float32), pixels))


def jumps(places: Floats, episode: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """Compute how far each position is from that of the previous step.

    Args:
        places: float [T, ..., 2].
        episode: int [T], episode of each row; None for one episode.

    Returns:
        float64 [T, ...], Euclidean distances in the unit of `places`; divide by `math.hypot(H, W)` for
        fractions of the frame's diagonal. NaN at the first step of an episode and next to an undefined
        position.
    """
    distances = np.full(places.shape[:-1], np.nan)
    distances[1:] = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    if episode is not None:
        distances[1:][episode[1:] != episode[:-1]] = np.nan
    return distances


def dwells(places: Floats, radius: float, episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """Find the stretches in which positions stay within `radius` of where the stretch began (fixations).

    For the peak of a map, a radius of 1.5 times the cell spacing allows moves to neighbouring cells only.
    Rows with an undefined position are in no stretch.

    Fixations by dispersion: Salvucci & Goldberg 2000, "Identifying fixations and saccades in eye-tracking
    protocols"; here the dispersion is measured from the first position.

    Args:
        places: float [T, 2].
        radius: in the unit of `places`, 0 or more.
        episode: int [T], episode of each row; None for one episode.

    Raises:
        ValueError: a radius that is negative or NaN.
    """
    if not radius >= 0:
        raise ValueError(f"expected a radius in pixels of 0 or more, got {radius}")
    found = []
    for part in stretches_of(np.asarray(np.isfinite(places).all(axis=-1)), episode):
        first = part.first
        while first < part.stop:
            outside = np.linalg.norm(places[first : part.stop] - places[first], axis=-1) > radius
            stop = first + int(outside.argmax()) if outside.any() else part.stop
            found.append(Stretch(first, stop))
            first = stop
    return found


@dataclass(frozen=True)
class Delay:
    """Correlation of the attention's position with the target's position some steps earlier, for E episodes.

    The lag of all episodes together is `best_lag(sums.sum(axis=0))`; in a bootstrap, sum over the axis of the
    resampled episodes.
    """

    sums: NDArray[np.float64]
    """[E, max_lag + 1, 4] sums over pairs of steps, of positions relative to the episode's mean: attention
    times target, attention squared, target squared; and the number of pairs."""

    @property
    def correlations(self) -> NDArray[np.float64]:
        """[max_lag + 1] correlation at each lag over all episodes; NaN where either does not move."""
        return _correlations(self.sums.sum(axis=0))

    @property
    def lag(self) -> float:
        """Steps by which attention follows the target; NaN where undetermined, see `best_lag`."""
        return float(best_lag(self.sums.sum(axis=0)))

    @property
    def lags(self) -> NDArray[np.float64]:
        """[E] lag of each single episode, often NaN."""
        return best_lag(self.sums)


def attention_delay(
    attention: Floats,
    target: Floats,
    episode: NDArray[np.integer] | None = None,
    *,
    max_lag: int = MAX_LAG,
) -> Delay:
    """Correlate the target's position with the attention's position 0 to `max_lag` steps later.

    Positions are taken relative to the mean of their episode, so a constant offset has no effect, and both
    axes are pooled. Steps at which either position is undefined are ignored.

    Limits: if the target hardly moves, or moves uniformly, all lags correlate equally and the best one is
    arbitrary; inspect `correlations` and the confidence interval. A camera that follows the target, as in
    Track, keeps it at one position in the frame. For periodic motion a lag is ambiguous: keep `max_lag` below
    half a period.

    Args:
        attention: float [T, 2], such as `expected_places` of the head that attends to the target.
        target: float [T, 2], as `target_places`.
        episode: int [T], episode of each row; None for one episode.
        max_lag: largest lag, in steps, 0 or more.

    Raises:
        ValueError: positions of different shapes, or a negative `max_lag`.
    """
    if attention.shape != target.shape or attention.ndim != 2 or attention.shape[1] != 2:
        raise ValueError(
            f"expected positions [T, 2] of attention and target, got {list(attention.shape)} and "
            f"{list(target.shape)}"
        )
    if max_lag < 0:
        raise ValueError(f"expected max_lag in steps of 0 or more, got {max_lag}")
    parts = stretches(np.zeros(len(target)) if episode is None else np.asarray(episode))
    sums = np.zeros((len(parts), max_lag + 1, 4))
    for part, own in zip(parts, sums, strict=True):
        rows = slice(part.first, part.stop)
        own[:] = list(_products(attention[rows], target[rows], max_lag))
    return Delay(sums)


def _products(attention: Floats, target: Floats, max_lag: int) -> Iterator[tuple[float, float, float, int]]:
    steps = len(target)
    for lag in range(max_lag + 1):
        pairs = np.stack([attention[lag:], target[: max(steps - lag, 0)]])
        pairs = pairs[:, np.isfinite(pairs).all(axis=(0, 2))]
        if pairs.shape[1] == 0:
            yield 0.0, 0.0, 0.0, 0
            continue
        late, early = pairs - pairs.mean(axis=1, keepdims=True)  # attention, and target `lag` steps before
        yield float((late * early).sum()), float((late**2).sum()), float((early**2).sum()), len(early)


def _correlations(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    covariance, attention, target = sums[..., 0], sums[..., 1], sums[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((attention > 0) & (target > 0), covariance / np.sqrt(attention * target), np.nan)


def best_lag(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the lag with the highest correlation, the shortest of ties.

    Args:
        sums: float [..., max_lag + 1, 4], `Delay.sums` summed over episodes.

    Returns:
        float64 [...]; NaN where the target moves less than `MIN_MOTION`, or no lag has a correlation of
        `MIN_CORRELATION`.
    """
    correlations = _correlations(sums)
    correlations = np.where(np.isnan(correlations), -np.inf, correlations)
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = np.sqrt(sums[..., 0, 2] / sums[..., 0, 3]) >= MIN_MOTION
    follows = correlations.max(axis=-1) >= MIN_CORRELATION
    return np.where(moves & follows, correlations.argmax(axis=-1).astype(np.float64), np.nan)
