"""Options of `robot-attn benchmark attention`."""

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
    """Repetitions of each measurement."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Time and memory of each attention mechanism over the number of tokens, beside torch's, on one thread.

    Forward and backward passes are timed, down to the gradients of tokens and weights. Peers take turns in
    each round; medians, minima and maxima are shown. Where attention is quadratic, the batch shrinks with
    the number of tokens, equally for all peers. Memory is measured for one pass in a separate process, above
    its inputs. Growth is the slope of log(time) over log(tokens).
    """

    def check(self) -> None:
        _groups.check_some(self, "tokens")
        _groups.check_range(self, ("tokens",), 1)
        _groups.check_range(self, ("rounds",), 1)
