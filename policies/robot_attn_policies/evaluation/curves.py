"""Learning curves: the evaluations of training runs over environment steps and over minutes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.evaluation.plot_style import COLOURS, INK, LEVEL, new_figure, style, write_figure
from robot_attn_policies.training.run_folder import PROGRESS, RunError, as_run_error, read_config

ON_TARGET = "attention/best_head"
"""Column of progress.csv with the attention on the target."""


class Curve(NamedTuple):
    """The E evaluations of a training run."""

    steps: NDArray[np.int64]
    """Environment steps, [E]."""
    minutes: NDArray[np.float64]
    """Training time, minutes, [E]."""
    scores: NDArray[np.float64]
    """Normalised scores, [E]; 0 is the random policy, 1 the oracle."""
    on_target: NDArray[np.float64] | None = None
    """Attention mass on the target of the head that has most of it there, [E]; None for a run that did not
    log it."""


def read_curve(run: Path) -> Curve:
    """Read the learning curve of a run folder.

    Raises:
        RunError: not a run folder, a damaged progress.csv, or a run without evaluations.
    """
    read_config(run)
    path = run / PROGRESS
    with as_run_error(path):
        text = path.read_text()
    try:
        rows = [row for row in csv.DictReader(text.splitlines()) if row["eval_score"]]
        steps = np.array([int(row["steps"]) for row in rows])
        minutes = np.array([float(row["seconds"]) / 60 for row in rows])
        scores = np.array([float(row["eval_score"]) for row in rows])
        logged = bool(rows) and all(row.get(ON_TARGET) for row in rows)
        on_target = np.array([float(row[ON_TARGET]) for row in rows]) if logged else None
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: expected numbers in the columns steps, seconds and eval_score: restore the "
            "original"
        ) from error
    if not rows:
        raise RunError(f"expected evaluations in {run}, got none: train longer, or with another --eval-every")
    return Curve(steps, minutes, scores, on_target)


def write_curves(path: Path, curves: Mapping[str, Curve], title: str) -> None:
    """Plot learning curves over steps and over minutes, and write them as PNG.

    If a run logged it, a third panel has the attention mass on the target over steps.

    Args:
        path: the file to write.
        curves: the curves by label.
        title: title of the figure.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    names = ["environment steps, thousands", "minutes of training"]
    if any(curve.on_target is not None for curve in curves.values()):
        names.append("environment steps, thousands")
    figure = new_figure(5 * len(names), 4.0, title)
    panels = figure.subplots(1, len(names), sharey=True)
    for panel, (axes, name) in enumerate(zip(panels, names, strict=True)):
        axes.axhline(1.0, **LEVEL)
        for place, (label, curve) in enumerate(curves.items()):
            across = curve.minutes if panel == 1 else curve.steps / 1000
            height = curve.on_target if panel == 2 else curve.scores
            if height is not None:
                axes.plot(across, height, color=COLOURS[place % len(COLOURS)], label=label, linewidth=1.8)
        axes.set_xlabel(name, fontsize=10, color=INK)
        axes.set_ylim(-0.1, 1.08)
        axes.set_xlim(left=0)
        style(axes)
    if len(names) > 2:
        panels[2].set_ylabel("attention mass on the target, best head", fontsize=10, color=INK)
    panels[0].set_ylabel("normalised score (0 random, 1 oracle)", fontsize=10, color=INK)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(curves), 5),
        frameon=False,
        fontsize=10,
    )
    write_figure(path, figure)
