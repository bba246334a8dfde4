"""Completion of the whole command line in a shell, as tyro makes it: commands, options and choices."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, Union

import tyro

from robot_attn_scripts._command import Command, grouped, options_type

SHELLS = ("bash", "zsh", "fish")


def script(commands: Mapping[str, Command], arguments: Sequence[str]) -> str:
    """The script that completes `robot-attn` in the shell that `arguments` name.

    Raises:
        ValueError: no such shell.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        got = " ".join(arguments) or "none"
        raise ValueError(f"expected --print-completion with one of {', '.join(SHELLS)}, got {got}")
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
        tyro.cli(
            _one_of(commands),
            prog="robot-attn",
            args=["--tyro-print-completion", arguments[0]],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone, tyro.conf.OmitSubcommandPrefixes),
        )
    # Where tyro has nothing to offer, it is mostly a path that is named: bash completes those if told to.
    return written.getvalue().replace("complete -F ", "complete -o bashdefault -o default -F ")


def _one_of(commands: Mapping[str, Command]) -> Any:
    """A type whose subcommands are these commands."""
    choices = []
    for name, command in commands.items():
        if command.group:
            module = importlib.import_module(f"robot_attn_scripts.{command.module}")
            taken = make_dataclass("Group", [("command", _one_of(module.COMMANDS))])
        else:
            taken = grouped(options_type(command))
        choices.append(Annotated[taken, tyro.conf.subcommand(name, description=command.summary)])
    return Union[tuple(choices)]  # noqa: UP007 (made of a list)
