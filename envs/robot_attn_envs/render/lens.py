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
    blur_row,
    expose,
    paint,
)

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
        self._scenery = np.concatenate([[True], scenery])
        self._pictures = pictures
        table = np.random.default_rng(0).normal(0.0, NOISE_UNIT, NOISE_LENGTH)
        self._noise = np.clip(np.round(table), -127, 127).astype(np.int8)

    def mount(self, image_size: tuple[int, int]) -> MountedLens:
        """This lens in front of a camera.

        Args:
            image_size: (height, width) of the camera's frames in pixels.

        Returns:
            The lens with its arrays on Warp's current device.
        """
        return MountedLens(self, image_size, self._scenery, self._pictures, self._noise)


class MountedLens:
    """A lens in front of one camera, with its arrays on the camera's device.

    Args:
        lens: the lens, whose settings it follows.
        image_size: (height, width) of the camera's frames in pixels.
        scenery: bool [1 + ngeom], entry 0 for the sky.
        pictures: as in `Lens`.
        noise: table of normal samples, int8 [65536], with a standard deviation of 32.
    """

    def __init__(
        self,
        lens: Lens,
        image_size: tuple[int, int],
        scenery: NDArray[np.bool_],
        pictures: NDArray[np.uint32],
        noise: NDArray[np.int8],
    ) -> None:
        self._host = lens.settings
        self._sensor, (self._height, self._width) = lens.sensor, image_size
        # On a CPU these share the lens's memory.
        self._settings: Any = wp.array(lens.settings, dtype=LensSettings, copy=False)
        self._scenery: Any = wp.array(scenery, dtype=wp.bool, copy=False)
        self._pictures: Any = wp.array(pictures, dtype=wp.uint32, copy=False)
        self._noise: Any = wp.array(noise, dtype=wp.int8, copy=False)
        self._strides = blur_strides(self._height)
        buffers = len(lens.settings) if len(self._strides) > 1 else 0
        self._blurred = [wp.zeros((buffers, self._height * self._width), dtype=wp.uint32) for _ in range(2)]

    def update(self) -> None:
        """Copy the lens's settings to the device."""
        if not self._settings.device.is_cpu:
            self._settings.assign(self._host)

    def launch(self, worlds: slice, context: Any, cam_xmat: Any, rgb: Any, geom_id: Any) -> None:
        """Process ray-cast frames into the camera's arrays.

        Args:
            worlds: the worlds to process.
            context: the ray caster's render context, with packed pixels of these worlds.
            cam_xmat: orientations of the cameras of these worlds.
            rgb: output, uint8 [worlds, H * W, 3].
            geom_id: output, int32 [worlds, H * W]; -1 for sky and patches.
        """
        size = worlds.stop - worlds.start
        settings = self._settings[worlds]
        wp.launch(
            paint,
            dim=(size, self._height),
            inputs=[
                self._width,
                context.ray,
                context.cam_id_map,
                cam_xmat,
                context.seg_data,
                self._scenery,
                self._pictures,
                settings,
            ],
            outputs=[context.rgb_data, geom_id],
        )
        blurred = context.rgb_data
        for i, stride in enumerate(self._strides[:-1]):
            sharper, blurred = blurred, self._blurred[i % 2][worlds]
            wp.launch(
                blur_row, dim=(size, self._height), inputs=[self._width, stride, sharper], outputs=[blurred]
            )
        wp.launch(
            expose,
            dim=(size, self._height),
            inputs=[
                self._width,
                wp.vec2i(*self._sensor),
                context.rgb_data,
                blurred,
                self._noise,
                settings,
            ],
            outputs=[rgb],
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
