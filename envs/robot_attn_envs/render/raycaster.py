"""mujoco_warp's ray caster behind the camera: the reference for ours on a CPU, and the renderer on a GPU.

It is imported only where it is used.
"""

# Warp's type stubs do not cover what its types support inside a kernel.
# mypy: ignore-errors

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.compat.mujoco_warp import (
    compiled_kernel,
    give_own_hierarchy,
    kernel_key,
    share_kernel,
)
from robot_attn_envs.render.lens import MountedLens
from robot_attn_envs.render.pixels import (
    Colors,
    Floats,
    Ints,
    Output,
    make_output,
    reversed_color,
    store_colors,
    store_hits,
)
from robot_attn_envs.render.place import TILE_WIDTH, Rays
from robot_attn_envs.render.scene import camera_index, camera_projection

# Kinematics that the ray caster reads, with their trailing shapes.
_KINEMATICS: dict[str, tuple[int, ...]] = {
    "geom_xpos": (3,),
    "geom_xmat": (3, 3),
    "cam_xpos": (3,),
    "cam_xmat": (3, 3),
    "light_xpos": (3,),
    "light_xdir": (3,),
}
# Fields of the model that differ between worlds.
_PER_WORLD = ("geom_rgba", "light_diffuse")
# Geoms in a leaf of a world's bounding volume hierarchy. On a CPU, testing this many one by one is faster
# than descending a tree over them: 1.15 x the frames a second in a scene of 13 geoms, 1.1 x in one of 18.
_LEAF_SIZE = 32

# Render kernels compiled so far, by everything that they are specialised on.
_kernels: dict[tuple[Any, ...], Any] = {}


@wp.kernel
def _unpack(
    width: int,
    pieces: int,
    packed: wp.array2d[wp.uint32],
    hits: wp.array2d[wp.vec2i],
    depth: wp.array2d[wp.float32],
    scenery: wp.array[wp.uint32],
    for_lens: int,
    colors: wp.array2d[Colors],
    output: Output,
) -> None:
    """Convert mujoco_warp's pixels, 0xAARRGGBB and (id, object type), of a piece of a row."""
    world, row, piece = wp.tid()
    first = row * width + piece * TILE_WIDTH
    lanes = wp.min(TILE_WIDTH, width - piece * TILE_WIDTH)
    code = Colors(wp.uint32(0))
    ids = Ints(-1)
    far = Floats(0.0)
    for j in range(lanes):
        ids[j] = hits[world, first + j][0]
        code[j] = packed[world, first + j]
        if output.with_depth != 0:
            far[j] = depth[world, first + j]
    store_hits(output, ids, far, lanes, world, first)
    if for_lens != 0:
        for j in range(lanes):
            code[j] = (code[j] & wp.uint32(0xFFFFFF)) | (scenery[ids[j] + 1] << wp.uint32(24))
        colors[world, row * pieces + piece] = code
    else:
        for j in range(lanes):
            code[j] = reversed_color(code[j])
        store_colors(output, code, lanes, world, first)


class MujocoWarpRayCaster:
    """The launches that draw one camera of the model in `num_worlds` worlds.

    Args:
        model: the compiled MuJoCo model that all worlds share.
        num_worlds: number of worlds.
        camera: name of the camera in the model.
        image_size: (height, width) in pixels.
        device: Warp device.
        groups: geom groups to draw.
        sky: colour of the sky in [0, 1], (3,).
        pixels: output arrays by name: `rgb` uint8 [num_worlds, H * W, 3], `geom_id` int32 [num_worlds, H * W]
            and, if wanted, `depth` float32 [num_worlds, H * W].
        lens: the lens in front of the camera; None for none.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        camera: str,
        image_size: tuple[int, int],
        *,
        device: Any,
        groups: Sequence[int],
        sky: Sequence[float],
        pixels: dict[str, NDArray[Any]],
        lens: MountedLens | None,
    ) -> None:
        height, width = image_size
        self._device, self._pixels, self._lens = device, pixels, lens
        self._size = (height, width)
        index = camera_index(model, camera)
        self._eye = slice(index, index + 1)
        projection = camera_projection(model, index, image_size)
        rays = np.zeros(1, Rays.numpy_dtype())
        rays["x"], rays["y"] = projection.x_of_column, projection.y_of_row
        rays["orthographic"] = projection.orthographic
        with wp.ScopedDevice(device):
            self._rays = wp.array(rays, dtype=Rays)
            self._scenery = lens.scenery if lens else wp.zeros(1 + model.ngeom, dtype=wp.uint32)
            self._model = mjw.put_model(model, batch_sizes=dict.fromkeys(_PER_WORLD, num_worlds))
            self._data = mjw.make_data(model, nworld=num_worlds, nconmax=1, njmax=1)
            self._context = mjw.create_render_context(
                model,
                nworld=1,
                cam_res=(width, height),
                cam_active=[camera],
                render_rgb=True,
                render_depth="depth" in pixels,
                render_seg=True,
                enabled_geom_groups=list(groups),
                # Left out of the kernel: our renderer has none of them either.
                use_shadows=False,
                enable_specular=False,
                background_color=(*sky, 1.0),
            )

    def write(self, kinematics: dict[str, NDArray[Any]]) -> None:
        """Take the worlds' poses, and `light_diffuse` where it is there."""
        for name, tail in _KINEMATICS.items():
            values = kinematics[name]
            _write(getattr(self._data, name), values.reshape(*values.shape[:2], *tail))
        if "light_diffuse" in kinematics:
            _write(self._model.light_diffuse, kinematics["light_diffuse"])

    def recolor(self, geom_rgba: NDArray[np.float32]) -> None:
        """Take the geoms' colours, float32 [num_worlds, ngeom, 4]."""
        _write(self._model.geom_rgba, geom_rgba)

    def record(self, worlds: slice) -> tuple[Any, Output]:
        """Record the launches that draw the worlds [start, stop).

        Returns:
            The recording, for `warp.capture_launch`, and the output that it writes to.
        """
        size = worlds.stop - worlds.start
        # Views of the model, the data and the context that contain these worlds only.
        model, data, context = copy.copy(self._model), copy.copy(self._data), copy.copy(self._context)
        for name in _PER_WORLD:
            values = getattr(self._model, name)
            if values.shape[1]:  # an array without any columns cannot be sliced
                setattr(model, name, values[worlds])
        data.nworld = size
        for name in _KINEMATICS:
            values = getattr(self._data, name)
            if values.shape[1]:
                setattr(data, name, values[worlds])
        pixels = {name: values[worlds] for name, values in self._pixels.items()}
        height, width = self._size
        pieces = -(-width // TILE_WIDTH)
        output = make_output(pixels, width, self._device)
        colors = wp.zeros((size, height * pieces if self._lens else 1), dtype=Colors)
        context.rgb_data = wp.zeros((size, context.total_rays), dtype=wp.uint32)
        context.seg_data = wp.zeros((size, context.total_rays), dtype=wp.vec2i)
        context.depth_data = wp.zeros(
            (size, context.total_rays if "depth" in pixels else 1), dtype=wp.float32
        )
        give_own_hierarchy(context, size, _LEAF_SIZE if self._device.is_cpu else 1)
        key = (str(self._device), model.nlight, kernel_key(context))
        share_kernel(context, _kernels.get(key))

        def launch() -> None:
            mjw.refit_bvh(model, data, context)
            mjw.render(model, data, context)
            wp.launch(
                _unpack,
                dim=(size, height, pieces),
                inputs=[
                    width,
                    pieces,
                    context.rgb_data,
                    context.seg_data,
                    context.depth_data,
                    self._scenery,
                    int(self._lens is not None),
                ],
                outputs=[colors, output],
            )
            if self._lens:
                self._lens.launch(worlds, self._rays, data.cam_xmat[:, self._eye], colors, output)

        if compiled_kernel(context) is None:
            launch()  # compiles the kernel, or loads it from the cache, which must not be recorded
            _kernels[key] = compiled_kernel(context)
        with wp.ScopedCapture(self._device) as capture:
            launch()
        # The context is kept with the graph, whose launches use its arrays.
        capture.graph.context = context
        return capture.graph, output


def _write(array: Any, values: NDArray[Any]) -> None:
    """Copy values into a Warp array; on a CPU in place, as NumPy shares its memory."""
    if array.device.is_cpu:
        array.numpy()[...] = values
    else:
        array.assign(np.ascontiguousarray(values, np.float32))
