"""Options of `robot-attn curves`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked


@dataclass(frozen=True)
class Runs:
    """The training runs."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders written by `robot-attn train`; the legend shows each as PARENT/FOLDER."""
    reach: float = 0.8
    """Print how many steps and minutes each run took to reach this score."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Path = Path("curves.png")
    """Image to write."""


@dataclass(frozen=True)
class Options(Runs, Output, Checked):
    """Plot the learning curves of training runs: evaluation score over steps and over minutes."""

    def check(self) -> None:
        if not self.runs:
            raise ValueError("expected run folders, got none: name at least one")
        _groups.check_range(self, ("reach",), -1e9, 1e9)

    def files(self) -> list[Path]:
        return [*super().files(), self.out]

    def check_files(self) -> None:
        super().check_files()
        for run in self.runs:
            _groups.check_run(run)
