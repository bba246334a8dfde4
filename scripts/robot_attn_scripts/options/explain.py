"""Options of `robot-attn explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from robot_attn_scripts._choices import EVALUATION_SEED
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Maps, Policy, Scene, Zip, default


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes, seeds and batch size."""

    episodes: int = 64
    """Most episodes to measure on. They are run in rounds, until every verdict is decided; 8 at least."""
    calibration_episodes: int = 8
    """Episodes, with other seeds, on which heads are weighted by their effect on the action; 0: equally."""
    seed: int = EVALUATION_SEED
    """First episode's seed; the others follow it."""
    curves: bool = True
    """Also measure the return with 2, 5, 20 and 40 % of the pixels ablated, which takes most of the time."""
    envs: Annotated[int | None, default("16, or 8 where environments are stepped one by one")] = None
    """Number of parallel environments."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Overwrite):
    """Output files."""

    out: Path = Path("explanation.html")
    """HTML page to write; its figures are written beside it, with the extension .json."""


@dataclass(frozen=True)
class Options(Policy, Zip, Maps, Episodes, Scene, Output, Checked):
    """Explain a policy: is its attention on the target, does attention drive the action, where does it fail?

    Runs held-out episodes unchanged, with pixels ablated (deletion and insertion), with heads ablated, and
    with counterfactual frames in which one object is moved, recoloured or removed in the simulator. Writes a
    report, as an HTML page and as JSON, with a verdict on each question.
    """

    def check(self) -> None:
        _groups.check_ending("out", self.out, ".html")
        _groups.check_range(self, ("envs",), 1, _groups.MAX_ENVS)
        _groups.check_range(self, ("calibration_episodes",), 0)
        _groups.check_range(self, ("episodes",), 2)  # an interval needs at least two
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_scene(self, self.run)

    def files(self) -> list[Path]:
        return [*super().files(), self.out, self.out.with_suffix(".json")]

    def check_files(self) -> None:
        super().check_files()
        _groups.check_policy(self.run, self)
