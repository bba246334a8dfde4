"""Options of `robot-attn replay`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_policies.training.presets import Json
from robot_attn_scripts import _choices
from robot_attn_scripts._command import missing_modules
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Which, default


def named(path: Path, *parts: object) -> Path:
    """Extend the name of a file: replay.mp4 -> replay-7.mp4."""
    return path.with_name("-".join([path.stem, *map(str, parts)]) + path.suffix)


def beside(path: Path, count: int) -> list[Path]:
    """Return a path for each of `count` episodes: the path itself for one, replay-a and replay-b for two."""
    return [path] if count == 1 else [named(path, "a"), named(path, "b")]


def explanation(page: Path) -> Path:
    """Return the page that explains the episode of another page."""
    return named(page, "explained")


def is_recorded(source: Path) -> bool:
    """Whether a source is a recorded episode and not a policy."""
    return source.is_file() and not _groups.is_zip(source)


@dataclass(frozen=True)
class Source:
    """The policy or recorded episode to draw."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_ZIP_OR_EPISODE")]
    """Run folder written by `robot-attn train`, a .zip of Stable-Baselines3 or sb3-contrib, or an .hdf5
    episode written by replay or record."""
    which: Which = "best"
    """Checkpoint to load: the best one of the run, or the last."""
    compare: Annotated[Path | None, default("none", metavar="RUN_OR_EPISODE")] = None
    """A second run or episode: both policies are shown side by side, with the same seed and scene."""
    module: Modules = ()
    """Modules to import first, such as those that define the run's task and perception. Their code runs."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Episodes and seeds."""

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
    """Number of episodes, with consecutive seeds."""
    calibration_episodes: int = 8
    """Episodes, with other seeds, on which the head to show large is chosen, if there are target masks."""


@dataclass(frozen=True, kw_only=True)
class Scene(_groups.Scene):
    """Task, visual shifts and environment options."""

    task: Annotated[
        str | None,
        default(
            "the task of training",
            metavar="TASK",
            help=f"Another task with spaces that fit the policy: {', '.join(_choices.tasks())}. For a .zip, "
            "which does not name its own: one of them, or the id of any Gymnasium environment. `--env ID` "
            "does the same.",
        ),
    ] = None
    shift: Annotated[
        tuple[str, ...],
        default(
            "the training scene",
            metavar="NAME[=INTENSITY] ...",
            help=f"Visual shifts to apply: {', '.join(_choices.shifts())}; such as noise=0.5, with an "
            "intensity from 0 to 1, 1 if omitted.",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Size and views of the video."""

    size: int = 720
    """Height of the video in pixels, an even number; the width follows from the views shown."""
    image_size: Annotated[int | None, default("the policy's")] = None
    """Render the camera frames again at this height in pixels; the policy still gets its own frames."""
    camera: Annotated[str | None, default("none", metavar="NAME")] = None
    """Also show the episode from this camera of the model."""
    live: bool = False
    """Show a window while the policy runs: space pauses, q or Esc stops."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Path = Path("replay.mp4")
    """Video to write, beside it page (.html) and episode (.hdf5). With several episodes, names have seeds."""
    png: bool = False
    """Also write a contact sheet of 12 steps beside the video, with the extension .png."""
    explain: bool = False
    """Also write a page that explains the episode: which heads drive the action, and what changes it."""
    rerun: Annotated[Path | None, default("no recording")] = None
    """Also write a recording for the Rerun viewer to this file, a name that ends in .rrd."""


@dataclass(frozen=True)
class Options(Source, _groups.Zip, _groups.Maps, Episodes, Scene, Picture, Output, Checked):
    """Draw an episode: camera frame, attention map of each head, target outline, action, reward and return.

    From a run folder it runs episodes and writes for each the video, a page to step through (.html), the
    recorded episode (.hdf5), and with --png a contact sheet. From a recorded episode it draws without a
    policy, at another size or from another camera if you like.
    """

    @property
    def sources(self) -> list[Path]:
        """The one or two runs or episodes to draw."""
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
        _groups.check_scene(self, *self.sources)
        if self.suite is not None and self.shift:
            raise ValueError(
                "expected --suite or --shift, got both: a suite is a fixed combination of shifts, name one"
            )
        shifts = self.shifts()
        if self.module:
            return  # it may register the task and the shifts
        if self.task_name is not None and not any(map(_groups.is_zip, self.sources)):
            _choices.check_name("task", self.task_name, _choices.tasks(), owner="robot_attn_envs")
        for name in shifts:
            _choices.check_name("shift", name, _choices.shifts(), owner="robot_attn_envs.shifts")

    def shifts(self) -> dict[str, Json]:
        """The intensity of each visual shift in --shift.

        Raises:
            ValueError: an intensity is not a number from 0 to 1.
        """
        shifts = parse_pairs([pair if "=" in pair else f"{pair}=1" for pair in self.shift])
        for name, value in shifts.items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"expected the intensity of shift {name} from 0 to 1, got {value!r}")
        return shifts

    @property
    def recorded(self) -> bool:
        """Whether the sources are recorded episodes."""
        return is_recorded(self.source)

    def output(self, seed: int) -> Path:
        """The video of a seed: `out`, with the seed in its name if there are several episodes."""
        return self.out if self.episodes == 1 else named(self.out, seed)

    def pages(self, seed: int) -> list[Path]:
        """The pages of a seed, one for each policy."""
        return [path.with_suffix(".html") for path in beside(self.output(seed), len(self.sources))]

    def recordings(self, seed: int) -> list[Path]:
        """The episodes of a seed that are written, one for each policy."""
        return [path.with_suffix(".hdf5") for path in beside(self.output(seed), len(self.sources))]

    def reruns(self, seed: int) -> list[Path]:
        """The recordings of a seed for the Rerun viewer."""
        if self.rerun is None:
            return []
        rerun = self.rerun if self.episodes == 1 else named(self.rerun, seed)
        return beside(rerun, len(self.sources))

    def seeds(self) -> range:
        """The seeds of the episodes."""
        first = _choices.EVALUATION_SEED if self.seed is None else self.seed
        return range(first, first + self.episodes)

    def files(self) -> list[Path]:
        written = super().files()
        for seed in self.seeds():
            written += [self.output(seed), *self.pages(seed), *self.reruns(seed)]
            if not self.recorded:
                written += self.recordings(seed)
            if self.png:
                written.append(self.output(seed).with_suffix(".png"))
            if self.explain:
                reports = [explanation(page) for page in self.pages(seed)]
                written += [path for report in reports for path in (report, report.with_suffix(".json"))]
        return written

    def check_files(self) -> None:
        super().check_files()
        for source in self.sources:
            if not source.is_file() and not source.is_dir():
                raise ValueError(
                    f"expected a run folder, a .zip or a recorded episode, got {source}: no such file"
                )
        if len({is_recorded(source) for source in self.sources}) > 1:
            raise ValueError(
                "expected two policies or two recorded episodes for --compare, got one of each: record an "
                "episode of the policy first"
            )
        if self.recorded:
            need_policy = {
                "--task": self.task is not None,
                "--suite": self.suite is not None,
                "--shift": bool(self.shift),
                "--env": bool(self.env),
                "--seed": self.seed is not None,
                "--episodes": self.episodes > 1,
                "--live": self.live,
                "--explain": self.explain,
                "--maps": self.maps is not None,
                "--trust": self.trust,
                "--vecnormalize": self.vecnormalize is not None,
                "--algorithm": self.algorithm is not None,
            }
            if any(need_policy.values()):
                names = ", ".join(name for name, given in need_policy.items() if given)
                raise ValueError(f"expected a policy with {names}, got {self.source}: an episode needs none")
        else:
            self._check_policies()
        if self.explain and (missing := missing_modules(["explain"])):
            line = 'pip install "robot-attn[explain]"'
            raise ModuleNotFoundError(f"--explain needs {', '.join(missing)}; install with: {line}")

    def _check_policies(self) -> None:
        zips = [source for source in self.sources if _groups.is_zip(source)]
        for source in self.sources:
            if _groups.is_zip(source):
                _groups.check_zip(source, self)
            elif zips:
                _groups.check_run(source)
            else:
                _groups.check_policy(source, self, other_task=True)
        if len(zips) > 1 and (self.vecnormalize is not None or self.algorithm is not None):
            raise ValueError(
                "expected one .zip with --vecnormalize or --algorithm, got two: replay each alone, and "
                "compare the episodes"
            )
