"""The observation of an environment with frames: one entry a camera, beside the environment's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

IMAGE, STATE = "image", "state"
"""Entries of the observation: the frames of a single camera, and the environment's own observation unless it
is a `Dict`, whose entries keep their names."""


def image_names(cameras: Sequence[str]) -> list[str]:
    """The entry of each camera: "image" for one, the cameras' names for several."""
    return [IMAGE] if len(cameras) == 1 else list(cameras)


def observation_space(
    own: spaces.Space[Any], cameras: Sequence[str], image_size: tuple[int, int], *, state: bool
) -> spaces.Dict:
    """The space of an environment's observation with frames.

    Args:
        own: the environment's own space.
        cameras: names of the cameras.
        image_size: (height, width) in pixels.
        state: whether the environment's own observation is kept.

    Raises:
        ValueError: a camera and an entry of the environment's have the same name.
    """
    frame = spaces.Box(0, 255, (*image_size, 3), np.uint8)
    entries: dict[str, spaces.Space[Any]] = dict.fromkeys(image_names(cameras), frame)
    if state:
        kept = dict(own.spaces) if isinstance(own, spaces.Dict) else {STATE: own}
        for name in kept:
            if name in entries:
                raise ValueError(
                    "expected frames and the environment's own observation under different names, got "
                    f"{name!r} for both: leave the own one out with state=false, or choose another camera"
                )
        entries |= kept
    return spaces.Dict(entries)


def own_entries(observation: Any) -> Mapping[str, Any]:
    """The environment's own observation, one or a batch of them, as entries of the whole."""
    return observation if isinstance(observation, Mapping) else {STATE: observation}


def frame_entries(rgb: NDArray[np.uint8], cameras: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """The frames of all cameras, uint8 [N, cameras, H, W, 3], as entries [N, H, W, 3], new arrays."""
    return {name: rgb[:, index].copy() for index, name in enumerate(image_names(cameras))}
