"""What `robot-attn watch` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_attn_scripts._report import check_writable
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Modules, Output, RunFolder, Which, default

MIN_WIDTH, MAX_WIDTH = 320, 3840


@dataclass(frozen=True)
class Source:
    """What is watched, and whose policy watches it."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="VIDEO_OR_CAMERA")]
    """A video, pictures such as frames/%04d.png, or a camera: its number, or a device such as /dev/video0."""
    run: RunFolder
    """Run folder that `robot-attn train` made."""
    which: Which = "best"
    """The best policy of the run, or its last."""
    module: Modules = ()
    """Modules to import first, such as that in which the run's perception is: their code runs."""
    instruction: Annotated[str | None, default("none", metavar="WORDS")] = None
    """What to look for, such as "the red box", where the policy reads instructions."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is shown."""

    head: Annotated[int | None, default("the mean of all")] = None
    """The head to show."""
    boxes: bool = True
    """Whether to draw boxes."""
    width: int = 640
    """Width of the pictures in pixels, an even number; the height follows from the source."""
    fps: Annotated[float | None, default("as many as the source gives")] = None
    """At most so many frames a second are shown to the policy."""


@dataclass(frozen=True, kw_only=True)
class Video(Output):
    """Where results go."""

    out: Annotated[Path | None, default("a window")] = None
    """Write the pictures to this video, a name that ends in .mp4, instead of showing a window."""


@dataclass(frozen=True)
class Options(Source, Picture, Video, Checked):
    """Show what a trained policy attends to in a recorded video or a camera. Nothing is simulated.

    The policy sees the largest part in the middle of each frame that has the shape of its own frames,
    scaled to their size; what is cut away at the sides is drawn dark. What it reads beside frames, such as
    the state of a robot, is not known here, and zero. Boxes are around the places that stand out in its
    attention, each with a number that it keeps from frame to frame and the share of attention in it.

    In a window, space pauses and q or Esc stops. Of a camera the newest frame is always the one that is
    seen.
    """

    def check(self) -> None:
        _groups.check_ending("out", self.out, ".mp4")
        _groups.check_even("width", self.width, MIN_WIDTH, MAX_WIDTH)
        _groups.check_range(self, ("head",), 0, 1024)
        if self.fps is not None and not 0 < self.fps <= 240:
            raise ValueError(f"expected --fps above 0 and at most 240, got {self.fps:g}")
        if self.out is not None and self.out.resolve() == Path(self.source).resolve():
            raise ValueError("--out is the video itself: name another file")

    def check_files(self) -> None:
        super().check_files()
        _groups.check_run(self.run)
        if self.out is not None:
            check_writable(self.out)
