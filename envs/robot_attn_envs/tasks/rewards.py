"""Reward terms: bounded pure functions of distances and angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def linear_falloff(value: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Reward that is 1 at a value of 0 and falls linearly to 0 at `limit` and beyond.

    Args:
        value: distances or angles, float64 of any shape, at least 0.
        limit: where the reward reaches 0, in the unit of `value`, positive.

    Returns:
        float64 of the shape of `value`, in [0, 1].

    Raises:
        ValueError: `limit` is not positive.
    """
    if not limit > 0:
        raise ValueError(f"expected a positive limit, got {limit}")
    return np.clip(1.0 - value / limit, 0.0, 1.0)


def progress(
    before: NDArray[np.float64], now: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance covered in one step, as a fraction of the distance at the start of the episode.

    Over an episode it sums to at most 1, which is arrival.

    Args:
        before: distance before the step, float64 of any shape, at least 0.
        now: distance after the step, same shape and unit.
        start: distance at the start of the episode, same shape and unit, positive.

    Returns:
        float64 of the same shape, at most 1; negative where the distance grew.
    """
    return (before - now) / start
