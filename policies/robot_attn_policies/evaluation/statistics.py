"""Statistics over episodes and over training runs: the interquartile mean and bootstrap intervals.

They follow Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


class Interval(NamedTuple):
    """A point estimate and its bootstrap interval."""

    value: float
    """The point estimate."""
    low: float
    """Lower end of the interval; NaN if it is not defined."""
    high: float
    """Upper end of the interval; NaN if it is not defined."""


class Estimate(NamedTuple):
    """A point estimate and its bootstrap distribution."""

    value: float
    """The point estimate."""
    samples: NDArray[np.float64]
    """Its value in each bootstrap resample, [resamples]."""

    def interval(self, level: float = 0.95) -> Interval:
        """The percentile interval with coverage `level`. Samples that are NaN are ignored.

        Raises:
            ValueError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, such as 0.95, got {level}")
        samples = self.samples[~np.isnan(self.samples)]
        if samples.size == 0:
            return Interval(self.value, float("nan"), float("nan"))
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.value, float(low), float(high))

    def minus(self, other: Estimate) -> Estimate:
        """The difference to another estimate, paired by resample if both are of one `bootstrap_arms` call."""
        return Estimate(self.value - other.value, self.samples - other.samples)


Statistic: TypeAlias = Callable[[NDArray[np.float64], int], NDArray[np.float64]]
"""A reduction like NumPy's: `statistic(values, axis)` reduces [..., N, ...] along `axis`."""


def iqm(values: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Interquartile mean: the mean without the lowest and the highest quarter of the values.

    As in `scipy.stats.trim_mean(values, 0.25)`, a quarter is rounded down to whole values; fewer than four
    values give the plain mean.

    Args:
        values: float [..., N, ...].
        axis: the axis to reduce.

    Raises:
        ValueError: no values, or one that is NaN or infinite.
    """
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(_finite_rows(values), 0.25, axis=axis), dtype=np.float64)


def mean(values: ArrayLike, axis: int = 0) -> NDArray[np.float64]:
    """Mean of the values.

    Args:
        values: float [..., N, ...].
        axis: the axis to reduce.

    Raises:
        ValueError: no values, or one that is NaN or infinite.
    """
    return np.asarray(_finite_rows(values).mean(axis=axis))


def ratio_of_sums(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Sum of numerators divided by the sum of denominators.

    Args:
        values: numerators [..., 0] and denominators [..., 1], float64 [..., N, 2].
        axis: the axis to sum over.

    Returns:
        float64 [...]; NaN where the denominators sum to zero.
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
    """Percentile bootstrap interval over rows, resampled with replacement.

    Args:
        values: one value per episode, float [N], or several that are resampled together, float [N, K].
        statistic: called as `statistic(values, 0)` for the point estimate, and as `statistic(resampled, 1)`
            with `resampled` [resamples, N] or [resamples, N, K]. NaN results are ignored.
        level: coverage of the interval.
        seed: random seed; the same seed gives the same interval.
        resamples: number of bootstrap resamples.

    Returns:
        The point estimate and its interval.

    Raises:
        ValueError: no rows, a value that is NaN or infinite, or a level outside (0, 1).
    """
    rows = _finite_rows(values)
    indices = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    return Estimate(float(statistic(rows, 0)), statistic(rows[indices], 1)).interval(level)


def bootstrap_arms(
    arms: Sequence[ArrayLike],
    statistic: Statistic = mean,
    *,
    pooled: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Bootstrap over training runs and over episodes, for several arms evaluated on the same episodes.

    The unit is the training run. Each resample takes R of an arm's R runs with replacement, independently
    per arm. It takes E of the E episodes with replacement, the same ones for all runs and arms, because an
    episode that is hard is hard for all of them; with independent episodes per run that effect would average
    out (Owen 2007, "The pigeonhole bootstrap"). The interval therefore shows how the figure would vary with
    other seeds and other episodes, and the interval of a difference (`Estimate.minus`) is paired.

    With few runs the interval is rough and on average too narrow: three runs have only 10 different
    resamples. With one run it covers the variation over episodes only.

    Args:
        arms: for each arm, float [R, E], or [R, E, K] for values that belong together; E is the same for all.
        statistic: applied along the episodes of each run, then averaged over runs.
        pooled: apply it along the R x E episodes of all runs instead, as for the interquartile mean.
        seed: random seed; the same seed gives the same resamples.
        resamples: number of bootstrap resamples.

    Returns:
        The estimate of each arm.

    Raises:
        ValueError: no episodes, a value that is NaN or infinite, or arms with different numbers of episodes.
    """
    tables = [_finite_rows(values) for values in arms]
    counts = {table.shape[1] for table in tables}
    if len(counts) != 1:
        raise ValueError(
            f"expected arms evaluated on the same episodes, got arms of {sorted(counts)} episodes"
        )
    (episodes,) = counts

    def figure(resampled: NDArray[np.float64]) -> NDArray[np.float64]:
        if pooled:
            return statistic(resampled.reshape(len(resampled), -1, *resampled.shape[3:]), 1)
        return np.asarray(statistic(resampled, 2).mean(axis=1))

    rng = np.random.default_rng(seed)
    columns = rng.integers(episodes, size=(resamples, 1, episodes))
    estimates = []
    for table in tables:
        rows = rng.integers(len(table), size=(resamples, len(table), 1))
        estimates.append(Estimate(float(figure(table[None])[0]), figure(table[rows, columns])))
    return estimates


def _finite_rows(values: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 0 or rows.size == 0:
        raise ValueError(f"expected at least one episode, got an array of shape {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise ValueError(
            f"expected finite values, got {int((~np.isfinite(rows)).sum())} of {rows.size} values that are "
            "NaN or infinite"
        )
    return rows
