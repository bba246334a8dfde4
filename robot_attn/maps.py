"""Attention maps: weights on a grid of cells, where those cells lie in a frame, and what is computed of them.

    grid = module.grid                                   # AttentionGrid of any perception module
    maps = AttentionMaps(attention, grid)                # NumPy weights [..., rows, cols]
    pixels = maps.normalised().upsampled()               # [..., H, W], each with sum 1
    pixels = upsample_attention(percept.attention, grid) # the same for tensors, with a gradient

A cell stands for its box: the part of the frame that is nearest to its centre. The mass of a cell is spread
evenly over its box, so that sums are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from robot_attn.focus import mass_on_target

BATCH = 16
"""Frames whose maps are held at the frame's size at a time: they are large."""


@dataclass(frozen=True, eq=False, init=False)
class AttentionGrid:
    """Where the cells of an attention map lie in a camera frame; equal grids have equal hashes.

    Args:
        ys: [rows] the cells' centres in pixels, rising. 0 is the centre of the first pixel, so that a frame
            spans -0.5 to H - 0.5.
        xs: [cols] likewise, over -0.5 to W - 0.5.
        image_size: (H, W) of the frame in pixels.

    Raises:
        ValueError: centres that are not one axis of numbers, do not rise or lie outside the frame; or an
            image_size that is not two positive numbers.
    """

    ys: NDArray[np.float32]
    """[rows], read-only."""
    xs: NDArray[np.float32]
    """[cols], read-only."""
    image_size: tuple[int, int]
    """(H, W) in pixels."""
    shape: tuple[int, int] = field(init=False)
    """(rows, cols)."""

    def __init__(self, ys: ArrayLike | Tensor, xs: ArrayLike | Tensor, image_size: tuple[int, int]) -> None:
        size = tuple(int(side) for side in image_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(
                f"expected image_size as (height, width), each 1 or more, got {image_size}: give the frame's "
                "size in pixels"
            )
        height, width = size
        down, across = _centers("ys", ys, height), _centers("xs", xs, width)
        for name, value in {
            "ys": down,
            "xs": across,
            "image_size": (height, width),
            "shape": (len(down), len(across)),
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def even(cls, shape: tuple[int, int], image_size: tuple[int, int]) -> AttentionGrid:
        """The grid whose cells share a frame evenly, as those of a saliency map of unknown origin do.

        Args:
            shape: (rows, cols).
            image_size: (H, W) of the frame in pixels.
        """
        ys, xs = (
            (np.arange(cells, dtype=np.float32) + np.float32(0.5)) * np.float32(pixels) / np.float32(cells)
            - np.float32(0.5)
            for cells, pixels in zip(shape, image_size, strict=True)
        )
        return cls(ys, xs, image_size)

    def resized(self, image_size: tuple[int, int]) -> AttentionGrid:
        """The grid of the same cells in the same frame at another size.

        Args:
            image_size: (H, W) in pixels.
        """
        ys, xs = (
            ((centers + 0.5) * pixels / before - 0.5).astype(np.float32)
            for centers, pixels, before in zip((self.ys, self.xs), image_size, self.image_size, strict=True)
        )
        return AttentionGrid(ys, xs, image_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttentionGrid) and _bits(self) == _bits(other)

    def __hash__(self) -> int:
        return hash(_bits(self))

    @cached_property
    def spacing(self) -> tuple[float, float]:
        """Pixels between neighbouring cells, on average, down and across; all of an axis with one cell."""
        down, across = (
            float(np.diff(centers).mean()) if len(centers) > 1 else float(length)
            for centers, length in zip((self.ys, self.xs), self.image_size, strict=True)
        )
        return down, across

    @cached_property
    def box_shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The share of each cell's box in each pixel of an axis: [rows, H] and [cols, W].

        Every row has sum 1: an upsampled map is `down.T @ cells @ across`.
        """
        height, width = self.image_size
        return _box_shares(self.ys, height), _box_shares(self.xs, width)


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights on a grid, with what drawing, scoring and explaining do to them.

    Indexing and `len` are those of the leading axes, such as steps and heads: `maps[3, 0]` is one map.

    Args:
        weights: float [..., rows, cols]. Maps that are not a distribution are kept, and found by `usable`.
        grid: where the cells lie.

    Raises:
        ValueError: weights that are not an array of floats, or of another shape than the grid.
    """

    weights: NDArray[np.floating]
    """[..., rows, cols]."""
    grid: AttentionGrid

    def __post_init__(self) -> None:
        weights = self.weights
        if not isinstance(weights, np.ndarray) or weights.dtype.kind != "f":
            came = weights.dtype if isinstance(weights, np.ndarray) else type(weights).__name__
            raise ValueError(
                f"expected weights as a NumPy array of floats, got {came}: convert them, a tensor by "
                ".numpy(force=True)"
            )
        if weights.ndim < 2 or weights.shape[-2:] != self.grid.shape:
            raise ValueError(
                f"expected weights [..., {self.grid.shape[0]}, {self.grid.shape[1]}], a cell for each centre "
                f"of the grid, got {list(weights.shape)}: give the grid that these maps are on"
            )

    def __len__(self) -> int:
        return len(self.weights) if self.weights.ndim > 2 else 1

    def __getitem__(self, index: Any) -> AttentionMaps:
        return AttentionMaps(self.weights[index], self.grid)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """[...] which maps can be drawn and scored: see `usable_maps`."""
        return usable_maps(self.weights)

    def cleaned(self) -> AttentionMaps:
        """The maps as they are, and zeros in place of those that are not usable."""
        return AttentionMaps(np.where(self.usable[..., None, None], self.weights, 0), self.grid)

    def normalised(self) -> AttentionMaps:
        """Each usable map with sum 1, and zeros in place of the others."""
        weights = self.cleaned().weights
        total = np.where(self.usable, weights.sum(axis=(-2, -1)), 1)
        return AttentionMaps(weights / total[..., None, None], self.grid)

    def upsampled(self) -> NDArray[np.floating]:
        """The maps at the frame's size; sums are kept. The same bits as `upsample_attention`.

        Returns:
            [..., H, W], of the dtype of the weights.
        """
        lead = self.weights.shape[:-2]
        cells = np.ascontiguousarray(self.weights).reshape(1, -1, *self.grid.shape)
        pixels: NDArray[np.floating] = upsample_attention(torch.from_numpy(cells), self.grid).numpy()
        return pixels.reshape(*lead, *self.grid.image_size)

    @classmethod
    def pooled(cls, pixels: NDArray[np.floating], grid: AttentionGrid) -> AttentionMaps:
        """Average maps over pixels within each cell's box.

        Args:
            pixels: float [..., H, W], such as the saliency of each pixel.
            grid: where the cells lie, in frames of (H, W).

        Returns:
            Maps [..., rows, cols].

        Raises:
            ValueError: pixels of another size than the grid's frame.
        """
        if pixels.ndim < 2 or pixels.shape[-2:] != grid.image_size:
            raise ValueError(
                f"expected maps over pixels [..., {grid.image_size[0]}, {grid.image_size[1]}], as the grid's "
                f"frame, got {list(pixels.shape)}: use a grid of this size (`AttentionGrid.resized`)"
            )
        given = torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, *grid.image_size))
        down, across = (torch.from_numpy(share).to(given) for share in grid.box_shares)
        cells: NDArray[np.floating] = (down @ given @ across.T).numpy()
        return cls(cells.reshape(*pixels.shape[:-2], *grid.shape), grid)

    def mean_over_heads(self, head_weights: NDArray[np.floating] | None = None) -> AttentionMaps:
        """The mean of maps [..., heads, rows, cols] over the heads.

        Args:
            head_weights: [heads] how much each counts, with sum 1; None for the plain mean.

        Returns:
            Maps [..., rows, cols].

        Raises:
            ValueError: maps without an axis of heads, or head_weights that are not one a head with sum 1.
        """
        if self.weights.ndim < 3:
            raise ValueError(
                f"expected maps [..., heads, rows, cols], got {list(self.weights.shape)}: these have none"
            )
        if head_weights is None:
            return AttentionMaps(self.weights.mean(axis=-3), self.grid)
        heads = self.weights.shape[-3]
        if head_weights.shape != (heads,) or not abs(float(head_weights.sum()) - 1) <= 1e-6:
            raise ValueError(
                f"expected a weight for each of {heads} heads, with sum 1, got {head_weights.tolist()}: "
                "divide them by their sum"
            )
        together = np.tensordot(head_weights, self.weights, (0, self.weights.ndim - 3))
        return AttentionMaps(together, self.grid)

    def in_batches(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Upsample a few rows of the first axis at a time, since maps at the frame's size are large.

        Yields:
            Which rows, and their maps [<= BATCH, ..., H, W].
        """
        for start in range(0, len(self.weights), BATCH):
            rows = slice(start, start + BATCH)
            yield rows, self[rows].upsampled()

    def mass_on(
        self, masks: NDArray[np.bool_], *, pixels: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """The mass of maps [T, heads, rows, cols] that falls on the target.

        Args:
            masks: bool [T, H, W], True on the target.
            pixels: [T, heads, H, W], these maps upsampled, where a caller has them already.

        Returns:
            float64 [T, heads], in [0, 1] where maps sum to 1; NaN where the target is not visible or the map
            is not usable.

        Raises:
            ValueError: maps of other axes, or masks of other frames.
        """
        if self.weights.ndim != 4 or masks.shape != (len(self.weights), *self.grid.image_size):
            raise ValueError(
                f"expected maps [T, heads, rows, cols] and masks [T, {self.grid.image_size[0]}, "
                f"{self.grid.image_size[1]}] of the same frames, got {list(self.weights.shape)} and "
                f"{list(masks.shape)}: give a mask a frame"
            )
        if pixels is None:
            batches = self.cleaned().in_batches()
            parts = [self[rows].mass_on(masks[rows], pixels=some) for rows, some in batches]
            return np.concatenate([np.zeros((0, self.weights.shape[1])), *parts])
        visible = np.asarray(masks.any(axis=(1, 2)))
        return np.where(self.usable & visible[:, None], mass_on_target(pixels, masks), np.nan)


def usable_maps(weights: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which maps can be drawn and scored: finite, with no weight below zero and some above it.

    Args:
        weights: float [..., rows, cols].

    Returns:
        bool [...].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = weights.sum(axis=(-2, -1))
    return np.asarray((weights >= 0).all(axis=(-2, -1)) & np.isfinite(total) & (total > 0))


def upsample_attention(attention: Tensor, grid: AttentionGrid) -> Tensor:
    """Spread each cell's mass evenly over its box: the part of the frame that is nearest to its centre.

    Differentiable. For NumPy arrays there is `AttentionMaps.upsampled`.

    Args:
        attention: float [B, heads, rows, cols].
        grid: where the cells lie, as a module's `grid` says.

    Returns:
        float [B, heads, H, W]. The sum over the frame is kept, so it is 1 where it was 1.

    Raises:
        ValueError: attention that is not a tensor, a grid that is not an `AttentionGrid`, or attention of
            another shape than the grid's.
    """
    if not isinstance(attention, Tensor):
        raise ValueError(
            f"expected attention as a torch.Tensor, got {type(attention).__name__}: for a NumPy array use "
            "robot_attn.AttentionMaps(array, grid).upsampled()"
        )
    if not isinstance(grid, AttentionGrid):
        raise ValueError(
            f"expected grid as an AttentionGrid, got {type(grid).__name__}: give a module's `grid`, or "
            "robot_attn.AttentionGrid(ys, xs, image_size)"
        )
    rows, cols = grid.shape
    if attention.ndim != 4 or attention.shape[2:] != (rows, cols):
        raise ValueError(
            f"expected attention [B, heads, {rows}, {cols}], a cell for each centre of the grid, got "
            f"{list(attention.shape)}: give the grid that these maps are on"
        )
    down, across = (torch.from_numpy(share).to(attention) for share in grid.box_shares)
    return down.T @ attention @ across


def _bits(grid: AttentionGrid) -> tuple[bytes, bytes, tuple[int, int]]:
    return grid.ys.tobytes(), grid.xs.tobytes(), grid.image_size


def _centers(name: str, centers: ArrayLike | Tensor, length: int) -> NDArray[np.float32]:
    """Checked, as a read-only array of our own."""
    given = centers.numpy(force=True) if isinstance(centers, Tensor) else centers
    array = np.array(given, dtype=np.float32)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"expected {name} as one centre or more along one axis, got {list(array.shape)}: give one "
            "number a row, and one a column"
        )
    edges = array.astype(np.float64) + 0.5  # from pixel centres to pixel edges: the axis is [0, length]
    if not (np.diff(edges) > 0).all() or not 0 <= edges[0] <= edges[-1] <= length:
        raise ValueError(
            f"expected {name} that rise and lie in the frame's {length} pixels, got {array.tolist()}: give "
            "the cells' centres in pixels, where 0 is the centre of the first"
        )
    array.flags.writeable = False
    return array


def _box_shares(centers: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """[cells, length]: the share of each cell's box in each pixel of an axis; a row sums to 1."""
    at = centers.astype(np.float64) + 0.5
    edges = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [float(length)]])
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length, dtype=np.float64)
    overlap = np.maximum(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0)
    return np.asarray(overlap / (stop - start))
