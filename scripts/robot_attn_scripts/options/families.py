"""What `robot-attn families` takes."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output

MAX_PIXELS = 1 << 26
"""Of a batch: as many take a gigabyte, and what is computed of them several."""


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of the frames, in pixels."""
    batch: int = 64
    """Frames in a batch, forward and backward."""
    rounds: int = 7
    """Times that each family is measured."""


@dataclass(frozen=True, kw_only=True)
class Table(Output):
    """Where results go."""

    markdown: bool = False
    """Print the table as Markdown."""


@dataclass(frozen=True)
class Options(Amount, Table, Checked):
    """The families of perception modules: what each is good for, and what it costs on one thread.

    FLOPs are those of matrix products and convolutions, forward, for one frame; what is done to each number
    by itself is not counted. Times are medians of rounds in which all families take turns.
    """

    def check(self) -> None:
        _groups.check_range(self, ("image_size",), _choices.MIN_FRAME, _choices.MAX_FRAME)
        _groups.check_range(self, ("batch",), 1, 1 << 14)
        _groups.check_range(self, ("rounds",), 1)
        if (pixels := self.batch * self.image_size[0] * self.image_size[1]) > MAX_PIXELS:
            raise ValueError(f"expected a batch of frames of {MAX_PIXELS:,} pixels at most, got {pixels:,}")
