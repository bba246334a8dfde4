"""Figures over episodes and over trainings: the interquartile mean and bootstrap intervals.

As Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", recommend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


class Interval(NamedTuple):
    """A figure and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


class Estimate(NamedTuple):
    """A figure, and what it would be in each draw of a bootstrap."""

    value: float
    draws: NDArray[np.float64]

    def interval(self, level: float = 0.95) -> Interval:
        """The percentile interval that holds `level` of the draws; those that are NaN are left out.

        Raises:
            ValueError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval lies between 0 and 1, such as 0.95, got {level}")
        draws = self.draws[~np.isnan(self.draws)]
        if draws.size == 0:
            return Interval(self.value, float("nan"), float("nan"))
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.value, float(low), float(high))

    def minus(self, other: Estimate) -> Estimate:
        """The difference, draw by draw: paired where both come from one `bootstrap_arms`."""
        return Estimate(self.value - other.value, self.draws - other.draws)


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
    rows = _checked(values)
    picks = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    return Estimate(float(statistic(rows, 0)), statistic(rows[picks], 1)).interval(level)


def bootstrap_arms(
    arms: Sequence[ArrayLike],
    statistic: Statistic = mean,
    *,
    pooled: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Bootstrap over trainings and over episodes, of several arms that met the same episodes.

    The unit is the training: a draw takes R of an arm's R trainings with replacement, each arm for itself.
    Then it takes E of the E episodes, the same ones for all trainings and arms, since an episode that is hard
    is hard for all of them: drawn anew in each training, that would average out (Owen 2007, "The pigeonhole
    bootstrap"). So the interval tells how the figure would vary with other seeds and other episodes, and
    that of a difference (`Estimate.minus`) is paired.

    Few trainings make a rough interval, on average too narrow: of three, a draw has 10 different sets to
    offer. With one training it tells of episodes alone.

    Args:
        arms: of each arm [R, E], or [R, E, K] several values that belong together; E is common to all.
        statistic: taken along the episodes of each training, then averaged over trainings.
        pooled: take it along the R x E episodes of all trainings instead, as for the interquartile mean.
        seed: the same seed gives the same draws.
        resamples: number of draws.

    Raises:
        ValueError: no episodes, a value that is NaN or infinite, or arms of different episodes.
    """
    tables = [_checked(values) for values in arms]
    counts = {table.shape[1] for table in tables}
    if len(counts) != 1:
        raise ValueError(f"arms are compared on the same episodes, got arms of {sorted(counts)} episodes")
    (episodes,) = counts

    def figure(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        if pooled:
            return statistic(drawn.reshape(len(drawn), -1, *drawn.shape[3:]), 1)
        return np.asarray(statistic(drawn, 2).mean(axis=1))

    rng = np.random.default_rng(seed)
    columns = rng.integers(episodes, size=(resamples, 1, episodes))
    estimates = []
    for table in tables:
        rows = rng.integers(len(table), size=(resamples, len(table), 1))
        estimates.append(Estimate(float(figure(table[None])[0]), figure(table[rows, columns])))
    return estimates


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 0 or rows.size == 0:
        raise ValueError(f"statistics need at least one episode, got an array of shape {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise ValueError(f"{int((~np.isfinite(rows)).sum())} of {rows.size} values are NaN or infinite")
    return rows
