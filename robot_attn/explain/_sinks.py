"""Attention sinks: cells that hold much of a head's mass whatever the frame.

Trained transformers park attention that they do not need on a fixed token (Xiao et al. 2023,
https://arxiv.org/abs/2309.17453; in vision, Darcet et al. 2023, https://arxiv.org/abs/2309.16588). Such mass
says nothing about the frame. Here it is found, named and taken out, so that the rest of a map can be judged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_attn.maps import AttentionGrid, AttentionMaps

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

SINK_SHARE = 0.25
"""Smallest share of a head's mass that a sink holds."""
SINK_FRAMES = 0.9
"""Smallest fraction of the frames without the target near it in which a sink holds that share."""
MIN_FRAMES = 20
"""Fewest frames without the target near a cell for it to be called a sink."""


def find_sinks(maps: AttentionMaps, masks: Bools) -> Bools:
    """Find the cells that hold at least `SINK_SHARE` of a head's mass whether or not the target is there.

    Frames in which the target is in the cell or next to it do not count: a head that follows a target which
    stays in place has no sink.

    Args:
        maps: [B, heads, rows, cols], each of sum 1.
        masks: bool [B, H, W], True on the target.

    Returns:
        bool [heads, rows, cols].
    """
    weights, grid = maps.weights, maps.grid
    held = weights >= max(SINK_SHARE, 4 / (grid.shape[0] * grid.shape[1]))
    candidates = np.asarray(held.any(axis=0))
    if not candidates.any():
        return candidates
    down, across = (np.asarray(shares > 0, np.float64) for shares in grid.box_shares)
    touched = (down @ masks.astype(np.float64) @ across.T) > 0
    padded = np.pad(touched, ((0, 0), (1, 1), (1, 1)))
    rows, cols = grid.shape
    near = np.any([padded[:, dy : dy + rows, dx : dx + cols] for dy in range(3) for dx in range(3)], axis=0)
    away = ~near[:, None]
    frames = away.sum(axis=0)
    return np.asarray(
        candidates & (frames >= MIN_FRAMES) & ((held & away).sum(axis=0) >= SINK_FRAMES * frames)
    )


def without_sinks(attention: Floats, sinks: Bools) -> NDArray[np.float64]:
    """Take the mass in sinks out of attention, and scale the rest to sum 1.

    A head with nothing else becomes uniform: it says nothing.

    Args:
        attention: float [B, heads, rows, cols].
        sinks: bool [heads, rows, cols].

    Returns:
        float64 [B, heads, rows, cols], each of sum 1.
    """
    rest = np.where(sinks, 0.0, attention).astype(np.float64)
    total = rest.sum(axis=(-2, -1), keepdims=True)
    blank = total <= 1e-6
    return np.asarray(np.where(blank, 1 / sinks[0].size, rest / np.where(blank, 1.0, total)))


def describe_sinks(sinks: Bools, grid: AttentionGrid) -> tuple[str, ...]:
    """Name the sinks in words, such as "heads 1 and 3 have a sink in the top left corner".

    Args:
        sinks: bool [heads, rows, cols].
        grid: positions of the cells.

    Returns:
        One phrase for each place.
    """
    heads_by_place: dict[str, list[int]] = {}
    for head, row, col in np.argwhere(sinks):
        place = _place(row / max(1, grid.shape[0] - 1), col / max(1, grid.shape[1] - 1))
        heads = heads_by_place.setdefault(place, [])
        if head not in heads:
            heads.append(int(head))
    return tuple(f"{_heads(heads)} a sink {place}" for place, heads in heads_by_place.items())


def _place(down: float, right: float) -> str:
    """Name a position, each in [0, 1]."""
    vertical, horizontal = (
        names[int(3 * min(at, 0.999))]
        for at, names in ((down, ("top", "", "bottom")), (right, ("left", "", "right")))
    )
    if vertical and horizontal:
        return f"in the {vertical} {horizontal} corner"
    return f"at the {vertical or horizontal}" if vertical or horizontal else "at the centre"


def _heads(heads: list[int]) -> str:
    if len(heads) == 1:
        return f"head {heads[0]} has"
    return f"heads {', '.join(map(str, heads[:-1]))} and {heads[-1]} have"
