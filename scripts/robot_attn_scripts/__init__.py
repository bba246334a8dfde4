"""The command line `robot-attn`: parsing of options, and printing of results.

Each command is one module; `cli.py` lists them. This is the only package that depends on the other three.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `robot-attn`.

    Args:
        argv: command-line arguments without the program's name. Default: those of the process.

    Returns:
        The exit code: 0 for success, 2 for an error that one line on stderr explains, 130 for Ctrl-C.
    """
    # Not at the top: `python -m robot_attn_scripts.cli` would warn that the module is imported already.
    from robot_attn_scripts import cli

    return cli.main(argv)
