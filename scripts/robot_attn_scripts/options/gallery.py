"""What `robot-attn gallery` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from robot_attn_scripts import _choices
from robot_attn_scripts._report import check_folder, check_writable
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, default


@dataclass(frozen=True)
class Views:
    """What is drawn."""

    tasks: Annotated[
        tuple[str, ...],
        default("all", metavar="TASK ...", help=f"Tasks to draw: {', '.join(_choices.tasks())}."),
    ] = ()
    intensities: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Of each shift, from 0 to 1. Rows without an intensity show as many episodes instead."""
    size: int = 128
    """Side of the frames in pixels."""
    seed: int = 0
    """Seed from which on episodes are looked for that show the target."""
    steps: int = 60
    """Control steps of an episode from which the one that is shown is taken."""
    outline: bool = False
    """Draw a thin outline around the target."""


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """Where the sheets go."""

    out: Path = Path("gallery")
    """Folder for the sheets."""
    sheet: Annotated[Path | None, default("a sheet a task, in --out")] = None
    """Write one compact sheet here instead, a .png: a row a task, each shift at the greatest intensity."""


@dataclass(frozen=True)
class Options(Views, Sheets, Checked):
    """Draw every task under every visual shift and intensity, to judge what is recognisable.

    Writes a sheet for each task: views without a shift, then a row for each shift with a column for each
    intensity, all of the episode at the top left; then further episodes with each suite of shifts, with
    instructions and their words, and one in which a screen hides the target. `index.png` shows all tasks
    without shifts. The scripted oracle acts; episodes are those in which the target comes into sight where
    there is no shift, and of each a step is shown that sees it at a middling size.
    """

    def check(self) -> None:
        for task in self.tasks:
            _choices.check_name("task", task, _choices.tasks(), owner="robot_attn_envs")
        _groups.check_some(self, "intensities")
        _groups.check_range(self, ("intensities",), 0, 1)
        _groups.check_range(self, ("size",), _choices.MIN_FRAME, _choices.MAX_FRAME)
        _groups.check_range(self, ("steps",), 0)
        _groups.check_seeds(self.seed)
        _groups.check_ending("sheet", self.sheet, ".png")

    def check_files(self) -> None:
        super().check_files()
        if self.sheet is None:
            check_folder(self.out)
        else:
            check_writable(self.sheet)
