"""The shift "lighting": where light comes from, of what colour, and how much."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats, Task

LOWEST = 0.25  # sine of a drawn light's elevation
TINT = 0.22  # of the logarithm of a channel, at most
BRIGHTER, DARKER = 0.25, 0.7  # of the logarithm of all light
CONTRAST = 1.5  # by how much the lights of the scene outgrow the light that has no direction


class Lighting(Shift):
    """Light from elsewhere, of another colour, brighter or dimmer.

    Each light goes `intensity` of the way to a random direction from above, and grows up to 2.5 x as strong
    against the light that has no direction, times a factor of 0.5 to 2. All channels together change by a
    factor of 0.5 to 1.28, each by one of 0.8 to 1.25. These are the factors at intensity 1; lower ones are
    powers of them.
    """

    needs_lens = True

    def bind(self, model: mujoco.MjModel, task: Task, aspect: float) -> None:
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

    def show(self, kinematics: dict[str, Floats], views: NDArray[Any], steps: NDArray[np.int64]) -> None:
        trained = kinematics["light_xdir"]
        mixed = trained + self.intensity * (self._directions - trained)
        kinematics["light_xdir"] = mixed / np.linalg.norm(mixed, axis=2, keepdims=True)
        kinematics["light_diffuse"] = self._diffuse * self._strengths[..., None]
        views["gain"] *= self._gain
