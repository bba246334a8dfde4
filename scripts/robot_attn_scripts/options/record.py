"""Options of `robot-attn record`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Maps, Policy, Scene, Zip, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes, seeds and processes."""

    episodes: int = 16
    """Episodes, one for each seed."""
    seed: Annotated[
        int,
        tyro.conf.arg(
            help="First seed; the others follow it. The same seed and actions give the same frames; "
            "actions depend in their last bits on the batch size, which is 1 for files, as in replay, "
            "and --at-once for a dataset."
        ),
    ] = EVALUATION_SEED
    at_once: Annotated[int | None, default("one for each core, or 16 for a dataset")] = None
    """Episodes to run in parallel: for files in one process each, for a dataset in one batch."""
    calibration_episodes: int = 32
    """For files: episodes, with other seeds, on which the head that a replay shows large is chosen."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Annotated[Path | None, default("episodes")] = None
    """Folder for the episode files, each named after its seed."""
    minari: Annotated[str | None, default("files in --out", metavar="NAME")] = None
    """Write a new Minari dataset of this name instead, such as track/query-v0."""
    lerobot: Annotated[Path | None, default("files in --out", metavar="FOLDER")] = None
    """Write a new LeRobotDataset to this folder instead."""
    lerobot_video: bool = False
    """For --lerobot: store frames as H.264 video, which is smaller, instead of PNG, which is lossless."""


@dataclass(frozen=True)
class Options(Policy, Zip, Maps, Episodes, Scene, Output, Checked):
    """Run episodes of a trained policy and save them in full: observations, actions, rewards, attention.

    Without --minari each episode is saved as an .hdf5 file that `robot-attn replay` can draw. With --minari
    all episodes form one Minari dataset, with observations (each episode's last one included), actions,
    rewards, terminations and truncations, seeds, infos (among them the target's location and the policy's
    attention) and the environment's specification. The dataset is written to MINARI_DATASETS_PATH if that is
    set, otherwise to ~/.minari/datasets.

    With --lerobot all episodes form one LeRobotDataset of format v3.0, with observations, actions, rewards,
    terminations, truncations, successes and the policy's attention. An instruction becomes the task of its
    episode. The format does not have a place for an episode's last observation.

    If it is interrupted, the finished episodes are kept.
    """

    def check(self) -> None:
        _groups.check_range(self, ("episodes", "calibration_episodes"), 1)
        _groups.check_range(self, ("at_once",), 1, _groups.MAX_ENVS)
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_scene(self, self.run)
        outputs = [name for name in ("out", "minari", "lerobot") if getattr(self, name) is not None]
        if len(outputs) > 1:
            raise ValueError(
                "expected one of --out, --minari and --lerobot, got "
                f"{' and '.join(map(_groups.flag, outputs))}: record once for each"
            )
        if self.vecnormalize is not None and (self.minari is not None or self.lerobot is not None):
            raise ValueError(
                "expected --vecnormalize without --minari and --lerobot, got both: a dataset would hold "
                "normalised observations; record files with --out"
            )
        if self.lerobot_video and self.lerobot is None:
            raise ValueError("expected --lerobot-video with --lerobot, got it alone: add --lerobot FOLDER")

    def check_files(self) -> None:
        super().check_files()
        _groups.check_policy(self.run, self)
        if self.lerobot is not None:
            _groups.check_new_folder("lerobot", self.lerobot)
        elif self.minari is None:
            check_folder(self.out or Path("episodes"))
