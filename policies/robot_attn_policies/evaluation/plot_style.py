"""Style of the plots: colours, axes, and writing to PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_attn.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, safe for colour-blind readers; beyond seven arms, markers tell them apart."""
INK, DIM, FAINT = "#333333", "#666666", "#d9d9d9"
LEVEL: dict[str, Any] = {"color": "#888888", "linewidth": 1, "linestyle": (0, (4, 3))}
"""Style of a horizontal reference line."""


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of `width` x `height` inches with a title."""
    # Without pyplot, which would keep global state and look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    return figure


def style(axes: Any) -> None:
    """Give axes a faint horizontal grid, a line at the bottom and no frame."""
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # Without the software's version, so that equal figures give equal files.
        figure.savefig(temporary, metadata={"Software": None})
