"""Report section on captures: what takes attention away from the target, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionMaps
from robot_attn.color_names import COLOR_NAMES, color_indices
from robot_attn.explain import (
    ELSEWHERE,
    MIN_CAPTURE,
    STATES,
    Capture,
    Captures,
    FrameStates,
    attention_states,
    captures,
    count_states,
    frame_states,
)
from robot_attn.focus import RatioOfSums
from robot_attn_policies.pages.report import Cell, Section, Table
from robot_attn_policies.probing.episode_intervals import mean_over_episodes, ratio_over_episodes
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.step_sections import step_picture
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.rollouts.thing_words import ThingWords

MAX_PICTURES = 6
"""Most captures of which a frame is shown."""
COLOR_FRAMES = 240
"""Most frames for the table of colours."""
MIN_SHARE = 0.02
"""Smallest share of attention or of the pixels for which a colour has a row."""


def stories_section(
    steps: StepBatch, pictures: NDArray[np.uint8], seeds: Sequence[int], words: ThingWords
) -> Section:
    """Report what captures the combined map's attention.

    Args:
        steps: the steps.
        pictures: uint8 [N, H, W, 3], the frame of each step.
        seeds: seed of each episode, for the captions.
        words: what the labels of `steps` stand for.
    """
    name, title = "captured", TITLES["captured"]
    if steps.masks is None:
        return Section(name, title, ("This environment gives no target masks.",))
    known = frame_states(
        steps.combined, steps.masks, frames=pictures, labels=steps.things, allowed=words.allowed
    )
    found = captures(known, steps.episode, steps.step, descriptions=words.descriptions)
    tables = [_groups_table(found), _colors_table(steps, pictures, known)] if found.captures else []
    shown = [
        step_picture(steps, pictures, capture.worst_row, _caption(capture, steps, seeds))
        for capture in found.worst()[:MAX_PICTURES]
    ]
    return Section(
        name,
        title,
        (
            str(found),
            f"A capture starts where, for {MIN_CAPTURE} steps or more, another place of the frame holds more "
            "of the combined map than the target in view and what is around it. It ends where attention is "
            f"back on the target for {MIN_CAPTURE} steps.",
        ),
        tables=tuple(tables),
        pictures=tuple(shown),
    )


def _caption(capture: Capture, steps: StepBatch, seeds: Sequence[int]) -> str:
    step = steps.step[capture.worst_row]
    return f"Seed {seeds[capture.episode]}, step {step}: {capture}."


def _groups_table(found: Captures) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            str(group),
            group.episodes,
            len(group.captures),
            group.start,
            len(group.lost),
            float(np.median(group.lost)) if group.lost else None,
            len(group.back),
        )
        for group in found.groups()
    ]
    columns = ("what", "episodes", "captures", "median step", "target lost", "median steps until then")
    return Table("What took attention", (*columns, "attention came back"), tuple(rows))


def _colors_table(steps: StepBatch, pictures: NDArray[np.uint8], known: FrameStates) -> Table:
    """Colours of what is attended where attention is elsewhere, next to those of the same frames."""
    elsewhere = np.flatnonzero(known.states == ELSEWHERE)
    rows = elsewhere[np.unique(np.linspace(0, len(elsewhere) - 1, COLOR_FRAMES).round().astype(int))]
    count = len(COLOR_NAMES)
    attended, present = (np.zeros((len(rows), count)) for _ in range(2))
    for index, row in enumerate(rows):
        colors = color_indices(pictures[row]).reshape(-1)
        weights = steps.combined[row].normalised().upsampled().reshape(-1)
        attended[index] = np.bincount(colors, weights, minlength=count)
        present[index] = np.bincount(colors, minlength=count) / len(colors)
    episode = steps.episode[rows]
    shown = np.flatnonzero(np.maximum(attended.mean(axis=0), present.mean(axis=0)) >= MIN_SHARE)
    order = sorted(shown.tolist(), key=lambda color: -attended[:, color].mean())
    return Table(
        f"Colours in {len(rows)} frames with attention elsewhere",
        ("colour", "share of attention", "share of the pixels"),
        tuple(
            (
                COLOR_NAMES[color],
                mean_over_episodes(attended[:, color], episode),
                mean_over_episodes(present[:, color], episode),
            )
            for color in order
        ),
    )


def states_table(steps: StepBatch, masks: NDArray[np.bool_], words: ThingWords) -> Table:
    """Make the table of where attention is in all frames, by head and for the combined map.

    Args:
        steps: the steps.
        masks: bool [N, H, W], True on the target.
        words: what the labels of `steps` stand for.
    """
    labels: dict[str, Any] = {"labels": steps.things, "allowed": words.allowed}
    combined = AttentionMaps(steps.combined.weights[:, None], steps.maps.grid)
    states = [attention_states(maps, masks, **labels) for maps in (steps.maps, combined)]
    counts = count_states(np.concatenate(states, axis=1), steps.episode, int(steps.episode.max()) + 1)
    total = counts[:, 0].sum(axis=1).astype(np.float64)
    names = [f"head {head}" for head in range(counts.shape[1] - 1)]
    return Table(
        "All frames: share in which the target is",
        ("map", *STATES),
        tuple(
            (
                name,
                *(
                    ratio_over_episodes(RatioOfSums(counts[:, index, state].astype(np.float64), total))
                    for state in range(len(STATES))
                ),
            )
            for index, name in enumerate([*names, "combined"])
        ),
    )
