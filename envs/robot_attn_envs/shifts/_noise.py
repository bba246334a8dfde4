"""The shift "noise": sensor noise, blur and a wrong exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats

DEVIATION = 0.12  # standard deviation as a fraction of full scale, at most
EXPOSURE = 0.5  # change of the logarithm of all channels, at most


class Noise(Shift):
    """Add sensor noise, blur and a wrong exposure.

    Every channel of every pixel gets independent noise in each step, with a standard deviation of up to 12 %
    of full scale. The frame is blended with a blurred one, with a weight of up to 1; the blur is 3 x 3 pixels
    wide in a frame of 64 x 64. Both scale with the intensity. The exposure is up to 1.65 x too long or too
    short, raised to the power of the intensity.
    """

    stream = 6
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

    def show(self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]) -> None:
        settings["noise"], settings["blur"] = self._deviation, self._blur
        settings["gain"] *= self._gain[:, None]
        # The lens hashes seed + row: a large odd stride keeps the rows of different steps apart.
        settings["seed"] = self._seed + steps.astype(np.uint32) * np.uint32(0x9E3779B9)
