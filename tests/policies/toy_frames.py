"""A toy environment with random frames, optionally with a vector."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

H, W = 37, 53


class RandomFrames(gymnasium.Env[Any, Any]):
    """Random frames, optionally in a dict with a vector."""

    def __init__(self, actions: spaces.Space[Any], vector: bool = False) -> None:
        self.action_space = actions
        frames = spaces.Box(0, 255, (H, W, 3), np.uint8)
        entries = {"image": frames, "state": spaces.Box(-1, 1, (2,), np.float32)}
        self.observation_space = spaces.Dict(entries) if vector else frames

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}
