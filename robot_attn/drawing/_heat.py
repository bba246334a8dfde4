"""Heat maps over frames: attention relative to uniform attention, on one logarithmic scale.

The scale is the same for every frame, head and family: from 1, transparent, to the number of cells, where one
cell has all the weight. So uniform attention is invisible, and a colour means the same in every picture.

The colours run from dark to light through magenta, which floors, tables, skies and robots seldom have, and a
white line marks the middle of the scale, so that heat differs from any background.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing._layout import Box, Image
from robot_attn.maps import AttentionGrid
from robot_attn.optional import import_cv2

HEAT_LINE = 128
"""Lowest heat level inside the white line: attention of √n times uniform, on a grid of n cells."""

_STOPS = (0.0, 0.3, 0.65, 1.0)
_COLORS = ((20, 0, 60), (90, 0, 140), (235, 0, 200), (255, 160, 250))
_MAX_ALPHA = 0.9


@cache
def heat_palette() -> NDArray[np.uint8]:
    """Compute the colour and opacity of each heat level, uint8 [256, 4], RGBA, opacity from 0 to 255."""
    level = np.linspace(0.0, 1.0, 256)
    color = np.stack([np.interp(level, _STOPS, channel) for channel in np.transpose(_COLORS)], axis=1)
    alpha = 255 * _MAX_ALPHA * np.minimum(1.0, 2.2 * level)
    return np.asarray(np.rint(np.column_stack([color, alpha])), dtype=np.uint8)


@cache
def _tables() -> tuple[Image, Image]:
    """Compute, per heat level, the colour times its opacity [256, 1, 3], and 255 * (1 - opacity) [256]."""
    palette = heat_palette()
    color, alpha = palette[:, None, :3] * (palette[:, None, 3:] / 255), palette[:, 3]
    return np.ascontiguousarray(np.rint(color).astype(np.uint8)), 255 - alpha


class HeatScale:
    """Conversion of attention to heat levels, for one grid and picture size.

    Args:
        grid: positions of the cells in the frame.
        size: (h, w) of the picture in pixels.
    """

    def __init__(self, grid: AttentionGrid, size: tuple[int, int]) -> None:
        # A cell's share of the frame is its weight under uniform attention: the inverse of its density.
        down, across = (1 / shares.max(axis=1) for shares in grid.box_shares)
        cells = down[:, None] * across
        self._share = (cells / cells.sum()).astype(np.float32)
        self._log_cells = math.log(max(cells.size, 2))
        self._size = size
        self._down = _between(grid.ys, grid.image_size[0], size[0])
        self._across = np.ascontiguousarray(_between(grid.xs, grid.image_size[1], size[1]).T)

    def cell_levels(self, attention: NDArray[np.floating]) -> Image:
        """Compute the heat level of each cell.

        Args:
            attention: float [..., rows, cols], each map with sum 1.

        Returns:
            uint8 [..., rows, cols]: 0 at or below uniform attention, 255 where a cell has all of it.
        """
        return np.asarray(np.rint(self._cell_levels(attention)), dtype=np.uint8)

    def levels(self, attention: NDArray[np.floating]) -> Image:
        """Compute the heat level of each pixel of the picture, interpolated smoothly between cell centres.

        Args:
            attention: float [K, rows, cols], each map with sum 1.

        Returns:
            uint8 [K, h, w]: 0 at or below uniform attention, 255 where a cell has all of it.
        """
        cv2 = import_cv2()
        levels = np.empty((len(attention), *self._size), dtype=np.uint8)
        for cells, level in zip(self._cell_levels(attention), levels, strict=True):
            cv2.convertScaleAbs(self._down @ cells @ self._across, dst=level)
        return levels

    def _cell_levels(self, attention: NDArray[np.floating]) -> NDArray[np.float32]:
        if attention.shape[-2:] != self._share.shape:
            raise ValueError(
                f"expected attention [..., {', '.join(map(str, self._share.shape))}], one weight per cell of "
                f"the grid, got {list(attention.shape)}: give the grid of these maps"
            )
        with np.errstate(divide="ignore"):
            level = np.log(attention / self._share) / self._log_cells
        return np.asarray(255 * np.clip(level, 0.0, 1.0).astype(np.float32))


@lru_cache(maxsize=8)
def heat_scale(grid: AttentionGrid, size: tuple[int, int]) -> HeatScale:
    """Return a cached `HeatScale`: building one takes longer than using it."""
    return HeatScale(grid, size)


def _between(centers: NDArray[np.float32], pixels: int, size: int) -> NDArray[np.float32]:
    """Build the matrix [size, n] of a smooth interpolation from n `centers` on `pixels` to `size` pixels."""
    at = (np.arange(size) + 0.5) * pixels / size - 0.5
    linear = np.stack([np.interp(at, centers, row) for row in np.eye(len(centers))], axis=1)
    # The smoothstep s keeps row sums of 1, since s(w) + s(1 - w) = 1.
    return (linear**2 * (3 - 2 * linear)).astype(np.float32)


def blend_heat(image: Image, levels: Image) -> Image:
    """Blend heat over a picture, with a white line along the edge of the levels from `HEAT_LINE` on.

    Args:
        image: uint8 [h, w, 3] RGB; not changed.
        levels: uint8 [h, w], as returned by `HeatScale.levels`.

    Returns:
        A new picture, uint8 [h, w, 3].
    """
    cv2 = import_cv2()
    added, kept = _tables()
    blended = image.copy()
    hot = _box(levels)  # no heat outside it
    if hot.w > 0:
        part, level = hot.of(blended), hot.of(levels)
        faded = cv2.multiply(part, cv2.cvtColor(cv2.LUT(level, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)
        part[:] = cv2.add(faded, cv2.applyColorMap(level, added))
        high = cv2.threshold(levels, HEAT_LINE - 1, 255, cv2.THRESH_BINARY)[1]
        side = 3 + 2 * (min(levels.shape) // 480)
        ring = _box(high, side // 2)
        if ring.w > 0:
            inside = ring.of(high)
            line = inside - cv2.erode(inside, np.ones((side, side), np.uint8))
            ring.of(blended)[:] = cv2.max(ring.of(blended), cv2.cvtColor(line, cv2.COLOR_GRAY2RGB))
    return blended


def _box(image: Image, room: int = 0) -> Box:
    """Find the smallest box of the pixels that are not zero, with `room` around it inside the picture."""
    x, y, width, height = import_cv2().boundingRect(image)
    left, top = max(0, x - room), max(0, y - room)
    right, bottom = min(image.shape[1], x + width + room), min(image.shape[0], y + height + room)
    return Box(left, top, right - left, bottom - top) if width > 0 else Box(0, 0, 0, 0)
