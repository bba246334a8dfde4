"""Tasks and visual shifts by name: ours, and those of other packages. Nothing is imported before it is used.

Another package brings its own in two ways:

- by a call, in this process: `register_task("Mine/Dot-v0", "my_package.dot:Dot")` and
  `register_shift("fog", "my_package.fog:Fog")`;
- by entry points, for every process where it is installed. In its pyproject.toml:

      [project.entry-points."robot_attn.tasks"]
      "Mine/Dot-v0" = "my_package.dot:Dot"

      [project.entry-points."robot_attn.shifts"]
      fog = "my_package.fog:Fog"
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

TASK_ENTRY_POINTS, SHIFT_ENTRY_POINTS = "robot_attn.tasks", "robot_attn.shifts"
"""The groups of entry points by which an installed package brings tasks and shifts: name = "module:Class"."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")

_tasks: dict[str, str] = {}
TASKS: Mapping[str, str] = MappingProxyType(_tasks)
"""Every task by its id: where its class is, "module:Class"."""

_shifts: dict[str, str | type[Any]] = {}
SHIFT_PLACES: Mapping[str, str | type[Any]] = MappingProxyType(_shifts)
"""Every visual shift by its name: where its class is, or the class. `robot_attn_envs.SHIFTS` has classes."""


def register_task(task_id: str, task: str | type[Any]) -> None:
    """Register a task with Gymnasium and with the commands, as our own tasks are.

    `gymnasium.make`, `gymnasium.make_vec` and `robot-attn` then know it by its id, and `robot-attn` also by
    its name alone ("dot" for "Mine/Dot-v0"). It lasts as long as the process; an entry point in the group
    `robot_attn.tasks` is for every process.

    Args:
        task_id: Gymnasium's, such as "Mine/Dot-v0".
        task: "module:Class", imported when the task is first made; or the class, a subclass of `Task`.

    Raises:
        ValueError: an id that is taken or is not one, or a place that is not one.
    """
    place = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    _check_place("task", place)
    if _tasks.get(task_id) == place:
        return
    if task_id in gymnasium.registry:
        raise ValueError(
            f"expected a task's id that is free, got {task_id!r}, which is registered: choose another"
        )
    try:
        gymnasium.register(
            task_id,
            entry_point="robot_attn_envs.make:make_env",
            vector_entry_point="robot_attn_envs.make:make_batch",
            kwargs={"task": place},
        )
    except gymnasium.error.Error as error:
        raise ValueError(f"expected a task's id such as 'Mine/Dot-v0', got {task_id!r}: {error}") from error
    _tasks[task_id] = place


def register_shift(name: str, shift: str | type[Any]) -> None:
    """Have a visual shift of your own found by its name, wherever a shift's name is taken.

    It lasts as long as the process; an entry point in the group `robot_attn.shifts` is for every process.

    Args:
        name: letters, digits, `-`, `_` and `.`.
        shift: "module:Class", imported when the shift is first asked for; or the class, a subclass of `Shift`
            with a `stream` that no other shift has.

    Raises:
        ValueError: a name that is taken or is not one, or a place that is not one. What is wrong with the
            class is told when it is first used.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a shift's name of letters, digits, '-', '_' and '.', got {name!r}")
    if isinstance(shift, str):
        _check_place("shift", shift)
    known = _shifts.get(name)
    if known is not None and _place(known) != _place(shift):
        raise ValueError(
            f"expected a shift's name that is free, got {name!r}, which is {_place(known)}: choose another"
        )
    _shifts.setdefault(name, shift)


def load(kind: str, place: str | type[Any]) -> Any:
    """The class at "module:Class".

    Raises:
        ValueError: it cannot be imported.
    """
    if not isinstance(place, str):
        return place
    try:
        return load_env_creator(place)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the {kind} {place!r} cannot be imported ({error}): install its package, or put its folder in "
            "PYTHONPATH"
        ) from error


def register_installed() -> None:
    """Register what installed packages bring by entry points; a name that is taken is left out, and said."""
    register: Mapping[str, Callable[[str, str], None]] = {
        TASK_ENTRY_POINTS: register_task,
        SHIFT_ENTRY_POINTS: register_shift,
    }
    for group, add in register.items():
        for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
            try:
                add(point.name, point.value)
            except ValueError as error:
                package = "" if point.dist is None else f" of {point.dist.name}"
                warnings.warn(f"the entry point {point.name!r}{package} is left out: {error}", stacklevel=2)


def _check_place(kind: str, place: str) -> None:
    if not _PLACE.fullmatch(place):
        raise ValueError(f'expected a {kind} as "module:Class", got {place!r}')


def _place(shift: str | type[Any]) -> str:
    return shift if isinstance(shift, str) else f"{shift.__module__}:{shift.__qualname__}"
