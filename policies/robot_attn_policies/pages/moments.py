"""Steps of an episode that are worth a look, found by rules that a person could apply by hand."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionMaps
from robot_attn.explain import (
    ON_TARGET_RATIO,
    Stretch,
    expected_places,
    jumps,
    largest_drop,
    stretches_of,
)

MomentKind = Literal["lost", "left", "jump", "reward", "value"]


class Moment(NamedTuple):
    """One mark: the step to look at, what happened there, and that in words."""

    step: int
    kind: MomentKind
    text: str


def target_lost(masks: NDArray[np.bool_]) -> list[Stretch]:
    """The stretches [first, stop) in which a target that had been in view is not, for masks [T, H, W]."""
    hidden = np.asarray(~masks.any(axis=(1, 2)))
    return [stretch for stretch in stretches_of(hidden) if stretch.first > 0]


def attention_left(
    mass: NDArray[np.float64], chance: NDArray[np.float64], factor: float = ON_TARGET_RATIO
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


def largest_jump(maps: AttentionMaps) -> tuple[int, float] | None:
    """The step at which the centre of mass of maps [T, rows, cols] moved most, and by how many pixels.

    A map that is all zero has no centre and ends no jump. None where nothing moved by as much as the distance
    between two cells.
    """
    moved = jumps(expected_places(maps))[1:]
    axes = (maps.grid.ys, maps.grid.xs)
    pitch = min((float(np.diff(centers).min()) for centers in axes if len(centers) > 1), default=0.0)
    if np.isnan(moved).all() or np.nanmax(moved) < pitch or np.nanmax(moved) == 0:
        return None
    step = int(np.nanargmax(moved))
    return step + 1, float(moved[step])


def find_moments(
    rewards: NDArray[np.float64],
    *,
    values: NDArray[np.float64] | None = None,
    masks: NDArray[np.bool_] | None = None,
    maps: AttentionMaps | None = None,
    mass: NDArray[np.float64] | None = None,
) -> list[Moment]:
    """All that is worth a look in an episode, in the order of its steps.

    Args:
        rewards: [T].
        values: [T] the policy's own estimates of what it will earn, or None.
        masks: bool [T, H, W], True on the target, or None.
        maps: [T, rows, cols] of the head to watch, or None.
        mass: [T] the share of `maps` on the target, NaN where it cannot be told, or None.
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
    if maps is not None and (jump := largest_jump(maps)) is not None:
        found.append(Moment(jump[0], "jump", f"Largest attention jump: {_count(round(jump[1]), 'pixel')}"))
    kinds: tuple[tuple[MomentKind, str, NDArray[np.float64] | None], ...] = (
        ("reward", "Reward", rewards),
        ("value", "Value estimate", values),
    )
    for kind, name, series in kinds:
        if series is not None and (drop := largest_drop(series)) is not None:
            ends = f"from {series[drop.start]:.2f} to {series[drop.stop]:.2f}"
            within = _count(drop.stop - drop.start, "step")
            found.append(Moment(drop.start, kind, f"{name} dropped {ends} within {within}"))
    return sorted(found, key=lambda moment: moment.step)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
