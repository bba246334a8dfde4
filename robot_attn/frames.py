"""Conversion and validation of camera frames.

Environments return frames channel-last, uint8 [..., H, W, C], as is usual in Gymnasium. Modules take them
channel-first: uint8 [B, C, H, W], or float in [0, 1]. The functions are named after the axis order that they
take or return; `channel_axis` infers the order from a shape.

Rounding depends on the memory layout: torch convolves a channel-first view of channel-last memory on another
code path than contiguous frames, and the last bits differ. `prepare_frames` converts frames to one layout, so
that equal batches give equal bits whatever their layout. It is the environment's, channel-last memory: frames
are not transposed on their way from the environment, and a convolution stores the channels of a patch next to
each other, in the order in which attention over patches reads them. Rounding also depends on the processor
and on the number of frames in a batch; equal bits across those are not guaranteed.
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
MAX_SIDE = 2048
"""Range of the height and width of frames, in pixels, for perception modules."""

ROUNDING = 1e-3
"""Tolerance of the range [0, 1] of float frames: rounding of 0 and 1 by resizing or half precision."""

Frames = TypeVar("Frames", Tensor, NDArray[Any])


def check_image_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Check an image shape and return it as three ints.

    Args:
        image_shape: (channels, height, width).

    Raises:
        ValueError: not three numbers, no channel, or a side outside `MIN_SIDE` to `MAX_SIDE`.
    """
    shape = tuple(int(side) for side in image_shape)
    if len(shape) != 3:
        raise ValueError(
            f"expected image_shape as (channels, height, width), got {tuple(image_shape)}: give the shape of "
            "one frame"
        )
    channels, height, width = shape
    if channels < 1 or not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        channels_last = height >= MIN_SIDE > width and channels >= MIN_SIDE
        hint = "put the channels first" if channels_last else "crop, pad or resize the frames"
        raise ValueError(
            "expected image_shape as (channels, height, width) with at least 1 channel and sides from "
            f"{MIN_SIDE} to {MAX_SIDE}, got {shape}: {hint}"
        )
    return channels, height, width


def channel_axis(shape: Sequence[int], image_size: tuple[int, int]) -> Literal[-3, -1] | None:
    """Infer the channel axis of frames from the position of their height and width.

    Args:
        shape: shape of the frames or of their space, [..., C, H, W] or [..., H, W, C].
        image_size: (H, W) in pixels.

    Returns:
        -3 for [..., C, H, W], also if both orders match; -1 for [..., H, W, C]; None if neither matches.
    """
    if len(shape) >= 3 and tuple(shape[-2:]) == tuple(image_size):
        return -3
    return -1 if len(shape) >= 3 and tuple(shape[-3:-1]) == tuple(image_size) else None


def channels_to_front(frames: Frames) -> Frames:
    """Return a view [..., C, H, W] of frames [..., H, W, C], an array or a tensor."""
    return frames.movedim(-1, -3) if isinstance(frames, Tensor) else np.moveaxis(frames, -1, -3)


def channels_to_back(frames: Frames) -> Frames:
    """Return a view [..., H, W, C] of frames [..., C, H, W], an array or a tensor."""
    return frames.movedim(-3, -1) if isinstance(frames, Tensor) else np.moveaxis(frames, -3, -1)


def to_channels_first(frames: Frames) -> Frames:
    """Convert an environment's frames to the axis order of perception modules, without a copy.

    Args:
        frames: uint8 [..., H, W, C] in [0, 255], an array or a tensor; H and W from 32 to 2048 pixels.

    Returns:
        A view uint8 [..., C, H, W] of the same type.

    Raises:
        ValueError: another dtype, fewer than 3 axes, or a side out of range, as in frames that are
            channel-first already.
    """
    expected = "expected frames uint8 [..., height, width, channels]"
    if frames.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"{expected}, got dtype {frames.dtype}: convert them to uint8 in [0, 255]")
    if frames.ndim < 3:
        raise ValueError(f"{expected}, got shape {list(frames.shape)}: add the missing axes")
    height, width = frames.shape[-3:-1]
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        channels_first = height < MIN_SIDE <= min(width, frames.shape[-1])
        hint = (
            "pass them to the module as they are, since they look channel-first already"
            if channels_first
            else "crop, pad or resize them"
        )
        raise ValueError(
            f"{expected} with sides from {MIN_SIDE} to {MAX_SIDE}, got shape {list(frames.shape)}: {hint}"
        )
    return channels_to_front(frames)


def to_float(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale uint8 frames to [0, 1], with the same bits as `frames.float() / 255`.

    Args:
        frames: uint8, of any shape, in [0, 255].
        dtype: dtype of the result.

    Returns:
        A new tensor `dtype` of the same shape, in [0, 1].
    """
    return frames.to(dtype).div_(255)


def prepare_frames(frames: Tensor, image_shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Check frames and convert them to the dtype and memory layout of `Perception.perceive`.

    Args:
        frames: [B, *image_shape] as in `check_frames`, in any memory layout.
        image_shape: (channels, height, width).
        dtype: dtype of the module.

    Returns:
        Frames `dtype` [B, *image_shape] in [0, 1], a channel-first view of [B, H, W, C] memory; not copied if
        they are so already.

    Raises:
        ValueError: as `check_frames`.
    """
    check_frames(frames, image_shape, dtype)
    if frames.dtype == torch.uint8:
        frames = to_float(frames, dtype)
    # `contiguous` alone would keep a view of grey frames: any stride is contiguous for an axis of length 1.
    last = channels_to_back(frames)
    return channels_to_front(last.flatten().view(last.shape))


def check_frames(frames: Tensor, image_shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Check shape, dtype and range of a batch of frames.

    Values are not checked while a graph is recorded or a function is transformed, see `recording`.

    Args:
        frames: [B, *image_shape], uint8, or finite float of `dtype` in [0, 1] up to `ROUNDING`.
        image_shape: (channels, height, width).
        dtype: dtype of the module.

    Raises:
        ValueError: frames of another type, shape, dtype or range.
    """
    channels, height, width = image_shape
    expected = f"expected frames [B, {channels}, {height}, {width}] (channel-first)"
    if not isinstance(frames, Tensor):
        raise ValueError(
            f"{expected} as a torch.Tensor, got {type(frames).__name__}: convert an array by torch.from_numpy"
        )
    if frames.ndim != 4 or frames.shape[1:] != image_shape:
        if frames.shape == image_shape:
            hint = "add a batch axis, frames[None]"
        elif channel_axis(frames.shape, (height, width)) == -1 and frames.shape[-1] == channels:
            hint = "convert channel-last frames by robot_attn.to_channels_first"
        else:
            hint = "resize them, or build the module for their shape"
        raise ValueError(f"{expected}, got shape {list(frames.shape)}: {hint}")
    if frames.dtype == torch.uint8:
        return
    if frames.dtype != dtype:
        raise ValueError(
            f"{expected} as uint8 in [0, 255] or {dtype} in [0, 1], got dtype {frames.dtype}: convert them"
        )
    if not recording() and frames.numel() > 0:
        low, high = (float(bound) for bound in torch.aminmax(frames.detach()))
        if not math.isfinite(low + high):
            raise ValueError(f"{expected} of finite numbers, got NaN or infinity: check what computes them")
        if not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise ValueError(
                f"{expected} in [0, 1], got numbers from {low:.4g} to {high:.4g}: give uint8 frames, or "
                "floats divided by 255 without further normalisation"
            )


def check_context(context: Tensor | None, batch: int, size: int, dtype: torch.dtype) -> None:
    """Check shape, dtype and values of a batch of contexts.

    Values are not checked while a graph is recorded or a function is transformed, see `recording`.

    Args:
        context: finite float [batch, size] of `dtype`; None where size is 0.
        batch: number of frames.
        size: context_dim of the module.
        dtype: dtype of the module.

    Raises:
        ValueError: a context of another type, shape or dtype, or none where size is not 0.
    """
    if context is None:
        if size:
            expected = _expected_context(batch, size, dtype)
            raise ValueError(f"{expected}, got None: pass a context, or build the module with context_dim=0")
        return
    if not isinstance(context, Tensor) or context.shape != (batch, size) or context.dtype != dtype:
        if isinstance(context, Tensor):
            found = f"{context.dtype} {list(context.shape)}"
        else:
            found = type(context).__name__
        expected = _expected_context(batch, size, dtype)
        raise ValueError(f"{expected}, got {found}: convert it, or build the module with another context_dim")
    if not recording() and not math.isfinite(float(context.detach().sum())):
        expected = _expected_context(batch, size, dtype)
        raise ValueError(f"{expected} of finite numbers, got NaN or infinity: check what computes it")


def _expected_context(batch: int, size: int, dtype: torch.dtype) -> str:
    # Called on failure only: a string with the batch size would fix it in a graph that is being recorded.
    return f"expected context {dtype} [{batch}, {size}] (context_dim={size})"


def recording() -> bool:
    """Whether a graph is being recorded (compile, export, trace) or a function transformed (`torch.func`).

    Neither supports branches on values, so values are not checked. Both need operations that
    autograd differentiates itself, so hand-written gradients are not used.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or transforming()
    )
