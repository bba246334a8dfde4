"""A visual shift: it gets dark."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_attn_envs import Shift


class Dusk(Shift):
    """Frames are darker, by up to 80 % times the intensity."""

    stream = 4711
    needs_lens = True

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self._light = np.ones(num_worlds)
        self.episode = {"light": self._light}

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._light[world] = 1 - self.intensity * rng.uniform(0.6, 0.8)

    def show(self, kinematics: Any, views: Any, steps: Any) -> None:
        views["gain"] *= self._light[:, None]
