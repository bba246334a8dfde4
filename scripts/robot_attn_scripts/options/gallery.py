"""Options of `robot-attn gallery`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from robot_attn_scripts import _choices
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, default


@dataclass(frozen=True)
class Content:
    """Tasks, shifts and frames to show."""

    tasks: Annotated[
        tuple[str, ...],
        default("all", metavar="TASK ...", help=f"Tasks to draw: {', '.join(_choices.tasks())}."),
    ] = ()
    intensities: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Intensities of each shift, from 0 to 1. Rows without an intensity show as many episodes instead."""
    size: int = 128
    """Height and width of the frames in pixels."""
    seed: int = 0
    """Seed from which to search for episodes that show the target."""
    steps: int = 60
    """Control steps of an episode among which the frame is chosen."""
    outline: bool = False
    """Draw a thin outline around the target."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Overwrite):
    """Output files."""

    out: Path = Path("gallery")
    """Folder for the sheets."""
    sheet: Annotated[Path | None, default("one sheet for each task, in --out")] = None
    """Write one compact .png here instead: a row for each task, each shift at its highest intensity."""


@dataclass(frozen=True)
class Options(Content, Output, Checked):
    """Draw every task under every visual shift and intensity, to judge what is still recognisable.

    Writes a contact sheet for each task: frames without a shift, then a row for each shift with a column for
    each intensity, all from the episode at the top left; then further episodes under each suite of shifts,
    with language instructions, and with an occluder that hides the target. `index.png` shows all tasks
    without shifts. The scripted oracle acts. Episodes are chosen in which the target becomes visible without
    a shift; each shows a step at which the target has a medium size.
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

    def files(self) -> list[Path]:
        if self.sheet is not None:
            return [self.sheet]
        names = [_choices.short_name(task) for task in self.tasks or _choices.tasks()]
        return [self.out / f"{name}.png" for name in (*names, "index")]

    def check_files(self) -> None:
        if self.sheet is None:
            check_folder(self.out)
        super().check_files()
