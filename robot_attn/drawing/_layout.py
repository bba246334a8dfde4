"""Layout of a replay picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 [h, w, 3] RGB."""

MIN_SIZE = 600
"""Smallest height of a replay in pixels at which its text is readable."""


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels.

    Args:
        x: left edge.
        y: top edge.
        w: width.
        h: height.
    """

    x: int
    y: int
    w: int
    h: int

    def of(self, image: Image) -> Image:
        """Return the part of `image` in this rectangle, as a view."""
        return image[self.y : self.y + self.h, self.x : self.x + self.w]


@dataclass(frozen=True)
class Layout:
    """Positions of the parts of a replay picture, in pixels.

    Attributes:
        height: height of the picture.
        width: width of the picture.
        main: large frame with the best head's heat.
        actions: action bars.
    """

    height: int
    width: int
    unit: float
    """Length of one pixel of a picture 720 pixels high."""
    main: Box
    tiles: tuple[Box, ...]
    """The camera frame without heat, then one tile per head."""
    plots: tuple[Box, ...]
    """Plots of the return, the reward, and the mass on the target."""
    actions: Box
    footer: int
    """Baseline of the footer's text."""


def plan(image_size: tuple[int, int], num_heads: int, size: int) -> Layout:
    """Lay out a replay picture of a given height.

    The tiles are arranged in as many rows as bring the picture nearest to 4:3.

    Args:
        image_size: (H, W) of the frames in pixels.
        num_heads: number of attention maps per frame.
        size: height of the picture in pixels.

    Raises:
        ValueError: too many heads for this height.
    """
    unit = size / 720

    def px(value: float) -> int:
        return round(value * unit)

    margin, gap, caption, header, strip, footer = px(16), px(10), px(22), px(42), px(148), px(30)
    room = size - header - caption - gap - strip - footer
    main_h, main_w = _fit(image_size, room, px(760))
    best: tuple[float, int, tuple[int, int]] | None = None
    count = num_heads + 1
    for rows in range(1, count + 1):
        columns = math.ceil(count / rows)
        tile_h = (main_h + caption - (rows - 1) * gap) // rows - caption
        if tile_h < px(40) or (rows - 1) * columns >= count:
            continue
        tile = _fit(image_size, tile_h, px(600))
        width = 3 * margin + main_w + columns * tile[1] + (columns - 1) * gap
        misfit = abs(math.log(width / size * 3 / 4))
        if best is None or misfit < best[0]:
            best = (misfit, columns, tile)
    if best is None:
        raise ValueError(
            f"expected fewer heads in a picture {size} pixels high, got {num_heads}: increase its size"
        )
    _, columns, (tile_h, tile_w) = best
    rows = math.ceil(count / columns)
    width = 3 * margin + main_w + columns * tile_w + (columns - 1) * gap
    width = max(width, px(760))
    width += width % 2
    top = header + caption
    # The tiles span the height of the large frame and are aligned to the right edge.
    left = width - margin - columns * tile_w - (columns - 1) * gap
    pitch = (main_h - tile_h) / (rows - 1) if rows > 1 else 0
    tiles = tuple(
        Box(left + (i % columns) * (tile_w + gap), top + round((i // columns) * pitch), tile_w, tile_h)
        for i in range(count)
    )
    spare = left - 2 * margin - main_w
    main = Box(margin + spare // 2, top, main_w, main_h)
    strip_top = top + main_h + gap + px(4)
    strip_h = size - strip_top - footer
    inner = width - 2 * margin - 3 * gap
    plot_w, action_w = round(inner * 0.235), inner - 3 * round(inner * 0.235)
    plots = tuple(Box(margin + i * (plot_w + gap), strip_top, plot_w, strip_h) for i in range(3))
    actions = Box(margin + 3 * (plot_w + gap), strip_top, action_w, strip_h)
    return Layout(size, width, unit, main, tiles, plots, actions, size - px(10))


def _fit(image_size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Fit a frame into `height` x `width`: the largest (h, w), a whole multiple of the frame if enlarged."""
    scale = min(height / image_size[0], width / image_size[1])
    if scale >= 2:
        scale = math.floor(scale)
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
