"""What `robot-attn record` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, Policy, Scene, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How much is recorded."""

    episodes: int = 16
    """Episodes, one a seed."""
    seed: Annotated[
        int,
        tyro.conf.arg(
            help="First seed; the others follow it. The same seed and actions give the same frames; "
            "actions depend in their last bits on the batch size, which is 1 for files, as in replay, "
            "and --at-once for Minari."
        ),
    ] = EVALUATION_SEED
    at_once: Annotated[int | None, default("one a core, or 16 for Minari")] = None
    """Episodes played at a time: for files each in a process of its own, for Minari in a batch."""
    calibration_episodes: int = 32
    """For files: episodes, of other seeds, on which the head that a replay shows large is chosen."""


@dataclass(frozen=True, kw_only=True)
class Dataset(Output):
    """Where results go."""

    out: Annotated[Path | None, default("episodes")] = None
    """Folder for the files, each named after its seed."""
    minari: Annotated[str | None, default("files in --out", metavar="NAME")] = None
    """Name of a new Minari dataset to make instead, such as track/query-v0."""


@dataclass(frozen=True)
class Options(Policy, Episodes, Scene, Dataset, Checked):
    """Play episodes of a trained policy and keep all of them: what was seen, done and earned, bit for bit.

    Without --minari each episode is a file, as `robot-attn replay` writes it, which replay draws. With it
    all are one dataset for Minari, which keeps observations, the last one of an episode included, actions,
    rewards, ends, seeds, infos (among them where the target is, and the policy's attention) and what makes
    the environment again. The dataset goes where MINARI_DATASETS_PATH says, else to ~/.minari/datasets.

    Interrupted, it keeps the episodes that have ended.
    """

    def check(self) -> None:
        _groups.check_range(self, ("episodes", "calibration_episodes"), 1)
        _groups.check_range(self, ("at_once",), 1, _groups.MAX_ENVS)
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_pairs(self.env)
        if self.out is not None and self.minari is not None:
            raise ValueError("--out is for files: a Minari dataset goes where MINARI_DATASETS_PATH says")

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
        if self.minari is None:
            check_folder(self.out or Path("episodes"))
