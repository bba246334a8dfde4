"""Plot the learning curves of training runs: evaluation score over steps and over minutes."""

from __future__ import annotations

from robot_attn_scripts import _report
from robot_attn_scripts.options.curves import Options


def run(options: Options) -> dict[str, object]:
    """Plot the curves, print how soon each run reached the score, and return the figures.

    Raises:
        ValueError: a folder is not a run folder, or its training was never evaluated.
    """
    from rich.console import Console

    from robot_attn_policies.evaluation.curves import read_curve, write_curves

    curves = {"/".join(run.resolve().parts[-2:]): read_curve(run) for run in options.runs}
    write_curves(options.out, curves, "score of the evaluations during training")

    columns = ("best score", f"steps to {options.reach:g}", "minutes to it", "steps", "minutes")
    table = _report.figure_table("run", *columns)
    figures: dict[str, object] = {}
    for name, curve in curves.items():
        reached = (curve.scores >= options.reach).nonzero()[0]
        first = int(reached[0]) if reached.size else None
        row = {
            "best_score": _report.figure(float(curve.scores.max()), "0 random, 1 oracle"),
            "steps_to_reach": None if first is None else _report.figure(int(curve.steps[first]), "steps"),
            "minutes_to_reach": None
            if first is None
            else _report.figure(float(curve.minutes[first]), "minutes"),
            "steps": _report.figure(int(curve.steps[-1]), "steps"),
            "minutes": _report.figure(float(curve.minutes[-1]), "minutes"),
        }
        if curve.on_target is not None:
            row["attention_on_target"] = _report.figure(float(curve.on_target[-1]), "fraction of the map")
        figures[name] = row
        table.add_row(
            name,
            f"{curve.scores.max():.3f}",
            "never" if first is None else f"{curve.steps[first]:,}",
            "" if first is None else f"{curve.minutes[first]:.1f}",
            f"{curve.steps[-1]:,}",
            f"{curve.minutes[-1]:.1f}",
        )
    console = Console()
    console.print(table)
    console.print(f"wrote {options.out}", soft_wrap=True)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures
