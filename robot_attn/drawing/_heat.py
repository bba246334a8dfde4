"""Heat maps over frames: attention relative to uniform attention, on one logarithmic scale.

The scale is the same for every frame, head and family: from 1, transparent, to the number of cells, where one
cell has all the weight. So uniform attention is invisible, and a colour means the same in every picture.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing._layout import Box, Image
from robot_attn.maps import AttentionGrid
from robot_attn.optional import import_cv2

_MIN_HUE, _MAX_ALPHA = 0.3, 0.82


@cache
def _palette() -> tuple[Image, Image]:
    """Compute, per heat level, the colour times its opacity [256, 1, 3], and 255 * (1 - opacity) [256].

    The colours are those of inferno without its black end, which would look like a shadow on a frame.
    """
    cv2 = import_cv2()
    level = np.linspace(0.0, 1.0, 256)
    hue = np.rint(255 * (_MIN_HUE + (1 - _MIN_HUE) * level)).astype(np.uint8)
    color = cv2.applyColorMap(hue[:, None], cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float64)
    alpha = _MAX_ALPHA * np.minimum(1.0, 1.6 * level)
    return (
        np.ascontiguousarray(np.rint(color * alpha[:, None, None]).astype(np.uint8)),
        np.rint(255 * (1 - alpha)).astype(np.uint8),
    )


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
    """Blend heat over a picture.

    Args:
        image: uint8 [h, w, 3] RGB; not changed.
        levels: uint8 [h, w], as returned by `HeatScale.levels`.

    Returns:
        A new picture, uint8 [h, w, 3].
    """
    cv2 = import_cv2()
    added, kept = _palette()
    blended = image.copy()
    x, y, width, height = cv2.boundingRect(levels)  # no heat outside it
    if width > 0:
        hot = Box(x, y, width, height)
        part, level = hot.of(blended), hot.of(levels)
        faded = cv2.multiply(part, cv2.cvtColor(cv2.LUT(level, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)
        part[:] = cv2.add(faded, cv2.applyColorMap(level, added))
    return blended
