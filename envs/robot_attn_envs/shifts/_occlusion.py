"""The shift "occlusion": opaque patches in front of the lens."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.render.lens_kernels import PATCHES
from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.objects import hsv_to_rgb
from robot_attn_envs.tasks.task import Floats

COVER = 0.22  # fraction of the frame covered by all patches together, if all were inside it
RATE = (0.4, 1.2)  # rad/s, along the patches' elliptical paths
NEAREST = 0.2  # frame heights, largest offset from the middle at which a path crosses the frame


class Occlusion(Shift):
    """Move three opaque patches, ellipses or rectangles, across the frame, like dirt on the lens.

    They start at the border and cover up to 22 % of the frame, times the intensity. The target's mask leaves
    out pixels behind a patch. Depth does not change: it belongs to another sensor.
    """

    stream = 7
    needs_lens = True

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        # Paths are ellipses through `border` at the start and `near` a quarter turn later, in frame heights.
        self._border, self._near = np.zeros((num_worlds, PATCHES, 2)), np.zeros((num_worlds, PATCHES, 2))
        self._rate, self._size = np.zeros((num_worlds, PATCHES)), np.zeros((num_worlds, PATCHES, 2))
        self._round = np.zeros((num_worlds, PATCHES), np.bool_)
        self._color = np.zeros((num_worlds, PATCHES), np.uint32)
        self.episode = {"border": self._border, "near": self._near, "rate": self._rate, "size": self._size}
        self.episode |= {"round": self._round, "color": self._color}

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        super().bind(model, task, aspect)
        self._aspect = aspect

    def reset(self, world: int, rng: np.random.Generator) -> None:
        angle = rng.uniform(0.0, 2.0 * np.pi, PATCHES)
        border = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        border *= 0.5 / np.abs(border).max(axis=1, keepdims=True)
        self._border[world] = border * (self._aspect, 1.0)
        self._near[world] = rng.uniform(-NEAREST, NEAREST, (PATCHES, 2))
        self._rate[world] = rng.uniform(*RATE, PATCHES)
        self._round[world] = rng.random(PATCHES) < 0.5
        area = self.intensity * COVER / PATCHES * self._aspect * rng.uniform(0.6, 1.4, PATCHES)
        half = np.sqrt(area / np.where(self._round[world], np.pi, 4.0))
        slim = rng.uniform(0.6, 1.6, PATCHES)
        self._size[world] = np.stack([half * np.sqrt(slim), half / np.sqrt(slim)], axis=1)
        hue, saturation = rng.uniform(0.0, 360.0, PATCHES), rng.uniform(0.0, 0.25, PATCHES)
        rgb = np.round(255 * hsv_to_rgb(hue, saturation, rng.uniform(0.1, 0.6, PATCHES))).astype(np.uint32)
        self._color[world] = rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]

    def show(self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]) -> None:
        turn = (self._rate * (steps * self._dt)[:, None])[..., None]
        center = self._border * np.cos(turn) + self._near * np.sin(turn)
        settings["patch_x"], settings["patch_y"] = center[..., 0], center[..., 1]
        settings["patch_width"], settings["patch_height"] = self._size[..., 0], self._size[..., 1]
        settings["patch_round"], settings["patch_color"] = self._round, self._color
