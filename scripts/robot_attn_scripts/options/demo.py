"""Options of `robot-attn demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robot_attn_policies.training.presets import TrainConfig
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked


@dataclass(frozen=True)
class Output(_groups.Output):
    """Output files."""

    out: Path = Path("runs/track/demo")
    """Run folder; the scores and the replay are written there too."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training and evaluation budget."""

    steps: int = TrainConfig.steps
    """Most environment steps to train for."""
    stop_score: float = 0.97
    """Score of the training's own evaluations at which the policy is good enough: training stops."""
    episodes: int = 64
    """Evaluation episodes."""
    seed: int = TrainConfig.seed
    """Random seed of the weights, the environments and the minibatches."""


@dataclass(frozen=True)
class Options(Training, Output, Checked):
    """Train a tracking policy from scratch, evaluate it, and draw a replay with its attention maps.

    Runs `robot-attn train track`, `robot-attn evaluate` and `robot-attn replay` one after the other. If it is
    interrupted, the same command resumes from the last checkpoint.
    """

    def check(self) -> None:
        TrainConfig("track", steps=self.steps, stop_score=self.stop_score, seed=self.seed)
        _groups.check_range(self, ("episodes",), 1)

    def check_files(self) -> None:
        super().check_files()
        check_folder(self.out)
