"""A camera over many worlds at once, drawn by mujoco_warp's ray caster.

No OpenGL is needed: the kernels run on a CPU, and the same ones on a GPU. On a CPU one launch is
serial but releases the GIL, so the worlds are cut into chunks, small views of one render context, and
threads take chunk after chunk until none is left. A pixel depends on its own ray alone, which makes
frames bit-identical at any number of worlds, chunks and threads.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from robot_attn_envs.cores import usable_cores
from robot_attn_envs.errors import unknown_name
from robot_attn_envs.render.lens import Lens

# Kinematics that the ray caster reads, with the trailing shape it wants them in.
KINEMATICS: dict[str, tuple[int, ...]] = {
    "geom_xpos": (3,),
    "geom_xmat": (3, 3),
    "cam_xpos": (3,),
    "cam_xmat": (3, 3),
    "light_xpos": (3,),
    "light_xdir": (3,),
}
# Of the model, what each world has its own of.
PER_WORLD = ("geom_rgba", "light_diffuse")
# About 0.7 ms of work: large against the cost of a launch, and small enough that threads finish together.
# Cores are seldom equally fast; with one chunk for each of four threads all wait for the slowest, and
# frames come 1.2 x as slowly.
RAYS_PER_CHUNK = 64 * 64
SEEN_GROUPS = (0, 1, 2)  # of geoms: those of the robot that would fill its own camera's view are in others
ALL_GROUPS = range(mujoco.mjNGROUP)
SKY = (0.62, 0.74, 0.86, 1.0)

# Geoms in a leaf of a world's bounding volume hierarchy. On a CPU, looking at as many one by one is
# quicker than walking down a tree over them: 1.15 x the frames a second in a scene of 13, 1.1 x in one of 18.
LEAF_SIZE = 32

_WARP_DTYPES = {np.uint8: wp.uint8, np.int32: wp.int32, np.float32: wp.float32}

# Render kernels already specialised, by everything that they were specialised on.
_kernels: dict[tuple[Any, ...], Any] = {}


@dataclasses.dataclass
class _Chunk:
    """The worlds [start, stop), with the recorded launches that draw them.

    Played back, launches cost a tenth of launching them from Python. The context is kept because the
    launches use its arrays.
    """

    worlds: slice
    context: Any
    graph: Any


@wp.kernel
def _unpack(
    packed: wp.array2d[wp.uint32],
    seen: wp.array2d[wp.vec2i],
    rgb: wp.array3d[wp.uint8],
    geom_id: wp.array2d[wp.int32],
) -> None:
    """Bring mujoco_warp's pixels, 0xAARRGGBB and (id, object type), to the camera's arrays."""
    world, pixel = wp.tid()  # type: ignore[misc]
    for channel in range(3):
        rgb[world, pixel, channel] = wp.uint8(packed[world, pixel] >> wp.uint32(16 - 8 * channel))  # type: ignore[index]
    geom_id[world, pixel] = seen[world, pixel][0]  # type: ignore[index]


@functools.cache
def _start_warp() -> None:
    """Start Warp without its banner, and without its complaint, on a machine with no GPU, that there is none.

    The complaint is printed by native code, past Python's streams.
    """
    wp.config.log_level = wp.LOG_ERROR
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # closed: there is nowhere to complain to
        wp.init()  # type: ignore[no-untyped-call]
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        wp.init()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def _announced(step: str, after_seconds: float = 1.0) -> Iterator[None]:
    """Name a step on stderr once it takes longer than `after_seconds`, so that it is no silent hang."""
    notice = f"robot-attn: {step} ..."
    timer = threading.Timer(after_seconds, lambda: print(notice, file=sys.stderr, flush=True))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class BatchCamera:
    """RGB, segmentation and (on request) depth of one camera in `num_worlds` worlds of one model.

    Args:
        model: the compiled MuJoCo model that all worlds share.
        num_worlds: number of worlds, at least 1.
        camera: name of the camera in the model.
        image_size: (height, width) in pixels.
        threads: threads to draw with on a CPU; None for every core this process may use.
        depth: whether to draw depth too.
        device: Warp device, "cpu" or e.g. "cuda:0".
        lens: what frames go through; None: nothing.
        groups: of geoms, those that are drawn.

    Attributes:
        name: of the camera in the model.
        image_size: (height, width).
        rgb: uint8 [num_worlds, height, width, 3], the frames of the last `render`.
        geom_id: int32 [num_worlds, height, width], the geom seen at each pixel, -1 for none.
        depth: float32 [num_worlds, height, width], metres along the optical axis (0: nothing hit), or None.
        geom_rgba: float32 [num_worlds, ngeom, 4], colours in [0, 1]; write it, then `render(recolor=True)`.

    Raises:
        ValueError: the camera is not in the model, or a size is out of range.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        camera: str,
        image_size: tuple[int, int],
        *,
        threads: int | None = None,
        depth: bool = False,
        device: str = "cpu",
        lens: Lens | None = None,
        groups: Sequence[int] = SEEN_GROUPS,
    ) -> None:
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) < 0:
            names = [model.camera(i).name for i in range(model.ncam)]
            raise unknown_name("camera of the model", camera, names)
        height, width = image_size
        _start_warp()
        try:
            self._device = wp.get_device(device)
        except ValueError as error:
            raise ValueError(f"no device {device!r} on this machine") from error
        self.name, self.image_size = camera, (height, width)
        self._threads = max(1, threads or usable_cores()) if self._device.is_cpu else 1
        self.geom_rgba: NDArray[np.float32] = np.tile(model.geom_rgba.astype(np.float32), (num_worlds, 1, 1))
        self.rgb: NDArray[np.uint8] = np.zeros((num_worlds, height, width, 3), np.uint8)
        self.geom_id: NDArray[np.int32] = np.full((num_worlds, height, width), -1, np.int32)
        self.depth: NDArray[np.float32] | None = (
            np.zeros((num_worlds, height, width), np.float32) if depth else None
        )
        with (
            _announced("compiling the camera's kernels (once on this machine)"),
            wp.ScopedDevice(self._device),
        ):
            self._model = mjw.put_model(model, batch_sizes=dict.fromkeys(PER_WORLD, num_worlds))
            self._data = mjw.make_data(model, nworld=num_worlds, nconmax=1, njmax=1)
            self._context = mjw.create_render_context(
                model,
                nworld=1,
                cam_res=(width, height),
                cam_active=[self.name],
                render_rgb=True,
                render_depth=depth,
                render_seg=True,
                enabled_geom_groups=list(groups),
                # The scenes are matte and lit without shadows: what is never seen is not compiled.
                use_shadows=False,
                enable_specular=False,
                enable_emission=False,
                enable_per_light_ambient=False,
                background_color=SKY,
            )
            self._model.geom_rgba.assign(self.geom_rgba)
            self._lens = lens.mount(image_size) if lens else None
            # Where a draw leaves its pixels: on a CPU, the very memory of `rgb`, `geom_id` and `depth`.
            self._pixels = {"rgb": self._shared(self.rgb, 3), "geom_id": self._shared(self.geom_id)}
            if self.depth is not None:
                self._pixels["depth"] = self._shared(self.depth)
            size = max(1, RAYS_PER_CHUNK // (height * width)) if self._device.is_cpu else num_worlds
            self._chunks = [
                self._make_chunk(slice(start, min(start + size, num_worlds)))
                for start in range(0, num_worlds, size)
            ]
        self._workers = min(self._threads, len(self._chunks)) - 1
        self._pool = ThreadPoolExecutor(self._workers) if self._workers else None

    def _shared(self, pixels: NDArray[Any], *channels: int) -> Any:
        """A Warp array [num_worlds, height * width, *channels] of these pixels, without a copy on a CPU."""
        flat = pixels.reshape(len(pixels), -1, *channels)
        return wp.array(flat, dtype=_WARP_DTYPES[flat.dtype.type], copy=False)

    def _make_chunk(self, worlds: slice) -> _Chunk:
        """Views of the model, the data and the context in which these worlds are all there are."""
        size = worlds.stop - worlds.start
        model, data, context = copy.copy(self._model), copy.copy(self._data), copy.copy(self._context)
        for name in PER_WORLD:
            setattr(model, name, getattr(self._model, name)[worlds])
        data.nworld = size
        for name in KINEMATICS:
            setattr(data, name, getattr(self._data, name)[worlds])
        pixels = {name: array[worlds] for name, array in self._pixels.items()}
        context.rgb_data = wp.zeros((size, context.total_rays), dtype=wp.uint32)
        context.seg_data = wp.zeros((size, context.total_rays), dtype=wp.vec2i)
        context.depth_data = pixels.get("depth", context.depth_data)
        give_own_hierarchy(context, size, LEAF_SIZE if self._device.is_cpu else 1)
        return _Chunk(worlds, context, self._record(worlds, model, data, context, pixels))

    def _record(self, worlds: slice, model: Any, data: Any, context: Any, pixels: dict[str, Any]) -> Any:
        """Record the launches of a draw, with the kernel that an equal context has compiled, if one has."""
        key = (str(self._device), model.nlight, kernel_key(context))
        share_kernel(context, _kernels.get(key))

        def launch() -> None:
            mjw.refit_bvh(model, data, context)
            mjw.render(model, data, context)
            if self._lens:
                self._lens.launch(worlds, context, data.cam_xmat, pixels["rgb"], pixels["geom_id"])
                return
            wp.launch(
                _unpack,
                dim=context.rgb_data.shape,
                inputs=[context.rgb_data, context.seg_data],
                outputs=[pixels["rgb"], pixels["geom_id"]],
            )

        if compiled_kernel(context) is None:
            launch()  # compiles the kernel, or loads what an earlier run compiled: not to be recorded
            _kernels[key] = compiled_kernel(context)
        with wp.ScopedCapture(self._device) as capture:
            launch()
        return capture.graph

    def render(
        self,
        kinematics: dict[str, NDArray[np.float64]],
        worlds: NDArray[np.intp] | None = None,
        *,
        recolor: bool = False,
    ) -> None:
        """Draw the worlds into `rgb`, `geom_id` and `depth`.

        Args:
            kinematics: the arrays of `KINEMATICS`, float64 [num_worlds, ...], as the simulation has them, or
                as they shall look: scaling the x and y axes in `cam_xmat` widens the field of view. And,
                where lights change, `light_diffuse`, [num_worlds, nlight, 3], their colours.
            worlds: indices of the worlds that changed; the others may be left as they were. None for all.
            recolor: whether `geom_rgba` was written since the last call.
        """
        chunks = self._chunks
        if worlds is not None:
            chunks = [c for c in chunks if np.any((worlds >= c.worlds.start) & (worlds < c.worlds.stop))]
        remaining = iter(chunks)

        def draw() -> None:
            with wp.ScopedDevice(self._device):
                for chunk in remaining:  # `next` on a list's iterator is atomic: no chunk is drawn twice
                    self._draw(chunk)

        with wp.ScopedDevice(self._device):
            for name, tail in KINEMATICS.items():
                values = kinematics[name]
                _write(getattr(self._data, name), values.reshape(*values.shape[:2], *tail))
            if "light_diffuse" in kinematics:
                _write(self._model.light_diffuse, kinematics["light_diffuse"])
            if self._lens:
                self._lens.update()
            if recolor:
                _write(self._model.geom_rgba, self.geom_rgba)
        helpers = [self._pool.submit(draw) for _ in range(self._workers)] if self._pool else []
        draw()
        for helper in helpers:
            helper.result()

    def _draw(self, chunk: _Chunk) -> None:
        wp.capture_launch(chunk.graph)
        if not self._device.is_cpu:
            for name, pixels in self._pixels.items():
                host = getattr(self, name)
                host[chunk.worlds] = pixels[chunk.worlds].numpy().reshape(host[chunk.worlds].shape)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _write(array: Any, values: NDArray[Any]) -> None:
    """Copy values into a Warp array: in place on a CPU, where the array's memory is numpy's too."""
    if array.device.is_cpu:
        array.numpy()[...] = values
    else:
        array.assign(np.ascontiguousarray(values, np.float32))
