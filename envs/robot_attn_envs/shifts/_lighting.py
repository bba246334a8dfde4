"""The shift "lighting": direction, colour and strength of the light."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats

LOWEST = 0.25  # sine of a sampled light's elevation, at least
TINT = 0.22  # change of the logarithm of one channel, at most
BRIGHTER, DARKER = 0.25, 0.7  # change of the logarithm of all channels, at most
CONTRAST = 1.5  # growth of the directional lights relative to the ambient light


class Lighting(Shift):
    """Change the direction, colour and strength of the light.

    Each light's direction is blended towards a random one from above, with weight `intensity`. Its strength
    grows by up to 2.5 x relative to the ambient light, times a factor of 0.5 to 2. The brightness changes by
    a factor of 0.5 to 1.28, each channel by one of 0.8 to 1.25. These are the factors at intensity 1; at a
    lower intensity they are raised to its power.
    """

    stream = 4
    needs_lens = True

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        super().bind(model, task, aspect)
        self._diffuse = model.light_diffuse.copy()
        self._directions = np.zeros((self.num_worlds, model.nlight, 3))
        self._strengths = np.ones((self.num_worlds, model.nlight))
        self._gain = np.ones((self.num_worlds, 3))
        self.episode = {"directions": self._directions, "strengths": self._strengths, "gain": self._gain}

    def reset(self, world: int, rng: np.random.Generator) -> None:
        lights = len(self._diffuse)
        up, angle = rng.uniform(LOWEST, 1.0, lights), rng.uniform(0.0, 2.0 * np.pi, lights)
        flat = np.sqrt(1.0 - up**2)
        self._directions[world] = np.stack([flat * np.cos(angle), flat * np.sin(angle), -up], axis=1)
        self._strengths[world] = (1.0 + CONTRAST * self.intensity) * np.exp(
            self.intensity * rng.uniform(-0.7, 0.7, lights)
        )
        bright = rng.uniform(-DARKER, BRIGHTER)
        self._gain[world] = np.exp(self.intensity * (bright + rng.uniform(-TINT, TINT, 3)))

    def show(self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]) -> None:
        trained = kinematics["light_xdir"]
        mixed = trained + self.intensity * (self._directions - trained)
        kinematics["light_xdir"] = mixed / np.linalg.norm(mixed, axis=2, keepdims=True)
        kinematics["light_diffuse"] = self._diffuse * self._strengths[..., None]
        settings["gain"] *= self._gain
