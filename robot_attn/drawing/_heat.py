"""Heat over a frame: how many times more weight a place got than it would get from uniform attention.

The heat has one scale for every frame, head and family: a logarithm from 1 (clear) to the number of cells
(hottest: all weight in one cell). So uniform attention draws nothing, and a warm colour means the same in
every picture.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing._layout import Box, Image
from robot_attn.maps import AttentionGrid
from robot_attn.optional import import_cv2

_LEAST_HUE, _MOST_ALPHA = 0.3, 0.82


@cache
def _palette() -> tuple[Image, Image]:
    """Heat level 0 to 255 -> colour times its opacity [256, 1, 3], and 255 times what the frame keeps [256].

    The colours are inferno's without its black end, which would read as shadow on a frame.
    """
    cv2 = import_cv2()
    level = np.linspace(0.0, 1.0, 256)
    hue = np.rint(255 * (_LEAST_HUE + (1 - _LEAST_HUE) * level)).astype(np.uint8)
    color = cv2.applyColorMap(hue[:, None], cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float64)
    alpha = _MOST_ALPHA * np.minimum(1.0, 1.6 * level)
    return (
        np.ascontiguousarray(np.rint(color * alpha[:, None, None]).astype(np.uint8)),
        np.rint(255 * (1 - alpha)).astype(np.uint8),
    )


class HeatScale:
    """Attention cells -> heat levels uint8 at a picture's pixels, for one grid and picture size.

    Args:
        grid: where the cells lie in the frame.
        size: (h, w) of the picture.
    """

    def __init__(self, grid: AttentionGrid, size: tuple[int, int]) -> None:
        # A cell's share of the frame is what uniform attention would put there: the inverse of its density.
        down, across = (1 / shares.max(axis=1) for shares in grid.box_shares)
        cells = down[:, None] * across
        self._share = (cells / cells.sum()).astype(np.float32)
        self._log_cells = math.log(max(cells.size, 2))
        self._size = size
        self._down = _between(grid.ys, grid.image_size[0], size[0])
        self._across = np.ascontiguousarray(_between(grid.xs, grid.image_size[1], size[1]).T)

    def cell_levels(self, attention: NDArray[np.floating]) -> Image:
        """The heat level of each cell.

        Args:
            attention: float [..., rows, cols], each map with sum 1.

        Returns:
            uint8 [..., rows, cols]: 0 at or below uniform attention, 255 where a cell has all of it.
        """
        return np.asarray(np.rint(self._cell_levels(attention)), dtype=np.uint8)

    def levels(self, attention: NDArray[np.floating]) -> Image:
        """The heat level of each pixel of the picture.

        Between the cells' centres the level runs smoothly, without rising above either.

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
                f"expected attention [..., {', '.join(map(str, self._share.shape))}], a weight for each of "
                f"the centres, got {list(attention.shape)}"
            )
        with np.errstate(divide="ignore"):
            level = np.log(attention / self._share) / self._log_cells
        return np.asarray(255 * np.clip(level, 0.0, 1.0).astype(np.float32))


@lru_cache(maxsize=8)
def heat_scale(grid: AttentionGrid, size: tuple[int, int]) -> HeatScale:
    """A scale kept for the next frames of the same episode: it takes longer to make than to use."""
    return HeatScale(grid, size)


def _between(centers: NDArray[np.float32], pixels: int, size: int) -> NDArray[np.float32]:
    """Smooth interpolation as a matrix [size, n]: from `centers` in a frame of `pixels` to `size` places."""
    at = (np.arange(size) + 0.5) * pixels / size - 0.5
    straight = np.stack([np.interp(at, centers, row) for row in np.eye(len(centers))], axis=1)
    return (straight**2 * (3 - 2 * straight)).astype(
        np.float32
    )  # keeps rows at sum 1, since s(w) + s(1 - w) = 1


def blend_heat(image: Image, levels: Image) -> Image:
    """Lay heat over a picture.

    Args:
        image: uint8 [h, w, 3] RGB; it is left as it is.
        levels: uint8 [h, w], as `HeatScale.levels` gives them.

    Returns:
        A new picture, uint8 [h, w, 3].
    """
    cv2 = import_cv2()
    added, kept = _palette()
    blended = image.copy()
    x, y, width, height = cv2.boundingRect(levels)  # beyond it there is no heat
    if width > 0:
        hot = Box(x, y, width, height)
        part, level = hot.of(blended), hot.of(levels)
        faded = cv2.multiply(part, cv2.cvtColor(cv2.LUT(level, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)
        part[:] = cv2.add(faded, cv2.applyColorMap(level, added))
    return blended
