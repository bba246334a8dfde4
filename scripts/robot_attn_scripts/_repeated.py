"""Options that are given more than once: lists add up, everything else is an error.

tyro, like argparse, keeps the last occurrence and drops the others without a word.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def merge_repeated(groups: Iterable[type[Any]], arguments: Sequence[str]) -> list[str]:
    """Merge the occurrences of each option that takes any number of values into one.

    The merged option stands where the last occurrence stood, with the values of all of them in order. A value
    that is repeated is kept once, but for NAME=VALUE, whose parser refuses a repeated name.

    Args:
        groups: option groups, dataclasses; a field without a default is a positional argument.
        arguments: command-line arguments, such as ["track", "--ppo", "n_envs=8", "--ppo", "n_steps=64"].

    Returns:
        The arguments with each option at most once, such as ["track", "--ppo", "n_envs=8", "n_steps=64"].

    Raises:
        ValueError: an option that takes a fixed number of values is given more than once.
    """
    counts = _value_counts(groups)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    segments = _segments(arguments[:end])
    occurrences: dict[str, list[list[str]]] = {}
    for segment in segments:
        if (name := _name(segment[0], counts)) is not None:
            occurrences.setdefault(name, []).append(segment)
    for name, repeated in occurrences.items():
        if len(repeated) == 1:
            continue
        count = counts[name]
        if count is not None:
            raise ValueError(
                f"expected {name} once, got it {len(repeated)} times: "
                + ", ".join(" ".join(_split(segment)[1][:count]) or segment[0] for segment in repeated)
            )
        values = [value for segment in repeated for value in _split(segment)[1]]
        once = [value for i, value in enumerate(values) if "=" in value or value not in values[:i]]
        *others, last = repeated
        last[:] = [name, *once]
        for other in others:
            other.clear()
    return [token for segment in segments for token in segment] + list(arguments[end:])


def _value_counts(groups: Iterable[type[Any]]) -> dict[str, int | None]:
    """The number of values of each option by its flag: 0 for a switch, None for any number."""
    counts: dict[str, int | None] = {}
    for group in groups:
        types = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                continue
            kind, inner = types[field.name], typing.get_args(types[field.name])
            is_tuple = typing.get_origin(kind) is tuple
            flag = f"--{field.name.replace('_', '-')}"
            if kind is bool:
                counts[flag] = 0
            elif is_tuple and inner[-1] is Ellipsis:
                counts[flag] = None
            else:
                counts[flag] = len(inner) if is_tuple else 1
    return counts


def _segments(arguments: Sequence[str]) -> list[list[str]]:
    """Split arguments before each flag; the first segment may have none."""
    segments: list[list[str]] = []
    for token in arguments:
        if not segments or (token.startswith("--") and token[2:3].isalpha()):
            segments.append([])
        segments[-1].append(token)
    return segments


def _name(token: str, counts: Mapping[str, int | None]) -> str | None:
    """The option that a token names, in the spellings that tyro takes: --at_once, --at-once=2, --no-boxes."""
    flag = token.partition("=")[0].replace("_", "-")
    if flag in counts:
        return flag
    positive = flag.replace("--no-", "--", 1)
    return positive if counts.get(positive) == 0 else None


def _split(segment: Sequence[str]) -> tuple[str, list[str]]:
    """Split a segment into its flag and its values: ["--env=a=1", "b=2"] -> "--env", ["a=1", "b=2"]."""
    flag, equals, value = segment[0].partition("=")
    return flag, [*([value] if equals else []), *segment[1:]]
