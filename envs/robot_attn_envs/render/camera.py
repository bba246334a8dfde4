"""The camera: RGB, segmentation and depth of many worlds of one model, drawn together.

OpenGL is not needed. Worlds are divided into chunks, and threads take one chunk after the other. A pixel
depends on its own ray only, so frames are bit-identical at any number of worlds, chunks and threads.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.cores import Helpers, usable_cores
from robot_attn_envs.errors import unknown_name
from robot_attn_envs.render.lens import Lens
from robot_attn_envs.render.pixels import Output
from robot_attn_envs.render.scene import FreeCamera, camera_index

KINEMATICS = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
"""Arrays of `MjData` that are drawn from."""
RENDERERS = ("tiled", "mujoco_warp")
"""`tiled` is ours, for CPUs; `mujoco_warp` its ray caster, for CPUs and GPUs."""
# Rays of a chunk at most: many compared with what a launch takes.
RAYS_PER_CHUNK = {"tiled": 16 * 64 * 64, "mujoco_warp": 64 * 64}
# Geom groups that the policy's camera renders: parts of the robot that would fill its view are in others.
POLICY_GROUPS = (0, 1, 2)
ALL_GROUPS = range(mujoco.mjNGROUP)
SKY = (0.62, 0.74, 0.86)

# Warp records launches in one thread of a process at a time.
_recording = threading.Lock()


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


def chosen_renderer(renderer: str | None, device: str) -> str:
    """The renderer that a camera uses.

    Args:
        renderer: a name from `RENDERERS`; None for `tiled` on a CPU and `mujoco_warp` on a GPU.
        device: Warp device, "cpu" or e.g. "cuda:0".

    Raises:
        ValueError: an unknown name, or `tiled` on a GPU.
    """
    on_cpu = device == "cpu"
    if renderer is None:
        return "tiled" if on_cpu else "mujoco_warp"
    if renderer not in RENDERERS:
        raise unknown_name("renderer", renderer, RENDERERS)
    if renderer == "tiled" and not on_cpu:
        raise ValueError(
            f"expected device='cpu' for renderer='tiled', got {device!r}: use 'mujoco_warp' there"
        )
    return renderer


class BatchCamera:
    """RGB, segmentation and (on request) depth of one camera or several in `num_worlds` worlds of one model.

    Geoms are drawn: planes, primitives, meshes and height fields with textures, lit by the headlight and by
    directional, point and spot lights; and sites, if asked for. Tendons, shadows and specular highlights are
    not, and a geom is opaque unless its alpha is 0. A model with a skin or a flex is refused.

    Args:
        model: the compiled MuJoCo model that all worlds share.
        num_worlds: number of worlds, at least 1.
        camera: name or index of a camera of the model, a free camera, or several of them.
        image_size: (height, width) in pixels.
        threads: rendering threads on a CPU; None for every core this process may use.
        depth: whether to render depth too.
        device: Warp device, "cpu" or e.g. "cuda:0".
        renderer: a name from `RENDERERS`; None for `tiled` on a CPU and `mujoco_warp` on a GPU. The latter
            draws a single camera of the model.
        lens: image effects applied to the frames; None for none.
        groups: groups of geoms, and of sites, to render.
        sky: colour of the sky in [0, 1], (3,); None for the model's sky box, black without one.
        sites: whether to render sites too. A site's id among the geoms is `ngeom` plus its own; kinematics
            then have `site_xpos` and `site_xmat`, and `geom_rgba` has a row for each site after the geoms'.

    Attributes:
        name: what was given as `camera`; of a free camera its name, of several theirs.
        image_size: (height, width) in pixels.
        renderer: the renderer's name.
        rgb: frames of the last `render`, uint8 [num_worlds, height, width, 3]; of several cameras
            [num_worlds, cameras, height, width, 3].
        geom_id: id of the geom at each pixel, int32 [num_worlds, (cameras,) height, width]; -1 for none, -2
            for a patch of the lens.
        depth: depth along the optical axis, m, float32 [num_worlds, (cameras,) height, width], 0 where
            nothing is hit; None if not requested.
        geom_rgba: colours in [0, 1], float32 [num_worlds, ngeom (+ nsite), 4]. After writing to it, call
            `render(recolor=True)`.

    Raises:
        ValueError: a camera that the model does not have, a device that this machine does not have, or
            something in the model that is not drawn.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        camera: str | int | FreeCamera | Sequence[str | int | FreeCamera],
        image_size: tuple[int, int],
        *,
        threads: int | None = None,
        depth: bool = False,
        device: str = "cpu",
        renderer: str | None = None,
        lens: Lens | None = None,
        groups: Sequence[int] = POLICY_GROUPS,
        sky: Sequence[float] | None = SKY,
        sites: bool = False,
    ) -> None:
        single = isinstance(camera, str | int | FreeCamera)
        cameras: list[str | int | FreeCamera] = (
            [camera] if isinstance(camera, str | int | FreeCamera) else list(camera)
        )
        if not cameras:
            raise ValueError("expected at least one camera, got none")
        names = [one.name if isinstance(one, FreeCamera) else one for one in cameras]
        for one in cameras:
            if not isinstance(one, FreeCamera):
                camera_index(model, one)
        self.name: str | int | tuple[str | int, ...] = names[0] if single else tuple(names)
        height, width = image_size
        with _recording:
            _start_warp()
        try:
            self._device = wp.get_device(device)
        except ValueError as error:
            devices = ", ".join(str(known) for known in wp.get_devices())
            raise ValueError(f"expected a device among {devices}, got {device!r}") from error
        self.image_size = (height, width)
        self.renderer = chosen_renderer(renderer, "cpu" if self._device.is_cpu else device)
        self._threads = max(1, threads or usable_cores()) if self._device.is_cpu else 1
        colors = np.concatenate([model.geom_rgba, model.site_rgba]) if sites else model.geom_rgba
        self.geom_rgba: NDArray[np.float32] = np.tile(colors.astype(np.float32), (num_worlds, 1, 1))
        shape = (num_worlds, height, width) if single else (num_worlds, len(cameras), height, width)
        self.rgb: NDArray[np.uint8] = np.zeros((*shape, 3), np.uint8)
        self.geom_id: NDArray[np.int32] = np.full(shape, -1, np.int32)
        self.depth: NDArray[np.float32] | None = np.zeros(shape, np.float32) if depth else None
        with (
            _recording,
            _announced("compiling the camera's kernels (once on this machine)"),
            wp.ScopedDevice(self._device),
        ):
            self._lens = lens.mount(image_size, len(cameras)) if lens else None
            rays = height * width
            pixels: dict[str, NDArray[Any]] = {
                "rgb": self.rgb.reshape(-1, rays, 3),
                "geom_id": self.geom_id.reshape(-1, rays),
            }
            if self.depth is not None:
                pixels["depth"] = self.depth.reshape(-1, rays)
            self._caster = self._make_caster(model, num_worlds, cameras, groups, sky, sites, pixels)
            self._caster.recolor(self.geom_rgba)
            largest = RAYS_PER_CHUNK[self.renderer] // (rays * len(cameras))
            sizes = chunk_sizes(num_worlds, max(1, largest), self._threads)
            stops = np.cumsum(sizes if self._device.is_cpu else [num_worlds]).tolist()
            worlds = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
            self._chunks = [(chunk, *self._caster.record(chunk)) for chunk in worlds]
        # Of single worlds, by their index: recorded when they are first drawn without the others.
        self._singles: dict[int, tuple[slice, Any, Output]] = {}
        self._helpers: Helpers | None = None

    def _make_caster(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        cameras: list[str | int | FreeCamera],
        groups: Sequence[int],
        sky: Sequence[float] | None,
        sites: bool,
        pixels: dict[str, NDArray[Any]],
    ) -> Any:
        if self.renderer == "tiled":
            from robot_attn_envs.render.tiled import TiledRayCaster

            return TiledRayCaster(
                model,
                num_worlds,
                cameras,
                self.image_size,
                groups=groups,
                sky=sky,
                pixels=pixels,
                lens=self._lens,
                sites=sites,
            )
        from robot_attn_envs.render.raycaster import MujocoWarpRayCaster

        if len(cameras) != 1 or not isinstance(cameras[0], str) or sky is None or sites:
            raise ValueError(
                "expected the name of one camera of the model and a colour of the sky, and no sites, for "
                f"renderer='mujoco_warp', got cameras {self.name!r}, sky={sky!r} and sites={sites}: use "
                "renderer='tiled'"
            )
        return MujocoWarpRayCaster(
            model,
            num_worlds,
            cameras[0],
            self.image_size,
            device=self._device,
            groups=groups,
            sky=sky,
            pixels=pixels,
            lens=self._lens,
        )

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
                the colours of the lights, [num_worlds, nlight, 3]. With free cameras their poses, in order:
                `free_xpos` [num_worlds, free cameras, 3], m, and `free_xmat` [num_worlds, free cameras, 9],
                whose columns are the camera's x, y and z axes; it looks along -z.
            worlds: indices of the worlds that changed; others may keep their frames. None for all.
            recolor: whether `geom_rgba` was written since the last call.

        Raises:
            RuntimeError: this process is a fork of the one that rendered before, with several threads.
        """
        chunks = self._chunks
        if worlds is not None and self._device.is_cpu and len(worlds) < len(self.rgb):
            chunks = [self._single(int(world)) for world in worlds]
        with wp.ScopedDevice(self._device):
            self._caster.write(kinematics)
            if self._lens:
                self._lens.update()
            if recolor:
                self._caster.recolor(self.geom_rgba)
        remaining = iter(chunks)

        def render_chunks() -> None:
            with wp.ScopedDevice(self._device):
                for chunk in remaining:  # `next` on a list's iterator is atomic: no chunk is rendered twice
                    self._render_chunk(*chunk)

        if self._threads == 1 or len(chunks) <= 1:
            render_chunks()
            return
        if self._helpers is None:
            self._helpers = Helpers(min(self._threads, len(self._chunks)) - 1)
        self._helpers.run(render_chunks)

    def _single(self, world: int) -> tuple[slice, Any, Output]:
        """The recording that draws one world."""
        if world not in self._singles:
            one = slice(world, world + 1)
            with _recording, wp.ScopedDevice(self._device):
                self._singles[world] = (one, *self._caster.record(one))
        return self._singles[world]

    def _render_chunk(self, worlds: slice, graph: Any, output: Any) -> None:
        wp.capture_launch(graph)
        if not self._device.is_cpu:
            for name in ("rgb", "geom_id") if self.depth is None else ("rgb", "geom_id", "depth"):
                host = getattr(self, name)[worlds]
                host[...] = getattr(output, name).numpy().reshape(host.shape)

    def close(self) -> None:
        """Stop the threads."""
        if self._helpers is not None:
            self._helpers.close()
            self._helpers = None


def chunk_sizes(num_worlds: int, largest: int, threads: int) -> list[int]:
    """Numbers of worlds in chunks that threads take one after the other.

    The first are large, as each takes a launch, and the last small, so that threads finish at the same time:
    cores are seldom equally fast.

    Args:
        num_worlds: number of worlds.
        largest: worlds in a chunk at most.
        threads: number of threads.

    Returns:
        The sizes, falling; their sum is `num_worlds`.
    """
    sizes: list[int] = []
    share = 2 * threads if threads > 1 else 1
    while (rest := num_worlds - sum(sizes)) > 0:
        sizes.append(min(largest, -(-rest // share)))
    return sizes
