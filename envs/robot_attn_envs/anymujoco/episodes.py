"""Seeds of the episodes' appearance, and how many steps of each are done."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gymnasium.utils import seeding


class Episodes:
    """Counts the steps and the episodes of some worlds, and names the seed of what is sampled in each.

    Args:
        num_worlds: number of worlds.

    Attributes:
        steps: steps done in each world's episode, int64 [num_worlds].
    """

    def __init__(self, num_worlds: int) -> None:
        self.steps = np.zeros(num_worlds, np.int64)
        self._count = np.zeros(num_worlds, np.int64)
        self._entropy = np.zeros(num_worlds, np.uint64)
        self.seed(dict.fromkeys(range(num_worlds)))

    def seed(self, seeds: dict[int, int | None]) -> None:
        """Seed some worlds: their next episode is the first. None takes a random seed."""
        for world, seed in seeds.items():
            _, resolved = seeding.np_random(seed)
            self._entropy[world] = np.random.SeedSequence(resolved).generate_state(1, np.uint64)[0]
            self._count[world] = 0

    def begin(self, worlds: Iterable[int]) -> list[list[int]]:
        """Begin an episode in some worlds, and return the seed of each one's appearance."""
        entropies = []
        for world in worlds:
            self.steps[world] = 0
            self._count[world] += 1
            entropies.append([int(self._entropy[world]), int(self._count[world])])
        return entropies
