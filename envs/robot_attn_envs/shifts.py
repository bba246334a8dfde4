"""Visual shifts: what changes between the scenes a policy was trained in and those it is tested in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import mujoco
import numpy as np
from numpy.typing import NDArray

from .camera import BatchCamera
from .task import Task

ShiftOption: TypeAlias = str | Sequence[str] | Mapping[str, float]


def chosen_shifts(shift: ShiftOption, intensity: float, suite: str | None) -> dict[str, float]:
    """The shifts that these options ask for, each with its intensity in (0, 1]."""
    return {}


class Shifts:
    """The shifts of `num_worlds` worlds."""

    def __init__(
        self, chosen: Mapping[str, float], num_worlds: int, *, backgrounds: str | Path | None = None
    ) -> None:
        self.spare_distractors = 0
        self.episode: dict[str, NDArray[np.generic]] = {}

    def bind(self, model: mujoco.MjModel, task: Task, camera: BatchCamera) -> None:
        """Look up what the shifts change."""

    def reset(self, world: int, entropy: Sequence[int]) -> None:
        """Draw what a world's new episode looks like, from streams that `entropy` starts."""

    def apply(
        self, kinematics: dict[str, NDArray[np.float64]], camera: BatchCamera, steps: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Tell the camera how to draw the present frames; returns the kinematics that it shall see."""
        return kinematics
