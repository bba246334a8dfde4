"""The command-line options, one module per command: each defines a dataclass `Options` that tyro parses.

Nothing here imports a heavy library (torch, MuJoCo, Stable-Baselines3, Gymnasium, Matplotlib, OpenCV, SciPy),
so that help, and the error for a mistyped option, need only the standard library and tyro. Whatever can be
validated without them is validated here, when the options are constructed.
"""
