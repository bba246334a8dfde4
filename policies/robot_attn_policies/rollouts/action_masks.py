"""Action masks of environments, as sb3-contrib's MaskablePPO uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.rollouts.protocols import HasActionMasks, ability

METHOD = "action_masks"


def action_masks(env: Any) -> NDArray[np.bool_] | None:
    """Return which actions the environments allow now.

    Args:
        env: a batch of N environments: one that has `action_masks` itself, a Gymnasium `VectorEnv` of
            environments that have it, or a `VecEnv`; or a single environment, N = 1.

    Returns:
        bool [N, A], True for the actions that are allowed, or None if the environments have no
        `action_masks`.

    Raises:
        ValueError: masks of another shape.
    """
    masks = _masks(env)
    if masks is None:
        return None
    rows = np.asarray(masks(), dtype=bool)
    count = getattr(env, "num_envs", 1)
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(
            f"expected a mask for each of {count} environments, bool [{count}, actions], got "
            f"{list(rows.shape)}: check the environment's `{METHOD}`"
        )
    return rows


def _masks(env: Any) -> Callable[[], Any] | None:
    """Return a function that returns the masks, [N, A], or None."""
    if isinstance(env, EnvBatch):
        return _masks(env.env)
    if isinstance(env, VecEnv):
        return (lambda: np.stack(env.env_method(METHOD))) if env.has_attr(METHOD) else None
    if isinstance(env, gymnasium.Env):
        return (lambda: [env.get_wrapper_attr(METHOD)()]) if env.has_wrapper_attr(METHOD) else None
    layer = ability(env, HasActionMasks)
    if layer is not None:
        return layer.action_masks
    batch = env.unwrapped
    if isinstance(batch, SyncVectorEnv):
        has = all(each.has_wrapper_attr(METHOD) for each in batch.envs)
        return (lambda: batch.call(METHOD)) if has else None
    if isinstance(batch, AsyncVectorEnv):
        raise ValueError(
            "expected environments in this process, whose action masks can be asked for, got an "
            "AsyncVectorEnv: use a SyncVectorEnv"
        )
    return None
