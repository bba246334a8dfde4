"""Options of `robot-attn compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts import _choices
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Which, default


@dataclass(frozen=True)
class Policies:
    """The trained policies."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders written by `robot-attn train`, all of the same task."""
    which: Which = "best"
    """Checkpoint to load from each run: the best one, or the last."""
    module: Modules = ()
    """Modules to import first, such as those that define the runs' task and perception. Their code runs."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes, seeds and processes."""

    episodes: int = 200
    """Evaluation episodes per cell, one for each seed."""
    seed: int = _choices.EVALUATION_SEED
    """First evaluation seed; the others follow it. The default is far from the seeds of training."""
    calibration_episodes: int = 32
    """Episodes on which each run's best head is chosen, with other seeds and in the training scene."""
    envs: int = 32
    """Parallel environments in each process."""
    jobs: Annotated[int, default("0, one for each core")] = 0
    """Number of processes."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Visual shifts."""

    suite: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="SUITE ...",
            help="Suites of visual shifts to evaluate under, besides the training scene: "
            f"{', '.join(_choices.SUITES)}.",
        ),
    ] = _choices.SUITES


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Annotated[Path | None, default("runs/compare/TASK")] = None
    """Output folder."""


@dataclass(frozen=True)
class Options(Policies, Episodes, Scene, _groups.Nuisance, Output, Checked):
    """Compare trained policies: score and localisation of each arm, with and without visual shifts.

    Runs that differ only in their seed form one arm. Every run is evaluated on the same seeds in every scene,
    in several processes. Each cell (one run in one scene) is saved to the output folder as soon as it is
    measured: after Ctrl-C the same command resumes, and a run that was retrained is measured again. The
    folder ends up with comparison.md (tables), comparison.png (plot) and comparison.json (all figures and
    configurations). With --nuisance, these also have the rank correlation of nuisance, and of attention on
    the target, with the share of return that runs keep under shifts; nuisance.png is its plot.
    """

    def check(self) -> None:
        if not self.runs:
            raise ValueError("expected run folders to compare, got none: name them, such as runs/track/*")
        _groups.check_range(self, ("episodes", "calibration_episodes", "nuisance_frames"), 1)
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
