"""The output of every perception module."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Percept(NamedTuple):
    """Features and attention maps of a batch of frames; the module itself keeps no state of them.

    Attributes:
        features: float [B, F], input of the policy.
        attention: float [B, heads, rows, cols], non-negative; sums to 1 over rows x cols for every head.
    """

    features: Tensor
    attention: Tensor
