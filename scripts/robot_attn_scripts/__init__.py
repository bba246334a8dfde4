"""The command line `robot-attn`: parsing of options, and printing of results.

Each command is one module; `cli.py` lists them. This is the only package that depends on the other three.
"""

from robot_attn_scripts.cli import main as main

__all__ = ["main"]
