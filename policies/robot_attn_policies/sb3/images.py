"""The images of an observation space: which entries they are, their axes and the range of their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np
from gymnasium import spaces

from robot_attn.frames import check_image_shape
from robot_attn.layout import ImageLayout, image_layout, rearrange

Observation = TypeVar("Observation")


def image_entries(space: spaces.Space[Any]) -> dict[str | None, ImageLayout]:
    """Find the images of an observation space.

    An image is a `Box` of pixels: (H, W, C), (C, H, W), or stacked (k, H, W, C) or (k, C, H, W), of uint8 in
    [0, 255] or of floats; or grey (H, W), of uint8 in [0, 255] or of floats in [0, 1]. Other entries are
    vectors.

    Args:
        space: the space of one observation, a `Dict` or an entry alone.

    Returns:
        The layout of each image by its key, which is None for a space that is itself an image.
    """
    layouts = {key: _layout(entry) for key, entry in entries_of(space).items()}
    return {key: layout for key, layout in layouts.items() if layout is not None}


def entries_of(space: spaces.Space[Any]) -> dict[str | None, spaces.Space[Any]]:
    """Return the entries of a `Dict` space by key, or {None: space} for another space."""
    return dict(space.spaces.items()) if isinstance(space, spaces.Dict) else {None: space}


def pixel_range(space: spaces.Space[Any], key: str | None = None) -> tuple[float, float]:
    """Check an image's space and return the lowest and highest value of its pixels.

    Args:
        space: the space of the image.
        key: its key, for the message.

    Raises:
        ValueError: sides that are too small or too large, integers that are not uint8 in [0, 255], or floats
            without finite bounds.
    """
    box = cast(spaces.Box, space)
    low, high = float(box.low.min()), float(box.high.max())
    is_uint8 = box.dtype == np.uint8 and (low, high) == (0, 255)
    is_float = np.issubdtype(box.dtype, np.floating) and np.isfinite(high - low) and low < high
    if not (is_uint8 or is_float):
        name = "an image" if key is None else f"the image {key!r}"
        raise ValueError(
            f"expected {name} of uint8 in [0, 255] or of floats with finite bounds, such as [0, 1], got "
            f"{box}: rescale it in a wrapper, such as gymnasium.wrappers.TransformObservation, or give its "
            "space the range of its pixels"
        )
    layout = _layout(box)
    check_image_shape(cast(tuple[int, int, int], box.shape) if layout is None else layout.image_shape)
    return low, high


def fit_observation(observation: Observation, space: spaces.Space[Any]) -> Observation:
    """Bring the images of an observation or a batch to the axis order of a policy's space.

    Stable-Baselines3 does so for uint8 images of three axes alone.

    Args:
        observation: as an environment returns it: an array, or a mapping with one for each entry.
        space: the policy's observation space.

    Returns:
        The observation; entries that are in order already are not copied.
    """
    layouts = image_entries(space)
    if isinstance(observation, Mapping):
        changed = {
            key: _fit(observation[key], layout)
            for key, layout in layouts.items()
            if key is not None and key in observation
        }
        return cast(Observation, {**observation, **changed})
    return cast(Observation, _fit(observation, layouts[None])) if None in layouts else observation


def _fit(frames: Any, target: ImageLayout) -> Any:
    shape = tuple(frames.shape)
    if shape[-len(target.shape) :] == target.shape:
        return frames
    # A batch, or one alone; the frames of a stack may have an axis that the policy's space lacks.
    for batch_axes in (1, 0):
        source = image_layout(shape[batch_axes:], target.image_size)
        if source is not None and source.image_shape == target.image_shape:
            return rearrange(frames, source, target)
    return frames  # whoever takes it says what does not fit


def _layout(space: spaces.Space[Any]) -> ImageLayout | None:
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3, 4):
        return None
    layout = image_layout(space.shape)
    low, high = float(space.low.min()), float(space.high.max())
    is_pixels = space.dtype == np.uint8 and (low, high) == (0, 255)
    if len(space.shape) == 2:
        is_unit = np.issubdtype(space.dtype, np.floating) and (low, high) == (0, 1)
        return layout if is_pixels or is_unit else None
    if layout is None and is_pixels and len(space.shape) == 3:
        return ImageLayout(space.shape, "CHW")  # too small for a perception, which says so
    return layout
