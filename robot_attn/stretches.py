"""Stretches: runs of consecutive steps with equal values, such as those in which a target is hidden."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Stretch(NamedTuple):
    """Consecutive rows of one episode, [first, stop).

    Attributes:
        first: first row.
        stop: row after the last.
    """

    first: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.first


def stretches(values: NDArray[Any], episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """Split rows into stretches of equal values.

    Args:
        values: [T], one value per row.
        episode: int [T], episode of each row, at whose boundaries stretches end; None for one episode.

    Returns:
        The stretches in order; together they cover all rows.
    """
    if len(values) == 0:
        return []
    change = values[1:] != values[:-1]
    if episode is not None:
        change |= episode[1:] != episode[:-1]
    edges = [0, *(np.flatnonzero(change) + 1).tolist(), len(values)]
    return [Stretch(*pair) for pair in itertools.pairwise(edges)]


def stretches_of(flags: NDArray[np.bool_], episode: NDArray[np.integer] | None = None) -> list[Stretch]:
    """Find the stretches in which `flags` is True.

    Args:
        flags: bool [T].
        episode: int [T], episode of each row, at whose boundaries stretches end; None for one episode.
    """
    return [stretch for stretch in stretches(flags, episode) if flags[stretch.first]]
