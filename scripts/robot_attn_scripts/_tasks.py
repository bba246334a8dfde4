"""Tasks by the name that a person types."""

from __future__ import annotations

import gymnasium

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn._names import unknown_name

NAMESPACE = "RobotAttn"


def env_id(task: str) -> str:
    """The Gymnasium id of a task's newest version: "track" -> "RobotAttn/Track-v0".

    Raises:
        ValueError: no such task; the nearest is named.
    """
    newest: dict[str, str] = {}
    specs = [spec for spec in gymnasium.registry.values() if spec.namespace == NAMESPACE]
    for spec in sorted(specs, key=lambda spec: spec.version or 0):
        newest[spec.name.lower()] = spec.id
    if task not in newest:
        raise unknown_name("task", task, newest)
    return newest[task]
