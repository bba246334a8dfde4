"""Means of per-step figures with confidence intervals over episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.focus import RatioOfSums
from robot_attn_policies.evaluation.statistics import (
    RESAMPLES,
    Interval,
    Statistic,
    bootstrap_interval,
    ratio_of_sums,
)
from robot_attn_policies.pages.report import Series


def interval_over_episodes(rows: NDArray[np.float64], statistic: Statistic) -> Interval:
    """Bootstrap a statistic over episodes; the ends are NaN for a single episode.

    Args:
        rows: float64 [E, ...], one row per episode.
        statistic: reduces the axis of the episodes.
    """
    if len(rows) == 1:
        return Interval(float(statistic(rows, 0)), float("nan"), float("nan"))
    return bootstrap_interval(rows, statistic)


def ratio_over_episodes(ratio: RatioOfSums) -> Interval:
    """Bootstrap a ratio of sums over episodes."""
    return interval_over_episodes(np.stack(ratio, axis=1), ratio_of_sums)


def mean_over_episodes(values: NDArray[np.float64], episode: NDArray[np.int64]) -> Interval:
    """Mean of per-step values, with an interval over episodes.

    Args:
        values: float64 [N]; NaN where unknown, which is left out.
        episode: int64 [N], the episode of each value.
    """
    known = np.isfinite(values)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    _, index = np.unique(episode[known], return_inverse=True)
    sums = np.stack([np.bincount(index, values[known]), np.bincount(index).astype(np.float64)], axis=1)
    return interval_over_episodes(sums, ratio_of_sums)


def mean_over_draws_and_episodes(values: NDArray[np.float64], episode: NDArray[np.int64]) -> Interval:
    """Mean of per-step values of several random draws, with an interval over both draws and episodes.

    Args:
        values: float64 [draws, N].
        episode: int64 [N], the episode of each value.
    """
    _, index = np.unique(episode, return_inverse=True)
    one_hot = np.eye(index.max() + 1)[index]
    sums, counts = values @ one_hot, one_hot.sum(axis=0)
    mean = float(sums.sum() / (len(values) * counts.sum()))
    if len(counts) == 1:
        return Interval(mean, float("nan"), float("nan"))
    rng = np.random.default_rng(0)
    draws, episodes = (rng.multinomial(n, [1 / n] * n, size=RESAMPLES) for n in sums.shape)
    resampled = ((draws @ sums) * episodes).sum(axis=1) / (len(values) * (episodes @ counts))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def interval_series(name: str, x: Sequence[Any], intervals: Sequence[Interval]) -> Series:
    """Make a chart's series from one interval per x."""
    value, low, high = (list(column) for column in zip(*intervals, strict=True))
    return Series(name, x, value, low, high)
