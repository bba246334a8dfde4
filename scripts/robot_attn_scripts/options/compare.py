"""What `robot-attn compare` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts import _choices
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Output, Which, default


@dataclass(frozen=True)
class Policies:
    """Whose policies."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders that `robot-attn train` made, of one task."""
    which: Which = "best"
    """The best policy of each run, or its last."""
    module: Modules = ()
    """Modules to import first, such as those in which the runs' task and perception are: their code runs."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How much is measured."""

    episodes: int = 200
    """Evaluation episodes of a cell, one a seed."""
    seed: int = _choices.EVALUATION_SEED
    """First evaluation seed; the others follow it. Far from those of training as it comes."""
    calibration_episodes: int = 32
    """Episodes, of other seeds and in the scene of training, on which each run's best head is chosen."""
    envs: int = 32
    """Environments that run side by side in a process."""
    jobs: Annotated[int, default("0, one a core")] = 0
    """Processes, which share the cores."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What they are played in."""

    suite: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="SUITE ...",
            help="Suites of visual shifts to evaluate under, beside the scene of training: "
            f"{', '.join(_choices.SUITES)}.",
        ),
    ] = _choices.SUITES


@dataclass(frozen=True, kw_only=True)
class Folder(Output):
    """Where results go."""

    out: Annotated[Path | None, default("runs/compare/TASK")] = None
    """Output folder."""


@dataclass(frozen=True)
class Options(Policies, Episodes, Scene, Folder, Checked):
    """Compare policies: score and focus of every arm, in the scene of training and under visual shifts.

    Runs that differ in their seeds alone are one arm. Every run is evaluated on the same seeds in every
    scene, in several processes. A cell, one run in one scene, is kept in the output folder as soon as it is
    measured: after Ctrl-C the same command goes on, and a run that was trained again is measured again. At
    the end the folder has comparison.md (tables), comparison.png (plot) and comparison.json (all figures,
    and the configurations).
    """

    def check(self) -> None:
        if not self.runs:
            raise ValueError("expected run folders to compare, got none: name some, such as runs/track/*")
        _groups.check_range(self, ("episodes", "calibration_episodes"), 1)
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_range(self, ("jobs",), 0, _groups.MAX_ENVS)
        _groups.check_seeds(self.seed, self.episodes)
        for suite in self.suite:
            _groups.check_suite(suite)

    def check_files(self) -> None:
        super().check_files()
        for run in self.runs:
            _groups.check_run(run)
        if self.out is not None:
            check_folder(self.out)
