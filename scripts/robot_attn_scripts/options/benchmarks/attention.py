"""What `robot-attn benchmark attention` takes."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    tokens: tuple[int, ...] = (64, 256, 1024, 4096, 16384)
    """Numbers of tokens."""
    rounds: int = 7
    """Times that each is measured."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """The cost of the mechanisms of attention over the number of tokens, beside torch's own, on one thread.

    Forward and backward are timed, to the gradients of tokens and weights, in rounds in which all take
    turns; shown are medians, least and greatest. Where attention is quadratic the batch shrinks as tokens
    get more, the same for all. Memory is that of one pass in a separate process, above what its inputs take.
    Growth is the slope of the logarithm over that of the tokens.
    """

    def check(self) -> None:
        _groups.check_some(self, "tokens")
        _groups.check_range(self, ("tokens",), 1)
        _groups.check_range(self, ("rounds",), 1)
