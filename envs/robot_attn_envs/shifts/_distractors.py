"""The shift "distractors": more distractors than in training."""

from __future__ import annotations

import numpy as np

from robot_attn_envs.shifts._shift import Shift

MOST = 6


class Distractors(Shift):
    """Add `6 * intensity` distractors, rounded, at least one."""

    stream = 0

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self.spare_distractors = max(1, round(MOST * intensity))

    def reset(self, world: int, rng: np.random.Generator) -> None:
        slots = self._task.objects.add(world, self.spare_distractors, rng)
        self._task.place_distractors(world, slots, rng)
