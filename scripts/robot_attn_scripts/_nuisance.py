"""Nuisance of a policy, and its rank correlation with the return kept under shifts: for two commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from robot_attn_scripts import _report

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn_policies.evaluation.nuisance import Nuisance
    from robot_attn_policies.evaluation.shift_correlation import ShiftTable
    from robot_attn_policies.probing.probe import PolicyProbe


def measure(
    probe: PolicyProbe, env: Any, seeds: Sequence[int], frames: int, on_frames: Callable[[int], None]
) -> Nuisance:
    """Measure the nuisance of a policy at a camera, on the first of `seeds`."""
    from robot_attn_policies.evaluation.nuisance import EPISODES, measure_nuisance
    from robot_attn_policies.probing.policy_maps import policy_causal_maps
    from robot_attn_policies.rollouts.camera import at_camera

    return measure_nuisance(
        probe.act,
        at_camera(env, probe.image, only=probe.only_camera),
        seeds[:EPISODES],
        lambda observation, context: policy_causal_maps(
            probe.policy, observation, probe.image, context=context
        ),
        horizon=int(env.horizon),
        frames=frames,
        on_frames=on_frames,
    )


@contextmanager
def frame_bar(console: Console, frames: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of `measure`: yields its `on_frames`."""
    from rich.progress import BarColumn, Progress, TextColumn

    from robot_attn_policies.training.progress_bar import pace

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"nuisance: {frames} frames", total=frames, pace="starting")
        started, done = time.monotonic(), 0

        def on_frames(more: int) -> None:
            nonlocal done
            done += more
            progress.update(
                task,
                advance=more,
                pace=pace(done / (time.monotonic() - started), max(0, frames - done), "frames"),
            )

        yield on_frames


def figures_of(measured: Nuisance) -> dict[str, object]:
    """Make the JSON of the nuisance of a policy."""
    import numpy as np

    from robot_attn.things import CANNOT_MATTER
    from robot_attn_policies.evaluation.statistics import bootstrap_interval, ratio_of_sums

    def share(values: Any) -> _report.Figure:
        rows = np.stack([values, measured.scored], axis=1)
        return _report.interval(bootstrap_interval(rows, ratio_of_sums), "fraction of the causal map")

    return {
        "total": share(measured.total),
        **{name: share(getattr(measured, name)) for name in CANNOT_MATTER},
        "clipped_importance": share(measured.clipped),
        "uniform_map": share(measured.uniform),
        "episodes": _report.figure(len(measured.scored), "episodes"),
        "frames_scored": _report.figure(int(measured.scored.sum()), "frames"),
        "frames_without_significant_pixel": _report.figure(int(measured.blank.sum()), "frames"),
        "frames_with_nothing_relevant_in_view": _report.figure(int(measured.hidden.sum()), "frames"),
    }


def show(figures: Any, camera: str | None, console: Console) -> None:
    """Print the figures of `figures_of`, None if they are unknown, at a camera; None for the only one."""
    where = "" if camera is None else f" at the camera {camera}"
    if figures is None:
        console.print(
            f"Nuisance{where} is not measured: this environment has neither things nor a target_mask in its "
            "info, so it is unknown what is where in the frame.",
            style="yellow",
            highlight=False,
        )
        return
    scored, blank, hidden = (
        figures[f"frames_{name}"]["value"]
        for name in ("scored", "without_significant_pixel", "with_nothing_relevant_in_view")
    )
    left_out = (
        f"{scored} frames of {figures['episodes']['value']} episodes scored; left out: {blank} without a "
        f"significant pixel, {hidden} with nothing in view that can matter"
    )
    if not scored:
        console.print(f"Nuisance{where} is not known: {left_out}.", style="yellow", highlight=False)
        return
    table = _report.figure_table(f"nuisance{where}: causal mass on what cannot matter", "%")
    for name, key in (
        ("all of it", "total"),
        ("backdrop", "backdrop"),
        ("distractors", "distractors"),
        ("occluder", "occluder"),
        ("all of it, of importance clipped at 0", "clipped_importance"),
        ("all of it, of a uniform map", "uniform_map"),
    ):
        style = {"total": "bold", "clipped_importance": "dim", "uniform_map": "dim"}.get(key)
        table.add_row(name, _report.interval_text(figures[key], 1, factor=100), style=style)
    console.print(table, highlight=False)
    console.print(left_out, style="dim", highlight=False)
    console.print()


def correlation_figures(table: ShiftTable) -> dict[str, object]:
    """Make the JSON of the rank correlations with the share of return kept, and of the points behind them."""
    from robot_attn_policies.evaluation.shift_correlation import (
        MIN_PRECISION,
        MIN_RUNS,
        PREDICTORS,
        SPANS,
        shift_correlation,
    )

    def correlation(predictor: Any, span: Any) -> dict[str, object] | None:
        found = shift_correlation(table, predictor, span)
        if found is None:
            return None
        interval, runs = found
        return {**_report.interval(interval, "rank correlation, -1 to 1"), "runs": runs}

    return {
        "with": "share of return kept: gain over a random policy under a shift / in the scene of training",
        "method": "Spearman, 95 % bootstrap over runs with all of their scenes; observational",
        "min_runs": MIN_RUNS,
        "min_precision": _report.figure(MIN_PRECISION, "standard errors of the gain over random"),
        "left_out": {run: _plain(precision) for run, precision in table.left_out.items()},
        "correlations": {
            predictor: {span: correlation(predictor, span) for span in SPANS} for predictor in PREDICTORS
        },
        "points": [
            {
                "run": run,
                "arm": table.arms[row],
                "scene": scene,
                "kept": _plain(table.kept[row, column]),
                **{name: _plain(values[row, column]) for name, values in table.predictors.items()},
            }
            for row, run in enumerate(table.runs)
            for column, scene in enumerate(table.scenes)
        ],
    }


def _plain(value: Any) -> float | None:
    return round(float(value), 6) if value == value else None


def correlation_rows(figures: Any) -> list[list[str]]:
    """List the rows of the table of rank correlations: predictor, and the correlation in each span."""
    from robot_attn_policies.evaluation.shift_correlation import PREDICTORS

    return [
        [
            PREDICTORS[predictor],
            *("too few runs" if each is None else _text(each) for each in by_span.values()),
        ]
        for predictor, by_span in figures["correlations"].items()
    ]


def correlation_headings() -> list[str]:
    """List the headings of `correlation_rows`."""
    from robot_attn_policies.evaluation.shift_correlation import SPANS

    return ["return kept and", *SPANS.values()]


def _text(figure: Mapping[str, Any]) -> str:
    return _report.interval_text(figure, 2, sign="+")


def correlation_notes(figures: Any) -> list[str]:
    """List the notes that a reader of the rank correlations needs."""
    least, runs = figures["min_precision"]["value"], {point["run"] for point in figures["points"]}
    attending = {point["run"] for point in figures["points"] if point["attention_trained"] is not None}
    notes = [
        "Rank correlations with the share of return kept: the gain over a random policy under a shift, "
        "divided by that in the scene of training. In brackets: 95 % bootstrap interval over runs.",
        "Clipped: nuisance of importance that is clipped at 0, significant or not. Focus: mass of attention "
        f"on the target, for {len(attending)} of {len(runs)} runs that have any.",
        f"At least {figures['min_runs']} runs are needed.",
        "Observational: a correlation does not show that one causes the other.",
    ]
    if figures["left_out"]:
        notes.append(
            f"Left out: {', '.join(figures['left_out'])}, whose gain in the scene of training is less than "
            f"{least:.0f} standard errors, too near 0 to divide by."
        )
    return notes


def show_correlations(figures: Any, console: Console) -> None:
    """Print the rank correlations as tables that fit in 80 columns."""
    first, *spans = correlation_headings()
    table = _report.figure_table(first, *spans)
    for row in correlation_rows(figures):
        table.add_row(*row)
    console.print(table, highlight=False)
    console.print(" ".join(correlation_notes(figures)), style="dim", highlight=False)
    console.print()
