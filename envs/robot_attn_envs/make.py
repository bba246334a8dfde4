"""Entry points of the registered ids: make an environment of a task that is imported on demand."""

from __future__ import annotations

from typing import Any

from robot_attn_envs.env import BatchEnv, TaskEnv
from robot_attn_envs.registry import load
from robot_attn_envs.tasks.task import Task


def make_env(task: str, **kwargs: Any) -> TaskEnv:
    """Make one environment of the task at "module:Class"."""
    return TaskEnv(load_task(task), **kwargs)


def make_batch(task: str, **kwargs: Any) -> BatchEnv:
    """Make a batch of environments of the task at "module:Class"."""
    return BatchEnv(load_task(task), **kwargs)


def load_task(place: str) -> type[Task]:
    """Import the task's class at "module:Class".

    Raises:
        ValueError: it cannot be imported, or is not a subclass of `Task`.
    """
    task = load("task", place)
    if isinstance(task, type) and issubclass(task, Task):
        return task
    raise ValueError(f"expected the task {place!r} to be a subclass of robot_attn_envs.Task, got {task!r}")
