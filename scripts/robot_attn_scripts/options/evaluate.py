"""Options of `robot-attn evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Nuisance, Output, Policy, Scene, Zip, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes, seeds and batch size."""

    episodes: int = 64
    """Evaluation episodes, one for each seed."""
    seed: int = EVALUATION_SEED
    """First evaluation seed; the others follow it. The default is far from the seeds of training."""
    calibration_episodes: int = 32
    """Episodes, with other seeds, on which the best head is chosen."""
    envs: Annotated[
        int | None,
        default(
            "32, or 8 where environments are stepped one by one",
            help="Number of parallel environments. The episodes' seeds do not depend on it. Actions are "
            "computed in batches of this size, and their last bits depend on it, so that scores can "
            "differ in the third decimal.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Kind of the maps that are scored."""

    maps: Annotated[
        _groups.MAP_CHOICES,
        default(
            "attention",
            help="attention: the policy's attention weights, none for a policy without. causal: how much the "
            "action changes when random pixels are removed, for any policy, about 25 ms of one core for each "
            "frame. gradient: of the action, for any policy.",
        ),
    ] = "attention"


@dataclass(frozen=True)
class Options(Policy, Zip, Maps, Episodes, Scene, Nuisance, Output, Checked):
    """Evaluate a trained policy on held-out seeds: return, success, and attention on the target.

    Every figure has its 95 % bootstrap interval over episodes. Localisation is scored for each head by the
    mass of its attention on the target, the same mass divided by chance (the target's share of the frame),
    and the pointing game. Three maps that ignore the frame are scored beside the heads: a centre bias, the
    target's average place, and a uniform map. The best head is chosen, and the average place estimated, on
    calibration episodes, which are not scored.

    Localisation is scored over the frames in which the target is visible. A second table is over all frames:
    the target is attended, in view but not attended, or out of view. Below it stands what captured the best
    head's attention, and how often the target was then lost.

    The return is normalised if the environment has an oracle, and localisation is scored if it gives target
    masks, as our tasks do.
    """

    def check(self) -> None:
        _groups.check_range(self, ("episodes", "calibration_episodes", "nuisance_frames"), 1)
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_scene(self, self.run)

    def check_files(self) -> None:
        super().check_files()
        _groups.check_policy(self.run, self)
