"""Options of `robot-attn benchmark watch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    frames: int = 300
    """Frames of the video."""
    rounds: int = 5
    """Repetitions."""
    perception: Annotated[
        str, tyro.conf.arg(metavar="FAMILY", help=f"Family of the policy: {', '.join(_choices.families())}.")
    ] = "query"


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Frames of a video that `robot-attn watch` processes a second on one core, by stage.

    The video is H.264, 640 x 480, of objects that move over a noisy background. All stages of
    `robot-attn watch` are included: decoding, fitting a frame to the policy's 64 x 64, the policy, boxes,
    drawing and encoding to pictures 640 wide. The decoder and the encoder share the core with all other
    stages, which therefore sometimes wait for the encoder. The policy is that of the Track task with
    untrained weights. Its attention is more spread out than after training, which makes boxes more expensive.
    """

    def check(self) -> None:
        _groups.check_range(self, ("frames", "rounds"), 1)
        _choices.check_name("perception family", self.perception, _choices.families(), owner="robot_attn")
