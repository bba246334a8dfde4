"""What an environment's frames show: the labels of pixels in infos, their names, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from robot_attn.things import TARGET_ONLY
from robot_attn_policies.rollouts.camera import MASK, THINGS
from robot_attn_policies.rollouts.env_batch import attribute
from robot_attn_policies.rollouts.protocols import HasThings, ability


def pixel_labels(info: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return what each pixel shows, as indices into `thing_names`.

    Args:
        info: infos of a step or a reset.

    Returns:
        uint8 [N, H, W]: `things`, or 1 where `target_mask` is True; None without either.
    """
    if THINGS in info:
        return np.asarray(info[THINGS], np.uint8)
    return np.asarray(info[MASK]).astype(np.uint8) if MASK in info else None


def thing_names(env: Any) -> tuple[str, ...]:
    """Return the names of the labels in an environment's infos.

    Args:
        env: a batch of environments, as `rollout_episodes` takes it.

    Returns:
        Those of `HasThings`; `TARGET_ONLY` for an environment that marks the target at most.
    """
    found = ability(env, HasThings)
    if found is not None:
        return tuple(found.thing_names)
    inner = env if isinstance(env, VectorEnv) else env.env
    if isinstance(inner.unwrapped, SyncVectorEnv | AsyncVectorEnv):
        names = _of_each(inner, "thing_names")[0]
    else:
        names = attribute(inner, "thing_names")
    return TARGET_ONLY if names is None else tuple(names)


def describe_things(env: Any) -> list[tuple[str, ...]]:
    """Describe the things in each environment's running episode, such as "red sphere".

    Args:
        env: a batch of environments, as `rollout_episodes` takes it.

    Returns:
        For each environment a description of each label; the names where the environment describes nothing.
    """
    found = ability(env, HasThings)
    if found is not None:
        return list(found.describe_things())
    inner = env if isinstance(env, VectorEnv) else env.env
    described: Sequence[Any] = (None,)
    if isinstance(inner.unwrapped, SyncVectorEnv | AsyncVectorEnv):
        described = _of_each(inner, "describe_things")
    elif isinstance(inner, gymnasium.Env):
        describe = attribute(inner, "describe_things")
        described = [None if describe is None else describe()]
    if any(each is None for each in described):
        return [thing_names(env)] * env.num_envs
    return [row for each in described for row in each]


def _of_each(env: Any, name: str) -> Sequence[Any]:
    """An attribute of each environment that is stepped one by one, or what a method returns; None without."""
    try:
        return tuple(env.unwrapped.get_attr(name))
    except AttributeError:
        return (None,)
