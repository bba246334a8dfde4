"""Sequential intervals: hand-computed ends, and at most 5 % wrong decisions over all looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from robot_attn_policies.evaluation.sequential import error_at, jackknife_interval, look_sizes
from robot_attn_policies.evaluation.statistics import mean, ratio_of_sums

UNBOUNDED = (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("budget", "first", "sizes"),
    [
        (64, 8, (8, 16, 32, 64)),
        (64, 32, (32, 64)),
        (40, 8, (8, 16, 40)),
        (15, 8, (15,)),
        (8, 8, (8,)),
        (3, 8, (3,)),
    ],
)
def test_looks_double_and_end_at_the_budget(budget: int, first: int, sizes: tuple[int, ...]) -> None:
    assert look_sizes(budget, first) == sizes
    assert sum(error_at(look, sizes, 0.05) for look in range(len(sizes))) == pytest.approx(0.05)


def test_the_error_is_spent_by_the_episodes_that_a_look_adds() -> None:
    assert [error_at(look, (8, 16, 32, 64), 0.08) for look in range(4)] == pytest.approx(
        [0.01, 0.01, 0.02, 0.04]
    )


def test_without_pseudo_episodes_a_mean_has_students_interval() -> None:
    values = np.array([3.0, 5.0, 4.0, 8.0])
    found = jackknife_interval(values, mean, support=UNBOUNDED)
    expected = stats.t.interval(0.95, 3, 5.0, stats.sem(values))
    assert found == pytest.approx((5.0, *expected))


def test_each_end_has_a_pseudo_episode_with_the_least_favourable_value() -> None:
    found = jackknife_interval(np.ones(8), mean, support=(0.0, 1.0), error_low=0.05, error_high=0.01)
    # Eight times 1 and once 0: mean 8/9, standard error 1/9.
    assert found == pytest.approx((1.0, 8 / 9 - stats.t.isf(0.05, 8) / 9, 1.0))


def test_a_ratio_is_that_of_all_episodes_and_a_long_one_weighs_more() -> None:
    rows = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 8.0]])
    found = jackknife_interval(rows, ratio_of_sums, support=UNBOUNDED)
    # Leaving one out: 1/9, 1/9 and 2/2; pseudo-values 3 * 0.2 - 2 * each.
    pseudo = np.array([0.6 - 2 / 9, 0.6 - 2 / 9, 0.6 - 2.0])
    low = pseudo.mean() - stats.t.isf(0.025, 2) * stats.sem(pseudo)
    assert found.value == pytest.approx(0.2) and found.low == pytest.approx(low)


def test_what_is_not_defined_has_no_interval() -> None:
    only_one = np.array([[1.0, 2.0], [0.0, 0.0]])
    assert np.isnan(jackknife_interval(only_one, ratio_of_sums, support=(0.0, 1.0))[1:]).all()
    assert np.isnan(jackknife_interval(np.ones(1), mean, support=(0.0, 1.0))[1:]).all()
    assert np.isnan(jackknife_interval(np.ones(0), mean, support=(0.0, 1.0))).all()


SKEWED: dict[str, Callable[[np.random.Generator, float, int], np.ndarray]] = {
    "succeeds or fails": lambda rng, mean, size: (rng.random(size) < mean).astype(float),
    "wide": lambda rng, mean, size: rng.beta(mean, 1 - mean, size),
    "narrow": lambda rng, mean, size: rng.beta(20 * mean, 20 * (1 - mean), size),
    "one in ten fails": lambda rng, mean, size: np.where(rng.random(size) < 0.1, 0.0, mean / 0.9),
}
"""Values of episodes in [0, 1], by their mean."""


@pytest.mark.parametrize("kind", SKEWED)
@pytest.mark.parametrize("limit", [0.5, 0.85])
def test_at_the_limit_at_most_five_in_a_hundred_are_decided_wrongly(kind: str, limit: float) -> None:
    """The true value lies at the limit, so that every decision is wrong; every side may err in 5 %."""
    rng, sizes, runs = np.random.default_rng(0), look_sizes(64), 400
    above = below = 0
    for _ in range(runs):
        values = SKEWED[kind](rng, limit, sizes[-1])
        found = [
            jackknife_interval(
                values[:size],
                mean,
                support=(0.0, 1.0),
                error_low=error_at(look, sizes, 0.05),
                error_high=error_at(look, sizes, 0.05),
            )
            for look, size in enumerate(sizes)
        ]
        above += any(interval.low > limit for interval in found)
        below += any(interval.high < limit for interval in found)
    most = stats.binom.isf(0.001, runs, 0.05)  # of runs at exactly 5 %
    assert above <= most and below <= most


def test_plain_intervals_would_decide_wrongly_in_many_cases() -> None:
    """What the pseudo-episode is for: with one failure in ten, eight good episodes are not rare."""
    rng, runs = np.random.default_rng(0), 200
    wrong = 0
    for _ in range(runs):
        values = SKEWED["one in ten fails"](rng, 0.85, 8)
        wrong += jackknife_interval(values, mean, support=UNBOUNDED).low > 0.85
    assert wrong / runs > 0.3
