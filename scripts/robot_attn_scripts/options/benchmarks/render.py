"""What `robot-attn benchmark render` takes."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, Pairs, Suite


@dataclass(frozen=True)
class Amount:
    """What to draw, and how much of it to measure."""

    scenes: tuple[str, ...] = ("track", "navigate", "reach", "push")
    """Tasks, ids of Gymnasium environments with a MuJoCo model, or MJCF files with a camera of theirs, as
    PATH:CAMERA."""
    env: Pairs = ()
    """Options of the environments among the scenes, and their camera."""
    size: tuple[int, ...] = (64,)
    """Heights, and widths, of the frames in pixels."""
    suite: Suite = None
    rounds: int = 7
    """Repetitions for each peer and each number of threads."""
    worlds: int = 64
    """Worlds in the batch."""
    frames: int = 4096
    """Frames in a round of ours; a round of the others, one to eight times the batch."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Frames a second of our renderer, beside mujoco_warp's, MuJoCo's and Gymnasium's.

    On one core, each peer in a separate process pinned to that core, for each scene and size:

    - `ours`: `BatchCamera` over a batch of worlds, RGB and segmentation at once, from kinematics to uint8;
    - `ours, SUITE`: the same with a suite of visual shifts, as objects, light, camera and lens have it;
    - `mujoco_warp`: the same camera with mujoco_warp's ray caster;
    - `mujoco`: `mujoco.Renderer` tuned for speed (no shadows, no reflections, no multisampling), RGB, one
      world after the other;
    - `mujoco_masks`: the same for as much as `ours` gives, RGB and then segmentation;
    - `gymnasium`: `MujocoRenderer` with its default settings, RGB, likewise.

    All draw the same worlds: states on the way through a task's episodes, with new colours each, or after
    random actions in an environment or of a model from a file. The physics is not timed. Every round measures
    each peer once, one after the other; a ratio is taken within each round.

    On all cores, for the first scene and size: the frames a second of `ours` with 1, 2, ... threads, and the
    share of a whole core that each thread is worth, frames a second divided by the threads and by the frames
    a second of one. Beside it, what the machine itself gives when all of its cores are busy: a process on
    each core, with nothing in common.
    """

    def check(self) -> None:
        if not self.scenes:
            raise ValueError("expected at least one scene, got none: name a task or PATH:CAMERA")
        _groups.check_some(self, "size")
        _groups.check_range(self, ("size",), 32, 2048)
        _groups.check_suite(self.suite)
        if self.suite is not None and (files := [scene for scene in self.scenes if ":" in scene]):
            raise ValueError(f"expected only tasks with --suite, got {files[0]}: measure it without")
        _groups.check_range(self, ("rounds",), 1)
        _groups.check_range(self, ("worlds",), 1, _groups.MAX_ENVS)
        if self.frames < self.worlds:
            raise ValueError(f"expected --frames of {self.worlds} or more, one a world, got {self.frames}")
