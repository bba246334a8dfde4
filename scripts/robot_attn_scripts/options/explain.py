"""What `robot-attn explain` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts._report import check_writable
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Policy, Scene, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How much is measured."""

    episodes: int = 32
    """Episodes to explain it by."""
    calibration_episodes: int = 8
    """Episodes, of other seeds, that weigh heads by how much they change the action; 0 for equal weights."""
    seed: int = EVALUATION_SEED
    """The first episode's seed; the others follow it."""
    curves: bool = True
    """Also measure the return with 2, 5, 20 and 40 % of the pixels erased, which takes most of the time."""
    envs: Annotated[int | None, default("32, or 8 where they are stepped one by one")] = None
    """Environments that run side by side."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where results go."""

    out: Path = Path("explanation.html")
    """Where the page goes; its figures go beside it, with the ending .json."""


@dataclass(frozen=True)
class Options(Policy, Episodes, Scene, Report, Checked):
    """Explain a policy: does it look at its target, does looking decide what it does, and where does it fail?

    Plays episodes that training has not seen: as they are, with pixels taken from the frames, with heads
    silenced, and with one thing moved, recoloured or removed in the simulator. Writes one report, as an
    HTML page and as JSON, with a verdict on each question.
    """

    def check(self) -> None:
        _groups.check_ending("out", self.out, ".html")
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_range(self, ("calibration_episodes",), 0)
        _groups.check_range(self, ("episodes",), 2)  # an interval takes two
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_pairs(self.env)

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
        check_writable(self.out)
