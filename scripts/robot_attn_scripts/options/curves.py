"""What `robot-attn curves` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts._report import check_writable
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Runs:
    """Whose curves."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders that `robot-attn train` made; the legend has each folder's name and its parent's."""
    reach: float = 0.8
    """The score whose first steps and minutes are printed."""


@dataclass(frozen=True, kw_only=True)
class Picture(Output):
    """Where results go."""

    out: Path = Path("curves.png")
    """The picture to write."""


@dataclass(frozen=True)
class Options(Runs, Picture, Checked):
    """Draw the learning curves of trainings: their evaluations' score over steps and over minutes."""

    def check(self) -> None:
        if not self.runs:
            raise ValueError("expected run folders, got none: name one at least")
        _groups.check_range(self, ("reach",), -1e9, 1e9)

    def check_files(self) -> None:
        super().check_files()
        check_writable(self.out)
        for run in self.runs:
            _groups.check_run(run)
