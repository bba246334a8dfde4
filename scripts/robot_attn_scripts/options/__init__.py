"""What each command takes, a module a command, read by tyro: each has a dataclass `Options`.

Nothing here imports what computes (torch, MuJoCo, Stable-Baselines3, Gymnasium, Matplotlib, OpenCV, SciPy):
help, and the refusal of a mistyped option, cost no more than the standard library and tyro. What can be
checked without computing is checked here, when the options are made.
"""
