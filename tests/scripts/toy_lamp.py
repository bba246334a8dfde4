"""An environment that knows nothing of us, 32 x 40 pixels: a lamp to push left or right."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH = 32, 40


class ToyLamp(gymnasium.Env[Any, Any]):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, glow: int = 240, pushed: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        # Left, stay, right; or how far, from 0 to 2.
        self.action_space = spaces.Box(0, 2, (1,), np.float32) if pushed else spaces.Discrete(3)
        self.glow, self.render_mode, self.place = glow, render_mode, 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(-0.4, 0.4))
        return self.render(), {"is_success": False, "words": "start"}

    def step(self, action: Any) -> Any:
        self.place = float(np.clip(self.place + 0.2 * (float(np.ravel(action)[0]) - 1) + 0.1, -1, 1))
        info = {"is_success": abs(self.place) < 0.2, "speed": 0.1, "words": "on"}
        return self.render(), 1 - abs(self.place), self.place == 1, False, info

    def render(self) -> Any:
        frame = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
        column = round((self.place + 1) / 2 * (WIDTH - 4))
        frame[14:18, column : column + 4] = self.glow
        return frame


gymnasium.register("ToyLamp-v0", "toy_lamp:ToyLamp", max_episode_steps=12)
