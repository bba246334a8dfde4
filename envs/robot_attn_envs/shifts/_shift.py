"""What a visual shift is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Floats, Task


class Shift(ABC):
    """One way in which scenes look otherwise than in training.

    A subclass is registered by a name (`robot_attn_envs.register_shift`). Everything drawn for an episode is
    in `episode`, arrays [num_worlds, ...]; what is seen follows from them, from the simulation and from the
    number of steps alone.

    Args:
        num_worlds: number of worlds.
        intensity: in (0, 1], what it means is the subclass's.

    Attributes:
        stream: the number of its random stream, which no other shift has, and the place in which it is
            applied. It never changes: with it every published episode would. Those below 100 are ours.
        needs_lens: whether it works on pixels, and `show` writes `views`.
        spare_distractors: how many distractors it adds at most.
        episode: what was drawn for the running episodes.
    """

    stream: ClassVar[int]
    needs_lens: ClassVar[bool] = False
    spare_distractors: int = 0

    def __init__(self, num_worlds: int, intensity: float) -> None:
        self.num_worlds, self.intensity = num_worlds, intensity
        self.episode: dict[str, NDArray[np.generic]] = {}

    def bind(self, model: mujoco.MjModel, task: Task, aspect: float) -> None:
        """Look up what the shift changes, in a task that is bound itself; `aspect` is width / height."""
        self._task = task
        self._dt = model.opt.timestep * task.substeps

    @abstractmethod
    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Draw a world's new episode, after the task has drawn its own."""

    def show(  # noqa: B027  (some shifts are all in the scene)
        self, kinematics: dict[str, Floats], views: NDArray[Any], steps: NDArray[np.int64]
    ) -> None:
        """Change what the camera sees in the frames after so many steps.

        Args:
            kinematics: what the camera draws; replace entries, and leave the arrays in them as they are.
            views: what the `Lens` does, to be written; `gain` is 1 before the first shift multiplies it.
            steps: [num_worlds].
        """
