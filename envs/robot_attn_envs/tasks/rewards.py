"""Rewards as bounded pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def linear_falloff(value: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """1 where `value` is 0, falling linearly to 0 at `limit` and staying there.

    Args:
        value: distances or angles, any shape, at least 0.
        limit: where the reward reaches 0, in the unit of `value`, positive.

    Returns:
        float64 of the shape of `value`, in [0, 1].
    """
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    return np.clip(1.0 - value / limit, 0.0, 1.0)


def progress(
    before: NDArray[np.float64], now: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much of a distance was covered in a step, as a share of what it was at the start.

    Over an episode it adds up to at most 1, which is arrival.

    Args:
        before: distance before the step, any shape, at least 0.
        now: distance after it, of the same shape and unit.
        start: distance at the episode's start, of the same shape and unit, positive.

    Returns:
        float64 of the same shape, at most 1; negative where the distance grew.
    """
    return (before - now) / start
