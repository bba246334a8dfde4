"""Sequential sampling: episodes are added until every interval decides or a budget ends.

Whoever looks at growing data several times with a plain 95 % interval decides wrongly in more than 5 % of
the cases. Here the permitted error is spent over the looks, in proportion to the episodes that each one adds
(the spending function alpha * t of Lan & DeMets 1983, https://doi.org/10.1093/biomet/70.3.659), and each
look's share bounds the error at that look. The intervals of all looks together hold with the error that was
permitted: they are repeated confidence intervals (Jennison & Turnbull 1989,
https://doi.org/10.1111/j.2517-6161.1989.tb01433.x), with a union bound over the looks.

The interval is Student's, of the jackknife's pseudo-values (Tukey 1958; Miller 1974,
https://doi.org/10.1093/biomet/61.1.1). On its own it is far too narrow where failures are rare: with a
statistic of 0.85 because 15 % of the episodes fail completely, eight episodes are all good in 27 % of the
cases. So each end is computed with one additional pseudo-episode, which has the least favourable value
possible. For episodes that succeed or fail, this comes close to the exact binomial bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn_policies.evaluation.statistics import Interval, Statistic

MIN_EPISODES = 8
"""Fewest episodes that decide anything."""


def look_sizes(budget: int, first: int = MIN_EPISODES) -> tuple[int, ...]:
    """Return the numbers of episodes at which to look, ascending: doubling from `first`, then the budget.

    Args:
        budget: most episodes, 1 or more.
        first: number of episodes at the first look; the budget, if that is smaller.
    """
    sizes = []
    while first <= budget // 2:
        sizes.append(first)
        first *= 2
    return (*sizes, budget)


def error_at(look: int, sizes: tuple[int, ...], error: float) -> float:
    """Return the share of a permitted error that is spent at a look.

    Args:
        look: index of the look.
        sizes: numbers of episodes at the looks, of `look_sizes`.
        error: permitted error over all looks, in (0, 1).
    """
    before = sizes[look - 1] if look else 0
    return error * (sizes[look] - before) / sizes[-1]


def jackknife_interval(
    rows: ArrayLike,
    statistic: Statistic,
    *,
    support: tuple[float, float],
    error_low: float = 0.025,
    error_high: float = 0.025,
) -> Interval:
    """Student's interval of the jackknife's pseudo-values, with one additional pseudo-episode at each end.

    Args:
        rows: float [N, ...], one row per episode.
        statistic: called as `statistic(rows, 0)`, and as `statistic(leave_one_out, 1)` with
            `leave_one_out` [N, N - 1, ...].
        support: smallest and largest value that a single episode can have, those of the pseudo-episodes. If
            one is infinite, there is no pseudo-episode at that end.
        error_low: probability with which the true value may lie below the interval.
        error_high: probability with which it may lie above.

    Returns:
        The statistic and its interval; the ends are NaN with fewer than two episodes, or where the statistic
        is not defined without one of them.
    """
    values = np.asarray(rows, np.float64)
    count = len(values)
    value = float(statistic(values, 0)) if count else float("nan")
    if count < 2:
        return Interval(value, float("nan"), float("nan"))
    others = np.broadcast_to(np.arange(count), (count, count))[~np.eye(count, dtype=np.bool_)]
    others = others.reshape(count, count - 1)
    pseudo = count * value - (count - 1) * statistic(values[others], 1)
    if not np.isfinite(pseudo).all():
        return Interval(value, float("nan"), float("nan"))
    low = _end(pseudo, support[0], error_low, -1)
    high = _end(pseudo, support[1], error_high, 1)
    return Interval(value, min(low, value), max(high, value))


def _end(pseudo: NDArray[np.float64], extreme: float, error: float, side: int) -> float:
    """Return the lower (side -1) or upper (1) end of the interval."""
    from scipy.special import stdtrit

    if np.isfinite(extreme):
        pseudo = np.append(pseudo, extreme)
    standard_error = pseudo.std(ddof=1) / np.sqrt(len(pseudo))
    return float(pseudo.mean() + side * stdtrit(len(pseudo) - 1, 1 - error) * standard_error)
