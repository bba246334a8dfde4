"""One environment of any kind, ours or not, as the batch that rollouts are played in."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from robot_attn_policies.rollouts.rollout import Observation

Environment: TypeAlias = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv

_TOLD = ("target_mask", "success", "is_success")


class BatchOfOne:
    """An environment as a batch of one: that part of Gymnasium's `VectorEnv` by which rollouts are played.

    Args:
        env: a Gymnasium environment, or a batch of one: a Gymnasium `VectorEnv` or a `VecEnv` of
            Stable-Baselines3. It stays open.
        max_steps: where an episode that does not end is cut.

    Raises:
        ValueError: no environment, or no steps.
    """

    def __init__(self, env: Environment, max_steps: int) -> None:
        if not isinstance(env, (gymnasium.Env, VectorEnv, VecEnv)):
            raise ValueError(
                f"expected an environment, got {type(env).__name__}; make one with gymnasium.make"
            )
        if max_steps < 1:
            raise ValueError(f"expected max_steps of 1 or more, got {max_steps}")
        self.env, self.max_steps = env, max_steps
        self.steps = 0
        self.single_action_space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
        self.num_envs = 1 if isinstance(env, gymnasium.Env) else env.num_envs
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        pace = attribute(env, "dt")
        self.dt = float(pace) if isinstance(pace, (int, float)) and 0 < pace < math.inf else None
        names = attribute(env, "action_names")
        if names is not None and len(names) == spaces.flatdim(self.single_action_space):
            self.action_names = names
        if isinstance(env, VectorEnv) and hasattr(env.unwrapped, "get_state"):
            self.get_state = env.unwrapped.get_state

    @property
    def unwrapped(self) -> Any:
        """The environment below all wrappers."""
        return self.env.unwrapped

    def reset(self, *, seed: list[int]) -> tuple[Observation, Mapping[str, Any]]:
        self.steps = 0
        if isinstance(self.env, VectorEnv):
            observation, info = self.env.reset(seed=seed)  # type: ignore[arg-type]
            return self.observe(observation), info
        if isinstance(self.env, VecEnv):
            self.env.seed(seed[0])
            observation = self.env.reset()
            return self.observe(observation), _rows(self.env.unwrapped.reset_infos[0])
        observation, info = self.env.reset(seed=seed[0])
        return self.observe(as_batch(observation)), _rows(info)

    def step(self, actions: NDArray[Any]) -> tuple[Observation, Any, Any, Any, Mapping[str, Any]]:
        self.steps += 1
        cut = np.array([self.steps >= self.max_steps])
        if isinstance(self.env, VectorEnv):
            observation, rewards, terminated, truncated, info = self.env.step(actions)
            return self.observe(observation), rewards, terminated, truncated | cut, info
        if isinstance(self.env, VecEnv):
            observation, rewards, dones, infos = self.env.step(actions)
            return self.observe(observation), rewards, dones, cut, _rows(infos[0])
        observation, reward, ended, late, info = self.env.step(actions[0])
        over = np.array([ended or late])
        return self.observe(as_batch(observation)), np.array([float(reward)]), over, cut, _rows(info)

    def observe(self, observation: Any) -> Observation:
        """What is given for an observation of the environment: a copy, as it may write the next one there."""
        return copy.deepcopy(observation)  # type: ignore[no-any-return]


def as_batch(observation: Any) -> Observation:
    """An observation as a batch of one."""
    if isinstance(observation, Mapping):
        return {name: np.asarray(entry)[None] for name, entry in observation.items()}
    return np.asarray(observation)[None]


def _rows(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is kept of an environment's info, as a batch of one."""
    return {name: np.asarray(info[name])[None] for name in _TOLD if info.get(name) is not None}


def attribute(env: Environment, name: str) -> Any:
    """What an environment, or one below its wrappers, says under `name`; None where it says nothing."""
    if isinstance(env, VecEnv):
        return env.get_attr(name)[0] if env.has_attr(name) else None
    if isinstance(env, gymnasium.Env):
        return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
    return getattr(env.unwrapped, name, None)
