"""Report section on where attention goes, thing by thing: target, distractors, robot, backdrop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_attn.things import sum_by_kind, thing_areas, thing_kinds
from robot_attn_policies.pages.report import Cell, Chart, Section, Table
from robot_attn_policies.probing.episode_intervals import interval_series, mean_over_episodes
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.steps import StepBatch

POINTS = 50
"""Most points of the chart: steps are averaged in as many stretches."""


def things_section(steps: StepBatch, names: Sequence[str]) -> Section:
    """Report the attention mass on each thing, over all steps and by step.

    Args:
        steps: the steps.
        names: names of the labels in `steps.things`; without labels, of the backdrop and the target.

    Raises:
        ValueError: a label without a name.
    """
    title = TITLES["things"]
    if steps.masks is None and steps.things is None:
        return Section("things", title, ("This environment does not say what its frames show.",))
    mass, area = step_masses(steps, len(names))
    shown = [index for index in range(len(names)) if area[:, index].any()]
    kinds, by_kind = thing_kinds(names), sum_by_kind(mass, names)
    seen = [k for k, kind in enumerate(kinds) if sum_by_kind(area, names)[:, k].any()]
    combined = np.tensordot(mass, steps.weights, (1, 0))
    rows: list[tuple[Cell, ...]] = [
        (
            names[index],
            mean_over_episodes(combined[:, index], steps.episode),
            mean_over_episodes(area[:, index], steps.episode),
        )
        for index in shown
    ]
    heads: list[tuple[Cell, ...]] = [
        (f"head {head}", *(mean_over_episodes(by_kind[:, head, k], steps.episode) for k in seen))
        for head in range(mass.shape[1])
    ]
    return Section(
        "things",
        title,
        (
            "The share of the attention mass on what each pixel shows, as the simulator knows it, over all "
            "steps: where the target is not in view, the mass on it is 0. Mass above the share of the frame "
            "is more than an even spread of attention would have there.",
        ),
        tables=(
            Table("Each thing", ("thing", "mass of the mean map", "share of the frame"), tuple(rows)),
            Table("Each head", ("head", *(kinds[k] for k in seen)), tuple(heads)),
        ),
        charts=(_chart(sum_by_kind(combined, names)[:, seen], [kinds[k] for k in seen], steps),),
    )


def step_masses(steps: StepBatch, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the attention mass on each thing at every step.

    Args:
        steps: N steps, with labels or target masks.
        count: number of things.

    Returns:
        Mass of each head's map, float64 [N, heads, count], NaN where it is not usable; and the things' share
        of the frame, float64 [N, count].

    Raises:
        ValueError: neither labels nor masks, or a label that is not below `count`.
    """
    labels = steps.things
    if labels is None:
        if steps.masks is None:
            raise ValueError("expected steps with labels or target masks, got none: make it with masks=True")
        labels = steps.masks.astype(np.uint8)
    return steps.maps.mass_by_label(labels, count), thing_areas(labels, count)


def _chart(mass: NDArray[np.float64], kinds: Sequence[str], steps: StepBatch) -> Chart:
    """Chart the mass [N, kinds] over the episode, as means over stretches of steps."""
    stretch = -(-(int(steps.step.max()) + 1) // POINTS)
    part = steps.step // stretch
    parts = np.unique(part)
    x = [float(steps.step[part == index].mean()) for index in parts]
    return Chart(
        "Attention mass on each thing over the episode",
        "step",
        "share of the attention mass",
        tuple(
            interval_series(
                kind,
                x,
                [mean_over_episodes(mass[part == index, k], steps.episode[part == index]) for index in parts],
            )
            for k, kind in enumerate(kinds)
        ),
    )
