"""Dispatch of the command line: choose a command, parse its options and run it.

A command has two modules of the same name. The one in `robot_attn_scripts.options` defines `Options`, a
frozen dataclass whose docstrings are the help. The one in `robot_attn_scripts` defines `run(options)`. A
group is a module with `COMMANDS`, a table of further commands.

Nothing is imported before it is needed. The overview uses the standard library only, and a command's module
is imported once its options are valid.
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
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "explain": ("captum", "sklearn"),
    "rerun": ("rerun",),
    "minari": ("minari", "h5py"),
    "lerobot": ("pyarrow",),
}
"""The modules that each extra of pyproject.toml installs directly. `train` includes `sim`."""


@dataclass(frozen=True)
class Command:
    """A command, described without importing it.

    Args:
        module: name of its module in `robot_attn_scripts`, and of its options' module in
            `robot_attn_scripts.options`.
        summary: one line for the overview.
        extras: extras of this package that the command needs.
        group: whether the module has subcommands, in `COMMANDS`.
    """

    module: str
    summary: str
    extras: tuple[str, ...] = ()
    group: bool = False


def dispatch(program: str, commands: Mapping[str, Command], arguments: Sequence[str]) -> int:
    """Run the command named by the first argument.

    Args:
        program: what has been typed so far, such as "robot-attn benchmark".
        commands: the commands by name.
        arguments: the command's name and its arguments.

    Returns:
        The exit code.

    Raises:
        ValueError: the command is unknown, or its options are invalid.
        ModuleNotFoundError: an extra of the command is not installed. The message has the line that installs
            it.
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
    """Parse and validate the options of a command.

    Args:
        program: what has been typed so far, such as "robot-attn train".
        command: the command.
        arguments: the arguments after its name.

    Returns:
        The command's `Options`.

    Raises:
        SystemExit: help was requested, or tyro could not parse the arguments.
        ValueError: a value is out of range, two options conflict, or one is repeated.
    """
    import tyro  # not at the top: a base install does not have it

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
    values = {name: value for group in vars(parsed).values() for name, value in vars(group).items()}
    return options(**values)


def options_type(command: Command) -> type[Checked]:
    """Import the `Options` class of a command."""
    module: Any = importlib.import_module(f"robot_attn_scripts.options.{command.module}")
    options: type[Checked] = module.Options
    return options


def grouped(options: type[Checked]) -> type[Any]:
    """Make a dataclass with a field for each group of `options`, so that help shows each under a heading."""
    return make_dataclass("Groups", [(group.__name__.lower(), group) for group in options.groups()])


def missing_modules(extras: Sequence[str]) -> list[str]:
    """List the modules of `extras` that are not installed, without importing any."""
    needed = {*extras, "sim"} if "train" in extras else set(extras)
    modules = [module for extra, names in EXTRAS.items() if extra in needed for module in names]
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
    """Wrap the paragraphs and list items of a docstring to the terminal's width, which tyro does not do."""
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
