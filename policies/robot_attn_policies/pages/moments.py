"""Notable steps of an episode, found by simple rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from robot_attn import AttentionMaps
from robot_attn.explain import (
    DROP_WINDOW,
    ON_TARGET_RATIO,
    Capture,
    Stretch,
    expected_places,
    jumps,
    largest_drop,
    stretches_of,
)

MomentKind = Literal["lost", "left", "captured", "jump", "reward", "value"]

FALLEN = 0.5
"""Fraction of its level before at which focus has fallen; it is back halfway from there to its level."""
LEVEL_WINDOW = 30
"""Steps before that set the level of focus."""
MIN_FALL = 0.15
"""Smallest fall of the mass on the target that is worth a look."""
MAX_SHRUNK = 0.75
"""Fraction of its pixels below which the target shrank, which explains a part of a fall."""


class Moment(NamedTuple):
    """A notable step.

    Attributes:
        step: index of the step.
        kind: kind of the event.
        text: description of the event.
    """

    step: int
    kind: MomentKind
    text: str


def target_lost(masks: NDArray[np.bool_]) -> list[Stretch]:
    """Find the stretches [first, stop) in which the target is not visible, after it was.

    Args:
        masks: bool [T, H, W], True on the target.
    """
    hidden = np.asarray(~masks.any(axis=(1, 2)))
    return [stretch for stretch in stretches_of(hidden) if stretch.first > 0]


class FocusFall(NamedTuple):
    """A fall of the attention mass on a visible target.

    Attributes:
        start: the last step at the level before, or above.
        lowest: the step with the lowest mass, of the first `DROP_WINDOW` at most.
        stop: the step at which the mass is back, or the target out of view, or the episode over.
    """

    start: int
    lowest: int
    stop: int


def focus_falls(mass: NDArray[np.float64], window: int = LEVEL_WINDOW) -> list[FocusFall]:
    """Find the falls of the attention mass below half of its level before.

    The level is the median of the last `window` steps. Both it and the fall are measured on the running
    median of 3 steps, so that a single step is neither a fall nor a return. A target out of view ends a fall:
    to lose it is another event.

    Args:
        mass: float64 [T], attention mass on the target; NaN where the target is not visible.
        window: number of steps that set the level.

    Returns:
        The falls, in order.
    """
    return [
        FocusFall(*(first + step for step in fall))
        for first, stop in stretches_of(np.isfinite(mass))
        for fall in _falls(mass[first:stop], window)
    ]


def _falls(mass: NDArray[np.float64], window: int) -> list[FocusFall]:
    """Find the falls of a series without gaps."""
    falls: list[FocusFall] = []
    if len(mass) < 3:
        return falls
    smooth = np.pad(np.median(sliding_window_view(mass, 3), axis=1), 1, mode="edge")
    since, step = 0, 1  # the level after a fall is a new one
    while step < len(mass):
        level = np.median(smooth[max(since, step - window) : step])
        if smooth[step] >= FALLEN * level or level - smooth[step] < MIN_FALL:
            step += 1
            continue
        back = np.flatnonzero(smooth[step:] > (1 + FALLEN) / 2 * level)
        stop = step + int(back[0]) if len(back) else len(mass)
        low = max(since + 1, step - 1)  # the mass may be low a step before its running median
        lowest = low + int(mass[low : min(stop, step + DROP_WINDOW)].argmin())
        before = mass[since:lowest]
        start = since + int(np.flatnonzero(before >= min(level, before.max()))[-1])
        falls.append(FocusFall(start, lowest, stop))
        since, step = stop, stop + 1
    return falls


def attention_left(
    mass: NDArray[np.float64], chance: NDArray[np.float64], factor: float = ON_TARGET_RATIO
) -> list[int]:
    """Find the steps at which the mass on a visible target falls below `factor` times chance.

    The mass must have been above twice that before, since the target became visible or attention last left
    it. A mass that fluctuates around the limit therefore leaves once.

    Args:
        mass: float64 [T], attention mass on the target; NaN where the target is not visible.
        chance: float64 [T], fraction of the frame that the target covers.
        factor: multiple of chance.

    Returns:
        Indices of the steps.
    """
    steps: list[int] = []
    on = False
    for step, ratio in enumerate(mass / np.where(chance > 0, chance, np.nan)):
        if on and ratio < factor:
            steps.append(step)
        on = bool(ratio > 2 * factor or (on and ratio >= factor))  # NaN: False
    return steps


def largest_jump(maps: AttentionMaps) -> tuple[int, float] | None:
    """Find the step at which the centre of mass of maps [T, rows, cols] moves most.

    A map that is zero everywhere has no centre, so there is no jump to or from it.

    Returns:
        The step and the distance in pixels; None if no distance is as large as that between two cells.
    """
    distances = jumps(expected_places(maps))[1:]
    axes = (maps.grid.ys, maps.grid.xs)
    spacing = min((float(np.diff(centers).min()) for centers in axes if len(centers) > 1), default=0.0)
    if np.isnan(distances).all() or np.nanmax(distances) < spacing or np.nanmax(distances) == 0:
        return None
    step = int(np.nanargmax(distances))
    return step + 1, float(distances[step])


def find_moments(
    rewards: NDArray[np.float64],
    *,
    values: NDArray[np.float64] | None = None,
    masks: NDArray[np.bool_] | None = None,
    maps: AttentionMaps | None = None,
    mass: NDArray[np.float64] | None = None,
    captured: Sequence[Capture] = (),
    name: str = "attention",
) -> list[Moment]:
    """Find the notable steps of an episode.

    Args:
        rewards: float64 [T].
        values: float64 [T], the policy's value estimates, or None.
        masks: bool [T, H, W], True on the target, or None.
        maps: [T, rows, cols], the maps of one head, or None.
        mass: float64 [T], fraction of `maps` on the target, NaN where unknown, or None.
        captured: the episode's captures.
        name: what `mass` is a fraction of.

    Returns:
        The notable steps, in order.
    """
    moments: list[Moment] = []
    maps_name = name.capitalize()
    if masks is not None:
        for first, stop in target_lost(masks):
            until = "until the end" if stop == len(masks) else f"for {_count(stop - first, 'step')}"
            moments.append(Moment(first, "lost", f"Target lost from view {until}"))
        if mass is not None:
            chance = masks.mean(axis=(1, 2))
            falls = focus_falls(mass)
            moments += [
                Moment(fall.lowest, "left", f"{maps_name} {_fall_text(fall, mass, chance)}") for fall in falls
            ]
            for step in attention_left(mass, chance):
                if not any(fall.start <= step < fall.stop for fall in falls):
                    ratio = mass[step] / chance[step]
                    moments.append(Moment(step, "left", f"{maps_name} left the target: {ratio:.1f} × chance"))
    for capture in captured:
        text = f"{maps_name} captured by {capture.taker}, {capture.outcome}"
        moments.append(Moment(capture.row, "captured", text))
    if maps is not None and (jump := largest_jump(maps)) is not None:
        moments.append(Moment(jump[0], "jump", f"Largest {name} jump: {_count(round(jump[1]), 'pixel')}"))
    kinds: tuple[tuple[MomentKind, str, NDArray[np.float64] | None], ...] = (
        ("reward", "Reward", rewards),
        ("value", "Value estimate", values),
    )
    for kind, label, series in kinds:
        if series is not None and (drop := largest_drop(series)) is not None:
            ends = f"from {series[drop.start]:.2f} to {series[drop.stop]:.2f}"
            within = _count(drop.stop - drop.start, "step")
            moments.append(Moment(drop.start, kind, f"{label} dropped {ends} within {within}"))
    return sorted(moments, key=lambda moment: moment.step)


def _fall_text(fall: FocusFall, mass: NDArray[np.float64], chance: NDArray[np.float64]) -> str:
    """Describe a fall with its numbers, and whether less of the target was left to attend to."""
    start, lowest = fall.start, fall.lowest
    text = (
        f"on the target fell from {mass[start]:.0%} to {mass[lowest]:.0%} within "
        f"{_count(lowest - start, 'step')}, to {mass[lowest] / chance[lowest]:.1f} × chance"
    ).replace("%", " %")
    if chance[lowest] < MAX_SHRUNK * chance[start]:
        text += f"; the target shrank to {chance[lowest] / chance[start]:.0%} of its pixels".replace(
            "%", " %"
        )
    return text


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
