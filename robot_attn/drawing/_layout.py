"""Where everything lies in a replay picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""[h, w, 3] RGB."""

MIN_SIZE = 600
"""The smallest height of a replay in pixels: below it the text cannot be read."""


@dataclass(frozen=True)
class Box:
    """A rectangle in the picture: left, top, width and height in pixels."""

    x: int
    y: int
    w: int
    h: int

    def of(self, image: Image) -> Image:
        """The part of `image` in this rectangle, as a view."""
        return image[self.y : self.y + self.h, self.x : self.x + self.w]


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a replay picture."""

    height: int
    width: int
    unit: float
    """One pixel of a picture 720 pixels high."""
    main: Box
    tiles: tuple[Box, ...]
    """The clean camera frame, then one tile a head."""
    plots: tuple[Box, ...]
    """Return, reward, and mass on the target."""
    actions: Box
    footer: int
    """The footer's baseline."""


def plan(image_size: tuple[int, int], num_heads: int, size: int) -> Layout:
    """Lay out a replay picture; its width follows from the content.

    The tiles get the number of rows that brings the picture nearest to 4:3.

    Args:
        image_size: (H, W) of the frames in pixels.
        num_heads: how many maps a frame has.
        size: height of the picture in pixels.

    Raises:
        ValueError: more heads than there is room for.
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
        raise ValueError(f"{num_heads} heads do not fit in a picture {size} pixels high; draw it larger")
    _, columns, (tile_h, tile_w) = best
    rows = math.ceil(count / columns)
    width = 3 * margin + main_w + columns * tile_w + (columns - 1) * gap
    width = max(width, px(760))
    width += width % 2
    top = header + caption
    # The grid is spread over the height of the large frame, and keeps to the right edge.
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
    """The largest (h, w) in `height` and `width` of the frame's shape, a whole multiple of it if it grows."""
    scale = min(height / image_size[0], width / image_size[1])
    if scale >= 2:
        scale = math.floor(scale)
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
