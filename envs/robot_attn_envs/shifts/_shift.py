"""Base class of visual shifts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.tasks.task import Floats


class Shift(ABC):
    """A change of appearance of the scenes.

    Register a subclass with `robot_attn_envs.register_shift`. Everything that is sampled for an episode is in
    `episode`. Frames depend only on these arrays, the simulation and the number of steps, so that a saved
    state restores them.

    Args:
        num_worlds: number of worlds.
        intensity: strength in (0, 1]; its meaning is up to the subclass.

    Attributes:
        num_worlds: as given.
        intensity: as given.
        stream: number of the shift's random stream, which no other shift has; shifts are applied in the order
            of their streams. It must never change, as every published episode would. Numbers below 100 are
            reserved for robot-attn.
        needs_lens: whether `show` writes lens settings.
        spare_distractors: largest number of distractors that the shift adds.
        episode: what was sampled for the running episodes, arrays [num_worlds, ...].
    """

    stream: ClassVar[int]
    needs_lens: ClassVar[bool] = False
    spare_distractors: int = 0

    def __init__(self, num_worlds: int, intensity: float) -> None:
        self.num_worlds, self.intensity = num_worlds, intensity
        self.episode: dict[str, NDArray[np.generic]] = {}

    def lacks(self, model: mujoco.MjModel, task: Appearance) -> str:
        """What these scenes lack for the shift to change anything in them; "" for nothing.

        Args:
            model: the compiled scene.
            task: the task, or what stands for it in an environment that is not a `Task`.
        """
        return ""

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        """Look up what the shift changes.

        Args:
            model: the compiled scene.
            task: the task, already bound, or what stands for it in an environment that is not a `Task`.
            aspect: width / height of the policy's frames.
        """
        self._task = task
        self._dt = task.control_step(model)

    @abstractmethod
    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Sample a world's new episode, after the task sampled its own.

        Args:
            world: index of the world.
            rng: generator of the shift's stream in this episode.
        """

    def show(  # noqa: B027  (some shifts change the scene only)
        self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]
    ) -> None:
        """Change the coming frames.

        Args:
            kinematics: arrays that the camera renders. Replace entries; do not write into the arrays.
            settings: settings of the `Lens`, to be written; a structured array [num_worlds]. `gain` is 1
                before the first shift multiplies it.
            steps: control steps done in each world's episode, int64 [num_worlds].
        """
