"""What every perception module returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Percept(NamedTuple):
    """What a module saw and where it looked, in one value: nothing is kept behind in the module.

    features: float [B, F], what a policy decides from.
    attention: float [B, heads, rows, cols], non-negative; sums to 1 over rows x cols, for every head.
    """

    features: Tensor
    attention: Tensor
