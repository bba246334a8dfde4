"""One attention map over one frame, of any policy."""

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
    """Lay the heat of an attention map over a camera frame: a picture uint8 [h, w, 3] RGB.

        picture = overlay(frame, module(frames).attention[0], grid=module.grid)
        picture = overlay(episode.images[0], episode.attention_maps[0])

    Arrays or tensors, of any library's policy: nothing is asked of what made them.

    Args:
        frame: uint8 [H, W, 3] RGB, or grey [H, W] or [H, W, 1].
        attention: [rows, cols] or [heads, rows, cols], 0 or more; a map of the frame's own size, too; or
            `AttentionMaps` of these axes. What is drawn is scaled to sum 1.
        grid: where the cells lie, as a module's `grid` says. By default that of the `AttentionMaps`, or the
            cells share the frame evenly.
        head: the head to draw; by default the mean of all.
        mask: bool [H, W], True on the target, whose outline is then drawn.
        size: height of the picture in pixels, or (h, w). By default the largest whole multiple of the frame
            within 640 x 640, and no smaller than the frame.

    Raises:
        ValueError: another shape or dtype, a grid of other cells or frames, a head that is not there, or a
            map that is all zero, or holds weights that are negative, NaN or infinite.
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
            f"expected a grid in frames of {height} x {width} pixels, as this one, got one in frames of "
            f"{grid.image_size[0]} x {grid.image_size[1]}: use `grid.resized(({height}, {width}))`"
        )
    picture_size = _picture_size(image_size, size)
    levels = heat_scale(grid, picture_size).levels(weights[None])[0]
    picture = blend_heat(scale_frame(shown, picture_size), levels)
    if mask is not None:
        target = _as_array(mask)
        if target.dtype != np.bool_ or target.shape != image_size:
            raise ValueError(
                f"expected a mask bool [{height}, {width}], as the frame, got {target.dtype} "
                f"{list(target.shape)}"
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
            "expected a frame uint8 [H, W, 3] in RGB, [H, W] or [H, W, 1], with the channels last, got "
            f"{frame.dtype} {list(frame.shape)}"
        )
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2) if grey else frame


def _one_map(attention: NDArray[Any], head: int | None) -> NDArray[np.float64]:
    """The map to draw [rows, cols], with sum 1."""
    if attention.ndim not in (2, 3) or attention.size == 0 or attention.dtype.kind not in "fiub":
        raise ValueError(
            f"expected attention [rows, cols] or [heads, rows, cols], got {attention.dtype} "
            f"{list(attention.shape)}; of a batch, give one row"
        )
    heads = attention.reshape(-1, *attention.shape[-2:]).astype(np.float64)
    if head is not None:
        if not 0 <= head < len(heads):
            raise ValueError(f"there is no head {head}: the heads are 0 to {len(heads) - 1}")
        heads = heads[head : head + 1]
    if not np.isfinite(heads).all() or heads.min() < 0:
        raise ValueError(
            f"expected attention of finite weights, 0 or more, got {heads.min():g} to {heads.max():g}"
        )
    if heads.max() == 0:
        raise ValueError("this attention is all zero: there is nothing to draw")
    weights = (heads / heads.max()).mean(axis=0)
    return np.asarray(weights / weights.sum())


def _picture_size(image_size: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
    height, width = image_size
    if size is None:
        times = max(1, min(640 // height, 640 // width))
        return times * height, times * width
    wanted = size if isinstance(size, tuple) else (size, max(1, round(width * size / height)))
    if len(wanted) != 2 or min(wanted) < 1:
        raise ValueError(f"expected the size of a picture as its height, or (h, w), 1 or more, got {size}")
    return wanted
