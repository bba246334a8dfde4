"""A small vector environment, a camera that follows a bright dot, with 36 x 44 frames and a 2-d state.

It follows Gymnasium's conventions exactly (SAME_STEP autoreset, `_key` masks, `final_obs`, `final_info`), has
terminated and truncated episodes, and returns its complete state as arrays.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

HEIGHT, WIDTH, HORIZON = 36, 44, 13


class ToyEnv(VectorEnv[Any, Any, Any]):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        training: bool = False,
        *,
        box: bool = False,
        discrete: bool = False,
        masks: bool = True,
    ) -> None:
        self.training = training
        self.num_envs, self.box, self.masks = num_envs, box, masks
        image = gymnasium.spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        state = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.single_observation_space = image if box else gymnasium.spaces.Dict(image=image, state=state)
        self.single_action_space = (
            gymnasium.spaces.Discrete(4) if discrete else gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.rngs = [np.random.Generator(np.random.PCG64(i)) for i in range(num_envs)]
        self.positions = np.zeros((num_envs, 2))
        self.clock = np.zeros(num_envs, np.int64)
        self.poison: tuple[int, float] | None = None
        """(step, value): from this step on, the first element of the state is this value."""
        self.steps = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        seeds = (
            [seed + i for i in range(self.num_envs)]
            if isinstance(seed, int)
            else seed or [None] * self.num_envs
        )
        for i, each in enumerate(seeds):
            if each is not None:
                self.rngs[i] = np.random.Generator(np.random.PCG64(each))
        everyone = np.ones(self.num_envs, bool)
        self._begin(everyone)
        return self.observe(), self._infos(everyone)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.steps += 1
        actions = np.asarray(actions)
        if isinstance(self.single_action_space, gymnasium.spaces.Discrete):
            actions = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])[actions]
        drift = np.stack([rng.uniform(-0.1, 0.1, 2) for rng in self.rngs])
        self.positions = np.clip(self.positions + 0.2 * actions + drift, -1, 1)
        self.clock += 1
        distance = np.abs(self.positions).max(1)
        rewards = 1 - distance
        terminated = distance > 0.97
        truncated = self.clock >= HORIZON
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        if ended.any():
            infos["final_obs"], infos["final_info"] = self.observe(), self._infos(ended)
            infos["_final_obs"] = infos["_final_info"] = ended
            self._begin(ended)
        return (
            self.observe(),
            rewards,
            terminated,
            truncated,
            infos | self._infos(np.ones(self.num_envs, bool)),
        )

    def observe(self) -> Any:
        images = np.full((self.num_envs, HEIGHT, WIDTH, 3), 30, np.uint8)
        for i, mask in enumerate(self._masks()):
            images[i][mask] = (250, 20 * (i % 5), 60)
        state = self.positions.astype(np.float32)
        if self.poison is not None and self.steps >= self.poison[0]:
            state[0, 0] = self.poison[1]
        return images if self.box else {"image": images, "state": state}

    def get_state(self) -> dict[str, Any]:
        words = []
        for state in (rng.bit_generator.state for rng in self.rngs):
            for limb in (state["state"]["state"], state["state"]["inc"]):
                words += [limb >> 64, limb & ((1 << 64) - 1)]
            words += [state["has_uint32"], state["uinteger"]]  # half a sample that may be left over
        return {
            "positions": self.positions.copy(),
            "clock": self.clock.copy(),
            "random": np.array(words, np.uint64).reshape(self.num_envs, 6),
        }

    def set_state(self, state: Any) -> None:
        self.positions, self.clock = state["positions"].copy(), state["clock"].copy()
        for rng, (high, low, inc_high, inc_low, has, left) in zip(
            self.rngs, state["random"].tolist(), strict=True
        ):
            rng.bit_generator.state = {
                "bit_generator": "PCG64",
                "state": {"state": (high << 64) | low, "inc": (inc_high << 64) | inc_low},
                "has_uint32": has,
                "uinteger": left,
            }

    def _begin(self, which: Any) -> None:
        for i in np.flatnonzero(which):
            self.positions[i] = self.rngs[i].uniform(-0.8, 0.8, 2)
            self.clock[i] = self.rngs[i].integers(0, 4)

    def _masks(self) -> Any:
        y = (self.positions[:, 0] * 13 + 18).round()[:, None, None]
        x = (self.positions[:, 1] * 17 + 22).round()[:, None, None]
        rows, cols = np.arange(HEIGHT)[None, :, None], np.arange(WIDTH)[None, None, :]
        return (np.abs(rows - y) <= 2) & (np.abs(cols - x) <= 2)

    def _infos(self, which: Any) -> dict[str, Any]:
        infos: dict[str, Any] = {
            "success": np.abs(self.positions).max(1) < 0.3,
            "target_visible": np.ones(self.num_envs, bool),
        }
        if self.masks:
            infos["target_mask"] = self._masks()
        return infos | {"_" + key: which.copy() for key in infos}
