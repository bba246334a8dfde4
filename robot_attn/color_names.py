"""Colours in words: the name of a pixel's colour, and the colour on which most of a map's attention lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLOR_NAMES = (
    *("red", "orange", "yellow", "green", "cyan", "blue", "purple", "magenta"),
    *("pink", "brown", "white", "grey", "black"),
)
"""The names, all words of `robot_attn.vocabulary`."""

_HUES = np.array([0.0, 30.0, 55.0, 120.0, 185.0, 225.0, 275.0, 310.0])
"""Hue in degrees of the first eight names; a hue has the name of the nearest."""
_DARK, _BRIGHT = 0.2, 0.8  # value below which a colour is black, and from which a pale one is white
_PALE, _PINK = 0.2, 0.55  # saturation below which a colour is grey, and below which a bright red is pink
_BROWN = 0.6  # value below which an orange is brown


def color_indices(pixels: ArrayLike) -> NDArray[np.int64]:
    """Name the colour of each pixel.

    Args:
        pixels: [..., 3], RGB: uint8, or floats in [0, 1].

    Returns:
        int64 [...], indices into `COLOR_NAMES`.

    Raises:
        ValueError: another last axis than 3, or values outside the range.
    """
    rgb = np.asarray(pixels)
    scale = 255.0 if rgb.dtype == np.uint8 else 1.0
    rgb = rgb.astype(np.float64) / scale
    if rgb.ndim == 0 or rgb.shape[-1] != 3 or not ((rgb >= 0) & (rgb <= 1)).all():
        raise ValueError(
            f"expected RGB [..., 3] of uint8 or of floats from 0 to 1, got {np.asarray(pixels).dtype} "
            f"{list(rgb.shape)}: put the three channels last and scale them"
        )
    value, chroma = rgb.max(axis=-1), np.ptp(rgb, axis=-1)
    saturation = chroma / np.maximum(value, 1e-9)
    red, green, blue = (rgb[..., channel] for channel in range(3))
    divisor = np.where(chroma > 0, chroma, 1.0)
    sector = np.select(
        [value == red, value == green],
        [(green - blue) / divisor % 6.0, (blue - red) / divisor + 2.0],
        (red - green) / divisor + 4.0,
    )
    apart = np.abs(60.0 * sector[..., None] - _HUES)
    nearest = np.minimum(apart, 360.0 - apart).argmin(axis=-1)
    names = {name: index for index, name in enumerate(COLOR_NAMES)}
    colorless = np.select([value < _DARK, value >= _BRIGHT], [names["black"], names["white"]], names["grey"])
    reddish = (nearest == names["red"]) | (nearest == names["magenta"])
    return np.select(
        [
            (value < _DARK) | (saturation < _PALE),
            reddish & (saturation < _PINK) & (value >= _BROWN),
            (nearest == names["orange"]) & (value < _BROWN),
        ],
        [colorless, names["pink"], names["brown"]],
        nearest,
    ).astype(np.int64)


def color_name(rgb: ArrayLike) -> str:
    """Name one colour.

    Args:
        rgb: [3], uint8 or floats in [0, 1].

    Raises:
        ValueError: an error of `color_indices`.
    """
    return COLOR_NAMES[int(color_indices(rgb))]


def main_color(pixels: NDArray[np.uint8], weights: NDArray[np.floating]) -> str:
    """Name the colour that has most of the weight.

    Args:
        pixels: uint8 [..., 3], RGB.
        weights: float [...], non-negative, such as the attention on each pixel.
    """
    totals = np.bincount(color_indices(pixels).reshape(-1), weights.reshape(-1), minlength=len(COLOR_NAMES))
    return COLOR_NAMES[int(totals.argmax())]
