"""Stretches of equal values in a row of steps, such as those in which a target is hidden."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Stretch(NamedTuple):
    """Successive rows of one episode, [first, stop)."""

    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.stop - self.first


def stretches(values: NDArray[Any], episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """The stretches of equal values, which together are all rows.

    Args:
        values: [T], one a row.
        episode: [T], which episode a row belongs to; a stretch lies within one. None: all rows are of one.
    """
    if len(values) == 0:
        return []
    change = values[1:] != values[:-1]
    if episode is not None:
        change |= episode[1:] != episode[:-1]
    edges = [0, *(np.flatnonzero(change) + 1).tolist(), len(values)]
    return [Stretch(*pair) for pair in itertools.pairwise(edges)]


def stretches_of(flags: NDArray[np.bool_], episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """The stretches in which `flags` [T] is True; `episode` as for `stretches`."""
    return [stretch for stretch in stretches(flags, episode) if flags[stretch.first]]
