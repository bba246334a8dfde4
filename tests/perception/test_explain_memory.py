"""How far back a frame matters, on memories made of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from robot_attn.explain import Advance, LagEffects, frame_lag_effects, memory_span, other_episodes

EPISODES, STEPS = 12, 60
RNG = np.random.default_rng(0)
EPISODE = np.repeat(np.arange(EPISODES), STEPS)
FRAMES = RNG.integers(0, 256, (EPISODES * STEPS, 2, 2, 1), dtype=np.uint8)
SHADE = FRAMES.mean(axis=(1, 2, 3))


def recalls(weights: Sequence[float]) -> Advance:
    """A policy whose action is a weighted sum of the last frames, the newest first."""
    length = len(weights)

    def recorded(row: int) -> list[float]:
        before = [row - age for age in range(1, length)]
        return [SHADE[at] if at >= 0 and EPISODE[at] == EPISODE[row] else 0.0 for at in before]

    def advance(frames: Any, rows: NDArray[np.int64], memory: Any) -> tuple[NDArray[Any], Any]:
        if memory is None:
            memory = np.array([recorded(int(row)) for row in rows]).reshape(len(rows), length - 1)
        register = np.concatenate([frames.mean(axis=(1, 2, 3))[:, None], memory], axis=1)
        return (register @ weights)[:, None], register[:, : length - 1]

    return advance


def effects_of(advance: Advance, **options: Any) -> LagEffects:
    return frame_lag_effects(advance, FRAMES, other_episodes(FRAMES, EPISODE), EPISODE, **options)


@pytest.mark.parametrize(
    ("weights", "lag", "half_lag"),
    [([1], 0, 0), ([0, 0, 0, 0, 0, 1], 5, 5), ([1] * 6, 5, 2), ([2, 0, 0, 1], 3, 0)],
)
def test_the_span_is_that_of_the_memory(weights: list[float], lag: int, half_lag: int) -> None:
    effects = effects_of(recalls(weights))
    span = memory_span(effects)
    assert (span.lag, span.half_lag, span.max_lag) == (lag, half_lag, 50)
    unused = np.array(weights + [0] * (51 - len(weights))) == 0
    assert (effects.alone[:, unused] == 0).all()
    # From the oldest frame in memory on, the last frames are all that matters.
    assert_allclose(effects.together[:, len(weights) - 1 :], effects.total[:, len(weights) - 1 :])


def test_a_decaying_memory_halves_at_its_half_life() -> None:
    half_life = 8.0
    weights = 0.5 ** (np.arange(STEPS) / half_life)
    effects = effects_of(recalls(weights.tolist()))
    mean = effects.alone_by_episode.mean(axis=0)
    # One replaced frame fades in the same way at every start, so that its curve is exact.
    assert_allclose(mean / mean[0], weights[: len(mean)], rtol=1e-9)
    assert memory_span(effects).half_lag == 7  # half of the sum lies in the last 8 frames


def test_what_is_never_replaced_has_no_span() -> None:
    effects = frame_lag_effects(recalls([1, 1]), FRAMES, FRAMES, EPISODE)
    assert not effects.alone.any() and not effects.together.any()
    span = memory_span(effects)
    assert span.lag is None and span.half_lag is None


def test_small_effects_are_not_remembered() -> None:
    weights = [1.0] + [0.0] * 9 + [0.01]
    effects = effects_of(recalls(weights))
    assert memory_span(effects).lag == 0
    assert memory_span(effects, min_share=0.001).lag == 10


def test_no_lag_is_found_in_noise() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        noise = 0.02 + 0.01 * rng.standard_normal((10, 30))  # each lag is at the limit exactly
        ones = np.ones(noise.shape)
        wrong += memory_span(LagEffects(noise, ones, ones, np.arange(10))).lag is not None
    assert wrong <= 20  # 10 expected at a level of 0.05, whatever the number of lags; 3 standard deviations


def test_episodes_that_end_leave_later_lags_unknown() -> None:
    episode = np.repeat([0, 1], [12, 5])
    frames = FRAMES[:17]
    effects = frame_lag_effects(
        lambda changed, rows, memory: (np.zeros((len(rows), 1)), None), frames, frames, episode, max_lag=8
    )
    assert effects.alone.shape == (5, 9) and effects.episode.tolist() == [0, 0, 0, 0, 1]
    assert np.isfinite(effects.alone[-1]).tolist() == [True] * 5 + [False] * 4


@pytest.mark.parametrize("used", range(3))
def test_a_frame_is_replaced_in_every_stack_that_holds_it(used: int) -> None:
    rows = np.arange(len(FRAMES))
    older = [FRAMES[np.maximum(rows - age, EPISODE * STEPS)] for age in (2, 1, 0)]
    stacks = np.concatenate(older, axis=3)
    effects = frame_lag_effects(
        lambda frames, rows, memory: (np.float64(frames[..., used]).mean(axis=(1, 2))[:, None], None),
        stacks,
        other_episodes(stacks, EPISODE),
        EPISODE,
        max_lag=4,
        stack=3,
    )
    assert (effects.alone.mean(axis=0) > 0).tolist() == [age == 2 - used for age in range(5)]
    assert_array_equal(effects.together[:, : 2 - used], 0)
    assert (effects.together[:, 2 - used :].mean(axis=0) > 0).all()


def test_another_episode_has_the_same_step() -> None:
    episode = np.repeat([0, 1, 2], [3, 5, 4])
    frames = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    others = other_episodes(frames, episode).ravel()
    step = np.concatenate([np.arange(3), np.arange(5), np.arange(4)])
    assert (episode[others] != episode).all()
    lengths = np.array([3, 5, 4])
    assert_array_equal(step[others], np.minimum(step, lengths[episode[others]] - 1))
    assert {(own, other) for own, other in zip(episode, episode[others], strict=True)} <= {
        (own, other) for own in range(3) for other in range(3) if own != other
    }
    with pytest.raises(ValueError, match="expected at least two episodes, got 1"):
        other_episodes(frames, np.zeros(12, np.int64))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="a stack of 2 frames, got 1 channels"):
        effects_of(recalls([1]), stack=2)
    with pytest.raises(ValueError, match="max_lag of at least 0"):
        effects_of(recalls([1]), max_lag=-1)
    with pytest.raises(ValueError, match="an episode for each"):
        frame_lag_effects(recalls([1]), FRAMES, FRAMES[:3], EPISODE)
    few = LagEffects(np.ones((3, 2)), np.ones((3, 2)), np.ones((3, 2)), np.arange(3))
    with pytest.raises(ValueError, match="at least 8 episodes, got 3"):
        memory_span(few)
