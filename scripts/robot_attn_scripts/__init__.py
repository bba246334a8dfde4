"""The command `robot-attn`: arguments, one call, and what to print.

Commands: `train`, `evaluate`, `replay`, `benchmark`, `demo`, one file each; `cli.py` picks the file. This is
the only package that knows the other three.
"""
