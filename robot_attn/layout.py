"""Where height, width and channels are among the axes of an image in an observation.

Environments and wrappers give images as (H, W, C), (C, H, W), grey (H, W), or stacked as (k, H, W, C), (k, C,
H, W) and (k, H, W). A perception takes (C, H, W), with the frames of a stack one after the other among the
channels, the newest last, as Stable-Baselines3's `VecFrameStack` stores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from robot_attn.frames import MIN_SIDE, Frames, channel_axis, channels_to_back, channels_to_front

Order: TypeAlias = Literal["HW", "CHW", "HWC", "KCHW", "KHWC"]
"""Axes of an image: height, width, channels, and k stacked frames. A grey stack (k, H, W) is "CHW"."""


@dataclass(frozen=True)
class ImageLayout:
    """The axes of one image entry.

    Attributes:
        shape: shape of the entry, without batch axes.
        order: what each axis is.
    """

    shape: tuple[int, ...]
    order: Order

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) for a perception; a stack's frames are among the channels."""
        height, width = self.image_size
        return math.prod(self.shape) // (height * width), height, width

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.shape[self.order.index("H")], self.shape[self.order.index("W")]

    @property
    def stack(self) -> int:
        """Number of stacked frames that have an axis of their own; 1 without such an axis."""
        return self.shape[0] if self.order.startswith("K") else 1

    def to_channels_first(self, frames: Frames) -> Frames:
        """Convert frames [..., *shape] to [..., C, H, W]; a view except for stacks of (k, H, W, C)."""
        lead = frames.shape[: frames.ndim - len(self.shape)]
        if self.order.endswith("C"):
            frames = channels_to_front(frames)
        return frames if self.order in ("CHW", "HWC") else frames.reshape(*lead, *self.image_shape)

    def from_channels_first(self, frames: Frames) -> Frames:
        """Convert frames [..., C, H, W] to [..., *shape], the inverse of `to_channels_first`."""
        if self.order in ("CHW", "HWC"):
            return frames if self.order == "CHW" else channels_to_back(frames)
        lead, (channels, height, width) = frames.shape[:-3], self.image_shape
        if self.order == "KHWC":
            planes = frames.reshape(*lead, self.stack, channels // self.stack, height, width)
            return channels_to_back(planes)
        return frames.reshape(*lead, *self.shape)

    def to_channels_last(self, frames: Frames) -> Frames:
        """Convert frames [..., *shape] to [..., H, W, C]."""
        return channels_to_back(self.to_channels_first(frames))

    def from_channels_last(self, frames: Frames) -> Frames:
        """Convert frames [..., H, W, C] to [..., *shape], the inverse of `to_channels_last`."""
        return self.from_channels_first(channels_to_front(frames))


def image_layout(shape: Sequence[int], image_size: tuple[int, int] | None = None) -> ImageLayout | None:
    """Infer the axes of an image entry from its shape.

    Args:
        shape: shape of the entry, 2 to 4 axes.
        image_size: (H, W) of its frames if known. Otherwise height and width are two neighbouring axes of at
            least `MIN_SIDE`, and the channels are fewer; if all three axes are as long, the channels are
            first.

    Returns:
        The layout; None if the axes are not those of an image.
    """
    shape = tuple(int(side) for side in shape)
    if len(shape) == 2:
        fits = min(shape) >= MIN_SIDE if image_size is None else shape == tuple(image_size)
        return ImageLayout(shape, "HW") if fits else None
    if len(shape) not in (3, 4):
        return None
    if image_size is not None:
        axis = channel_axis(shape, image_size)
    elif min(shape[-2:]) >= MIN_SIDE:
        axis = -3
    else:
        axis = -1 if min(shape[-3:-1]) >= MIN_SIDE > shape[-1] else None
    if axis is None:
        return None
    if len(shape) == 3:
        return ImageLayout(shape, "CHW" if axis == -3 else "HWC")
    return ImageLayout(shape, "KCHW" if axis == -3 else "KHWC")


def rearrange(frames: Frames, source: ImageLayout, target: ImageLayout) -> Frames:
    """Convert frames [..., *source.shape] to [..., *target.shape]; they are returned as they are if equal.

    Raises:
        ValueError: the layouts have other channels or sizes.
    """
    if source.image_shape != target.image_shape:
        raise ValueError(
            f"expected frames of (channels, height, width) {target.image_shape}, got {source.image_shape}: "
            "wrap the environment as in training"
        )
    if source == target:
        return frames
    return target.from_channels_first(source.to_channels_first(frames))
