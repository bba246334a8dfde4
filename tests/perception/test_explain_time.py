"""Attention over steps: entropy, positions, jumps, dwell times and delay, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import (
    attention_delay,
    best_lag,
    dwells,
    entropy,
    expected_places,
    jumps,
    peak_places,
    stretches,
    stretches_of,
    target_places,
)

NAN = float("nan")
ROWS, COLS = 3, 5
GRID = AttentionGrid(1.5 + 4 * np.arange(ROWS), 1.5 + 6 * np.arange(COLS), (12, 30))


def cells(*at: tuple[int, int]) -> np.ndarray:
    maps = np.zeros((len(at), ROWS, COLS))
    for one, (row, col) in zip(maps, at, strict=True):
        one[row, col] = 1
    return maps


BAD = np.stack([np.zeros((ROWS, COLS)), np.full((ROWS, COLS), NAN), -cells((0, 0))[0]])


def test_stretches_have_equal_values_within_one_episode() -> None:
    flags = np.array([True, True, False, True, True, True])
    assert [tuple(part) for part in stretches(flags)] == [(0, 2), (2, 3), (3, 6)]
    assert [part.rows for part in stretches_of(flags)] == [2, 3]
    episode = np.array([0, 0, 0, 0, 1, 1])
    assert [tuple(part) for part in stretches_of(flags, episode)] == [(0, 2), (3, 4), (4, 6)]
    assert stretches(flags[:0]) == stretches_of(flags[:0]) == []


def test_entropy_is_zero_for_one_cell_and_one_for_all() -> None:
    two = cells((0, 0)) + cells((2, 4))
    maps = np.concatenate([cells((1, 1)), two, np.full((1, ROWS, COLS), 0.3), BAD])
    expected = [0, math.log(2) / math.log(15), 1, NAN, NAN, NAN]
    assert entropy(maps) == pytest.approx(expected, nan_ok=True)
    assert entropy(maps[:, None].astype(np.float32)).shape == (6, 1)
    assert entropy(np.ones((2, 1, 1))).tolist() == [0, 0]


@given(st.integers(0, 2**31), st.floats(0, 40), st.floats(1e-20, 1e20))
def test_entropy_is_between_and_scale_invariant(seed: int, power: float, scale: float) -> None:
    maps = np.random.default_rng(seed).uniform(0.01, 1, (4, ROWS, COLS)) ** power
    found = entropy(maps)
    assert ((found >= 0) & (found <= 1)).all()
    assert entropy(maps * scale) == pytest.approx(found)
    if power == 0:
        assert found == pytest.approx(1)


def test_places_are_in_pixels() -> None:
    two = 3 * cells((0, 0)) + cells((2, 4))  # three quarters of the way
    maps = np.concatenate([cells((1, 3)), two, BAD])
    gone = [[NAN, NAN]] * 3
    assert expected_places(AttentionMaps(maps, GRID)) == pytest.approx(
        np.array([[5.5, 19.5], [1.5 + 2, 1.5 + 6], *gone]), nan_ok=True
    )
    peaks = peak_places(AttentionMaps(maps, GRID))
    assert peaks == pytest.approx(np.array([[5.5, 19.5], [1.5, 1.5], *gone]), nan_ok=True)
    equal = cells((0, 1)) + cells((2, 1)) * (1 + 1e-9)
    assert peak_places(AttentionMaps(equal, GRID)) == pytest.approx(np.array([[5.5, 7.5]]))
    masks = np.zeros((2, 10, 12), bool)
    masks[0, 2:4, 5:8] = True
    assert target_places(masks) == pytest.approx(np.array([[2.5, 6], [NAN, NAN]]), nan_ok=True)


def test_jumps_are_distances_from_the_previous_step() -> None:
    places = np.array([[0, 0], [3, 4], [3, 4], [NAN, NAN], [0, 0], [0, 12.0], [5, 0]])
    expected = [NAN, 5, 0, NAN, NAN, 12, 13]
    assert jumps(places) == pytest.approx(expected, nan_ok=True)
    expected[5] = NAN  # another episode begins there
    assert jumps(places, np.array([0, 0, 0, 0, 0, 7, 7])) == pytest.approx(expected, nan_ok=True)
    heads = np.stack([places, 2 * places], axis=1)
    assert jumps(heads)[1].tolist() == [5, 10]
    assert jumps(places[:0]).shape == (0,)


def test_dwell_ends_where_the_peak_leaves() -> None:
    x = np.array([0, 1, 2, 3, 3, 2, 9, 9, NAN, 9, 9, 9])
    places = np.stack([np.zeros(12), x], axis=1)
    # 3 is too far from 0; 2 is near 3; nothing is near 9 but itself; NaN is nowhere.
    expected = [(0, 3), (3, 6), (6, 8), (9, 12)]
    assert [tuple(part) for part in dwells(places, 2.0)] == expected
    episode = np.array([0] * 11 + [1])
    assert [tuple(part) for part in dwells(places, 2.0, episode)] == [*expected[:3], (9, 11), (11, 12)]
    assert [part.rows for part in dwells(places, 0.0)] == [1, 1, 1, 2, 1, 2, 3]
    with pytest.raises(ValueError, match="0 or more, got -1"):
        dwells(places, -1)


def wander(steps: int, seed: int, size: float = 4.0) -> np.ndarray:
    """A random walk of positions [T, 2]."""
    return np.random.default_rng(seed).normal(0, size, (steps, 2)).cumsum(axis=0) * 0.5 + 30


def late(places: np.ndarray, lag: int) -> np.ndarray:
    return np.concatenate([np.repeat(places[:1], lag, axis=0), places[: len(places) - lag]])


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_known_delay_is_found(lag: int) -> None:
    episode = np.repeat([3, 4, 9], 60)
    target = np.concatenate([wander(60, seed) for seed in range(3)])
    # Attention moves half as far, with an offset of 7 pixels and noise.
    attention = np.concatenate([late(target[episode == e], lag) for e in (3, 4, 9)]) * 0.5 + 7
    attention += np.random.default_rng(5).normal(0, 0.3, attention.shape)
    found = attention_delay(attention, target, episode)
    assert found.lag == lag
    assert found.lags.tolist() == [lag] * 3
    assert found.sums.shape == (3, 11, 4)
    assert found.sums[:, :, 3].tolist() == [[60 - k for k in range(11)]] * 3
    assert found.correlations.argmax() == lag
    assert found.correlations[lag] > 0.98
    # A bootstrap sums resampled episodes, some of them twice.
    resampled = found.sums[[[0, 0, 2], [1, 1, 1]]].sum(axis=1)
    assert best_lag(resampled).tolist() == [lag, lag]


def test_a_correlation_by_hand() -> None:
    target = np.array([[0, 0], [0, 2], [0, 4.0]])
    attention = np.array([[0, 0], [0, 0], [0, 3.0]])
    found = attention_delay(attention, target, max_lag=1)
    # Lag 0: (-2, 0, 2) with (-1, -1, 2): 6 of sqrt(8 * 6). Lag 1: (-1, 1) with (-1.5, 1.5): all.
    assert found.correlations == pytest.approx([6 / math.sqrt(48), 1.0])
    assert found.sums[0].tolist() == [[6, 6, 8, 3], [3, 4.5, 2, 2]]
    assert found.lag == 1


def test_nothing_is_measured_across_episodes() -> None:
    # Within an episode nothing moves; between the two both do.
    places = np.repeat([[10.0, 10.0], [50.0, 50.0]], 20, axis=0)
    assert attention_delay(places, places).lag == 0
    assert math.isnan(attention_delay(places, places, np.repeat([0, 1], 20)).lag)


def test_the_delay_is_nan_where_it_is_undetermined() -> None:
    target = wander(80, 0)
    other = wander(80, 1)
    still = np.full((80, 2), 30.0)
    trembling = still + np.random.default_rng(2).uniform(-0.5, 0.5, (80, 2))
    gone = np.full((80, 2), NAN)
    for attention, target_before in (
        (target, still),
        (trembling, trembling),  # by less than a pixel
        (still, target),
        (target, gone),
        (gone, target),
        (60 - target, target),  # away from it
        (target[:0], target[:0]),
    ):
        found = attention_delay(attention, target_before)
        assert math.isnan(found.lag)
        assert np.isfinite(found.sums).all()
    assert attention_delay(other - target, other - target).lag == 0
    one = attention_delay(target[:1], target[:1])  # shorter than the lags
    assert math.isnan(one.lag)
    assert np.isnan(one.correlations).all()


def test_steps_without_a_target_are_ignored() -> None:
    target = wander(100, 4)
    attention = late(target, 2)
    target[30:50] = NAN
    attention[::7] = NAN
    found = attention_delay(attention, target)
    assert found.lag == 2
    assert found.correlations[2] == pytest.approx(1)
    pairs = sum(bool(np.isfinite(attention[t + 2, 0]) and np.isfinite(target[t, 0])) for t in range(98))
    assert found.sums[0, 2, 3] == pairs


def test_a_delay_needs_positions_of_the_same_steps() -> None:
    with pytest.raises(ValueError, match=r"got \[4, 2\] and \[5, 2\]"):
        attention_delay(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        attention_delay(np.zeros((4, 2)), np.zeros((4, 2)), max_lag=-1)
