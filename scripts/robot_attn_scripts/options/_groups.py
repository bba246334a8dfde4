"""Option groups that several commands share, how help shows a default, and validation of values.

A command's `Options` inherits from its groups. Each group is a dataclass whose name is its heading in the
help; in Python they form one flat dataclass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from robot_attn_scripts import _choices
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts._report import check_folder, check_new, check_writable

MAX_COUNT = 1_000_000
"""The largest number of episodes, rounds and the like; a larger one is taken for a typing error."""
MAX_ENVS = 4096
"""The largest number of parallel environments; each takes about a megabyte."""

CONFIG = "config.json"
"""The file that identifies a run folder."""


def default(text: str, *, metavar: str | None = None, help: str | None = None) -> object:
    """Describe a default in the help that is not a plain value, such as one that depends on the run."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})", metavar=metavar, help=help)


Which = Literal["best", "last"]
RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
RunOrZip = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_ZIP")]
Json = Annotated[Path | None, default("no file")]
Pairs = Annotated[tuple[str, ...], default("none", metavar="NAME=VALUE ...")]
TrainedPairs = Annotated[tuple[str, ...], default("as in training", metavar="NAME=VALUE ...")]
Suite = Annotated[
    str | None,
    default(
        "the training scene",
        metavar="SUITE",
        help=f"Suite of visual shifts to apply: {', '.join(_choices.SUITES)}.",
    ),
]
Modules = Annotated[tuple[str, ...], default("none", metavar="MODULE ...")]


MAP_CHOICES = Literal["attention", "causal", "gradient"]
"""The kinds of maps that can be asked for, as `robot_attn_policies.probing.probe.MapChoice`."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Kind of the maps."""

    maps: Annotated[
        MAP_CHOICES | None,
        default(
            "attention, or causal for a policy without",
            help="attention: the policy's attention weights. causal: how much the action changes when random "
            "pixels are removed, for any policy, about 50 ms of one core for each frame. gradient: of the "
            "action, for any policy.",
        ),
    ] = None


@dataclass(frozen=True)
class Policy:
    """The trained policy."""

    run: RunOrZip
    """Run folder written by `robot-attn train`, or a .zip of Stable-Baselines3 or sb3-contrib."""
    which: Which = "best"
    """Checkpoint to load: the best one of the run, or the last."""
    module: Modules = ()
    """Modules to import first, such as those that define the run's task and perception. Their code runs."""


@dataclass(frozen=True, kw_only=True)
class Zip:
    """Only for a .zip of Stable-Baselines3 or sb3-contrib."""

    trust: bool = False
    """Open the .zip, which runs the code in its pickled objects: only if you trust where it comes from."""
    vecnormalize: Annotated[Path | None, default("observations as they are", metavar="FILE")] = None
    """Normalise observations by the statistics that VecNormalize saved, which also need --trust."""
    algorithm: Annotated[str | None, default("as the .zip tells", metavar="NAME")] = None
    """Algorithm of the .zip, such as MaskablePPO; needed if its policy has a class of another package."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Task, visual shifts and environment options."""

    task: Annotated[
        str | None,
        default(
            "the task of training",
            metavar="TASK",
            help="Task for the policy of a .zip, which does not name its own: one of ours, or the id of any "
            "Gymnasium environment. `--env ID` does the same.",
        ),
    ] = None
    suite: Suite = None
    env: TrainedPairs = ()
    """Environment options to change from those of training, such as distractors=14."""

    @property
    def pairs(self) -> tuple[str, ...]:
        """The environment options, NAME=VALUE each."""
        return tuple(value for value in self.env if "=" in value)

    @property
    def task_name(self) -> str | None:
        """The task of --task, or of an --env without `=`; None for that of training."""
        return self.task or next((value for value in self.env if "=" not in value), None)


@dataclass(frozen=True, kw_only=True)
class Nuisance:
    """Causal maps."""

    nuisance: bool = False
    """Also measure nuisance: the share of the causal map's mass on what cannot matter (backdrop, distractors,
    occluder), of any policy, with attention or without. Each frame takes 96 to 480 passes of the policy."""
    nuisance_frames: int = _choices.NUISANCE_FRAMES
    """Frames in which nuisance is measured, of the first 16 evaluation episodes."""


@dataclass(frozen=True, kw_only=True)
class Overwrite:
    """Whether files of an earlier run may be replaced."""

    force: bool = False
    """Replace files of an earlier run; otherwise a file that exists is an error."""


@dataclass(frozen=True, kw_only=True)
class Output(Overwrite):
    """Output files."""

    json: Json = None
    """Also write the figures, with their units, to this JSON file."""


class Checked:
    """The last base of every `Options`: validation that runs before anything is imported or written."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Validate the values.

        Raises:
            ValueError: a value is out of range, or two options conflict.
        """

    def files(self) -> list[Path]:
        """The files that the command writes, as far as they can be named before it runs."""
        json = getattr(self, "json", None)
        return [] if json is None else [json]

    def check_files(self) -> None:
        """Check that inputs exist and that outputs are new and can be written, without writing anything.

        Raises:
            ValueError: an input does not exist.
            FileExistsError: an output exists, and `force` is not set.
            OSError: an output cannot be written.
        """
        for path in self.files():
            check_writable(path)
            if not getattr(self, "force", False):
                check_new(path)

    @classmethod
    def groups(cls) -> tuple[type[Any], ...]:
        """The option groups, in the order in which help shows them."""
        return tuple(base for base in cls.__bases__ if dataclasses.is_dataclass(base))


# ---- Checks ----


def flag(name: str) -> str:
    """Return the flag of an option: `at_once` -> `--at-once`."""
    return f"--{name.replace('_', '-')}"


def check_range(options: object, names: Iterable[str], least: float, most: float = MAX_COUNT) -> None:
    """Check that each of the named options is within a range, bounds included.

    An option with several values has each of them checked; None means that the option was not given.

    Raises:
        ValueError: a number is out of range or not finite.
    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and least <= number <= most):
                raise ValueError(f"expected {flag(name)} from {least:,} to {most:,}, got {number:,}")


def check_some(options: object, *names: str) -> None:
    """Check that options that take several values have at least one.

    Raises:
        ValueError: an option has no value.
    """
    for name in names:
        if not getattr(options, name):
            raise ValueError(f"expected {flag(name)} with at least one value, got none")


def check_even(name: str, value: int, least: int, most: int) -> None:
    """Check a size of a video in pixels, which video encoders require to be even.

    Raises:
        ValueError: the size is odd or out of range.
    """
    if not least <= value <= most or value % 2:
        raise ValueError(
            f"expected {flag(name)}, an even number of pixels, from {least} to {most}, got {value}"
        )


def check_seeds(first: int | None, count: int = 1) -> None:
    """Check that `count` consecutive seeds from `first` on are valid seeds.

    Raises:
        ValueError: the first is negative, or the last exceeds the largest seed.
    """
    if first is not None and not 0 <= first <= _choices.MAX_SEED + 1 - count:
        raise ValueError(f"expected --seed from 0 to {_choices.MAX_SEED + 1 - count:,}, got {first:,}")


def check_pairs(*options: Iterable[str]) -> None:
    """Check that options have the form NAME=VALUE.

    Raises:
        ValueError: one does not.
    """
    for pairs in options:
        parse_pairs(tuple(pairs))


def check_ending(name: str, path: Path | None, ending: str) -> None:
    """Check the file extension of an output.

    Raises:
        ValueError: the name ends otherwise.
    """
    if path is not None and path.suffix.lower() != ending:
        raise ValueError(f"expected {flag(name)} with a name that ends in {ending}, got {path}")


def check_new_folder(name: str, folder: Path) -> None:
    """Check that an output folder can be created, or is empty.

    Raises:
        ValueError: it has files, or a file has its name.
        OSError: it cannot be created.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"expected a new folder for {flag(name)}, got {folder}, which exists: name another")
    check_folder(folder)


def check_suite(suite: str | None) -> None:
    """Check that a suite of visual shifts exists.

    Raises:
        ValueError: no suite has that name.
    """
    if suite is not None:
        known = (*_choices.SUITES, *_choices.SUITE_VERSIONS)
        _choices.check_name("suite", suite, known, owner="robot_attn_envs.shifts")


def check_scene(scene: Scene, *policies: Path) -> None:
    """Check the environment options and the task.

    Args:
        scene: the options.
        *policies: run folders or zips; only for a zip may --env name a task.

    Raises:
        ValueError: an option has no name or is repeated, or several tasks are named.
    """
    check_pairs(scene.pairs if any(map(is_zip, policies)) else scene.env)
    names = [value for value in (scene.task, *scene.env) if value and "=" not in value]
    if len(set(names)) > 1:
        raise ValueError(
            f"expected one task, and options of its environment as NAME=VALUE, got {', '.join(names)}: name "
            "one with --task"
        )


def is_zip(path: Path) -> bool:
    """Whether a policy is to be loaded from a .zip of Stable-Baselines3."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def check_zip(path: Path, options: Any) -> None:
    """Check the options that a .zip needs, before anything heavy is imported.

    Args:
        path: the .zip.
        options: options with the groups `Zip` and `Scene`, and `which`.

    Raises:
        ValueError: a file does not exist; it is not trusted; no task is named; or --which, which has no
            meaning here, is given.
    """
    if not path.is_file():
        raise ValueError(f"expected a .zip, got {path}: no such file")
    if not options.trust:
        raise ValueError(
            f"expected --trust with {path}, got none: opening it runs the code in its pickled objects, "
            "whoever put it there; add --trust if you trust where it comes from"
        )
    if options.task_name is None:
        raise ValueError(
            f"expected --task with {path}, which does not name its own, got none: name one, such as "
            "--task Pusher-v5"
        )
    if options.which != "best":
        raise ValueError(
            f"expected no --which with {path}, which has one policy, got {options.which}: omit it"
        )
    if options.vecnormalize is not None and not options.vecnormalize.is_file():
        raise ValueError(f"expected the file of VecNormalize, got {options.vecnormalize}: no such file")


def check_policy(path: Path, options: Any, *, other_task: bool = False) -> None:
    """Check that a policy's run folder or .zip can be loaded with these options.

    Args:
        path: run folder or .zip.
        options: options with the groups `Zip` and `Scene`, and `which`.
        other_task: whether a run folder's policy may run in another task.

    Raises:
        ValueError: as `check_run` and `check_zip`, or an option for a .zip only.
    """
    if is_zip(path):
        check_zip(path, options)
        return
    check_run(path)
    only_zip = {
        "--trust": options.trust,
        "--vecnormalize": options.vecnormalize is not None,
        "--algorithm": options.algorithm is not None,
        "--task": options.task_name is not None and not other_task,
    }
    if given := [name for name, value in only_zip.items() if value]:
        raise ValueError(f"expected a .zip with {', '.join(given)}, got the run folder {path}: omit it")


def check_run(folder: Path) -> None:
    """Check that a folder is a run folder.

    Raises:
        ValueError: it has no configuration.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"expected a run folder with a {CONFIG}, got {folder}, which has none: "
            "name a folder that `robot-attn train` wrote, or a .zip of Stable-Baselines3"
        )
