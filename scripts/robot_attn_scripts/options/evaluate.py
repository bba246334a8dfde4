"""What `robot-attn evaluate` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, Policy, Scene, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How much is measured."""

    episodes: int = 64
    """Evaluation episodes, one a seed."""
    seed: int = EVALUATION_SEED
    """First evaluation seed; the others follow it. Far from those of training as it comes."""
    calibration_episodes: int = 32
    """Episodes, of other seeds, on which the best head is chosen."""
    envs: Annotated[
        int | None,
        default(
            "32, or 8 where they are stepped one by one",
            help="Environments that run side by side. The seeds are the same at any number. Actions are "
            "computed in batches of this size, and their last bits depend on it, so that scores can "
            "differ in the third decimal.",
        ),
    ] = None


@dataclass(frozen=True)
class Options(Policy, Episodes, Scene, Output, Checked):
    """Score a trained policy on seeds it has never met: return, success, and whether it looked at the target.

    Every figure comes with its 95 % bootstrap interval over episodes. Focus is mass on the target, the same
    divided by chance (the target's share of the frame) and the pointing game, of every head and of three
    maps that never look: one centred in the frame, the target's average place, and a uniform one. The best
    head is chosen, and the average place measured, on other episodes than those that are scored.

    The return is normalised where the environment has an oracle, and focus is measured where it gives target
    masks, as our tasks do.
    """

    def check(self) -> None:
        _groups.check_range(self, ("episodes", "calibration_episodes"), 1)
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_pairs(self.env)

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
