"""What frames go through after the ray caster: painted scenery, patches, blur, exposure, noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.render.lens_kernels import NOISE_LENGTH, NOISE_UNIT, View, blur_row, expose, paint

BLUR_HEIGHT = 64  # pixels: a blur reaches as far as to the next pixel in a frame of this height


def clear_views(num_worlds: int) -> NDArray[Any]:
    """Views that change nothing."""
    dtype = View.numpy_dtype()  # type: ignore[attr-defined]
    views: NDArray[Any] = np.zeros(num_worlds, dtype)
    views["gain"] = 1.0
    return views


class Lens:
    """What lies before cameras; write `views`, then render.

    Args:
        views: [num_worlds], as `clear_views` makes them.
        sensor: (height, width) of the sensor that the noise is of; larger frames show its pixels larger.
        scenery: bool [ngeom], the geoms that pictures are painted over; the sky is too.
        pictures: uint32 [pictures, 128, 128], 0xRRGGBB.

    Attributes:
        views: of each world, what becomes of its frames: an entry for each field of `View`.
    """

    def __init__(
        self,
        views: NDArray[Any],
        sensor: tuple[int, int],
        scenery: NDArray[np.bool_],
        pictures: NDArray[np.uint32],
    ) -> None:
        self.views = views
        self.sensor = sensor
        # Entry 0 is the sky's, whose geom is -1.
        self._scenery = np.concatenate([[True], scenery])
        self._pictures = pictures
        table = np.random.default_rng(0).normal(0.0, NOISE_UNIT, NOISE_LENGTH)
        self._noise = np.clip(np.round(table), -127, 127).astype(np.int8)

    def mount(self, image_size: tuple[int, int]) -> MountedLens:
        """This lens before a camera, on Warp's present device."""
        return MountedLens(self, image_size, self._scenery, self._pictures, self._noise)


class MountedLens:
    """A lens before a camera with frames of (height, width), with copies of its arrays on the device."""

    def __init__(
        self,
        lens: Lens,
        image_size: tuple[int, int],
        scenery: NDArray[np.bool_],
        pictures: NDArray[np.uint32],
        noise: NDArray[np.int8],
    ) -> None:
        self._host = lens.views
        self._sensor, (self._height, self._width) = lens.sensor, image_size
        # On a CPU these are the same memory as the lens's.
        self._views: Any = wp.array(lens.views, dtype=View, copy=False)
        self._scenery: Any = wp.array(scenery, dtype=wp.bool, copy=False)
        self._pictures: Any = wp.array(pictures, dtype=wp.uint32, copy=False)
        self._noise: Any = wp.array(noise, dtype=wp.int8, copy=False)
        self._strides = blur_strides(self._height)
        spare = len(lens.views) if len(self._strides) > 1 else 0
        self._blurred = [wp.zeros((spare, self._height * self._width), dtype=wp.uint32) for _ in range(2)]

    def update(self) -> None:
        """Bring what was written into `views` to the device."""
        if not self._views.device.is_cpu:
            self._views.assign(self._host)

    def launch(self, worlds: slice, context: Any, cam_xmat: Any, rgb: Any, geom_id: Any) -> None:
        """From the ray caster's pixels of these worlds to the camera's arrays."""
        size = worlds.stop - worlds.start
        views = self._views[worlds]
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
                views,
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
                views,
            ],
            outputs=[rgb],
        )


def blur_strides(height: int) -> list[int]:
    """Strides of the 3 x 3 blurs that, one after another, are as wide as one is at `BLUR_HEIGHT`.

    The last is 1. A blur of stride s has a variance of s^2 / 2 pixels^2, and variances add up; strides that
    double at most leave no gaps.
    """
    variance, strides = (height / BLUR_HEIGHT) ** 2, [1]
    while (left := variance - sum(s * s for s in strides)) >= 1.0:
        strides.append(min(2 * strides[-1], int(left**0.5)))
    return sorted(strides, reverse=True)
