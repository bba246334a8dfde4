"""The shift "noise": a worse sensor behind a worse lens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats

DEVIATION = 0.12  # of full scale
EXPOSURE = 0.5  # of the logarithm of all channels


class Noise(Shift):
    """Sensor noise, blur and a wrong exposure.

    Each channel of a pixel gets noise of its own in each step, of a standard deviation of up to 12 % of full
    scale. Up to all of a frame gives way to a blurred one, over 3 x 3 pixels of a frame of 64 x 64. The
    exposure is up to 1.65 x too long or too short. All times the intensity, the last to its power.
    """

    needs_lens = True

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self._deviation, self._blur = np.zeros(num_worlds), np.zeros(num_worlds)
        self._gain = np.ones(num_worlds)
        self._seed = np.zeros(num_worlds, np.uint32)
        self.episode = {"deviation": self._deviation, "blur": self._blur}
        self.episode |= {"gain": self._gain, "seed": self._seed}

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._deviation[world] = self.intensity * rng.uniform(0.5 * DEVIATION, DEVIATION)
        self._blur[world] = self.intensity * rng.uniform(0.5, 1.0)
        self._gain[world] = np.exp(self.intensity * rng.uniform(-EXPOSURE, EXPOSURE))
        self._seed[world] = rng.integers(1 << 32, dtype=np.uint32)

    def show(self, kinematics: dict[str, Floats], views: NDArray[Any], steps: NDArray[np.int64]) -> None:
        views["noise"], views["blur"] = self._deviation, self._blur
        views["gain"] *= self._gain[:, None]
        # Steps are far apart in what the lens hashes, rows follow each other.
        views["seed"] = self._seed + steps.astype(np.uint32) * np.uint32(0x9E3779B9)
