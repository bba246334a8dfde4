"""Image effects applied after ray casting: painted scenery, occluding patches, blur, exposure, noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.render.lens_kernels import (
    NOISE_LENGTH,
    NOISE_UNIT,
    LensSettings,
    blur,
    expose,
    paint,
)
from robot_attn_envs.render.pixels import Colors, Output
from robot_attn_envs.render.place import TILE_HEIGHT, TILE_WIDTH

BLUR_HEIGHT = 64  # pixels: frame height at which the blur is 3 x 3 pixels wide


def neutral_settings(num_worlds: int) -> NDArray[Any]:
    """Settings that leave frames unchanged, a structured array [num_worlds] of `LensSettings`."""
    dtype = LensSettings.numpy_dtype()  # type: ignore[attr-defined]
    settings: NDArray[Any] = np.zeros(num_worlds, dtype)
    settings["gain"] = 1.0
    return settings


class Lens:
    """The image effects of all worlds. Write `settings`, then render.

    Args:
        settings: structured array [num_worlds], as `neutral_settings` makes it.
        sensor: (height, width) of the sensor in pixels; the noise of larger frames is that of its pixels.
        scenery: geoms that pictures are painted over, bool [ngeom]; the sky always is.
        pictures: 0xRRGGBB, uint32 [pictures, 128, 128].

    Attributes:
        settings: the effects on each world's frames, with one entry per field of `LensSettings`.
        sensor: as given.
    """

    def __init__(
        self,
        settings: NDArray[Any],
        sensor: tuple[int, int],
        scenery: NDArray[np.bool_],
        pictures: NDArray[np.uint32],
    ) -> None:
        self.settings = settings
        self.sensor = sensor
        # Entry 0 is the sky, whose geom id is -1.
        self._scenery = np.concatenate([[True], scenery]).astype(np.uint32)
        self._pictures = pictures
        table = np.random.default_rng(0).normal(0.0, NOISE_UNIT, NOISE_LENGTH)
        self._noise = np.clip(np.round(table), -127, 127).astype(np.int8)

    def mount(self, image_size: tuple[int, int], cameras: int = 1) -> MountedLens:
        """This lens in front of a camera, or of several in each world.

        Args:
            image_size: (height, width) of the cameras' frames in pixels.
            cameras: number of cameras in each world.

        Returns:
            The lens with its arrays on Warp's current device.
        """
        return MountedLens(self, image_size, cameras, self._scenery, self._pictures, self._noise)


class MountedLens:
    """A lens in front of cameras, with its arrays on their device.

    Args:
        lens: the lens, whose settings it follows.
        image_size: (height, width) of the cameras' frames in pixels.
        cameras: number of cameras in each world.
        scenery: 1 for geoms that are painted over, uint32 [1 + ngeom]; entry 0 for the sky.
        pictures: as in `Lens`.
        noise: table of normal samples, int8 [65536], with a standard deviation of 32.

    Attributes:
        scenery: the same on the device.
    """

    def __init__(
        self,
        lens: Lens,
        image_size: tuple[int, int],
        cameras: int,
        scenery: NDArray[np.uint32],
        pictures: NDArray[np.uint32],
        noise: NDArray[np.int8],
    ) -> None:
        self._host = lens.settings
        self._sensor, (self._height, self._width) = lens.sensor, image_size
        # On a CPU these share the lens's memory.
        self._settings: Any = wp.array(lens.settings, dtype=LensSettings, copy=False)
        self.scenery: Any = wp.array(scenery, dtype=wp.uint32)
        self._pictures: Any = wp.array(pictures.ravel(), dtype=wp.uint32, copy=False)
        # A row starts anywhere in the table and goes on at its beginning.
        wide = 3 * (max(lens.sensor[1], self._width) + 3 * TILE_WIDTH)
        rows = [
            np.concatenate([noise, noise[:wide]])[phase::3][: (NOISE_LENGTH + wide) // 3]
            for phase in range(3)
        ]
        self._noise: Any = wp.array(np.stack(rows), dtype=wp.int8)
        self._strides = blur_strides(self._height)
        self._cameras = cameras
        views = len(lens.settings) * cameras if len(self._strides) > 1 else 1
        pieces = self._height * -(-self._width // TILE_WIDTH)
        self._blurred = [wp.zeros((views, pieces), dtype=Colors) for _ in range(2)]

    def update(self) -> None:
        """Copy the lens's settings to the device."""
        if not self._settings.device.is_cpu:
            self._settings.assign(self._host)

    def launch(self, worlds: slice, rays: Any, eye_xmat: Any, packed: Any, output: Output) -> None:
        """Process drawn frames into a camera's arrays.

        Args:
            worlds: the worlds to process.
            rays: the cameras' rays, `Rays` [cameras].
            eye_xmat: the cameras' axes in these worlds, mat33 [worlds, cameras].
            packed: drawn frames, 0xSSRRGGBB with SS = 1 for scenery, `Colors` [worlds * cameras, pieces of
                rows]; overwritten.
            output: where the frames are written to; geom ids become -1 where a patch is.
        """
        views = slice(worlds.start * self._cameras, worlds.stop * self._cameras)
        size, frame = (len(packed), -(-self._height // TILE_HEIGHT)), [self._width, self._height]
        settings = self._settings[worlds]
        wp.launch(
            paint,
            dim=size,
            inputs=[*frame, rays, eye_xmat, self._pictures, settings],
            outputs=[packed, output],
        )
        blurred = packed
        for i, stride in enumerate(self._strides[:-1]):
            sharper, blurred = blurred, self._blurred[i % 2][views]
            wp.launch(blur, dim=size, inputs=[*frame, stride, sharper], outputs=[blurred])
        wp.launch(
            expose,
            dim=size,
            inputs=[
                *frame,
                self._cameras,
                wp.vec2i(*self._sensor),
                packed,
                blurred,
                self._noise,
                settings,
            ],
            outputs=[output],
        )


def blur_strides(height: int) -> list[int]:
    """Strides of a sequence of 3 x 3 blurs that is as wide, relative to the frame, as one at `BLUR_HEIGHT`.

    A blur of stride s has a variance of s^2 / 2 pixels^2, and variances add up. Strides that at most double
    from one to the next leave no gaps.

    Args:
        height: height of the frame in pixels.

    Returns:
        The strides in pixels, falling; the last is 1.
    """
    variance, strides = (height / BLUR_HEIGHT) ** 2, [1]
    while (rest := variance - sum(s * s for s in strides)) >= 1.0:
        strides.append(min(2 * strides[-1], int(rest**0.5)))
    return sorted(strides, reverse=True)
