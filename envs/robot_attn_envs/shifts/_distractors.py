"""The shift "distractors": more distractors than in training."""

from __future__ import annotations

import mujoco
import numpy as np

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Task

MOST = 6


class Distractors(Shift):
    """Add `6 * intensity` distractors, rounded, at least one."""

    stream = 0
    _placer: Task

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self.spare_distractors = max(1, round(MOST * intensity))

    def lacks(self, model: mujoco.MjModel, task: Appearance) -> str:
        return "" if isinstance(task, Task) else "a task that can place more objects in the scene"

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        super().bind(model, task, aspect)
        if not isinstance(task, Task):
            raise ValueError(f"the shift 'distractors' needs {self.lacks(model, task)}: leave it out")
        self._placer = task

    def reset(self, world: int, rng: np.random.Generator) -> None:
        slots = self._placer.objects.add(world, self.spare_distractors, rng)
        self._placer.place_distractors(world, slots, rng)
