"""Registry of perception families: ours, registered ones, installed ones, and any class by "module:Class".

A family of another package is found by name in three ways:

- `register_family("dot", Dot)`, in the current process;
- an entry point, in every process where the package is installed. In its pyproject.toml:

      [project.entry-points."robot_attn.families"]
      dot = "my_package.dot:Dot"

- its path, "my_package.dot:Dot", wherever a family name is accepted. The module is imported, so its code
  runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from robot_attn.errors import unknown_name
from robot_attn.families import BUILTIN_FAMILIES
from robot_attn.perception import Perception

ENTRY_POINTS = "robot_attn.families"
"""Entry-point group in which an installed package declares families: name = "module:Class"."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PLACE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_registered: dict[str, type[Perception]] = {}


class _Families(Mapping[str, type[Perception]]):
    """Read-only mapping of all families by name; a family of another package is imported on lookup."""

    def __getitem__(self, name: str) -> type[Perception]:
        known = BUILTIN_FAMILIES.get(name) or _registered.get(name)
        if known is not None:
            return known
        points = _installed().get(name)
        if points is None:
            raise KeyError(name)
        if len({point.value for point in points}) > 1:
            places = " and ".join(sorted(point.value for point in points))
            raise ValueError(
                f"expected one installed perception family {name!r}, got {places}: uninstall one, or name it "
                'by its path "module:Class"'
            )
        register_family(name, _load(points[0]))
        return _registered[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*BUILTIN_FAMILIES, *_registered, *sorted(_installed()))))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in BUILTIN_FAMILIES or name in _registered or name in _installed()

    def __repr__(self) -> str:
        return f"FAMILIES({', '.join(self)})"


FAMILIES: Mapping[str, type[Perception]] = _Families()
"""The perception families by name: built-in, registered, and those of installed packages."""


def register_family(name: str, family: type[Perception]) -> None:
    """Register a perception family, so that its name is accepted wherever a family name is.

    It is registered for the current process only; use an entry point in the group `robot_attn.families` for
    every process.

    Args:
        name: letters, digits, `-`, `_` and `.`.
        family: a subclass of `Perception`.

    Raises:
        ValueError: an invalid name, a name in use by another class, or a class that is not a `Perception`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a family name of letters, digits, '-', '_' and '.', got {name!r}")
    _check_class(family)
    known = BUILTIN_FAMILIES.get(name) or _registered.get(name)
    if known not in (None, family):
        raise ValueError(
            f"expected an unused name, got {name!r}, which is {known.__module__}:{known.__qualname__}: "
            "choose another"
        )
    if name not in BUILTIN_FAMILIES:
        _registered[name] = family


def find_family(family: str | type[Perception]) -> type[Perception]:
    """Return the class of a family.

    Args:
        family: a name in `FAMILIES`; "module:Class", whose module is imported; or the class itself.

    Raises:
        ValueError: an unknown name (the message suggests the nearest), a module that cannot be imported, or a
            class that is not a `Perception`.
    """
    if not isinstance(family, str):
        return _check_class(family)
    if ":" in family:
        return _load(EntryPoint(family, family, ENTRY_POINTS))
    if family not in FAMILIES:
        raise unknown_name("perception family", family, FAMILIES)
    return FAMILIES[family]


def build(
    family: str | type[Perception], image_shape: tuple[int, int, int], context_dim: int = 0, **options: Any
) -> Perception:
    """Build a perception module with random weights.

    Args:
        family: a name in `FAMILIES`; "module:Class", whose module is imported; or the class itself.
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context that comes with each frame, 0 for none.
        **options: options of the family.

    Raises:
        ValueError: a family as in `find_family`, an unknown option (the message suggests the nearest), or a
            value out of range.
    """
    cls = find_family(family)
    known = [name for name in inspect.signature(cls).parameters if name not in ("image_shape", "context_dim")]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of the family {cls.__name__}", option, known)
    return cls(image_shape, context_dim, **options)


@cache
def _installed() -> Mapping[str, list[EntryPoint]]:
    """Entry points of installed packages by name; none of them is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, []).append(point)
    return found


def _load(point: EntryPoint) -> type[Perception]:
    if not _PLACE.fullmatch(point.value):
        raise ValueError(f'expected a family as "module:Class", got {point.value!r}')
    try:
        return _check_class(point.load())
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"expected a perception family that can be imported, got {point.value!r} ({error}): install its "
            "package, or put its folder in PYTHONPATH"
        ) from error


def _check_class(family: object) -> type[Perception]:
    if isinstance(family, type) and issubclass(family, Perception):
        return family
    raise ValueError(
        f"expected a perception family, a name or a subclass of robot_attn.Perception, got {family!r}"
    )
