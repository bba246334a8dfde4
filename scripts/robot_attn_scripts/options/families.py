"""Options of `robot-attn families`."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked

MAX_MEASURED = 512
"""The largest side of a frame in pixels: all families are measured, those of quadratic cost too."""
MAX_PIXELS = 1 << 26
"""The largest number of pixels in a batch, which takes a gigabyte; its activations take several."""


@dataclass(frozen=True)
class Measurement:
    """Sizes and repetitions."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of the frames, in pixels."""
    batch: int = 64
    """Frames in a batch, for the forward and backward passes."""
    rounds: int = 7
    """How often each family is measured."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files and format."""

    markdown: bool = False
    """Print the table as Markdown."""


@dataclass(frozen=True)
class Options(Measurement, Output, Checked):
    """List the perception families: what each is good for, and what it costs on one thread.

    FLOPs are those of the matrix products and convolutions of a forward pass over one frame; element-wise
    operations are not counted. Times are medians over rounds in which all families take turns.
    """

    def check(self) -> None:
        _groups.check_range(self, ("image_size",), _choices.MIN_FRAME, MAX_MEASURED)
        _groups.check_range(self, ("batch",), 1, 1 << 14)
        _groups.check_range(self, ("rounds",), 1)
        if (pixels := self.batch * self.image_size[0] * self.image_size[1]) > MAX_PIXELS:
            raise ValueError(
                f"expected a batch of frames of at most {MAX_PIXELS:,} pixels, got {pixels:,}: "
                "lower --batch or --image-size"
            )
