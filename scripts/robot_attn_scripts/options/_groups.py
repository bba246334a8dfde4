"""What the options of several commands share: their groups, how defaults are told, and checks of values.

`Options` of a command inherits from its groups, each a dataclass of its own whose name is the heading in
the help. To Python they are one flat dataclass.
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
from robot_attn_scripts._report import check_writable

MOST = 1_000_000
"""Of episodes, rounds and the like: more is a slip of the finger."""
MAX_ENVS = 4096
"""Environments that run side by side; each takes about a megabyte."""

CONFIG = "config.json"
"""The file that every run folder has."""


def default(told: str, *, metavar: str | None = None, help: str | None = None) -> object:
    """How help tells the default of an option that has none of its own, such as one found out later."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {told})", metavar=metavar, help=help)


Which = Literal["best", "last"]
RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
Json = Annotated[Path | None, default("no file")]
Pairs = Annotated[tuple[str, ...], default("none", metavar="NAME=VALUE ...")]
TrainedPairs = Annotated[tuple[str, ...], default("those of training", metavar="NAME=VALUE ...")]
Suite = Annotated[
    str | None,
    default(
        "the scene of training",
        metavar="SUITE",
        help=f"Suite of visual shifts to play under: {', '.join(_choices.SUITES)}.",
    ),
]
Modules = Annotated[tuple[str, ...], default("none", metavar="MODULE ...")]


@dataclass(frozen=True)
class Policy:
    """Whose policy."""

    run: RunFolder
    """Run folder that `robot-attn train` made."""
    which: Which = "best"
    """The best policy of the run, or its last."""
    module: Modules = ()
    """Modules to import first, such as those in which the run's task and perception are: their code runs."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What it is played in."""

    suite: Suite = None
    env: TrainedPairs = ()
    """Options of the environment that differ from training's, such as distractors=14."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where results go."""

    json: Json = None
    """Write the figures here too, with their units."""


class Checked:
    """The last base of every `Options`: what can be refused before anything is imported or written."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check the values.

        Raises:
            ValueError: one is out of its range, or two do not go together.
        """

    def check_files(self) -> None:
        """Check the files and folders that are read, and those that are to be written, without writing any.

        Raises:
            ValueError: what is named is not there.
            OSError: what is to be written cannot be.
        """
        options: Any = self
        if getattr(options, "json", None) is not None:
            check_writable(options.json)

    @classmethod
    def groups(cls) -> tuple[type[Any], ...]:
        """The dataclasses that the options come from, in the order of the help."""
        return tuple(base for base in cls.__bases__ if dataclasses.is_dataclass(base))


# ---- Checks ----


def flag(name: str) -> str:
    """`at_once` -> `--at-once`."""
    return f"--{name.replace('_', '-')}"


def check_range(options: object, names: Iterable[str], least: float, most: float = MOST) -> None:
    """Check that each option, and every number of one that takes several, is within a range.

    None is an option that was not given. Raises ValueError otherwise.
    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and least <= number <= most):
                raise ValueError(f"expected {flag(name)} from {least:,} to {most:,}, got {number:,}")


def check_some(options: object, *names: str) -> None:
    """Check that options that take several values got one at least. Raises ValueError otherwise."""
    for name in names:
        if not getattr(options, name):
            raise ValueError(f"expected {flag(name)} with one value at least, got none")


def check_even(name: str, value: int, least: int, most: int) -> None:
    """Check a number of pixels of a video, whose encoder takes even ones. Raises ValueError otherwise."""
    if not least <= value <= most or value % 2:
        raise ValueError(
            f"expected {flag(name)}, an even number of pixels, from {least} to {most}, got {value}"
        )


def check_seeds(first: int | None, count: int = 1) -> None:
    """Check that `count` seeds from `first` on exist. Raises ValueError otherwise."""
    if first is not None and not 0 <= first <= _choices.MAX_SEED + 1 - count:
        raise ValueError(f"expected --seed from 0 to {_choices.MAX_SEED + 1 - count:,}, got {first:,}")


def check_pairs(*options: Iterable[str]) -> None:
    """Check that options are NAME=VALUE. Raises ValueError otherwise."""
    for pairs in options:
        parse_pairs(tuple(pairs))


def check_ending(name: str, path: Path | None, ending: str) -> None:
    """Check how a file is called that is written in a format of its own. Raises ValueError otherwise."""
    if path is not None and path.suffix.lower() != ending:
        raise ValueError(f"expected {flag(name)} with a name that ends in {ending}, got {path}")


def check_suite(suite: str | None) -> None:
    """Check that a suite of visual shifts exists. Raises ValueError otherwise."""
    if suite is not None:
        known = (*_choices.SUITES, *_choices.SUITE_VERSIONS)
        _choices.check_name("suite", suite, known, owner="robot_attn_envs.shifts")


def check_run(folder: Path) -> None:
    """Check that a folder is that of a run. Raises ValueError otherwise."""
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"expected a run folder with a {CONFIG}, found none in {folder}: name a folder made by training"
        )
