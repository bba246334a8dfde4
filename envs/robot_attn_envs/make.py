"""What the registered ids call: a task named by a string, imported when it is made and not before."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import load_env_creator

from robot_attn_envs.env import BatchEnv, TaskEnv


def make_env(task: str, **kwargs: Any) -> TaskEnv:
    """One environment of the task at "module:Class"."""
    return TaskEnv(load_env_creator(task), **kwargs)  # type: ignore[arg-type]


def make_batch(task: str, **kwargs: Any) -> BatchEnv:
    """The batch of environments of the task at "module:Class"."""
    return BatchEnv(load_env_creator(task), **kwargs)  # type: ignore[arg-type]
