"""Figures over episodes: the interquartile mean and bootstrap intervals.

As Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", recommend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


Statistic: TypeAlias = Callable[[NDArray[np.float64], int], NDArray[np.float64]]
"""A reduction like NumPy's: `(values, axis)`, from [..., N, ...] to one value each."""


def iqm(values: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Interquartile mean along `axis`: the mean of what is left without the lowest and the highest quarter.

    As `scipy.stats.trim_mean(values, 0.25)`: a quarter is rounded down to whole values, so that fewer than
    four values give the plain mean.

    Raises:
        ValueError: no values, or one that is NaN or infinite.
    """
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(_checked(values), 0.25, axis=axis), dtype=np.float64)


def mean(values: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Mean along `axis`; errors as in `iqm`."""
    return np.asarray(_checked(values).mean(axis=axis))


def ratio_of_sums(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Numerators [..., 0] summed along `axis`, over denominators [..., 1] summed: [..., N, 2] -> [...].

    NaN where the denominators sum to zero: there was nothing to divide by.
    """
    total = values.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total[..., 1] > 0, total[..., 0] / total[..., 1], np.nan)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap over rows: draw N of the N rows with replacement, take the statistic, and repeat.

    Args:
        values: [N] one value an episode, or [N, K] several that belong together and are drawn together.
        statistic: called as `statistic(drawn, 1)` with `drawn` [resamples, N] or [resamples, N, K], and
            as `statistic(values, 0)` for the figure itself. NaN results (a draw with nothing to divide
            by) are left out of the interval.
        level: share of the draws between the two ends.
        seed: the same seed gives the same interval.
        resamples: number of draws.

    Raises:
        ValueError: no rows, a value that is NaN or infinite, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, such as 0.95, got {level}")
    rows = _checked(values)
    picks = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    draws = statistic(rows[picks], 1)
    draws = draws[~np.isnan(draws)]
    value = float(statistic(rows, 0))
    if draws.size == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 0 or rows.size == 0:
        raise ValueError(f"statistics need at least one episode, got an array of shape {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{int((~np.isfinite(rows)).sum())} of {rows.size} values are NaN or infinite")
    return rows
