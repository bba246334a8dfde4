"""A camera over many worlds at once, drawn by mujoco_warp's ray caster.

No OpenGL is needed: the kernels run on a CPU, and the same ones on a GPU. On a CPU one launch is
serial but releases the GIL, so the worlds are cut into chunks, each with a render context of its
own, and a thread pool draws the chunks side by side. A pixel depends on its own ray alone, which
makes frames bit-identical at any number of worlds, chunks and threads.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp
from mujoco_warp._src.bvh import compute_bvh_group_roots
from numpy.typing import NDArray

# Kinematics that the ray caster reads, with the trailing shape it wants them in.
KINEMATICS: dict[str, tuple[int, ...]] = {
    "geom_xpos": (3,),
    "geom_xmat": (3, 3),
    "cam_xpos": (3,),
    "cam_xmat": (3, 3),
    "light_xpos": (3,),
    "light_xdir": (3,),
}
# Large enough to hide the cost of a launch (about 0.03 ms), small enough to balance the threads.
WORLDS_PER_CHUNK = 8
SKY = (0.62, 0.74, 0.86, 1.0)

# Geoms in a leaf of a world's bounding volume hierarchy. On a CPU, looking at as many one by one is
# quicker than walking down a tree over them: 1.15 x the frames a second in a scene of 13.
LEAF_SIZE = 16

# Kernels already specialised, by everything that they were specialised on.
_kernels: dict[tuple[Any, ...], Any] = {}


@dataclasses.dataclass
class _Chunk:
    """The worlds [start, stop) with the device arrays that draw them."""

    start: int
    stop: int
    model: Any
    data: Any
    context: Any
    graph: Any = None
    """The launches of a draw, recorded: played back, they cost a tenth of launching them from Python."""


@functools.cache
def _start_warp() -> None:
    """Start Warp without its banner, and without its complaint, on a machine with no GPU, that there is none.

    The complaint is printed by native code, past Python's streams.
    """
    wp.config.log_level = wp.LOG_ERROR
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        wp.init()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    Attributes:
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
    ) -> None:
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) < 0:
            names = [model.camera(i).name for i in range(model.ncam)]
            raise ValueError(f"no camera named {camera!r} in the model; it has {names}")
        height, width = image_size
        _start_warp()
        try:
            self._device = wp.get_device(device)
        except ValueError as error:
            raise ValueError(f"no device {device!r} on this machine") from error
        self._camera = camera
        self._threads = max(1, threads or available_cores()) if self._device.is_cpu else 1
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
            self._chunks = [
                self._make_chunk(model, start, stop, depth) for start, stop in self._cuts(num_worlds)
            ]
            for chunk in self._chunks:
                self._record(chunk)
        parallel = self._threads > 1 and len(self._chunks) > 1
        self._pool = ThreadPoolExecutor(self._threads) if parallel else None

    def _cuts(self, num_worlds: int) -> list[tuple[int, int]]:
        if self._device.is_cpu:
            rounds = math.ceil(num_worlds / (self._threads * WORLDS_PER_CHUNK))
            count = min(num_worlds, self._threads * rounds)
        else:
            count = 1
        edges = np.linspace(0, num_worlds, count + 1).round().astype(int)
        return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]

    def _make_chunk(self, model: mujoco.MjModel, start: int, stop: int, depth: bool) -> _Chunk:
        size = stop - start
        height, width = self.rgb.shape[1:3]
        chunk = _Chunk(
            start,
            stop,
            mjw.put_model(model, batch_sizes={"geom_rgba": size}),
            mjw.make_data(model, nworld=size, nconmax=1, njmax=1),
            mjw.create_render_context(
                model,
                nworld=size,
                cam_res=(width, height),
                cam_active=[self._camera],
                render_rgb=True,
                render_depth=depth,
                render_seg=True,
                # The scenes are matte and lit without shadows: what is never seen is not compiled.
                use_shadows=False,
                enable_specular=False,
                enable_emission=False,
                enable_per_light_ambient=False,
                background_color=SKY,
            ),
        )
        chunk.model.geom_rgba.assign(self.geom_rgba[start:stop])
        if self._device.is_cpu:
            _plant_bushes(chunk)
        return chunk

    def _record(self, chunk: _Chunk) -> None:
        """Record the launches of a draw, with the kernel that an equal context has compiled, if one has.

        mujoco_warp specialises its kernel on the context's scalars; left alone, every context compiles
        its own copy of the same code.
        """
        context = chunk.context
        scalars = tuple(
            repr(getattr(context, field.name))
            for field in dataclasses.fields(context)
            if field.type in (int, bool, float, wp.uint32, wp.vec3)
        )
        key = (str(self._device), chunk.model.nlight, context.geom_ray_types, scalars)
        context._megakernel = _kernels.get(key)

        def launch() -> None:
            mjw.refit_bvh(chunk.model, chunk.data, context)
            mjw.render(chunk.model, chunk.data, context)

        if context._megakernel is None:
            launch()  # compiles the kernel, or loads what an earlier run compiled: not to be recorded
            _kernels[key] = context._megakernel
        with wp.ScopedCapture(self._device) as capture:
            launch()
        chunk.graph = capture.graph

    def render(
        self,
        kinematics: dict[str, NDArray[np.float64]],
        worlds: NDArray[np.intp] | None = None,
        *,
        recolor: bool = False,
    ) -> None:
        """Draw the worlds into `rgb`, `geom_id` and `depth`.

        Args:
            kinematics: the arrays of `KINEMATICS`, float64 [num_worlds, ...], as the simulation has them.
            worlds: indices of the worlds that changed; the others may be left as they were. None for all.
            recolor: whether `geom_rgba` was written since the last call.
        """
        chunks = self._chunks
        if worlds is not None:
            chunks = [c for c in chunks if np.any((worlds >= c.start) & (worlds < c.stop))]

        def draw(chunk: _Chunk) -> None:
            self._update(chunk, kinematics, recolor)
            self._draw(chunk)

        with wp.ScopedDevice(self._device):
            if self._pool is None:
                for chunk in chunks:
                    draw(chunk)
            else:
                list(self._pool.map(draw, chunks))

    def _update(self, chunk: _Chunk, kinematics: dict[str, NDArray[np.float64]], recolor: bool) -> None:
        for name, tail in KINEMATICS.items():
            values = kinematics[name][chunk.start : chunk.stop]
            _write(getattr(chunk.data, name), values.reshape(*values.shape[:2], *tail))
        if recolor:
            _write(chunk.model.geom_rgba, self.geom_rgba[chunk.start : chunk.stop])

    def _draw(self, chunk: _Chunk) -> None:
        wp.capture_launch(chunk.graph)
        here = slice(chunk.start, chunk.stop)
        shape = self.geom_id[here].shape
        # Pixels are packed as 0xAARRGGBB: little-endian bytes are blue, green, red, alpha. Channel by channel
        # is three times as fast as reversing each pixel.
        packed = chunk.context.rgb_data.numpy().astype("<u4", copy=False).view(np.uint8).reshape(*shape, 4)
        for channel in range(3):
            self.rgb[here][..., channel] = packed[..., 2 - channel]
        self.geom_id[here] = chunk.context.seg_data.numpy().reshape(*shape, 2)[..., 0]
        if self.depth is not None:
            self.depth[here] = chunk.context.depth_data.numpy().reshape(shape)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _plant_bushes(chunk: _Chunk) -> None:
    """Build the hierarchy over the chunk's geoms anew, with leaves of `LEAF_SIZE` instead of Warp's few."""
    context = chunk.context
    context.bvh = wp.Bvh(
        context.lower, context.upper, groups=context.group, constructor="sah", leaf_size=LEAF_SIZE
    )
    context.bvh_id = context.bvh.id
    wp.launch(
        compute_bvh_group_roots,
        dim=context.group_root.shape,
        inputs=[context.bvh_id],
        outputs=[context.group_root],
    )


def _write(array: Any, values: NDArray[Any]) -> None:
    """Copy values into a Warp array: in place on a CPU, where the array's memory is numpy's too."""
    if array.device.is_cpu:
        array.numpy()[...] = values
    else:
        array.assign(np.ascontiguousarray(values, np.float32))
