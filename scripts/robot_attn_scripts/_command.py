"""What a command is, and how a line of arguments becomes one call.

A command is a module with two names: `Options`, a frozen dataclass whose field docs are the help, and
`run(options)`. A group is a module with `COMMANDS`, a table of further commands. Nothing of either is
imported until it is chosen, so the overview costs the standard library only.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robot_attn_scripts._report import check_writable

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "sim": ("mujoco", "mujoco_warp", "gymnasium"),
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
    """Its module in `robot_attn_scripts`."""
    summary: str
    extras: tuple[str, ...] = ()
    """What `pip install "robot-attn[...]"` must name for it to run."""


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
        nearest = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(commands)}"
        raise ValueError(f"{program} has no command {name!r}: {hint}")

    command = commands[name]
    missing = missing_modules(command.extras)
    if missing:
        line = f'pip install "robot-attn[{",".join(command.extras)}]"'
        raise ModuleNotFoundError(f"{program} {name} needs {', '.join(missing)}; install with: {line}")
    module = importlib.import_module(f"robot_attn_scripts.{command.module}")
    if hasattr(module, "COMMANDS"):
        return dispatch(f"{program} {name}", module.COMMANDS, rest)

    import tyro  # only now: a base install has none

    options = tyro.cli(module.Options, prog=f"{program} {name}", description=module.__doc__, args=rest)
    if getattr(options, "json", None) is not None:
        check_writable(options.json)
    module.run(options)
    return 0


def missing_modules(extras: Sequence[str]) -> list[str]:
    """Name the modules that `extras` should have brought and that are not installed; import none of them."""
    brought = {*extras, "sim"} if "train" in extras else set(extras)
    modules = [module for extra, names in EXTRAS.items() if extra in brought for module in names]
    return [module for module in modules if importlib.util.find_spec(module) is None]


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    lines = [f"usage: {program} COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<11} {command.summary}" for name, command in commands.items()]
    lines += ["", f"{program} COMMAND --help tells what each takes."]
    return "\n".join(lines)
