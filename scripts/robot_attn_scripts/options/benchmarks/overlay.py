"""Options of `robot-attn benchmark overlay`."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    size: int = 640
    """Height of the pictures in pixels, an even number from 600."""
    rounds: int = 15
    """Repetitions of each measurement."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Overlays drawn a second on one core, against Matplotlib's colour map and a float blend.

    The frames are 64 x 64 RGB with 8 heads of 15 x 15 cells and a target mask, as in the Track task. All
    peers draw the same frames, in turns within each round. The peer draws one head as tutorials do: OpenCV
    upsamples the map, Matplotlib's inferno colours it, and it is blended with the frame as floats.
    """

    def check(self) -> None:
        _groups.check_even("size", self.size, _choices.MIN_REPLAY, _choices.MAX_REPLAY)
        _groups.check_range(self, ("rounds",), 1)
