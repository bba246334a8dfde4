"""What `robot-attn benchmark render` takes."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    rounds: int = 7
    """Repetitions for each peer and each number of threads."""
    worlds: int = 32
    """Worlds in the batch."""
    frames: int = 2048
    """Frames in a round of ours; a round of the others, one to eight times the batch."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Frames a second of the Track scene, 64 x 64: our camera against Gymnasium's and MuJoCo's.

    On one core, each peer in a separate process pinned to that core:

    - `ours`: `BatchCamera` over a batch of worlds, RGB and segmentation at once, from kinematics to uint8;
    - `gymnasium`: `MujocoRenderer` with its default settings, RGB, one world after the other;
    - `mujoco`: `mujoco.Renderer` tuned for speed (no shadows, no reflections, no multisampling), RGB,
      likewise;
    - `mujoco_masks`: the same for as much as `ours` gives, RGB and then segmentation.

    All draw the same worlds: states on the way through Track's episodes, new colours with each. The physics
    is not timed. Every round measures each peer once, one after the other; a ratio is taken within each
    round.

    On all cores: the frames a second of `ours` with 1, 2, ... threads, and the share of a whole core that
    each thread is worth, frames a second divided by the threads and by the frames a second of one. Beside
    it, what the machine itself gives when all of its cores are busy: a process on each core, with nothing
    in common.
    """

    def check(self) -> None:
        _groups.check_range(self, ("rounds",), 1)
        _groups.check_range(self, ("worlds",), 1, _groups.MAX_ENVS)
        if self.frames < self.worlds:
            raise ValueError(f"expected --frames of {self.worlds} or more, one a world, got {self.frames}")
