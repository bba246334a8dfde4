"""Random colours at a distance in hue from a given one."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.objects import hsv_to_rgb
from robot_attn_envs.tasks.task import Floats

APART = 50.0  # degrees, smallest difference in hue between the target and anything else


def hue_of(rgb: NDArray[np.floating]) -> float:
    """Hue of an RGB colour [3] in [0, 1]; degrees in [0, 360)."""
    hue, _, _ = colorsys.rgb_to_hsv(*rgb.tolist())
    return 360.0 * hue


def hues_apart(rng: np.random.Generator, count: int, hue: float) -> Floats:
    """Random hues at least 50 degrees from `hue`; degrees in [0, 360), float64 [count]."""
    hues: Floats = (hue + rng.uniform(APART, 360.0 - APART, count)) % 360.0
    return hues


def held_out_colors(rng: np.random.Generator, count: int, hue: float) -> Floats:
    """Random colours for distractors that training never shows, at least 50 degrees in hue from `hue`.

    Training has saturations of 0.45 to 1 with values of 0.4 to 0.95; these are paler or darker.

    Returns:
        RGB, float64 [count, 3] in [0, 1].
    """
    pale = rng.random(count) < 0.5
    saturation = np.where(pale, rng.uniform(0.12, 0.4, count), rng.uniform(0.3, 0.9, count))
    value = np.where(pale, rng.uniform(0.6, 0.95, count), rng.uniform(0.15, 0.35, count))
    return hsv_to_rgb(hues_apart(rng, count, hue), saturation, value)
