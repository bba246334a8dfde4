"""An environment of any kind as the batch that rollouts run in."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from robot_attn_policies.compat.stable_baselines3 import request_seeds
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.rollouts.camera import MASK, THINGS

Environment: TypeAlias = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv

_OF_PIXELS = (MASK, THINGS)
_INFO_KEYS = (*_OF_PIXELS, "success", "is_success")  # passed on from infos


class EnvBatch:
    """An environment as a batch of N, with the part of Gymnasium's `VectorEnv` that rollouts use.

    Args:
        env: a Gymnasium environment (N = 1) or `VectorEnv`, or a Stable-Baselines3 `VecEnv`. It is not
            closed.
        max_steps: an episode that does not end by itself is truncated after this many steps.

    Attributes:
        env: the environment.
        max_steps: the step limit.
        steps: steps since the last reset.
        single_action_space: the environment's action space.
        action_space: the batched action space.
        num_envs: number of environments in `env`.
        dt: seconds of a step, or None where the environment does not report them.
        action_names: one name per number of a flattened action. Missing where the environment has none.
        get_state: the environment's method for its simulator state. Missing where it has none.

    Raises:
        ValueError: `env` is not an environment, or `max_steps` is below 1.
    """

    def __init__(self, env: Environment, max_steps: int) -> None:
        if not isinstance(env, (gymnasium.Env, VectorEnv, VecEnv)):
            raise ValueError(
                f"expected an environment, got {type(env).__name__}: make one with gymnasium.make"
            )
        if max_steps < 1:
            raise ValueError(f"expected max_steps of at least 1, got {max_steps}: allow more steps")
        self.env, self.max_steps = env, max_steps
        self.steps = 0
        self.single_action_space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
        self.num_envs = 1 if isinstance(env, gymnasium.Env) else env.num_envs
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.dt = seconds_of_step(env)
        names = attribute(env, "action_names")
        if names is not None and len(names) == spaces.flatdim(self.single_action_space):
            self.action_names = names
        if isinstance(env, VectorEnv) and hasattr(env.unwrapped, "get_state"):
            self.get_state = env.unwrapped.get_state

    @property
    def unwrapped(self) -> Any:
        """The environment inside all wrappers."""
        return self.env.unwrapped

    def reset(self, *, seed: Sequence[int]) -> tuple[ObservationBatch, Mapping[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: one seed for each environment.

        Returns:
            Observations and infos, batches of N.
        """
        self.steps = 0
        if isinstance(self.env, VectorEnv):
            observation, info = self.env.reset(seed=seed)  # type: ignore[arg-type]
            return self.observe(observation), info
        if isinstance(self.env, VecEnv):
            request_seeds(self.env, seed)
            observation = self.env.reset()
            return self.observe(observation), _rows(self.env.unwrapped.reset_infos)
        observation, info = self.env.reset(seed=seed[0])
        return self.observe(as_batch(observation)), _rows([info])

    def step(self, actions: NDArray[Any]) -> tuple[ObservationBatch, Any, Any, Any, Mapping[str, Any]]:
        """Take a step.

        Args:
            actions: [N, ...].

        Returns:
            Observations, rewards, terminated, truncated and infos, batches of N.
        """
        self.steps += 1
        at_limit = np.full(self.num_envs, self.steps >= self.max_steps)
        if isinstance(self.env, VectorEnv):
            observation, rewards, terminated, truncated, info = self.env.step(actions)
            return self.observe(observation), rewards, terminated, truncated | at_limit, info
        if isinstance(self.env, VecEnv):
            observation, rewards, dones, infos = self.env.step(actions)
            return self.observe(observation), rewards, dones, at_limit, _rows(infos)
        observation, reward, terminated, truncated, info = self.env.step(actions[0])
        done = np.array([terminated or truncated])
        return self.observe(as_batch(observation)), np.array([float(reward)]), done, at_limit, _rows([info])

    def observe(self, observation: Any) -> ObservationBatch:
        """Copy an observation: the environment may write the next one into the same memory."""
        return copy.deepcopy(observation)  # type: ignore[no-any-return]


def as_batch(observation: Any) -> ObservationBatch:
    """Add a leading axis of length 1 to every array of an observation."""
    if isinstance(observation, Mapping):
        return {name: np.asarray(entry)[None] for name, entry in observation.items()}
    return np.asarray(observation)[None]


def _rows(infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entries `_INFO_KEYS` of N infos as Gymnasium's vector environments have them, with `_key` masks.

    Masks and labels of pixels are passed on only if every environment gives them: in a batch, none would
    mean out of sight.
    """
    rows: dict[str, Any] = {}
    of_cameras = [name for name in infos[0] if name.startswith(tuple(f"{key}/" for key in _OF_PIXELS))]
    for name in (*_INFO_KEYS, *of_cameras):
        values = [info.get(name) for info in infos]
        present = np.array([value is not None for value in values])
        if present.all() or (present.any() and not name.startswith(_OF_PIXELS)):
            rows[name] = np.stack([np.asarray(False if value is None else value) for value in values])
            rows[f"_{name}"] = present
    return rows


def seconds_of_step(env: Environment) -> float | None:
    """Return the seconds of a step, `env.dt`; None where an environment does not report them."""
    dt = attribute(env, "dt")
    return float(dt) if isinstance(dt, (int, float)) and 0 < dt < math.inf else None


def attribute(env: Environment, name: str) -> Any:
    """Return an attribute of an environment or of one inside its wrappers, None where there is none."""
    if isinstance(env, VecEnv):
        return env.get_attr(name)[0] if env.has_attr(name) else None
    if isinstance(env, gymnasium.Env):
        return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
    return getattr(env.unwrapped, name, None)
