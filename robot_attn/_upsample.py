"""Attention over cells -> attention over pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def upsample_attention(attention: Tensor, image_size: tuple[int, int], ys: Tensor, xs: Tensor) -> Tensor:
    """Spread each cell's mass evenly over its box: the part of the frame that is nearest to its centre.

    attention: float [B, heads, rows, cols]; image_size: (H, W) in pixels; ys [rows], xs [cols]: the cells'
    centres, in pixels and rising, as a module's `token_centers()` gives them (0: the first pixel's centre).

    Returns float [B, heads, H, W]. The sum over the frame is kept, so it is 1 where it was 1.
    Raises ValueError where the centres are not as many as the cells, do not rise, or leave the frame.
    """
    if attention.ndim != 4 or attention.shape[2:] != (len(ys), len(xs)):
        raise ValueError(
            f"attention must be [B, heads, {len(ys)}, {len(xs)}], a cell for each centre; "
            f"its shape is {list(attention.shape)}."
        )
    height, width = image_size
    down = _box_shares(ys, height).to(attention)
    across = _box_shares(xs, width).to(attention)
    return down.T @ attention @ across


def pool_maps(maps: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Average maps over pixels [B, H, W] within each cell's box: float [B, rows, cols].

    ys [rows], xs [cols]: the cells' centres in pixels, as for `upsample_attention`; errors as there.
    """
    down = _box_shares(ys, maps.shape[1]).to(maps)
    across = _box_shares(xs, maps.shape[2]).to(maps)
    return down @ maps @ across.T


def _box_shares(centers: Tensor, length: int) -> Tensor:
    """[cells, length] float64: the share of each cell's box in each pixel of an axis; a row sums to 1."""
    at = (
        centers.detach().to("cpu", torch.float64) + 0.5
    )  # from pixel centres to pixel edges: the axis is [0, length]
    if not bool((at.diff() > 0).all()) or not 0 <= float(at[0]) <= float(at[-1]) <= length:
        raise ValueError(
            f"cell centres must rise and lie in the frame's {length} pixels; they are {centers.tolist()}."
        )
    edges = torch.cat([at.new_zeros(1), (at[1:] + at[:-1]) / 2, at.new_full((1,), length)])
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = torch.arange(length, dtype=torch.float64)
    overlap = (torch.minimum(stop, pixel + 1) - torch.maximum(start, pixel)).clamp(min=0)
    return overlap / (stop - start)
