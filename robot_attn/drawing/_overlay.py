"""Overlay of one attention map on one frame, for the attention of any policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from robot_attn.drawing._heat import blend_heat, heat_scale
from robot_attn.drawing._layout import Image
from robot_attn.drawing._shapes import draw_outline, find_outline, scale_frame
from robot_attn.maps import AttentionGrid, AttentionMaps


def overlay(
    frame: ArrayLike | Tensor,
    attention: ArrayLike | Tensor | AttentionMaps,
    *,
    grid: AttentionGrid | None = None,
    head: int | None = None,
    mask: ArrayLike | Tensor | None = None,
    size: int | tuple[int, int] | None = None,
) -> Image:
    """Draw the heat of an attention map over a camera frame.

        picture = overlay(frame, module(frames).attention[0], grid=module.grid)
        picture = overlay(episode.images[0], episode.attention_maps[0])

    Accepts arrays and tensors of any library's policy.

    Args:
        frame: uint8 [H, W, 3] RGB, or grey [H, W] or [H, W, 1].
        attention: [rows, cols] or [heads, rows, cols], non-negative, or `AttentionMaps` with these axes; one
            cell per pixel is allowed. Each map is normalised to sum 1.
        grid: positions of the cells, such as a module's `grid`. By default that of the `AttentionMaps`, or
            equal cells that tile the frame.
        head: index of the head to draw; by default the mean over heads.
        mask: bool [H, W], True on the target, to draw its outline.
        size: height of the picture in pixels, or (h, w). By default the largest whole multiple of the frame
            within 640 x 640, at least the frame's size.

    Returns:
        The picture, uint8 [h, w, 3] RGB.

    Raises:
        ValueError: another shape or dtype, a grid that does not match the map or the frame, a head out of
            range, or attention that is all zero, negative or not finite.
        ModuleNotFoundError: opencv is not installed.
    """
    shown = _as_rgb(_as_array(frame))
    height, width = image_size = shown.shape[0], shown.shape[1]
    if isinstance(attention, AttentionMaps):
        grid = attention.grid if grid is None else grid
        attention = attention.weights
    weights = _one_map(_as_array(attention), head)
    if grid is None:
        grid = AttentionGrid.even((weights.shape[0], weights.shape[1]), image_size)
    if grid.image_size != image_size:
        raise ValueError(
            f"expected a grid in frames of {height} x {width} pixels, as this frame, got one in frames of "
            f"{grid.image_size[0]} x {grid.image_size[1]}: use `grid.resized(({height}, {width}))`"
        )
    picture_size = _picture_size(image_size, size)
    levels = heat_scale(grid, picture_size).levels(weights[None])[0]
    picture = blend_heat(scale_frame(shown, picture_size), levels)
    if mask is not None:
        target = _as_array(mask)
        if target.dtype != np.bool_ or target.shape != image_size:
            raise ValueError(
                f"expected mask bool [{height}, {width}], as the frame, got {target.dtype} "
                f"{list(target.shape)}: give True on the target's pixels"
            )
        draw_outline(picture, find_outline(target, picture_size), max(2, round(picture_size[0] / 360)))
    return picture


def _as_array(value: ArrayLike | Tensor) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value  # NumPy has no bfloat16
    return np.asarray(value)


def _as_rgb(frame: NDArray[Any]) -> Image:
    grey = frame.ndim == 2 or frame.shape[2:] == (1,)
    if frame.dtype != np.uint8 or not (grey or (frame.ndim == 3 and frame.shape[2] == 3)) or frame.size == 0:
        raise ValueError(
            "expected frame uint8 [H, W, 3] in RGB, [H, W] or [H, W, 1], got "
            f"{frame.dtype} {list(frame.shape)}: put the channels last, and scale values to [0, 255]"
        )
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2) if grey else frame


def _one_map(attention: NDArray[Any], head: int | None) -> NDArray[np.float64]:
    """Select or average heads: the map to draw [rows, cols], of sum 1."""
    if attention.ndim not in (2, 3) or attention.size == 0 or attention.dtype.kind not in "fiub":
        raise ValueError(
            f"expected attention [rows, cols] or [heads, rows, cols], got {attention.dtype} "
            f"{list(attention.shape)}: of a batch, give one row"
        )
    heads = attention.reshape(-1, *attention.shape[-2:]).astype(np.float64)
    if head is not None:
        if not 0 <= head < len(heads):
            raise ValueError(f"expected head from 0 to {len(heads) - 1}, got {head}")
        heads = heads[head : head + 1]
    if not np.isfinite(heads).all() or heads.min() < 0:
        raise ValueError(
            f"expected attention of finite, non-negative weights, got {heads.min():g} to {heads.max():g}: "
            "pass weights, not scores"
        )
    if heads.max() == 0:
        raise ValueError("expected attention with a weight above 0, got all zero: there is nothing to draw")
    weights = (heads / heads.max()).mean(axis=0)
    return np.asarray(weights / weights.sum())


def _picture_size(image_size: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
    height, width = image_size
    if size is None:
        times = max(1, min(640 // height, 640 // width))
        return times * height, times * width
    picture_size = size if isinstance(size, tuple) else (size, max(1, round(width * size / height)))
    if len(picture_size) != 2 or min(picture_size) < 1:
        raise ValueError(f"expected size as the picture's height or (h, w), each at least 1, got {size}")
    return picture_size
