"""Report sections on rollouts: focus, pixel ablation, interventions and head ablation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import focus_by_condition, spread
from robot_attn.focus import FocusMeter, RatioOfSums, pointing_game
from robot_attn_policies.evaluation.statistics import Interval
from robot_attn_policies.pages.report import Cell, Chart, Section, Table
from robot_attn_policies.probing.episode_intervals import interval_series, ratio_over_episodes
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    REDUNDANT_HEADS,
    HeadAblation,
    PixelAblation,
)
from robot_attn_policies.probing.interventions import InterventionEffect
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.probing.stories import states_table
from robot_attn_policies.probing.verdicts import judge_faithfulness, judge_focus, judge_interventions
from robot_attn_policies.rollouts.thing_words import ThingWords

CURVE_ABLATIONS = ("deleted", "kept", "random", "centred")
"""The pixel ablations of the curves of return; the verdict needs the same ones."""


def focus_section(steps: StepBatch, ablation: PixelAblation, episodes: int, words: ThingWords) -> Section:
    """Report whether attention is on the target.

    Args:
        steps: the steps of the unchanged episodes.
        ablation: the pixel ablation, for its `focus`.
        episodes: number of episodes.
        words: what the labels of `steps` stand for.
    """
    title = TITLES["focus"]
    if ablation.focus is None or steps.masks is None:
        return Section("focus", title, ("This environment gives no target masks.",))
    if not steps.masks.any():
        return Section("focus", title, ("The target was never visible.",))
    num_heads = steps.maps.weights.shape[1]
    meter = FocusMeter(episodes, num_heads)
    hits = np.full(len(steps), np.nan)
    for start in range(0, len(steps), 64):  # in chunks, since maps of the frame's size are large
        rows = slice(start, start + 64)
        meter.add(steps.episode[rows], steps.maps[rows].upsampled(), steps.masks[rows])
        pixel_maps = spread(steps.combined[rows][:, None])
        hits[rows] = pointing_game(pixel_maps[:, None], steps.masks[rows])[:, 0]
    totals = meter.totals()
    figures = (totals.mean_mass, totals.mass_over_chance, totals.pointing)
    heads: list[tuple[Cell, ...]] = [
        (f"head {head}", *(ratio_over_episodes(figure(head)) for figure in figures))
        for head in range(num_heads)
    ]
    conditions: list[tuple[Cell, ...]] = [
        (
            condition.name,
            condition.level,
            int(condition.means.denominator.sum()),
            ratio_over_episodes(condition.means),
        )
        for condition in focus_by_condition(hits, steps.masks, steps.episode, steps.step)
    ]
    share = totals.visible.sum() / (totals.visible.sum() + totals.hidden.sum())
    return Section(
        "focus",
        title,
        (
            f"The target was visible in {share:.0%} of the frames. The verdict uses the mean map of all "
            "heads, blurred by one cell.",
        ),
        judge_focus(ablation.focus),
        (
            Table("Each head", ("head", "mass on target", "times chance", "maximum on target"), tuple(heads)),
            states_table(steps, steps.masks, words),
            Table("By condition", ("condition", "", "frames", "maximum on target"), tuple(conditions)),
        ),
    )


def faithfulness_section(ablation: PixelAblation, by_share: Mapping[float, PixelAblation]) -> Section:
    """Report how much of the return remains with pixels deleted.

    Args:
        ablation: the pixel ablation of the verdict.
        by_share: the pixel ablations of the curves, by the fraction of the pixels, in ascending order.
    """
    verdict = judge_faithfulness(ablation)
    gain = verdict.checks[0]
    charts = []
    if gain.figure.value > 0:
        y_label = "return (0: random policy, 1: no ablation)"
        remaining = {name: ablation.normalised_return(name) for name in ablation.ablated}
        names = [PIXEL_ABLATIONS[name] for name in remaining]
        charts.append(
            Chart(
                f"Remaining return under each ablation, with {ablation.share:.0%} of the pixels",
                "ablation",
                y_label,
                (interval_series("remaining return", names, list(remaining.values())),),
                "bars",
            )
        )
        if len(by_share) > 1:
            charts.append(
                Chart(
                    "Remaining return by fraction of the pixels",
                    "fraction of the pixels",
                    y_label,
                    tuple(
                        interval_series(
                            name, list(by_share), [each.normalised_return(name) for each in by_share.values()]
                        )
                        for name in CURVE_ABLATIONS
                    ),
                )
            )
    rows = tuple((PIXEL_ABLATIONS[name], ablation.relative_return(name)) for name in ablation.ablated)
    text = [
        "The policy acts while pixels are deleted from its frames, that is, replaced by a blur of their "
        "surroundings: the most-attended pixels, or as many others. If the policy depends on what it attends "
        "to, the return falls in the first case and not in the others.",
        "The disc at the centre and the most-attended pixels of another episode are not baselines for a "
        "policy that keeps its target at one position in the frame: they hide the target too.",
    ]
    if {"blind", "deleted"} <= set(ablation.ablated) and ablation.ablated["blind"].mean() > max(
        ablation.ablated["deleted"].mean(), 0.5 * ablation.full.mean()
    ):
        text.append(
            "The return is higher with all pixels deleted than with the most-attended ones deleted: the "
            "policy can act without seeing, and the inpainting misleads it."
        )
    return Section(
        "faithful",
        TITLES["faithful"],
        tuple(text),
        verdict,
        (Table("Remaining share of the full return", ("ablation", "remaining return"), rows),)
        if ablation.full.mean() > 0
        else (),
        tuple(charts),
    )


def interventions_section(effects: Mapping[tuple[Any, str], InterventionEffect] | None) -> Section:
    """Report whether actions and attention respond to the target alone.

    Args:
        effects: by (object, intervention); None if the environment renders no counterfactuals.
    """
    name, title = "interventions", TITLES["interventions"]
    if effects is None:
        return Section(
            name, title, ("This environment renders no counterfactual frames of this camera: not tested.",)
        )
    frames = {key: float(effect.frames.sum()) for key, effect in effects.items()}
    if not all(frames.values()):
        missing = sorted({thing for (thing, _), count in frames.items() if count == 0})
        text = f"No frame counted for interventions on the {' and the '.join(missing)}: not tested."
        return Section(name, title, (text,))
    rows = tuple(
        (
            f"{thing} {edit}",
            int(effect.frames.sum()),
            ratio_over_episodes(RatioOfSums(effect.action, effect.frames)),
            ratio_over_episodes(RatioOfSums(effect.attention, effect.frames)),
        )
        for (thing, edit), effect in effects.items()
    )
    return Section(
        name,
        title,
        (
            "One object was moved, recoloured or removed in the simulator, and the policy was given the "
            "counterfactual frame. Actions and attention should change with the target and not with a "
            "distractor.",
        ),
        judge_interventions(effects),
        (
            Table(
                "Mean change",
                ("intervention", "frames", "change in action", "fraction of the map that moved"),
                rows,
            ),
        ),
    )


def heads_section(ablation: HeadAblation) -> Section:
    """Report the effect of each head."""

    def remaining(returns: NDArray[np.float64]) -> Interval | None:
        if returns.size == 0:
            return None  # only actions were compared
        return ratio_over_episodes(RatioOfSums(returns, ablation.full))

    rows = tuple(
        (f"head {head}", float(change), remaining(without), remaining(alone))
        for head, (change, without, alone) in enumerate(
            zip(ablation.action_change, ablation.without, ablation.alone, strict=True)
        )
    )
    largest = (
        f"The heads are redundant: {REDUNDANT_HEADS}, only with all of them."
        if ablation.redundant
        else f"Ablating head {int(ablation.action_change.argmax())} changes the action most."
    )
    return Section(
        "heads",
        TITLES["heads"],
        (
            f"{largest} An ablated head outputs its mean, whatever the frame. Heads that attend to the same "
            "object are redundant.",
        ),
        tables=(
            Table(
                "Each head ablated",
                (
                    "head",
                    "change in action (1: all ablated)",
                    "remaining return without it",
                    "remaining return with it alone",
                ),
                rows,
            ),
        ),
    )
