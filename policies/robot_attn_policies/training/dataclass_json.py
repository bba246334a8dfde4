"""Parse JSON into frozen dataclasses by their annotations, without conversions or unknown fields."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

MAX_INT = 1 << 53
MAX_DEPTH = 8


def from_json(kind: Any, data: Any, where: str = "") -> Any:
    """Parse `data` as a value of type `kind`.

    Args:
        kind: a dataclass, bool, int, float, str, None, tuple[T, ...], Mapping[str, T], T | None or `Json`.
        data: what `json.loads` returned.
        where: path of `data` in the whole document, for error messages.

    Returns:
        An instance of `kind`.

    Raises:
        ValueError: a wrong type, a missing or unknown field, or a number out of range; the message has the
            path and the value.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        if not isinstance(data, dict) or data.keys() != set(names):
            found = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ValueError(
                f"expected {where or _name(kind)} with the fields {sorted(names)}, got {found!s:.200}"
            )
        values = {name: from_json(hints[name], data[name], f"{where}.{name}".lstrip(".")) for name in names}
        return typing.cast(type, kind)(**values)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(from_json(arguments[0], item, where) for item in data)
    if (
        origin is not None
        and isinstance(origin, type)
        and issubclass(origin, Mapping)
        and isinstance(data, dict)
    ):
        return {key: from_json(arguments[1], value, f"{where}.{key}") for key, value in data.items()}
    if origin in (types.UnionType, typing.Union):
        if any(argument is dict or typing.get_origin(argument) is dict for argument in arguments):
            return _check_plain(data, where)
        for argument in arguments:
            try:
                return from_json(argument, data, where)
            except ValueError:
                continue
    elif kind is type(None) and data is None:
        return None
    elif kind is float and type(data) in (int, float):
        return float(data)
    elif kind in (bool, int, str) and type(data) is kind and not (kind is int and abs(data) > MAX_INT):
        return data
    raise ValueError(f"expected {where} of type {_name(kind)}, got {data!r:.80}")


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and typing.get_origin(kind) is None else str(kind)


def _check_plain(data: Any, where: str, depth: int = 0) -> Any:
    """Check JSON of any type: its depth is bounded and its integers fit a double exactly."""
    if depth > MAX_DEPTH:
        raise ValueError(f"expected {where} to be nested at most {MAX_DEPTH} deep, got more")
    if isinstance(data, dict):
        return {key: _check_plain(value, f"{where}.{key}", depth + 1) for key, value in data.items()}
    if isinstance(data, list):
        return [_check_plain(value, where, depth + 1) for value in data]
    if type(data) is int and abs(data) > MAX_INT:
        raise ValueError(f"expected {where} up to {MAX_INT}, got {data!r:.80}")
    return data
