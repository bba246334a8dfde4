"""Options of `robot-attn cameras`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Pairs


@dataclass(frozen=True)
class Environment:
    """The environment."""

    task: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            metavar="ENV",
            help="Id of a Gymnasium environment with a MuJoCo model, such as Pusher-v5; or module:id, if "
            "importing the module registers it.",
        ),
    ]
    env: Pairs = ()
    """Options of the environment."""
    module: Modules = ()
    """Modules to import first, such as one that registers the environment. Their code runs."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What is drawn."""

    seed: int = 0
    """Seed of the episode whose first frame is drawn."""
    size: int = 384
    """Height and width of the frames in pixels."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Path = Path("cameras.png")
    """Sheet of what each camera sees, a .png."""


@dataclass(frozen=True)
class Options(Environment, Frames, Output, Checked):
    """Show what each camera of a MuJoCo environment sees, and the names that can be given as a target.

    Writes a sheet with the first frame of an episode from each camera, and the names of the bodies and sites
    in it. Prints how much of each frame every body, geom and site covers. A name from the table can be given
    to `train` as `--env target=NAME`, and several as `--env 'distractors=["NAME", ...]'` and `backdrop`; a
    camera as `--env camera=NAME`.
    """

    def check(self) -> None:
        _groups.check_pairs(self.env)
        _groups.check_range(self, ("size",), _choices.MIN_FRAME, _choices.MAX_FRAME)
        _groups.check_seeds(self.seed)
        _groups.check_ending("out", self.out, ".png")

    def files(self) -> list[Path]:
        return [self.out, *super().files()]
