"""Camera frames: the one owner of their conversion and of the checks on them.

Environments give frames as uint8 [..., H, W, C] (Gymnasium's habit); modules take them channel-first, as
uint8 [B, C, H, W] or as floats in [0, 1]. Whoever knows the order of frames says so by the function that is
called; whoever has to tell the order from a shape asks `channel_axis`.

Rounding depends on how frames lie in memory: torch convolves a channel-first view of [H, W, C] memory by
another path than contiguous frames, and the last bits differ. `prepare_frames` brings frames to one layout,
so that the same batch gives the same percept however it lies. Rounding also depends on the processor and the
number of frames in a batch, and nothing here claims equal bits across those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_attn.compat.torch import transforming

MIN_SIDE = 32
MAX_SIDE = 512
"""The heights and widths, in pixels, that a perception module takes."""

ROUNDING = 1e-3
"""How far outside [0, 1] floating-point frames may lie: what resizing or half precision makes of 0 and 1."""

Frames = TypeVar("Frames", Tensor, NDArray[Any])


def check_image_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """`image_shape` as three ints (channels, height, width), or ValueError where a module cannot take it."""
    shape = tuple(int(side) for side in image_shape)
    if len(shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width); it is {tuple(image_shape)}.")
    channels, height, width = shape
    if channels < 1 or not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        last = (
            " It looks like (height, width, channels)."
            if height >= MIN_SIDE > width and channels >= MIN_SIDE
            else ""
        )
        raise ValueError(
            "image_shape must be (channels, height, width) with at least 1 channel and sides from "
            f"{MIN_SIDE} to {MAX_SIDE}; it is {shape}.{last}"
        )
    return channels, height, width


def channel_axis(shape: Sequence[int], image_size: tuple[int, int]) -> Literal[-3, -1] | None:
    """Which axis of frames is that of the channels, told from the place of their height and width.

    Args:
        shape: of the frames, or of their space: [..., C, H, W] or [..., H, W, C].
        image_size: (H, W).

    Returns:
        -3 for [..., C, H, W], also where both orders fit; -1 for [..., H, W, C]; None where neither fits.
    """
    if len(shape) >= 3 and tuple(shape[-2:]) == tuple(image_size):
        return -3
    return -1 if len(shape) >= 3 and tuple(shape[-3:-1]) == tuple(image_size) else None


def channels_to_front(frames: Frames) -> Frames:
    """[..., H, W, C] -> [..., C, H, W]: an array for an array, a tensor for a tensor; a view."""
    return frames.movedim(-1, -3) if isinstance(frames, Tensor) else np.moveaxis(frames, -1, -3)


def channels_to_back(frames: Frames) -> Frames:
    """[..., C, H, W] -> [..., H, W, C]: an array for an array, a tensor for a tensor; a view."""
    return frames.movedim(-3, -1) if isinstance(frames, Tensor) else np.moveaxis(frames, -3, -1)


def to_channels_first(frames: Frames) -> Frames:
    """uint8 [..., H, W, C] -> uint8 [..., C, H, W]: an array for an array, a tensor for a tensor; a view.

    Raises ValueError for another dtype, fewer than 3 axes, or H or W outside 32 to 512 pixels, which is how
    frames that are channel-first already give themselves away.
    """
    if frames.dtype not in (torch.uint8, np.uint8):
        raise ValueError(
            f"frames must be uint8 [..., height, width, channels]; their dtype is {frames.dtype}."
        )
    if frames.ndim < 3:
        raise ValueError(
            f"frames must be uint8 [..., height, width, channels]; their shape is {list(frames.shape)}."
        )
    height, width = frames.shape[-3:-1]
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        first = (
            " They look channel-first already." if height < MIN_SIDE <= min(width, frames.shape[-1]) else ""
        )
        raise ValueError(
            f"frames must be uint8 [..., height, width, channels] with sides from {MIN_SIDE} to {MAX_SIDE}; "
            f"their shape is {list(frames.shape)}.{first}"
        )
    return channels_to_front(frames)


def to_float(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 of any shape -> `dtype` of that shape in [0, 1], the same bits as `frames.float() / 255`."""
    return frames.to(dtype).div_(255)


def prepare_frames(frames: Tensor, image_shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Check frames and bring them to what `Perception.perceive` takes: one dtype, one layout in memory.

    Args:
        frames: [B, *image_shape] as `check_frames` takes them, in any layout.
        image_shape: (channels, height, width).
        dtype: the module's.

    Returns:
        Frames `dtype` [B, *image_shape] in [0, 1], contiguous; not copied where they are that already.

    Raises:
        ValueError: as `check_frames`.
    """
    check_frames(frames, image_shape, dtype)
    if frames.dtype == torch.uint8:
        return frames.to(dtype, memory_format=torch.contiguous_format).div_(255)
    # `contiguous` alone would leave a view of grey frames as it is: an axis of length 1 fits any stride, and
    # torch takes the odd one for channels-last.
    return frames.flatten().view(frames.shape)


def check_frames(frames: Tensor, image_shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """ValueError unless frames are [B, *image_shape], uint8 or, finite and in [0, 1], of `dtype`.

    The range of floats is allowed an error of `ROUNDING`. It is not tested while a graph is recorded
    or a function transformed.
    """
    expected = f"frames must be [B, {image_shape[0]}, {image_shape[1]}, {image_shape[2]}] (channel-first)"
    if not isinstance(frames, Tensor):
        raise ValueError(f"{expected} as a torch.Tensor; they are a {type(frames).__name__}.")
    if frames.ndim != 4 or frames.shape[1:] != image_shape:
        channels, height, width = image_shape
        last = channel_axis(frames.shape, (height, width)) == -1 and frames.shape[-1] == channels
        hint = " They look channel-last: robot_attn.to_channels_first converts them." if last else ""
        if frames.shape == image_shape:
            hint = " One frame needs a batch axis: frames[None]."
        raise ValueError(f"{expected}; their shape is {list(frames.shape)}.{hint}")
    if frames.dtype == torch.uint8:
        return
    if frames.dtype != dtype:
        raise ValueError(
            f"{expected} as uint8 in [0, 255] or {dtype} in [0, 1]; their dtype is {frames.dtype}."
        )
    if not recording() and frames.numel() > 0:
        low, high = (float(bound) for bound in torch.aminmax(frames.detach()))
        if not math.isfinite(low + high):
            raise ValueError(f"{expected} of finite numbers; they hold NaN or infinity.")
        if not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise ValueError(
                f"{expected} in [0, 1], got numbers from {low:.4g} to {high:.4g}: give uint8 frames, or "
                "floats divided by 255 and not normalised any further."
            )


def check_context(context: Tensor | None, batch: int, size: int, dtype: torch.dtype) -> None:
    """ValueError unless context is finite, [batch, size], of `dtype`; or None where size is 0."""
    if context is None:
        if size:
            raise ValueError(
                f"context must be {dtype} [{batch}, {size}]: this module was built with context_dim={size}."
            )
        return
    if not isinstance(context, Tensor) or context.shape != (batch, size) or context.dtype != dtype:
        came = (
            f"{context.dtype} {list(context.shape)}"
            if isinstance(context, Tensor)
            else type(context).__name__
        )
        raise ValueError(f"context must be {dtype} [{batch}, {size}] (context_dim={size}); it is {came}.")
    if not recording() and not math.isfinite(float(context.detach().sum())):
        raise ValueError(
            f"context must be {dtype} [{batch}, {size}] of finite numbers; it holds NaN or infinity."
        )


def recording() -> bool:
    """Whether a graph is being recorded (compile, export, trace) or a function transformed (`torch.func`).

    Neither can keep a branch on values, so checks on values are left out; and both want operations that
    differentiate themselves, so gradients written by hand are too.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or transforming()
    )
