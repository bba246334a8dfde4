"""A small single environment of 36 x 36 frames for every algorithm: actions of any kind, some not allowed."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 36


class Ball(gymnasium.Env[Any, Any]):
    """A bright square that moves at random; every step is paid 1.

    Args:
        discrete: whether there are 3 actions instead of 2 numbers in [-2, 2].
        state: whether observations are a `Dict` of the frame and a state of large numbers.
        steps: length of an episode.
        masked: whether two of the three actions are forbidden at every step (`action_masks`).
        target: whether infos have the square as `target_mask`.
    """

    def __init__(
        self,
        *,
        discrete: bool = False,
        state: bool = False,
        steps: int = 4,
        masked: bool = False,
        target: bool = False,
    ) -> None:
        frame = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        entries = {"image": frame, "state": spaces.Box(-np.inf, np.inf, (2,), np.float32)}
        self.observation_space = spaces.Dict(entries) if state else frame
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-2, 2, (2,), np.float32)
        self.steps, self.state, self.target = steps, state, target
        self.taken: list[Any] = []
        self.seeds: list[int | None] = []
        if masked:
            self.action_masks = self.allowed

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.step_count = 0
        return self.observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.taken.append((self.step_count, action))
        self.step_count += 1
        observation, info = self.observe()
        return observation, 1.0, False, self.step_count == self.steps, info

    def allowed(self) -> Any:
        """The only action that is allowed changes from step to step."""
        return np.arange(3) == self.step_count % 3

    def observe(self) -> tuple[Any, dict[str, Any]]:
        frame = self.np_random.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        y, x = self.np_random.integers(4, SIDE - 4, 2)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y - 4 : y + 4, x - 4 : x + 4] = True
        frame[mask] = 250
        state = (100 * self.np_random.uniform(-1, 1, 2)).astype(np.float32)
        info = {"target_mask": mask} if self.target else {}
        return ({"image": frame, "state": state} if self.state else frame), info
