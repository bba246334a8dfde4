"""The command `robot-attn`: arguments, one call, and what to print.

Each command is one file; `cli.py` lists them and picks the file. This is the only package that knows the
other three.
"""

from robot_attn_scripts.cli import main as main

__all__ = ["main"]
