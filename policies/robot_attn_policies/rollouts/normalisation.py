"""Wrappers with running statistics: whoever watches a policy must not move them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from gymnasium.wrappers.vector import NormalizeObservation as VectorNormalizeObservation
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.sb3.vec_env import BatchVecEnv


@contextmanager
def without_normalisation_updates(env: Any) -> Iterator[None]:
    """Freeze the running statistics of all normalising wrappers, and pass rewards on as they are.

    These are `VecNormalize` of Stable-Baselines3, and `NormalizeObservation` and `NormalizeReward` of
    Gymnasium. Observations are still normalised, as the policy expects. At the end, everything is as it was,
    running returns included. Wrappers in other processes are not reached.

    Args:
        env: an environment of any kind, wrapped or not.
    """
    with ExitStack() as stack:
        for layer in _layers(env):
            if isinstance(layer, VecNormalize):
                stack.enter_context(
                    _set(layer, training=False, norm_reward=False, returns=layer.returns.copy())
                )
            elif isinstance(layer, NormalizeObservation | VectorNormalizeObservation):
                stack.enter_context(_set(layer, update_running_mean=False))
            elif isinstance(layer, NormalizeReward | VectorNormalizeReward):
                running = "discounted_reward" if isinstance(layer, NormalizeReward) else "accumulated_reward"
                unit = copy.copy(layer.return_rms)
                unit.var = np.ones_like(unit.var)  # rewards are divided by the root of var + epsilon
                stack.enter_context(
                    _set(
                        layer,
                        update_running_mean=False,
                        return_rms=unit,
                        epsilon=0.0,
                        **{running: np.copy(getattr(layer, running))},
                    )
                )
        yield


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment, those inside its wrappers, and the environments of a batch in this process."""
    while True:
        yield env
        if isinstance(env, DummyVecEnv | SyncVectorEnv):
            for each in env.envs:
                yield from _layers(each)
        if isinstance(env, VecEnvWrapper):
            env = env.venv
        elif isinstance(env, gymnasium.Wrapper | VectorWrapper | BatchVecEnv | EnvBatch):
            env = env.env
        else:
            return


@contextmanager
def _set(layer: Any, **values: Any) -> Iterator[None]:
    """Set attributes, and set them back at the end."""
    before = {name: getattr(layer, name) for name in values}
    for name, value in values.items():
        setattr(layer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)
