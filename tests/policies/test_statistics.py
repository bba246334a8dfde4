"""Statistics: point estimates by hand, and the coverage and pairing of bootstrap intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_attn_policies.evaluation.statistics import (
    bootstrap_arms,
    bootstrap_interval,
    iqm,
    mean,
    ratio_of_sums,
)

FINITE = st.floats(-1e3, 1e3)


def test_iqm_by_hand() -> None:
    # 11 values: a quarter, 2.75, is rounded down, so two go at each end.
    assert iqm([100, 1, 2, 3, 5, 7, 11, 13, 17, 19, -50]) == pytest.approx((2 + 3 + 5 + 7 + 11 + 13 + 17) / 7)
    assert iqm([3.0, 5.0, 100.0]) == pytest.approx(36.0)  # too few to leave any out


def test_iqm_along_an_axis() -> None:
    rows = np.array([[0.0, 1.0, 2.0, 100.0], [4.0, 4.0, 6.0, -100.0]])
    assert iqm(rows, axis=1).tolist() == [1.5, 4.0]


@given(st.lists(FINITE, min_size=1, max_size=40), FINITE)
def test_iqm_shifts_with_its_values_and_ignores_their_order(values: list[float], shift: float) -> None:
    assert min(values) - 1e-9 <= iqm(values) <= max(values) + 1e-9
    assert iqm(values[::-1]) == pytest.approx(float(iqm(values)))
    assert iqm(np.array(values) + shift) == pytest.approx(float(iqm(values)) + shift, abs=1e-6)


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        interval = bootstrap_interval(rng.normal(2.0, 1.0, 50), seed=trial, resamples=400)
        held += interval.low <= 2.0 <= interval.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_interval_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(13.0)
    assert bootstrap_interval(values, iqm, seed=5) == bootstrap_interval(values, iqm, seed=5)
    assert bootstrap_interval(values, iqm, seed=5) != bootstrap_interval(values, iqm, seed=6)


def test_a_lower_level_is_narrower() -> None:
    values = np.arange(17.0)
    wide, narrow = bootstrap_interval(values, level=0.95), bootstrap_interval(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_equal_values_have_no_width() -> None:
    assert bootstrap_interval([3.0] * 7, iqm) == (3.0, 3.0, 3.0)


def test_rows_are_resampled_together() -> None:
    # The ratio is 2 in every row, so it is 2 in every resample; resampled separately, it would vary.
    denominators = np.random.default_rng(2).random(19) + 0.1
    interval = bootstrap_interval(np.stack([2 * denominators, denominators], axis=1), ratio_of_sums)
    assert interval == pytest.approx((2.0, 2.0, 2.0))


def test_ratio_of_sums_by_hand_and_with_a_zero_denominator() -> None:
    assert ratio_of_sums(np.array([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]]), 0) == pytest.approx(9 / 13)
    interval = bootstrap_interval(np.zeros((3, 2)), ratio_of_sums)
    assert np.isnan(interval).all()


@pytest.mark.parametrize("function", [iqm, mean, bootstrap_interval])
@pytest.mark.parametrize(
    ("values", "message"), [([], "at least one"), ([1.0, np.nan, np.inf], "2 of 3 values")]
)
def test_empty_and_nan_values_are_rejected(function: object, values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(values)  # type: ignore[operator]


def test_an_invalid_level_is_rejected() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([1.0], level=95)


def test_runs_and_episodes_of_an_arm_by_hand() -> None:
    (arm,) = bootstrap_arms([[[0.0, 2.0, 4.0], [1.0, 3.0, 11.0]]])
    assert arm.value == pytest.approx((2 + 5) / 2)
    low, high = min(arm.samples), max(arm.samples)
    assert (low, high) == (0.0, 11.0)  # run 0 with its first episode three times; run 1 with its last
    # Ratios are taken in each run and then averaged; pooled, the longer run counts more.
    rows = np.array([[[1.0, 1.0]] * 3, [[0.0, 5.0]] * 3])
    assert bootstrap_arms([rows], ratio_of_sums)[0].value == pytest.approx((1 + 0) / 2)
    assert bootstrap_arms([rows], ratio_of_sums, pooled=True)[0].value == pytest.approx(3 / 18)
    assert bootstrap_arms([[[1.0, 2.0], [3.0, 100.0]]], iqm, pooled=True)[0].value == 2.5


def test_with_one_run_the_interval_is_over_its_episodes() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, 300)
    (arm,) = bootstrap_arms([values[None]])
    interval, expected = arm.interval(), bootstrap_interval(values)
    assert interval.low == pytest.approx(expected.low, abs=0.02)
    assert interval.high == pytest.approx(expected.high, abs=0.02)


def test_effects_common_to_all_runs_do_not_average_out() -> None:
    # The same episodes are hard for all runs: five identical runs carry no more information than one.
    values = np.random.default_rng(4).normal(0.0, 1.0, 300)
    one, five = (bootstrap_arms([np.tile(values, (runs, 1))])[0].interval() for runs in (1, 5))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


def test_runs_are_the_unit() -> None:
    # Runs differ by 1, episodes hardly at all: more episodes do not narrow the interval.
    rng = np.random.default_rng(5)
    runs = rng.normal(0.0, 1.0, 20)
    widths = []
    for episodes in (5, 500):
        (arm,) = bootstrap_arms([runs[:, None] + rng.normal(0.0, 0.01, (20, episodes))])
        interval = arm.interval()
        widths.append(interval.high - interval.low)
    assert widths == pytest.approx([2 * 1.96 * runs.std() / np.sqrt(20)] * 2, rel=0.1)


def test_the_interval_over_runs_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(6)
    held = 0
    for trial in range(150):
        values = rng.normal(3.0, 1.0, (12, 1)) + rng.normal(0.0, 1.0, 30) + rng.normal(0.0, 1.0, (12, 30))
        low, high = bootstrap_arms([values], seed=trial, resamples=300)[0].interval()[1:]
        held += low <= 3.0 <= high
    assert 0.85 <= held / 150 <= 0.99


def test_a_difference_is_paired_by_episode() -> None:
    # Episodes vary by 10, the arms differ by 1 in each of them: the difference is certain.
    episodes = np.random.default_rng(7).normal(0.0, 10.0, 40)
    one, other = bootstrap_arms([np.tile(episodes + 1, (3, 1)), np.tile(episodes, (2, 1))])
    assert one.minus(other).interval() == pytest.approx((1.0, 1.0, 1.0))
    assert one.interval().high - one.interval().low > 4
    assert other.minus(one).value == pytest.approx(-1.0)


def test_arms_with_different_episodes_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"same episodes, got arms of \[4, 5\]"):
        bootstrap_arms([np.zeros((3, 5)), np.zeros((3, 4))])
