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


class Curve(NamedTuple):
    """The E evaluations of a training run."""

    steps: NDArray[np.int64]
    """Environment steps, [E]."""
    minutes: NDArray[np.float64]
    """Training time, minutes, [E]."""
    scores: NDArray[np.float64]
    """Normalised scores, [E]; 0 is the random policy, 1 the oracle."""


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
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: expected numbers in the columns steps, seconds and eval_score: restore the "
            "original"
        ) from error
    if not rows:
        raise RunError(f"expected evaluations in {run}, got none: train longer, or with another --eval-every")
    return Curve(steps, minutes, scores)


def write_curves(path: Path, curves: Mapping[str, Curve], title: str) -> None:
    """Plot learning curves over steps and over minutes, and write them as PNG.

    Args:
        path: the file to write.
        curves: the curves by label.
        title: title of the figure.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    figure = new_figure(10, 4.0, title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("environment steps, thousands", "minutes of training"), strict=True):
        axes.axhline(1.0, **LEVEL)
        for place, (label, curve) in enumerate(curves.items()):
            across = curve.steps / 1000 if axes is panels[0] else curve.minutes
            axes.plot(across, curve.scores, color=COLOURS[place % len(COLOURS)], label=label, linewidth=1.8)
        axes.set_xlabel(name, fontsize=10, color=INK)
        axes.set_ylim(-0.1, 1.08)
        axes.set_xlim(left=0)
        style(axes)
    panels[0].set_ylabel("normalised score (0 random, 1 oracle)", fontsize=10, color=INK)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(curves), 5),
        frameon=False,
        fontsize=10,
    )
    write_figure(path, figure)
