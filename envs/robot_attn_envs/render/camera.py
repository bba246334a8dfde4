"""Batch rendering: one camera in many worlds at once, with mujoco_warp's ray caster.

OpenGL is not needed: the same kernels run on a CPU and on a GPU. On a CPU a launch is serial but releases
the GIL. The worlds are therefore divided into chunks, small views of one render context, and threads take
one chunk after the other. A pixel depends on its own ray only, so frames are bit-identical at any number of
worlds, chunks and threads.
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

# Kinematics that the ray caster reads, with their trailing shapes.
KINEMATICS: dict[str, tuple[int, ...]] = {
    "geom_xpos": (3,),
    "geom_xmat": (3, 3),
    "cam_xpos": (3,),
    "cam_xmat": (3, 3),
    "light_xpos": (3,),
    "light_xdir": (3,),
}
# Fields of the model that differ between worlds.
PER_WORLD = ("geom_rgba", "light_diffuse")
# About 0.7 ms of work: long compared with a launch, and short enough that threads finish at the same time.
# Cores are seldom equally fast: with one chunk for each of four threads, all wait for the slowest, and
# rendering is 1.2 x slower.
RAYS_PER_CHUNK = 64 * 64
# Geom groups that the policy's camera renders: parts of the robot that would fill its view are in others.
POLICY_GROUPS = (0, 1, 2)
ALL_GROUPS = range(mujoco.mjNGROUP)
SKY = (0.62, 0.74, 0.86, 1.0)

# Geoms in a leaf of a world's bounding volume hierarchy. On a CPU, testing this many one by one is faster
# than descending a tree over them: 1.15 x the frames a second in a scene of 13 geoms, 1.1 x in one of 18.
LEAF_SIZE = 32

_WARP_DTYPES = {np.uint8: wp.uint8, np.int32: wp.int32, np.float32: wp.float32}

# Render kernels compiled so far, by everything that they are specialised on.
_kernels: dict[tuple[Any, ...], Any] = {}


@dataclasses.dataclass
class _Chunk:
    """The worlds [start, stop) and the recorded launches that render them.

    Replaying launches takes a tenth of the time of launching from Python. The context is kept because the
    launches use its arrays.
    """

    worlds: slice
    context: Any
    graph: Any


@wp.kernel
def _unpack(
    packed: wp.array2d[wp.uint32],
    hits: wp.array2d[wp.vec2i],
    rgb: wp.array3d[wp.uint8],
    geom_id: wp.array2d[wp.int32],
) -> None:
    """Convert mujoco_warp's pixels, 0xAARRGGBB and (id, object type), to the camera's arrays."""
    world, pixel = wp.tid()  # type: ignore[misc]
    for channel in range(3):
        rgb[world, pixel, channel] = wp.uint8(packed[world, pixel] >> wp.uint32(16 - 8 * channel))  # type: ignore[index]
    geom_id[world, pixel] = hits[world, pixel][0]  # type: ignore[index]


@functools.cache
def _start_warp() -> None:
    """Initialise Warp without its banner and without its warning about a missing GPU.

    Native code prints the warning, bypassing Python's streams.
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
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        os.close(devnull)
        wp.init()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def _announced(step: str, after_seconds: float = 1.0) -> Iterator[None]:
    """Print the name of a step to stderr once it takes longer than `after_seconds`."""
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
        threads: rendering threads on a CPU; None for every core this process may use.
        depth: whether to render depth too.
        device: Warp device, "cpu" or e.g. "cuda:0".
        lens: image effects applied to the frames; None for none.
        groups: geom groups to render.

    Attributes:
        name: name of the camera in the model.
        image_size: (height, width) in pixels.
        rgb: frames of the last `render`, uint8 [num_worlds, height, width, 3].
        geom_id: id of the geom at each pixel, int32 [num_worlds, height, width]; -1 for none.
        depth: depth along the optical axis, m, float32 [num_worlds, height, width], 0 where nothing is hit;
            None if not requested.
        geom_rgba: colours in [0, 1], float32 [num_worlds, ngeom, 4]. After writing to it, call
            `render(recolor=True)`.

    Raises:
        ValueError: a camera that the model does not have, or a device that this machine does not have.
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
        groups: Sequence[int] = POLICY_GROUPS,
    ) -> None:
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) < 0:
            names = [model.camera(i).name for i in range(model.ncam)]
            raise unknown_name("camera of the model", camera, names)
        height, width = image_size
        _start_warp()
        try:
            self._device = wp.get_device(device)
        except ValueError as error:
            devices = ", ".join(str(known) for known in wp.get_devices())
            raise ValueError(f"expected a device among {devices}, got {device!r}") from error
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
                # The scenes are matte and without shadows: leave these features out of the kernel.
                use_shadows=False,
                enable_specular=False,
                enable_emission=False,
                enable_per_light_ambient=False,
                background_color=SKY,
            )
            self._model.geom_rgba.assign(self.geom_rgba)
            self._lens = lens.mount(image_size) if lens else None
            # The output arrays: on a CPU they share the memory of `rgb`, `geom_id` and `depth`.
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
        """A Warp array [num_worlds, height * width, *channels] of the pixels, without a copy on a CPU."""
        flat = pixels.reshape(len(pixels), -1, *channels)
        return wp.array(flat, dtype=_WARP_DTYPES[flat.dtype.type], copy=False)

    def _make_chunk(self, worlds: slice) -> _Chunk:
        """Create views of the model, the data and the context that contain these worlds only."""
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
        """Record the launches of a rendering, reusing a compiled kernel of an equal context."""
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
            launch()  # compiles the kernel, or loads it from the cache, which must not be recorded
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
        """Render the worlds into `rgb`, `geom_id` and `depth`.

        Args:
            kinematics: the arrays of `KINEMATICS`, float64 [num_worlds, ...], of the simulation or modified:
                scaling the x and y axes in `cam_xmat` widens the field of view. Optionally `light_diffuse`,
                the colours of the lights, [num_worlds, nlight, 3].
            worlds: indices of the worlds that changed; others may keep their frames. None for all.
            recolor: whether `geom_rgba` was written since the last call.
        """
        chunks = self._chunks
        if worlds is not None:
            chunks = [c for c in chunks if np.any((worlds >= c.worlds.start) & (worlds < c.worlds.stop))]
        remaining = iter(chunks)

        def render_chunks() -> None:
            with wp.ScopedDevice(self._device):
                for chunk in remaining:  # `next` on a list's iterator is atomic: no chunk is rendered twice
                    self._render_chunk(chunk)

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
        futures = [self._pool.submit(render_chunks) for _ in range(self._workers)] if self._pool else []
        render_chunks()
        for future in futures:
            future.result()

    def _render_chunk(self, chunk: _Chunk) -> None:
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
    """Copy values into a Warp array; on a CPU in place, as NumPy shares its memory."""
    if array.device.is_cpu:
        array.numpy()[...] = values
    else:
        array.assign(np.ascontiguousarray(values, np.float32))
