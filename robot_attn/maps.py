"""Attention maps: weights on a grid of cells, the cells' positions in a frame, and operations on them.

    grid = module.grid                                   # AttentionGrid of any perception module
    maps = AttentionMaps(attention, grid)                # NumPy weights [..., rows, cols]
    pixels = maps.normalised().upsampled()               # [..., H, W], each with sum 1
    pixels = upsample_attention(percept.attention, grid) # the same for tensors, differentiable

The box of a cell is the part of the frame nearest to its centre. Upsampling spreads the mass of a cell evenly
over its box, which preserves sums.
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

from robot_attn.focus import mass_by_label, mass_on_target

BATCH = 16
"""Number of frames whose maps are upsampled at a time, to limit memory."""


@dataclass(frozen=True, eq=False, init=False)
class AttentionGrid:
    """Positions of the cells of an attention map in a camera frame; equal grids have equal hashes.

    Args:
        ys: float [rows], centres of the rows in pixels, ascending. 0 is the centre of the first pixel, so a
            frame spans -0.5 to H - 0.5.
        xs: float [cols], centres of the columns, from -0.5 to W - 0.5.
        image_size: (H, W) of the frame in pixels.

    Raises:
        ValueError: centres that are not a vector, not ascending or outside the frame; or an image_size that
            is not two positive numbers.
    """

    ys: NDArray[np.float32]
    """[rows], centres of the rows in pixels; read-only."""
    xs: NDArray[np.float32]
    """[cols], centres of the columns in pixels; read-only."""
    image_size: tuple[int, int]
    """(H, W) in pixels."""
    shape: tuple[int, int] = field(init=False)
    """(rows, cols)."""

    def __init__(self, ys: ArrayLike | Tensor, xs: ArrayLike | Tensor, image_size: tuple[int, int]) -> None:
        size = tuple(int(side) for side in image_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(
                f"expected image_size as (height, width), each at least 1, got {image_size}: give the size "
                "of the frame in pixels"
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
        """Build the grid of equal cells that tile a frame, for a saliency map without a known grid.

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
        """Scale the grid to the same frame at another size.

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
        """Mean distance (down, across) of neighbouring cells in pixels; the frame's side for one cell."""
        down, across = (
            float(np.diff(centers).mean()) if len(centers) > 1 else float(length)
            for centers, length in zip((self.ys, self.xs), self.image_size, strict=True)
        )
        return down, across

    @cached_property
    def box_shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of each cell's box in the pixels of each axis: down [rows, H] and across [cols, W].

        Each row sums to 1. A map of cells [rows, cols] is upsampled by `down.T @ cells @ across`.
        """
        height, width = self.image_size
        return _box_shares(self.ys, height), _box_shares(self.xs, width)


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights on a grid, with the operations that drawing, metrics and explanations need.

    Indexing and `len` apply to the leading axes, such as steps and heads: `maps[3, 0]` is one map.

    Args:
        weights: float [..., rows, cols]. Maps that are not a distribution are accepted; see `usable`.
        grid: positions of the cells in the frame.

    Raises:
        ValueError: weights that are not a float array, or whose shape does not match the grid.
    """

    weights: NDArray[np.floating]
    """[..., rows, cols]."""
    grid: AttentionGrid

    def __post_init__(self) -> None:
        weights = self.weights
        if not isinstance(weights, np.ndarray) or weights.dtype.kind != "f":
            found = weights.dtype if isinstance(weights, np.ndarray) else type(weights).__name__
            raise ValueError(
                f"expected weights as a NumPy array of floats, got {found}: convert them, a tensor by "
                ".numpy(force=True)"
            )
        if weights.ndim < 2 or weights.shape[-2:] != self.grid.shape:
            raise ValueError(
                f"expected weights [..., {self.grid.shape[0]}, {self.grid.shape[1]}], one per cell of the "
                f"grid, got {list(weights.shape)}: give the grid of these maps"
            )

    def __len__(self) -> int:
        return len(self.weights) if self.weights.ndim > 2 else 1

    def __getitem__(self, index: Any) -> AttentionMaps:
        return AttentionMaps(self.weights[index], self.grid)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """bool [...], True for maps that can be drawn and scored; see `usable_maps`."""
        return usable_maps(self.weights)

    def cleaned(self) -> AttentionMaps:
        """Return the maps with zeros in place of those that are not usable."""
        return AttentionMaps(np.where(self.usable[..., None, None], self.weights, 0), self.grid)

    def normalised(self) -> AttentionMaps:
        """Return the usable maps scaled to sum 1, and zeros in place of the others."""
        weights = self.cleaned().weights
        total = np.where(self.usable, weights.sum(axis=(-2, -1)), 1)
        return AttentionMaps(weights / total[..., None, None], self.grid)

    def upsampled(self) -> NDArray[np.floating]:
        """Upsample the maps to the frame's size, with the same bits as `upsample_attention`.

        Returns:
            [..., H, W] of the weights' dtype, with the sums of the maps.
        """
        lead = self.weights.shape[:-2]
        cells = np.ascontiguousarray(self.weights).reshape(1, -1, *self.grid.shape)
        pixels: NDArray[np.floating] = upsample_attention(torch.from_numpy(cells), self.grid).numpy()
        return pixels.reshape(*lead, *self.grid.image_size)

    @classmethod
    def pooled(cls, pixels: NDArray[np.floating], grid: AttentionGrid) -> AttentionMaps:
        """Average-pool pixel maps over the box of each cell.

        Args:
            pixels: float [..., H, W], such as pixel saliency.
            grid: positions of the cells in frames of (H, W).

        Returns:
            Maps [..., rows, cols].

        Raises:
            ValueError: pixels whose size is not that of the grid's frame.
        """
        if pixels.ndim < 2 or pixels.shape[-2:] != grid.image_size:
            raise ValueError(
                f"expected pixel maps [..., {grid.image_size[0]}, {grid.image_size[1]}], as the grid's "
                f"frame, got {list(pixels.shape)}: use a grid of this size (`AttentionGrid.resized`)"
            )
        given = torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, *grid.image_size))
        down, across = (torch.from_numpy(share).to(given) for share in grid.box_shares)
        cells: NDArray[np.floating] = (down @ given @ across.T).numpy()
        return cls(cells.reshape(*pixels.shape[:-2], *grid.shape), grid)

    def mean_over_heads(self, head_weights: NDArray[np.floating] | None = None) -> AttentionMaps:
        """Average maps [..., heads, rows, cols] over the heads.

        Args:
            head_weights: float [heads], weight of each head, with sum 1; None for the unweighted mean.

        Returns:
            Maps [..., rows, cols].

        Raises:
            ValueError: maps without a head axis, or head_weights of another shape or sum.
        """
        if self.weights.ndim < 3:
            raise ValueError(
                f"expected maps [..., heads, rows, cols], got {list(self.weights.shape)}: add a head axis"
            )
        if head_weights is None:
            return AttentionMaps(self.weights.mean(axis=-3), self.grid)
        heads = self.weights.shape[-3]
        if head_weights.shape != (heads,) or not abs(float(head_weights.sum()) - 1) <= 1e-6:
            raise ValueError(
                f"expected a weight for each of {heads} heads, with sum 1, got {head_weights.tolist()}: "
                "divide them by their sum"
            )
        combined = np.tensordot(head_weights, self.weights, (0, self.weights.ndim - 3))
        return AttentionMaps(combined, self.grid)

    def in_batches(self) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Upsample `BATCH` rows of the first axis at a time, to limit memory.

        Yields:
            The rows as a slice, and their maps [<= BATCH, ..., H, W].
        """
        for start in range(0, len(self.weights), BATCH):
            rows = slice(start, start + BATCH)
            yield rows, self[rows].upsampled()

    def mass_on(
        self, masks: NDArray[np.bool_], *, pixels: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """Compute the mass of maps [T, heads, rows, cols] on the target.

        Args:
            masks: bool [T, H, W], True on the target.
            pixels: float [T, heads, H, W], the upsampled maps, if they have been computed already.

        Returns:
            float64 [T, heads], in [0, 1] for maps of sum 1; NaN where the target is not visible or the map is
            not usable.

        Raises:
            ValueError: maps with other axes, or masks of other frames.
        """
        if self.weights.ndim != 4 or masks.shape != (len(self.weights), *self.grid.image_size):
            raise ValueError(
                f"expected maps [T, heads, rows, cols] and masks [T, {self.grid.image_size[0]}, "
                f"{self.grid.image_size[1]}] of the same frames, got {list(self.weights.shape)} and "
                f"{list(masks.shape)}: give one mask per frame"
            )
        if pixels is None:
            batches = self.cleaned().in_batches()
            parts = [self[rows].mass_on(masks[rows], pixels=batch) for rows, batch in batches]
            return np.concatenate([np.zeros((0, self.weights.shape[1])), *parts])
        visible = np.asarray(masks.any(axis=(1, 2)))
        return np.where(self.usable & visible[:, None], mass_on_target(pixels, masks), np.nan)

    def mass_by_label(self, labels: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
        """Compute the mass of maps [T, heads, rows, cols] on each thing.

        Args:
            labels: uint8 [T, H, W], label of the thing in each pixel, below `count`.
            count: number of labels.

        Returns:
            float64 [T, heads, count], of sum 1 over the labels; NaN where the map is not usable.

        Raises:
            ValueError: maps with other axes, labels of other frames, or an error of `mass_by_label`.
        """
        if self.weights.ndim != 4 or labels.shape != (len(self.weights), *self.grid.image_size):
            raise ValueError(
                f"expected maps [T, heads, rows, cols] and labels [T, {self.grid.image_size[0]}, "
                f"{self.grid.image_size[1]}] of the same frames, got {list(self.weights.shape)} and "
                f"{list(labels.shape)}: give the labels of each frame"
            )
        mass = np.zeros((*self.weights.shape[:2], count))
        for rows, pixels in self.normalised().in_batches():
            mass[rows] = mass_by_label(pixels, labels[rows], count)
        return np.where(self.usable[..., None], mass, np.nan)


def usable_maps(weights: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Find the maps that can be drawn and scored: finite, non-negative and not all zero.

    Args:
        weights: float [..., rows, cols].

    Returns:
        bool [...].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = weights.sum(axis=(-2, -1))
    return np.asarray((weights >= 0).all(axis=(-2, -1)) & np.isfinite(total) & (total > 0))


def upsample_attention(attention: Tensor, grid: AttentionGrid) -> Tensor:
    """Upsample attention to the frame's size: spread each cell's mass evenly over its box.

    The box of a cell is the part of the frame nearest to its centre. Differentiable. For NumPy arrays use
    `AttentionMaps.upsampled`.

    Args:
        attention: float [B, heads, rows, cols].
        grid: positions of the cells in the frame, such as a module's `grid`.

    Returns:
        float [B, heads, H, W], with the same sum over the frame.

    Raises:
        ValueError: attention that is not a tensor, a grid that is not an `AttentionGrid`, or attention whose
            shape does not match the grid.
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
            f"expected attention [B, heads, {rows}, {cols}], one weight per cell of the grid, got "
            f"{list(attention.shape)}: give the grid of these maps"
        )
    down, across = (torch.from_numpy(share).to(attention) for share in grid.box_shares)
    return down.T @ attention @ across


def _bits(grid: AttentionGrid) -> tuple[bytes, bytes, tuple[int, int]]:
    return grid.ys.tobytes(), grid.xs.tobytes(), grid.image_size


def _centers(name: str, centers: ArrayLike | Tensor, length: int) -> NDArray[np.float32]:
    """Check the centres of an axis, and copy them to a read-only array."""
    given = centers.numpy(force=True) if isinstance(centers, Tensor) else centers
    array = np.array(given, dtype=np.float32)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"expected {name} as a vector of at least one centre, got shape {list(array.shape)}: give one "
            "number per row or column"
        )
    edges = array.astype(np.float64) + 0.5  # from pixel centres to pixel edges: the axis is [0, length]
    if not (np.diff(edges) > 0).all() or not 0 <= edges[0] <= edges[-1] <= length:
        raise ValueError(
            f"expected ascending {name} within the frame's {length} pixels, got {array.tolist()}: give "
            "the cells' centres in pixels, where 0 is the centre of the first pixel"
        )
    array.flags.writeable = False
    return array


def _box_shares(centers: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """Compute the share of each cell's box in each pixel of an axis: [cells, length], rows of sum 1."""
    at = centers.astype(np.float64) + 0.5
    edges = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [float(length)]])
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length, dtype=np.float64)
    overlap = np.maximum(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0)
    return np.asarray(overlap / (stop - start))
