"""What `robot-attn demo` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robot_attn_policies.training.presets import TrainConfig
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Folder(Output):
    """Where results go."""

    out: Path = Path("runs/track/demo")
    """The run folder; the scores and the replay go there too."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How much is trained and measured."""

    steps: int = TrainConfig.steps
    """Environment steps to train for."""
    episodes: int = 64
    """Evaluation episodes."""
    seed: int = TrainConfig.seed
    """Random seed of the weights, the environments and the minibatches."""


@dataclass(frozen=True)
class Options(Training, Folder, Checked):
    """Train a tracking policy from scratch, evaluate it, and draw a replay of what it looked at.

    The same as `robot-attn train track`, `robot-attn evaluate` and `robot-attn replay` in a row. Stopped
    half-way, it goes on from the last checkpoint when it is started again.
    """

    def check(self) -> None:
        TrainConfig("track", steps=self.steps, seed=self.seed)
        _groups.check_range(self, ("episodes",), 1)

    def check_files(self) -> None:
        super().check_files()
        check_folder(self.out)
