"""A toy environment whose frames have any axes and dtype: a dot that moves with the action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

H, W = 40, 52
STEPS = 6

IMAGES: dict[str, spaces.Box] = {
    "rgb": spaces.Box(0, 255, (H, W, 3), np.uint8),
    "rgba": spaces.Box(0, 255, (H, W, 4), np.uint8),
    "grey": spaces.Box(0, 255, (H, W, 1), np.uint8),
    "flat grey": spaces.Box(0, 255, (H, W), np.uint8),
    "channels first": spaces.Box(0, 255, (3, H, W), np.uint8),
    "float": spaces.Box(0, 1, (H, W, 3), np.float32),
    "float channels first": spaces.Box(0, 1, (3, H, W), np.float32),
    "flat float": spaces.Box(0, 1, (H, W), np.float32),
    "depth": spaces.Box(0, 5, (H, W, 1), np.float32),
    "large": spaces.Box(0, 255, (480, 640, 3), np.uint8),
}
"""Spaces of one image by a name for the tests."""


class PixelEnv(gymnasium.Env[Any, Any]):
    """Observes images of any axes, alone or in a dict with a state, and pays for a dot near the left edge.

    Args:
        images: the space of the image, or of several by key.
        actions: the action space.
        state: whether there is a state entry.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        images: spaces.Box | Mapping[str, spaces.Box],
        actions: spaces.Space[Any] | None = None,
        *,
        state: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.images = images
        self.render_mode = render_mode
        self.action_space = actions or spaces.Box(-1, 1, (2,), np.float32)
        entries: dict[str, spaces.Space[Any]] = (
            {"image": images} if isinstance(images, spaces.Box) else dict(images)
        )
        if state:
            entries["state"] = spaces.Box(-1, 1, (2,), np.float32)
        alone = isinstance(images, spaces.Box) and not state
        self.observation_space = entries["image"] if alone else spaces.Dict(entries)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.place, self.clock = self.np_random.uniform(0.2, 0.8, 2), 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        moved = np.resize(np.asarray(action, np.float64).ravel(), 2)
        self.place = np.clip(self.place + 0.1 * moved, 0, 1)
        self.clock += 1
        return self.observe(), 1 - float(self.place[1]), False, self.clock >= STEPS, {}

    def observe(self) -> Any:
        if isinstance(self.observation_space, spaces.Box):
            return self.frame(self.observation_space)
        found = {
            key: self.frame(box, turn=turn)
            for turn, (key, box) in enumerate(self.observation_space.spaces.items())
            if key != "state" and isinstance(box, spaces.Box)
        }
        if "state" in self.observation_space.spaces:
            found["state"] = self.place.astype(np.float32)
        return found

    def frame(self, space: spaces.Box, turn: int = 0) -> NDArray[Any]:
        """Draw the dot in a noisy frame of a space; other cameras see it at another place."""
        shape = space.shape
        first = len(shape) == 3 and shape[0] < 32
        height, width = (shape[1], shape[2]) if first else (shape[0], shape[1])
        channels = 1 if len(shape) == 2 else shape[0] if first else shape[2]
        rng = np.random.default_rng(int(1000 * self.place.sum()) + turn)
        frame = 0.3 * rng.random((height, width, channels))
        y, x = (np.roll(self.place, turn) * (height - 8, width - 8)).astype(int)
        frame[y : y + 8, x : x + 8] = np.linspace(0.7, 1, channels)
        if first:
            frame = np.moveaxis(frame, -1, 0)
        high = float(space.high.max())
        return (frame * high).reshape(shape).astype(space.dtype)

    def render(self) -> NDArray[np.uint8]:
        return np.full((64, 64, 3), 7, np.uint8)
