"""Plot a comparison: score and focus of every arm in every scene; return kept under shifts over nuisance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_attn_policies.evaluation.compare import Comparison
from robot_attn_policies.evaluation.plot_style import (
    COLOURS,
    DIM,
    INK,
    LEVEL,
    new_figure,
    style,
    write_figure,
)
from robot_attn_policies.evaluation.shift_correlation import (
    Predictor,
    ShiftTable,
    shift_correlation,
)

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
SCORES = {
    "normalised_score": ("normalised score", "0 random, 1 oracle", 1.0, "oracle"),
    "return": ("return", "reward an episode", None, ""),
}
FOCUS = ("focus: mass on the target", "times chance", 1.0, "chance")
"""Panels: title, unit, and a level to mark, with its name."""


def write_plot(path: Path, comparison: Comparison, title: str) -> None:
    """Plot each arm's mean with its 95 % interval and a small dot per run, and write it as PNG.

    Args:
        path: the file to write.
        comparison: the figures to plot.
        title: title of the figure.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    from matplotlib.ticker import MaxNLocator

    scenes, arms = list(comparison.figures), list(comparison.seeds)
    figure = new_figure(10, 4.2, title)
    step = min(0.24, 0.75 / len(arms))
    panels = {comparison.score: SCORES[comparison.score], "mass_over_chance": FOCUS}
    for axes, (metric, (name, unit, level, mark)) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        if level is not None:
            axes.axhline(level, zorder=1, **LEVEL)
            axes.annotate(
                mark, (1, level), xycoords=("axes fraction", "data"), xytext=(4, -3),
                textcoords="offset points", fontsize=9, color=DIM,
            )  # fmt: skip
        for place, arm in enumerate(arms):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            for x, scene in enumerate(scenes):
                (value, low, high), runs = comparison.figures[scene][arm][metric]
                at = x + (place - (len(arms) - 1) / 2) * step
                axes.plot([at, at], [low, high], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
                axes.plot(
                    [at + step * 0.36] * len(runs), runs, linestyle="none", marker="o", markersize=3.5,
                    color=colour, alpha=0.55, markeredgewidth=0, zorder=2,
                )  # fmt: skip
                axes.plot(
                    at, value, linestyle="none", marker=marker, markersize=6, color=colour,
                    markeredgecolor="white", markeredgewidth=0.8, zorder=4,
                    label=_label(comparison, arm) if x == 0 else None,
                )  # fmt: skip
        axes.set_title(name, loc="left", fontsize=11, color=INK)
        axes.set_ylabel(unit, fontsize=10, color=INK)
        axes.set_xticks(range(len(scenes)), scenes, fontsize=10)
        axes.set_xlim(-0.5, len(scenes) - 0.5)
        axes.margins(y=0.08)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        style(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(arms), 4), frameon=False, fontsize=10,
        title="mean over seeds with its 95 % interval, and each seed as a small dot", title_fontsize=9,
    )  # fmt: skip
    legend.get_title().set_color(DIM)
    write_figure(path, figure)


def write_nuisance_plot(path: Path, table: ShiftTable, title: str) -> None:
    """Plot the share of return that each run keeps in each shifted scene over its nuisance, as PNG.

    Colours are arms and markers are scenes.

    Args:
        path: the file to write.
        table: the points to plot.
        title: title of the figure.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    figure = new_figure(10, 4.2, title)
    arms = list(dict.fromkeys(table.arms))
    panels: dict[Predictor, str] = {
        "nuisance_trained": "nuisance in the scene of training",
        "nuisance_shifted": "nuisance in the shifted scene",
    }
    for axes, (predictor, name) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        axes.axhline(1.0, zorder=1, **LEVEL)
        for place, arm in enumerate(arms):
            rows = np.array([name == arm for name in table.arms])
            for column, scene in enumerate(table.scenes):
                axes.plot(
                    100 * table.predictors[predictor][rows, column], table.kept[rows, column],
                    linestyle="none", marker=MARKERS[column % len(MARKERS)], markersize=6.5, alpha=0.8,
                    color=COLOURS[place % len(COLOURS)], markeredgecolor="white", markeredgewidth=0.8,
                    label=f"{arm}, {scene}",
                )  # fmt: skip
        found = shift_correlation(table, predictor)
        note = "too few runs for a correlation"
        if found is not None:
            note = "rank correlation {:+.2f} [{:+.2f}, {:+.2f}]".format(*found[0])
        axes.set_title(f"{name}\n{note}", loc="left", fontsize=11, color=INK)
        axes.set_xlabel("causal mass on what cannot matter, %", fontsize=10, color=INK)
        style(axes)
    figure.axes[0].set_ylabel("share of return kept under the shift", fontsize=10, color=INK)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(handles) or 1, 6),
        frameon=False,
        fontsize=8,
    )
    write_figure(path, figure)


def _label(comparison: Comparison, arm: str) -> str:
    count = len(comparison.seeds[arm])
    return f"{arm} ({count} seeds)" if count > 1 else f"{arm} (1 seed: interval over episodes alone)"
