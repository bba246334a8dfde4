"""Options of `robot-attn benchmark maps`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """What to measure, and how much."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)"),
    ]
    """Run folders written by `robot-attn train`."""
    episodes: int = 16
    """Episodes, one for each seed."""
    steps: int = 60
    """Steps after which an episode is truncated."""
    frames: int = 64
    """Frames of the unchanged episodes for the pointing game, the curves of action and the cost."""
    shares: tuple[float, ...] = (0.1,)
    """Fractions of the pixels that are deleted, or kept, in the rollouts."""
    seed: int = EVALUATION_SEED + 10_000
    """First episode's seed; the others follow it."""
    resume: bool = False
    """Continue an interrupted measurement: keep what is in the file of --json."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Compare causal maps with gradient maps, on trained policies.

    For every run: the pointing game on the target, deletion and insertion curves of the action, and the
    return with the pixels that a map selects deleted, or all others. Maps are causal maps, a sliding
    occlusion, saliency, integrated gradients, Grad-CAM, the policy's attention if it has any, a random place,
    and the target's average place in other episodes. Maps are blurred by the same kernel before pixels are
    ranked; saliency and integrated gradients, which gain by it, are also measured without. Differences to
    causal maps are paired by episode. Also the processor time of a causal map.
    """

    def check(self) -> None:
        _groups.check_some(self, "runs", "shares")
        _groups.check_range(self, ("episodes",), 2)
        _groups.check_range(self, ("steps", "frames"), 1)
        _groups.check_range(self, ("shares",), 0, 1)
        _groups.check_seeds(self.seed, self.episodes)

    def check_files(self) -> None:
        for run in self.runs:
            _groups.check_run(run)
        if not self.resume:
            super().check_files()
