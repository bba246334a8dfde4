"""Steps of an episode that are worth a look, found by rules that a person could apply by hand."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["lost", "left", "jump", "reward", "value"]

FACTOR = 2.0
"""Attention counts as on the target down to this multiple of chance."""
WINDOW = 10
"""Steps within which a fall of the reward or the value is looked for."""
LEAST_FALL = 0.1
"""The smallest fall worth a mark, as a share of the largest magnitude in the episode."""


class Moment(NamedTuple):
    """One mark: the step to look at, what happened there, and that in words."""

    step: int
    kind: Kind
    text: str


class Fall(NamedTuple):
    """A series went down from step `start` to step `stop`."""

    start: int
    stop: int


def target_lost(masks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches [first, stop) in which a target that had been in view is not, for masks [T, H, W]."""
    visible = np.asarray(masks.any(axis=(1, 2)))
    change = np.diff(visible.astype(np.int8))
    gone = np.flatnonzero(change == -1) + 1
    back = [*np.flatnonzero(change == 1) + 1, len(visible)]
    return [(int(first), int(next(stop for stop in back if stop > first))) for first in gone]


def attention_left(
    mass: NDArray[np.float64], chance: NDArray[np.float64], factor: float = FACTOR
) -> list[int]:
    """The steps at which the mass on a visible target fell below `factor` times chance, for both [T].

    It must have been above twice that since the target came into view or attention last left it, so that a
    mass which trembles around the limit leaves once. NaN in `mass`: not in view.
    """
    steps: list[int] = []
    on = False
    for step, ratio in enumerate(mass / np.where(chance > 0, chance, np.nan)):
        if on and ratio < factor:
            steps.append(step)
        on = bool(ratio > 2 * factor or (on and ratio >= factor))  # NaN: no longer
    return steps


def largest_jump(
    maps: NDArray[np.floating], ys: NDArray[np.floating], xs: NDArray[np.floating]
) -> tuple[int, float] | None:
    """The step at which the centre of mass of maps [T, rows, cols] moved most, and by how many pixels.

    ys [rows], xs [cols]: the cells' centres in pixels. A map that is all zero has no centre and ends no jump.
    None where nothing moved by as much as the distance between two cells.
    """
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    known = np.where(total > 0, total, np.nan)
    y, x = maps.sum(axis=2) @ ys / known, maps.sum(axis=1) @ xs / known
    moved = np.hypot(np.diff(y), np.diff(x))
    pitch = min((float(np.diff(row).min()) for row in (ys, xs) if len(row) > 1), default=0.0)
    if np.isnan(moved).all() or np.nanmax(moved) < pitch or np.nanmax(moved) == 0:
        return None
    step = int(np.nanargmax(moved))
    return step + 1, float(moved[step])


def largest_fall(series: NDArray[np.float64], window: int = WINDOW) -> Fall | None:
    """Where `series` [T] fell most within `window` steps; None where that is less than `LEAST_FALL`."""
    finite = series[np.isfinite(series)]
    best, deepest = None, LEAST_FALL * float(np.abs(finite).max(initial=0.0))
    for stop in range(1, len(series)):
        recent = series[max(0, stop - window) : stop][::-1]
        start = stop - 1 - int(np.where(np.isfinite(recent), recent, -np.inf).argmax())  # of equals the last
        if series[start] - series[stop] > deepest:
            best, deepest = Fall(start, stop), float(series[start] - series[stop])
    return best


def find_moments(
    rewards: NDArray[np.float64],
    *,
    values: NDArray[np.float64] | None = None,
    masks: NDArray[np.bool_] | None = None,
    maps: NDArray[np.floating] | None = None,
    mass: NDArray[np.float64] | None = None,
    ys: NDArray[np.floating],
    xs: NDArray[np.floating],
) -> list[Moment]:
    """All that is worth a look in an episode, in the order of its steps.

    Args:
        rewards: [T].
        values: [T] the policy's own estimates of what it will earn, or None.
        masks: bool [T, H, W], True on the target, or None.
        maps: [T, rows, cols] of the head to watch, or None.
        mass: [T] the share of `maps` on the target, NaN where it cannot be told, or None.
        ys, xs: the cells' centres in pixels.
    """
    found: list[Moment] = []
    if masks is not None:
        for first, stop in target_lost(masks):
            until = "until the end" if stop == len(masks) else f"for {_count(stop - first, 'step')}"
            found.append(Moment(first, "lost", f"Target lost from view {until}"))
        if mass is not None:
            chance = masks.mean(axis=(1, 2))
            for step in attention_left(mass, chance):
                ratio = mass[step] / chance[step]
                found.append(Moment(step, "left", f"Attention left the target: {ratio:.1f} × chance"))
    if maps is not None and (jump := largest_jump(maps, ys, xs)) is not None:
        found.append(Moment(jump[0], "jump", f"Largest attention jump: {_count(round(jump[1]), 'pixel')}"))
    kinds: tuple[tuple[Kind, str, NDArray[np.float64] | None], ...] = (
        ("reward", "Reward", rewards),
        ("value", "Value estimate", values),
    )
    for kind, name, series in kinds:
        if series is not None and (fall := largest_fall(series)) is not None:
            ends = f"from {series[fall.start]:.2f} to {series[fall.stop]:.2f}"
            within = _count(fall.stop - fall.start, "step")
            found.append(Moment(fall.start, kind, f"{name} dropped {ends} within {within}"))
    return sorted(found, key=lambda moment: moment.step)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
