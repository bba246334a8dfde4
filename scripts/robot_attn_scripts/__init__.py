"""The command line `robot-attn`: parsing of options, and printing of results.

Each command is one module; `cli.py` lists them. This is the only package that depends on the other three.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `robot-attn`.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        The exit code: 0 done, 2 for an error that one line on stderr explains, 130 for Ctrl-C.
    """
    from robot_attn_scripts import (
        cli,
    )  # only now: `python -m robot_attn_scripts.cli` runs it as the main module

    return cli.main(argv)
