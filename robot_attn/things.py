"""Things in a frame: what attention can fall on besides the target, by the names that environments give.

An environment labels each pixel with the thing it shows, an index into its tuple of names. Label 0 is the
backdrop and label 1 the target; there may be a robot, occluders, distractors ("distractor 1", "distractor 2"
and so on), and other things that a task is about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TARGET_ONLY = ("backdrop", "target")
"""Names of the labels of an environment that gives target masks alone."""
CANNOT_MATTER = ("backdrop", "distractors", "occluder")
"""Kinds of things on which no decision can depend; the target, the robot and a task's landmarks can."""
_DISTRACTOR = re.compile(r"distractor \d+")


def thing_kind(name: str) -> str:
    """The kind of a thing: "distractors" for "distractor 3", and otherwise the name itself."""
    return "distractors" if _DISTRACTOR.fullmatch(name) else name


def thing_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds of these things, each once, in the order of their first thing."""
    return tuple(dict.fromkeys(thing_kind(name) for name in names))


def sum_by_kind(mass: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float64]:
    """Add up the mass on things of the same kind.

    Args:
        mass: float [..., things], such as `mass_by_label` returns.
        names: names of the things.

    Returns:
        float64 [..., kinds], in the order of `thing_kinds(names)`.

    Raises:
        ValueError: another number of names than things.
    """
    if mass.shape[-1:] != (len(names),):
        raise ValueError(f"expected mass [..., {len(names)}], one for each name, got {list(mass.shape)}")
    kinds = thing_kinds(names)
    membership = np.array([[thing_kind(name) == kind for kind in kinds] for name in names], np.float64)
    return np.asarray(mass @ membership, np.float64)


def cannot_matter(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which things no decision can depend on, bool [things]: backdrop, distractors and occluders."""
    return np.array([thing_kind(name) in CANNOT_MATTER for name in names])
