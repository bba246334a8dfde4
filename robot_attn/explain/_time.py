"""Attention over the steps of an episode: how wide it is, how far it jumps, how long it stays, how late.

Everything here takes arrays, one row a step. Where rows belong to several episodes, `episode` [T] tells
which, and nothing is measured across the border of two. Rows are taken to be one step apart: where only every
second step was kept, jumps are over two steps, and dwell and delay count in twos.

Places are (y, x) in pixels of the frame, NaN where there is none: a map that is no distribution, or a target
that is out of view.
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

LAGS = 10
"""Steps that a delay is looked for in."""
STILL = 1.0
"""Pixels: a target whose place varies by less, root mean square, does not move enough for a delay."""
FOLLOWS = 0.3
"""The least correlation at which attention can be said to follow at all."""
_TIE = 1e-6  # cells this close to the maximum, relatively, share it: their values differ by rounding


def entropy(maps: Floats) -> NDArray[np.float64]:
    """How wide maps [..., rows, cols] are, [...] in [0, 1]: 0 all in one cell, 1 uniform.

    The entropy of the weights, scaled to sum 1, over that of uniform attention. NaN for a map that is no
    distribution; a map of one cell has 0.
    """
    usable = usable_maps(maps)
    weights = np.where(usable[..., None, None], maps, np.nan).astype(np.float64)
    weights /= weights.sum(axis=(-2, -1), keepdims=True)
    logs = np.log(np.where(weights > 0, weights, 1.0))
    cells = max(2, maps.shape[-2] * maps.shape[-1])
    wide = -(np.where(weights > 0, weights, 0.0) * logs).sum(axis=(-2, -1)) / math.log(cells)
    return np.where(usable, np.clip(wide, 0.0, 1.0), np.nan)


def expected_places(maps: AttentionMaps) -> NDArray[np.float64]:
    """The centres of mass of maps [..., rows, cols], in pixels: [..., 2].

    That of a map with two peaks lies between them: give each head alone, or use `peak_places`.
    """
    weights, grid = maps.weights, maps.grid
    sums = (weights.sum(axis=axis, dtype=np.float64) for axis in (-1, -2))
    moments = np.stack([part @ at for part, at in zip(sums, (grid.ys, grid.xs), strict=True)], axis=-1)
    total = np.where(maps.usable, weights.sum(axis=(-2, -1), dtype=np.float64), np.nan)
    return np.asarray(moments / total[..., None])


def peak_places(maps: AttentionMaps) -> NDArray[np.float64]:
    """The centres of the highest cells of maps [..., rows, cols]: [..., 2]; of equal ones their mean."""
    weights = maps.weights
    highest = weights >= weights.max(axis=(-2, -1), keepdims=True) * (1 - _TIE)
    return expected_places(AttentionMaps(np.where(maps.usable[..., None, None], highest, 0.0), maps.grid))


def target_places(masks: Bools) -> NDArray[np.float64]:
    """The centres of masks bool [T, H, W], True on the target: [T, 2]."""
    height, width = masks.shape[-2:]
    pixels = AttentionGrid(np.arange(height), np.arange(width), (height, width))
    return expected_places(AttentionMaps(masks.astype(np.float32), pixels))


def jumps(places: Floats, episode: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """How far each of the places [T, ..., 2] is from the one a step before, [T, ...] in the places' unit.

    For shares of the frame's diagonal, divide by `math.hypot(H, W)`. NaN at the first step of an episode, and
    beside a place that is not known.
    """
    far = np.full(places.shape[:-1], np.nan)
    far[1:] = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    if episode is not None:
        far[1:][episode[1:] != episode[:-1]] = np.nan
    return far


def dwells(places: Floats, radius: float, episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """The stretches in which places [T, 2] stay within `radius` pixels of where the stretch began.

    Of the peak of a map, 1.5 times the distance between two cells lets it tremble to any neighbouring cell
    and no farther. Rows without a place are in no stretch. These are fixations by their dispersion
    (Salvucci & Goldberg 2000, "Identifying fixations and saccades in eye-tracking protocols"), here about
    where they start.

    Raises:
        ValueError: a radius that is negative or NaN.
    """
    if not radius >= 0:
        raise ValueError(f"a radius is a number of pixels, 0 or more, got {radius}")
    found = []
    for part in stretches_of(np.asarray(np.isfinite(places).all(axis=-1)), episode):
        first = part.first
        while first < part.stop:
            away = np.linalg.norm(places[first : part.stop] - places[first], axis=-1) > radius
            stop = first + int(away.argmax()) if away.any() else part.stop
            found.append(Stretch(first, stop))
            first = stop
    return found


@dataclass(frozen=True)
class Delay:
    """How well attention's place goes with the target's some steps before, for E episodes.

    `best_lag(sums.sum(axis=0))` is the lag. Of `bootstrap_interval(sums, statistic)` it takes the axis that
    the episodes are drawn along.
    """

    sums: NDArray[np.float64]
    """[E, lags + 1, 4] sums over pairs of steps: attention's place times the target's, attention's squared,
    the target's squared, each from the episode's mean; and how many pairs."""

    @property
    def correlations(self) -> NDArray[np.float64]:
        """[lags + 1] of all episodes together; NaN where one of the two does not move."""
        return _correlations(self.sums.sum(axis=0))

    @property
    def lag(self) -> float:
        """Steps by which attention follows; NaN where that cannot be told: `best_lag`."""
        return float(best_lag(self.sums.sum(axis=0)))

    @property
    def lags(self) -> NDArray[np.float64]:
        """[E] that of each episode alone, often NaN."""
        return best_lag(self.sums)


def attention_delay(
    attention: Floats,
    target: Floats,
    episode: NDArray[np.integer] | None = None,
    *,
    lags: int = LAGS,
) -> Delay:
    """Correlate the target's place at a step with attention's 0 to `lags` steps later.

    A place counts by how far it lies from the mean of its episode, so that a constant offset does no harm,
    and both axes count together. Steps at which one of the two is not known are left out.

    What this cannot tell: with a target that hardly moves, or moves on evenly, all lags correlate alike, and
    the best of them is an accident; look at `correlations`, and at the interval. A camera that follows the
    target, as in Track, keeps it at one place in the frame. A target that goes round and round is as far
    ahead as behind: keep `lags` below half of its period.

    Args:
        attention: [T, 2] places, such as `expected_places` of the head that is on the target.
        target: [T, 2] as `target_places`.
        episode: [T]; None for one episode.
        lags: the largest.

    Raises:
        ValueError: places of different steps, or lags below 0.
    """
    if attention.shape != target.shape or attention.ndim != 2 or attention.shape[1] != 2:
        raise ValueError(
            f"expected places [T, 2] of attention and of the target, got {list(attention.shape)} and "
            f"{list(target.shape)}"
        )
    if lags < 0:
        raise ValueError(f"a lag is a number of steps, 0 or more, got {lags}")
    parts = stretches(np.zeros(len(target)) if episode is None else np.asarray(episode))
    sums = np.zeros((len(parts), lags + 1, 4))
    for part, own in zip(parts, sums, strict=True):
        rows = slice(part.first, part.stop)
        own[:] = list(_products(attention[rows], target[rows], lags))
    return Delay(sums)


def _products(attention: Floats, target: Floats, lags: int) -> Iterator[tuple[float, float, float, int]]:
    steps = len(target)
    for lag in range(lags + 1):
        pairs = np.stack([attention[lag:], target[: max(steps - lag, 0)]])
        pairs = pairs[:, np.isfinite(pairs).all(axis=(0, 2))]
        if pairs.shape[1] == 0:
            yield 0.0, 0.0, 0.0, 0
            continue
        looked, was = pairs - pairs.mean(axis=1, keepdims=True)
        yield float((looked * was).sum()), float((looked**2).sum()), float((was**2).sum()), len(was)


def _correlations(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    both, looked, was = sums[..., 0], sums[..., 1], sums[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((looked > 0) & (was > 0), both / np.sqrt(looked * was), np.nan)


def best_lag(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lag of the highest correlation, of `Delay.sums` [..., lags + 1, 4] added up: [...].

    NaN where the target moves by less than `STILL`, or no lag has a correlation of `FOLLOWS`. Of equals the
    shortest.
    """
    correlations = _correlations(sums)
    correlations = np.where(np.isnan(correlations), -np.inf, correlations)
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = np.sqrt(sums[..., 0, 2] / sums[..., 0, 3]) >= STILL
    follows = correlations.max(axis=-1) >= FOLLOWS
    return np.where(moves & follows, correlations.argmax(axis=-1).astype(np.float64), np.nan)
