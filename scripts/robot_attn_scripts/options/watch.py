"""Options of `robot-attn watch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, RunFolder, Which, default

MIN_WIDTH, MAX_WIDTH = 320, 3840


@dataclass(frozen=True)
class Source:
    """The video and the policy."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="VIDEO_OR_CAMERA")]
    """Video, images such as frames/%04d.png, or camera: its number, or a device such as /dev/video0."""
    run: RunFolder
    """Run folder written by `robot-attn train`."""
    which: Which = "best"
    """Checkpoint to load: the best one of the run, or the last."""
    module: Modules = ()
    """Modules to import first, such as those that define the run's perception. Their code runs."""
    instruction: Annotated[str | None, default("none", metavar="WORDS")] = None
    """Language instruction, such as "the red box", for a policy that reads instructions."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is drawn."""

    head: Annotated[int | None, default("the mean over heads")] = None
    """Attention head to show."""
    boxes: bool = True
    """Draw boxes around the regions with the most attention."""
    width: int = 640
    """Width of the output in pixels, an even number; the height follows from the source."""
    fps: Annotated[float | None, default("the source's frame rate")] = None
    """Largest number of frames a second that the policy processes."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Annotated[Path | None, default("a window")] = None
    """Write a video to this file, a name that ends in .mp4, instead of showing a window."""


@dataclass(frozen=True)
class Options(Source, _groups.Maps, Picture, Output, Checked):
    """Show what a trained policy attends to in a video or a camera stream. Nothing is simulated.

    Each frame is cropped at its centre to the aspect ratio of the policy's frames and scaled to their size;
    the part that is cropped away is drawn dark. Other observations, such as a robot's state, are not
    available and set to zero. Boxes mark the regions that stand out in the attention, each with a number that
    it keeps from frame to frame and its share of the attention.

    In a window, space pauses and q or Esc stops. From a camera, the policy always gets the newest frame.
    """

    def check(self) -> None:
        _groups.check_ending("out", self.out, ".mp4")
        _groups.check_even("width", self.width, MIN_WIDTH, MAX_WIDTH)
        _groups.check_range(self, ("head",), 0, 1024)
        if self.fps is not None and not 0 < self.fps <= 240:
            raise ValueError(f"expected --fps above 0 and at most 240, got {self.fps:g}")
        if self.out is not None and self.out.resolve() == Path(self.source).resolve():
            raise ValueError(f"expected --out other than the source, got {self.out}: name another file")

    def files(self) -> list[Path]:
        return super().files() if self.out is None else [*super().files(), self.out]

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
