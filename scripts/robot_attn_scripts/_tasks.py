"""Tasks by the name that a person types: ours, and whatever is registered with Gymnasium."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_scripts._errors import unknown_name

NAMESPACE = "RobotAttn"


def env_id(task: str) -> str:
    """The Gymnasium id of a task's newest version: "track" -> "RobotAttn/Track-v0".

    A third party's id stays as it is; "module:id" names one that importing the module registers.

    Raises:
        ValueError: no such task; the nearest is named.
    """
    module, colon, name = task.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"the module of {task!r} cannot be imported ({error}): install it, or put its folder in "
                "PYTHONPATH"
            ) from error
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for spec in sorted(gymnasium.registry.values(), key=lambda spec: spec.version or 0):
        if spec.namespace == NAMESPACE:
            ours[spec.name.lower()] = spec.id
        else:
            theirs.append(spec.id)
    if task in ours:
        return ours[task]
    if name in theirs:
        return name
    raise unknown_name(
        "task",
        name,
        sorted(ours),
        also={full: short for short, full in ours.items()} | {known: known for known in theirs},
        more=" and the ids registered with Gymnasium (module:id where importing a module registers one)",
    )


def is_ours(task: str) -> bool:
    """Whether the task is ours: it knows its target and its oracle, and goes back to a state it was in.

    Raises:
        ValueError: as `env_id`.
    """
    return gymnasium.spec(env_id(task)).namespace == NAMESPACE


def make_batch(task: str, options: Mapping[str, Any], num_envs: int) -> VectorEnv[Any, Any, Any]:
    """A batch of environments that reset in the step that ends an episode.

    It has `horizon`, the most steps of an episode, and `dt`, the seconds of one, None where they are not
    known.

    Raises:
        ValueError: as `env_id`; an unknown option; or as `_third_party.make_batch`.
    """
    if is_ours(task):
        return gymnasium.make_vec(env_id(task), num_envs=num_envs, **options)
    from robot_attn_scripts import _third_party

    return _third_party.make_batch(env_id(task), options, num_envs)
