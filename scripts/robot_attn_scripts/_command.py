"""What a command is, and how a line of arguments becomes one call.

A command is two modules of the same name: in `robot_attn_scripts.options` the one with `Options`, a frozen
dataclass whose docs are the help, and in `robot_attn_scripts` the one with `run(options)`. A group is a
module with `COMMANDS`, a table of further commands. Nothing of either is imported until it is chosen, so
the overview costs the standard library only; what computes is imported once the options are known to be
right.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Any

from robot_attn_scripts._errors import unknown_name
from robot_attn_scripts._repeated import merge_repeated

if TYPE_CHECKING:
    from robot_attn_scripts.options._groups import Checked

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "sim": ("mujoco", "warp", "gymnasium"),
    "gpu": ("mujoco_warp",),
    "train": (
        "stable_baselines3",
        "sb3_contrib",
        "safetensors",
        "scipy",
        "rich",
        "tensorboard",
        "tyro",
        "matplotlib",
        "imageio",
    ),
    "video": ("cv2", "imageio_ffmpeg", "h5py"),
    "explain": ("captum", "sklearn"),
    "rerun": ("rerun",),
    "minari": ("minari", "h5py"),
}
"""The modules that each extra of pyproject.toml brings itself. `train` includes `sim`."""


@dataclass(frozen=True)
class Command:
    """What the overview tells of a command."""

    module: str
    """Its module in `robot_attn_scripts`, and that of its options in `robot_attn_scripts.options`."""
    summary: str
    extras: tuple[str, ...] = ()
    """What `pip install "robot-attn[...]"` must name for it to run."""
    group: bool = False
    """Whether its module has subcommands, in `COMMANDS`."""


def dispatch(program: str, commands: Mapping[str, Command], arguments: Sequence[str]) -> int:
    """Run the command that `arguments` begin with and return its exit code.

    Raises:
        ValueError: no such command; the nearest is named.
        ModuleNotFoundError: the command's extra is not installed; the line that installs it is named.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(program, commands), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in commands:
        raise unknown_name(f"command of {program}", name, commands)

    command = commands[name]
    missing = missing_modules(command.extras)
    if missing:
        line = f'pip install "robot-attn[{",".join(command.extras)}]"'
        raise ModuleNotFoundError(f"{program} {name} needs {', '.join(missing)}; install with: {line}")
    if command.group:
        module = importlib.import_module(f"robot_attn_scripts.{command.module}")
        return dispatch(f"{program} {name}", module.COMMANDS, rest)

    options = parse(f"{program} {name}", command, rest)
    options.check_files()
    importlib.import_module(f"robot_attn_scripts.{command.module}").run(options)
    return 0


def parse(program: str, command: Command, arguments: Sequence[str]) -> Checked:
    """The options of a command that `arguments` give. Help, and what tyro refuses, end the process.

    Raises:
        ValueError: a value out of its range, or two that do not go together.
    """
    import tyro  # only now: a base install has none

    options = options_type(command)
    if {"-h", "--help"}.intersection(arguments):
        print(_wrapped(options.__doc__ or ""), end="\n\n")
    else:
        arguments = merge_repeated(options.groups(), arguments)
    parsed: Any = tyro.cli(
        grouped(options),
        prog=program,
        description="",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
    )
    given = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    return options(**given)


def options_type(command: Command) -> type[Checked]:
    """The class `Options` of a command."""
    module: Any = importlib.import_module(f"robot_attn_scripts.options.{command.module}")
    found: type[Checked] = module.Options
    return found


def grouped(options: type[Checked]) -> type[Any]:
    """A class with the groups of `options` side by side, by which help shows them under headings."""
    return make_dataclass("Groups", [(group.__name__.lower(), group) for group in options.groups()])


def missing_modules(extras: Sequence[str]) -> list[str]:
    """Name the modules that `extras` should have brought and that are not installed; import none of them."""
    brought = {*extras, "sim"} if "train" in extras else set(extras)
    modules = [module for extra, names in EXTRAS.items() if extra in brought for module in names]
    return [module for module in modules if importlib.util.find_spec(module) is None]


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    lines = [f"usage: {program} COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<11} {command.summary}" for name, command in commands.items()]
    lines += ["", f"{program} COMMAND --help lists the options of each."]
    if " " not in program:
        lines += [f"{program} --print-completion SHELL prints a completion script: bash, zsh, fish."]
        lines += [f"{program} --version prints the version."]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """A docstring for the terminal: its paragraphs and list items filled, which tyro leaves as they are."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = []
    for block in re.split(r"\n(?=\n|- )", inspect.cleandoc(text)):
        if block.startswith("\n"):
            lines.append("")
        hanging = "  " * block.startswith("- ")
        lines += textwrap.wrap(
            " ".join(block.split()), width, subsequent_indent=hanging, break_on_hyphens=False
        )
    return "\n".join(lines)
