"""The shift "background": moving pictures on walls, floor and sky."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.render.lens_kernels import PICTURE_SIDE
from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._pictures import procedural_clips, read_clips
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats

WEAKEST, STRONGEST = 0.25, 0.95  # opacity of the picture at intensities 0 and 1
DRIFT = 25.0  # texels/s at most; a face of the cube around the camera is about 128 texels wide
FRAME_RATE = 20.0  # frames/s of videos
FIRST_TEXEL = 1024.0  # offsets are never negative


class Background(Shift):
    """Blend a drifting picture over all scenery, with an opacity from 25 % (intensity 0) to 95 % (1).

    Textures of the scenery are replaced by their mean colours. The picture is fixed to directions in the
    world, as if painted on a cube around the camera: it moves in the frame as the robot turns. It also drifts
    at up to 25 of its 128 texels a second, times the intensity. Each episode has one of 16 procedural
    textures, or an image or a video of the user's folder.

    Attributes:
        clips: the pictures to choose from.
    """

    stream = 3
    needs_lens = True

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self.clips = procedural_clips()
        self._clip, self._frame = np.zeros(num_worlds, np.int64), np.zeros(num_worlds, np.int64)
        self._zoom = np.zeros(num_worlds)
        self._offset, self._drift = np.zeros((num_worlds, 2)), np.zeros((num_worlds, 2))
        self.episode = {"clip": self._clip, "frame": self._frame, "zoom": self._zoom}
        self.episode |= {"offset": self._offset, "drift": self._drift}

    def lacks(self, model: mujoco.MjModel, task: Appearance) -> str:
        return "" if len(task.backdrop_geoms(model)) else "scenery to paint over: name geoms with backdrop="

    def use(self, folder: str | Path) -> None:
        """Use a folder's images and videos instead of the procedural textures.

        Raises:
            ValueError: there is no such folder, no image or video in it, or a file that cannot be read.
        """
        self.clips = read_clips(folder)

    def fit(self, model: mujoco.MjModel, scenery: NDArray[np.bool_]) -> None:
        """Replace the textures of the scenery, bool [ngeom + nsite], by their mean colours.

        The picture covers them, and casting them takes a tenth of a frame's time.
        """
        for material in set(model.geom_matid[scenery[: model.ngeom]].tolist()) - {-1}:
            texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
            if texture >= 0:
                channels = int(model.tex_nchannel[texture])
                size = int(model.tex_height[texture] * model.tex_width[texture])
                first = int(model.tex_adr[texture])
                texels = model.tex_data[first : first + size * channels].reshape(size, channels)
                model.mat_rgba[material, :3] *= texels[:, :3].mean(axis=0) / 255.0
                model.mat_texid[material] = -1

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._clip[world] = rng.integers(len(self.clips.starts))
        self._frame[world] = rng.integers(self.clips.lengths[self._clip[world]])
        self._zoom[world] = PICTURE_SIDE / 2 * rng.uniform(0.7, 1.3)
        self._offset[world] = rng.uniform(0.0, PICTURE_SIDE, 2)
        speed, angle = rng.uniform(0.4, 1.0), rng.uniform(0.0, 2.0 * np.pi)
        self._drift[world] = DRIFT * self.intensity * speed * np.array([np.cos(angle), np.sin(angle)])

    def show(self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]) -> None:
        seconds = steps * self._dt
        frame = self._frame + (seconds * FRAME_RATE).astype(np.int64)
        settings["picture"] = self.clips.starts[self._clip] + frame % self.clips.lengths[self._clip]
        settings["paint"] = round(256 * (WEAKEST + self.intensity * (STRONGEST - WEAKEST)))
        settings["zoom"] = self._zoom
        offset = (self._offset + self._drift * seconds[:, None]) % PICTURE_SIDE
        settings["offset"] = FIRST_TEXEL + offset
