"""Report sections on rollouts: focus, pixel ablation, interventions and head ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import focus_by_condition, spread
from robot_attn.focus import RatioOfSums, pointing_game
from robot_attn_policies.evaluation.statistics import Interval
from robot_attn_policies.pages.report import Cell, Chart, Section, Table
from robot_attn_policies.probing.episode_intervals import interval_series, ratio_over_episodes
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    REDUNDANT_HEADS,
    HeadAblation,
    clean_maps,
)
from robot_attn_policies.probing.interventions import InterventionEffect
from robot_attn_policies.probing.localisation import CHUNK, Localisation
from robot_attn_policies.probing.rounds import Evidence
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.stories import states_table
from robot_attn_policies.probing.verdicts import Verdict

CURVE_ABLATIONS = ("deleted", "kept", "random", "centred")
"""The pixel ablations of the curves of return; the verdict needs the same ones."""


def focus_section(found: Evidence) -> Section:
    """Report whether attention is on the target."""
    title, verdict = TITLES["focus"], found.verdict("focus")
    steps, totals = found.steps, found.localisation
    if totals is None or steps.masks is None:
        return Section("focus", title, ("This environment gives no target masks.",))
    if not steps.masks.any():
        return Section("focus", title, ("The target was never visible.",), verdict)
    rows: list[tuple[Cell, ...]] = [
        ("all heads", *_focus_figures(totals.mass, totals, totals.heads.hits[:, -2])),
        *(
            (f"head {head}", *_focus_figures(totals.heads.mass[:, head], totals, totals.heads.hits[:, head]))
            for head in range(totals.num_heads)
        ),
        ("the average place", *_focus_figures(totals.heads.mass[:, -1], totals, totals.heads.hits[:, -1])),
    ]
    conditions: list[tuple[Cell, ...]] = [
        (
            condition.name,
            condition.level,
            int(condition.means.denominator.sum()),
            ratio_over_episodes(condition.means),
        )
        for condition in focus_by_condition(_hits(found), steps.masks, steps.episode, steps.step)
    ]
    visible, hidden = totals.heads.visible.sum(), totals.heads.hidden.sum()
    off_place = totals.off_place.visible.sum()
    text = [
        f"The target was visible in {visible / (visible + hidden):.0%} of the frames, and off its usual "
        f"place in {off_place / visible:.0%} of those. The average place is the target's mean mask in the "
        "other episodes; off it, most of the target is outside the smallest region with half of that mask. "
        "The verdict uses the mean map of all heads, blurred by one cell."
    ]
    if totals.sinks:
        text.append(
            "A sink is a cell with at least a quarter of a head's mass whatever the frame: "
            f"{'; '.join(totals.sinks)}. Its mass is left out of all tests, and heads with nothing else are "
            "not counted."
        )
    columns = (
        "map", "mass on target", "times chance", "times centre", "times average place", "maximum on target",
    )  # fmt: skip
    return Section(
        "focus",
        title,
        tuple(text),
        verdict,
        (
            Table("Each head", columns, tuple(rows)),
            states_table(steps, steps.masks, found.setup.words),
            Table("By condition", ("condition", "", "frames", "maximum on target"), tuple(conditions)),
        ),
    )


def _focus_figures(
    mass: NDArray[np.float64], totals: Localisation, hits: NDArray[np.float64]
) -> tuple[Cell, ...]:
    """Mass on target, as a multiple of each reference, and hits, of one map; float64 [E] each."""
    visible = totals.heads.visible.astype(np.float64)
    denominators = (visible, *totals.references.values())
    return (
        *(ratio_over_episodes(RatioOfSums(mass, denominator)) for denominator in denominators),
        ratio_over_episodes(RatioOfSums(hits, visible)),
    )


def _hits(found: Evidence) -> NDArray[np.float64]:
    """Pointing-game score of the combined map in each step, float64 [N]."""
    steps, sinks = found.steps, found.setup.sinks
    assert steps.masks is not None
    maps, weights = (
        (steps.maps, steps.weights) if sinks is None else clean_maps(steps.maps, steps.weights, sinks)
    )
    hits = np.full(len(steps), np.nan)
    for start in range(0, len(steps), CHUNK):  # maps of the frame's size are large
        rows = slice(start, start + CHUNK)
        hits[rows] = pointing_game(spread(maps[rows], weights)[:, None], steps.masks[rows])[:, 0]
    return hits


def faithfulness_section(found: Evidence, shares: Sequence[float]) -> Section:
    """Report how much of the return remains with pixels deleted.

    Args:
        found: what was measured.
        shares: other fractions of the pixels, for the curves of return.
    """
    verdict, ablation = found.verdict("faithful"), found.ablation
    assert verdict is not None and ablation is not None
    charts = []
    if (ablation.full - ablation.random).mean() > 0:
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
        if shares:
            by_share = {ablation.share: ablation} | {
                share: found.setup.ablate_pixels(CURVE_ABLATIONS, ablation.full, ablation.random, share)
                for share in shares
            }
            by_share = dict(sorted(by_share.items()))
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


def interventions_section(
    effects: Mapping[tuple[Any, str], InterventionEffect] | None, verdict: Verdict | None
) -> Section:
    """Report whether actions and attention respond to the target alone.

    Args:
        effects: by (object, intervention); None if the environment renders no counterfactuals.
        verdict: the verdict on them.
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
        return Section(name, title, (text,), verdict)
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
        verdict,
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
