"""Convert the Gymnasium spaces that SB3 supports to JSON and back, with every size bounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")
MAX_ELEMENTS = 1 << 25
MAX_ENTRIES = 64


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Convert a space to plain JSON.

    Raises:
        ValueError: a space that SB3 policies do not support.
    """
    if isinstance(space, spaces.Dict):
        # A list, because the order of the entries is part of the space.
        return {
            "type": "Dict",
            "entries": [[key, space_to_json(entry)] for key, entry in space.spaces.items()],
        }
    if isinstance(space, spaces.Box):
        low, high = _limit_to_json(space.low), _limit_to_json(space.high)
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": low,
            "high": high,
        }
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return {"type": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not np.any(space.start):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
        return {"type": "MultiBinary", "n": space.n}
    raise ValueError(
        f"expected a Dict, Box, Discrete, MultiDiscrete or MultiBinary space counted from 0, got {space}"
    )


def space_from_json(data: Any) -> spaces.Space[Any]:
    """Convert the output of `space_to_json` back to a space.

    Raises:
        ValueError: anything else, or a size out of range; raised before memory is allocated.
    """
    kind = data.get("type") if isinstance(data, dict) else None
    if kind == "Dict":
        _fields(data, {"type", "entries"})
        entries = data["entries"]
        pairs = isinstance(entries, list) and all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in entries
        )
        if (
            not pairs
            or not 0 < len(entries) <= MAX_ENTRIES
            or len({pair[0] for pair in entries}) < len(entries)
        ):
            raise ValueError(
                f"expected 1 to {MAX_ENTRIES} entries [name, space] of a Dict space, got {entries!r:.80}"
            )
        if any(isinstance(entry, dict) and entry.get("type") == "Dict" for _, entry in entries):
            raise ValueError("expected a flat Dict space, got one with Dict spaces in it")
        return spaces.Dict([(key, space_from_json(entry)) for key, entry in entries])
    if kind == "Box":
        _fields(data, {"type", "shape", "dtype", "low", "high"})
        shape, dtype = data["shape"], data["dtype"]
        if not isinstance(shape, list) or len(shape) > 8 or not all(_is_count(side) for side in shape):
            raise ValueError(
                f"expected the shape of a Box space, a list of positive integers, got {shape!r:.80}"
            )
        if math.prod(shape) > MAX_ELEMENTS or dtype not in DTYPES:
            raise ValueError(
                f"expected a Box space of at most {MAX_ELEMENTS} elements and a dtype among "
                f"{', '.join(DTYPES)}, got shape {shape!r:.80} and dtype {dtype!r:.80}"
            )
        kind_of = np.dtype(dtype)
        low, high = (_limit_from_json(data[side], tuple(shape), kind_of) for side in ("low", "high"))
        return spaces.Box(low, high, tuple(shape), kind_of.type)
    if kind in ("Discrete", "MultiBinary"):
        _fields(data, {"type", "n"})
        if not _is_count(data["n"]):
            raise ValueError(
                f"expected a positive integer for the n of a {kind} space, got {data['n']!r:.80}"
            )
        return spaces.Discrete(data["n"]) if kind == "Discrete" else spaces.MultiBinary(data["n"])
    if kind == "MultiDiscrete":
        _fields(data, {"type", "nvec"})
        nvec = data["nvec"]
        if not isinstance(nvec, list) or not 0 < len(nvec) <= 4096 or not all(_is_count(n) for n in nvec):
            raise ValueError(
                f"expected the nvec of a MultiDiscrete space, positive integers, got {nvec!r:.80}"
            )
        return spaces.MultiDiscrete(nvec)
    raise ValueError(f"expected a Dict, Box, Discrete, MultiDiscrete or MultiBinary space, got {data!r:.80}")


def _fields(data: dict[str, Any], expected: set[str]) -> None:
    if set(data) != expected:
        raise ValueError(
            f"expected a {data['type']} space with the fields {sorted(expected)}, got {sorted(data)!s:.200}"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= 1 << 20


def _limit_to_json(limit: Any) -> Any:
    """A bound as one number if all elements are equal. JSON has no infinity: it becomes a string."""
    if limit.size and (limit == limit.flat[0]).all():
        value = limit.flat[0].item()
        return str(value) if isinstance(value, float) and math.isinf(value) else value
    return [_limit_to_json(row) for row in limit]


def _limit_from_json(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    array = np.empty(shape, dtype)
    _fill(array, value)
    return array


def _fill(array: Any, value: Any) -> None:
    if isinstance(value, list):
        if array.ndim == 0 or len(value) != len(array):
            raise ValueError(
                f"expected the bounds of a Box space to have its shape, got a list of {len(value)} "
                f"for the dimensions {array.shape}"
            )
        for i, row in enumerate(value):
            _fill(array[i, ...], row)  # with the ellipsis, even a single element is a view
        return
    if value in ("inf", "-inf") and np.issubdtype(array.dtype, np.floating):
        value = float(value)
    elif type(value) not in (int, float):
        raise ValueError(f"expected a number as the bound of a Box space, got {value!r:.80}")
    elif np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        if not limits.min <= value <= limits.max:
            raise ValueError(f"expected a bound of a {array.dtype} Box space, got {value!r:.80}")
    array[...] = value
