"""What `robot-attn replay` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_policies.training.presets import Json
from robot_attn_scripts import _choices
from robot_attn_scripts._command import missing_modules
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts._report import check_writable
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Output, Scene, Which, default


@dataclass(frozen=True)
class Source:
    """What is drawn."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_EPISODE")]
    """Run folder that `robot-attn train` made, or an .hdf5 that an earlier replay wrote."""
    which: Which = "best"
    """The best policy of the run, or its last."""
    compare: Annotated[Path | None, default("none", metavar="RUN_OR_EPISODE")] = None
    """Another run, or recorded episode: both policies side by side, from the same seed, in the same scene."""
    module: Modules = ()
    """Modules to import first, such as those in which the run's task and perception are: their code runs."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Which episodes."""

    seed: Annotated[
        int | None,
        default(
            f"{_choices.EVALUATION_SEED}, the first evaluation seed",
            help="The episode's seed. The same seed and actions give the same frames. A policy's actions "
            "depend in their last bits on the processor and on the batch size, so that another "
            "command can play this seed differently after some steps.",
        ),
    ] = None
    episodes: int = 1
    """Episodes, one a seed: this one and those that follow."""
    calibration_episodes: int = 8
    """Episodes, of other seeds, on which the head that is shown large is chosen, if the target is known."""


@dataclass(frozen=True, kw_only=True)
class Shifted(Scene):
    """What it is played in."""

    task: Annotated[
        str | None,
        default(
            "that of training",
            metavar="TASK",
            help=f"Another task, which the policy must fit: {', '.join(_choices.tasks())}.",
        ),
    ] = None
    shift: Annotated[
        tuple[str, ...],
        default(
            "the scene of training",
            metavar="NAME[=INTENSITY] ...",
            help=f"Visual shifts to play under: {', '.join(_choices.shifts())}; such as noise=0.5, the "
            "intensity is 1 unless given.",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """How it is drawn."""

    size: int = 720
    """Height of the video in pixels, an even number; the width follows from what is shown."""
    image_size: Annotated[int | None, default("that of the policy")] = None
    """Draw the camera frames again, this many pixels high; the policy still sees its own."""
    camera: Annotated[str | None, default("none", metavar="NAME")] = None
    """Also show the episode from this camera of the model."""
    live: bool = False
    """Show a window while the policy runs: space pauses, q or Esc stops."""


@dataclass(frozen=True, kw_only=True)
class Files(Output):
    """Where results go."""

    out: Path = Path("replay.mp4")
    """Video to write; page (.html) and episode (.hdf5) go beside it. Several have their seeds in the name."""
    png: bool = False
    """Also write a contact sheet of 12 moments beside the video, with the ending .png."""
    explain: bool = False
    """Also explain the episode, on a page of its own: which head decides, and what changes the action."""
    rerun: Annotated[Path | None, default("no recording")] = None
    """Also write a recording for the Rerun viewer here, a name that ends in .rrd."""


@dataclass(frozen=True)
class Options(Source, Episodes, Shifted, Picture, Files, Checked):
    """Draw an episode: camera frame, each head's heat over it, target's outline, action, reward and return.

    From a run folder it plays episodes and writes of each the video, a page that shows it step by step
    (.html), the recorded episode (.hdf5), and with --png a contact sheet. From a recorded episode it draws
    again, at another size or from another camera if you like, with no policy.
    """

    @property
    def sources(self) -> list[Path]:
        """The one or two that are drawn."""
        return [self.source] if self.compare is None else [self.source, self.compare]

    def check(self) -> None:
        _groups.check_ending("out", self.out, ".mp4")
        _groups.check_ending("rerun", self.rerun, ".rrd")
        _groups.check_even("size", self.size, _choices.MIN_REPLAY, _choices.MAX_REPLAY)
        _groups.check_range(self, ("image_size",), _choices.MIN_FRAME, _choices.MAX_REDRAWN)
        _groups.check_range(self, ("episodes",), 1)
        _groups.check_range(self, ("calibration_episodes",), 0)
        _groups.check_seeds(self.seed, self.episodes)
        _groups.check_suite(self.suite)
        _groups.check_pairs(self.env)
        if self.suite is not None and self.shift:
            raise ValueError("give --suite or --shift, not both: a suite is a fixed combination of shifts")
        shifts = self.shifts()
        if self.module:
            return  # it may bring the task and the shifts
        if self.task is not None:
            _choices.check_name("task", self.task, _choices.tasks(), owner="robot_attn_envs")
        for name in shifts:
            _choices.check_name("shift", name, _choices.shifts(), owner="robot_attn_envs.shifts")

    def shifts(self) -> dict[str, Json]:
        """The intensity of each visual shift that was asked for.

        Raises:
            ValueError: an intensity that is not a number from 0 to 1.
        """
        shifts = parse_pairs([pair if "=" in pair else f"{pair}=1" for pair in self.shift])
        for name, value in shifts.items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"expected the intensity of shift {name} from 0 to 1, got {value!r}")
        return shifts

    def check_files(self) -> None:
        super().check_files()
        for source in self.sources:
            if not source.is_file() and not source.is_dir():
                raise ValueError(f"{source} is neither a run folder nor a recorded episode")
        if len({source.is_file() for source in self.sources}) > 1:
            raise ValueError("--compare takes two run folders, or two recorded episodes, not one of each")
        if self.source.is_file():
            played = {
                "--task": self.task is not None,
                "--suite": self.suite is not None,
                "--shift": bool(self.shift),
                "--env": bool(self.env),
                "--seed": self.seed is not None,
                "--episodes": self.episodes > 1,
                "--live": self.live,
                "--explain": self.explain,
            }
            if any(played.values()):
                names = ", ".join(name for name, given in played.items() if given)
                raise ValueError(
                    f"{names}: for a run folder, but {self.source} is an episode that has been played"
                )
        else:
            for source in self.sources:
                _groups.check_run(source)
        if self.explain and (missing := missing_modules(["explain"])):
            line = 'pip install "robot-attn[explain]"'
            raise ModuleNotFoundError(f"--explain needs {', '.join(missing)}; install with: {line}")
        for path in (self.out, self.rerun):
            if path is not None:
                check_writable(path)
