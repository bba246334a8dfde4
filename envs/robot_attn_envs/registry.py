"""Registry of tasks and visual shifts by name, including other packages'; classes are imported on first use.

Another package adds its own in one of two ways:

- by a call, for the current process: `register_task("Mine/Dot-v0", "my_package.dot:Dot")` and
  `register_shift("fog", "my_package.fog:Fog")`;
- by entry points, for every process once it is installed. In its pyproject.toml:

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
"""Entry-point groups in which installed packages declare tasks and shifts: name = "module:Class"."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")

_tasks: dict[str, str] = {}
TASKS: Mapping[str, str] = MappingProxyType(_tasks)
"""Path of every task's class, "module:Class", by task id."""

_shifts: dict[str, str | type[Any]] = {}
SHIFT_PLACES: Mapping[str, str | type[Any]] = MappingProxyType(_shifts)
"""Class, or path "module:Class", of every visual shift by name. `robot_attn_envs.SHIFTS` has the classes."""


def register_task(task_id: str, task: str | type[Any]) -> None:
    """Register a task with Gymnasium and with the commands, for the current process.

    `gymnasium.make`, `gymnasium.make_vec` and `robot-attn` then accept its id, and `robot-attn` also its
    short name ("dot" for "Mine/Dot-v0"). An entry point in the group `robot_attn.tasks` registers it for
    every process.

    Args:
        task_id: Gymnasium id, such as "Mine/Dot-v0".
        task: "module:Class", imported when the task is first made; or the class, a subclass of `Task`.

    Raises:
        ValueError: an id in use or invalid, or an invalid path.
    """
    place = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    _check_place("task", place)
    if _tasks.get(task_id) == place:
        return
    if task_id in gymnasium.registry:
        raise ValueError(
            f"expected an unused id for a task, got {task_id!r}, which is registered: choose another"
        )
    try:
        gymnasium.register(
            task_id,
            entry_point="robot_attn_envs.make:make_env",
            vector_entry_point="robot_attn_envs.make:make_batch",
            kwargs={"task": place},
        )
    except gymnasium.error.Error as error:
        raise ValueError(f"expected a task id such as 'Mine/Dot-v0', got {task_id!r}: {error}") from error
    _tasks[task_id] = place


def register_shift(name: str, shift: str | type[Any]) -> None:
    """Register a visual shift, for the current process.

    Its name is then accepted wherever a shift is chosen. An entry point in the group `robot_attn.shifts`
    registers it for every process.

    Args:
        name: letters, digits, `-`, `_` and `.`.
        shift: "module:Class", imported when the shift is first used; or the class, a subclass of `Shift` with
            a `stream` that no other shift has.

    Raises:
        ValueError: a name in use or invalid, or an invalid path. The class is checked when it is first used.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a shift name of letters, digits, '-', '_' and '.', got {name!r}")
    if isinstance(shift, str):
        _check_place("shift", shift)
    known = _shifts.get(name)
    if known is not None and _place(known) != _place(shift):
        raise ValueError(
            f"expected an unused name for a shift, got {name!r}, which is {_place(known)}: choose another"
        )
    _shifts.setdefault(name, shift)


def load(kind: str, place: str | type[Any]) -> Any:
    """Import the class at "module:Class"; a class is returned as it is.

    Args:
        kind: what the class is, for the error message.
        place: "module:Class", or the class.

    Raises:
        ValueError: it cannot be imported.
    """
    if not isinstance(place, str):
        return place
    try:
        return load_env_creator(place)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"expected a {kind} that can be imported, got {place!r} ({error}): install its package, or put "
            "its folder in PYTHONPATH"
        ) from error


def register_installed() -> None:
    """Register the entry points of installed packages; warn about each that cannot be registered."""
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
                warnings.warn(f"the entry point {point.name!r}{package} is ignored: {error}", stacklevel=2)


def _check_place(kind: str, place: str) -> None:
    if not _PLACE.fullmatch(place):
        raise ValueError(f'expected a {kind} as "module:Class", got {place!r}')


def _place(shift: str | type[Any]) -> str:
    return shift if isinstance(shift, str) else f"{shift.__module__}:{shift.__qualname__}"
