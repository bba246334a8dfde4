"""The tiled ray caster: frames of many worlds on a CPU, from a model and arrays of kinematics alone.

The outline of each shape on the screen is exact, so that a tile of the frame lists the few shapes that can be
seen in it. The rays of a row of a tile are tested together, in loops that the compiler turns into vector
instructions; normals, textures and light are found once, for the nearest hit. Triangles are drawn into a
depth buffer first. A pixel depends on its own ray only: frames are bit-identical at any number of worlds and
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

from robot_attn_envs.render.draw import Lights, Maps, draw_kernel
from robot_attn_envs.render.lens import MountedLens
from robot_attn_envs.render.lens_kernels import paint
from robot_attn_envs.render.meshes import Mesh, Range, draw_triangles
from robot_attn_envs.render.pixels import Colors, Output, make_output
from robot_attn_envs.render.place import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Rays,
    Shape,
    list_tiles,
    place_shapes,
)
from robot_attn_envs.render.scene import FreeCamera, camera_index, camera_projection, scene_of
from robot_attn_envs.render.textures import Atlas

_MOST_SHAPES = 2**15 - 1  # their indices in a tile's list are 16-bit


class TiledRayCaster:
    """The launches that draw some cameras of `num_worlds` worlds.

    Args:
        model: the compiled MuJoCo model that all worlds share.
        num_worlds: number of worlds.
        cameras: names or indices of cameras of the model, and free cameras.
        image_size: (height, width) in pixels.
        groups: geom groups to draw.
        sky: colour of the sky in [0, 1], (3,); None for the model's sky box.
        pixels: output arrays by name, which share the caller's memory: `rgb` uint8 [views, H * W, 3],
            `geom_id` int32 [views, H * W] and, if wanted, `depth` float32 [views, H * W]. A view is a world
            seen by a camera: those of a world follow each other.
        lens: the lens in front of the cameras; None for none.
        sites: whether to draw sites too.

    Raises:
        ValueError: a camera that the model does not have, or something that cannot be drawn.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        cameras: Sequence[str | int | FreeCamera],
        image_size: tuple[int, int],
        *,
        groups: Sequence[int],
        sky: Sequence[float] | None,
        pixels: dict[str, NDArray[Any]],
        lens: MountedLens | None,
        sites: bool = False,
    ) -> None:
        self._height, self._width = image_size
        self._pixels, self._lens = pixels, lens
        self._geoms = model.ngeom
        geoms, lights = model.ngeom + (model.nsite if sites else 0), max(model.nlight, 1)
        self._scenery = lens.scenery if lens else wp.zeros(1 + geoms, dtype=wp.uint32, device="cpu")
        self._free = [index for index, camera in enumerate(cameras) if isinstance(camera, FreeCamera)]
        self._fixed = [index for index in range(len(cameras)) if index not in self._free]
        chosen = [
            camera if isinstance(camera, FreeCamera) else camera_index(model, camera) for camera in cameras
        ]
        self._camera_ids = [camera for camera in chosen if not isinstance(camera, FreeCamera)]
        scene = scene_of(model, groups, sites=sites)
        if len(scene.geom) > _MOST_SHAPES:
            raise ValueError(
                f"expected at most {_MOST_SHAPES:,} geoms, got {len(scene.geom):,}: draw fewer groups"
            )
        if sky is None and scene.skybox < 0:
            sky = (0.0, 0.0, 0.0)
        self._skybox = scene.skybox if sky is None else -1
        self._sky = 0
        for channel in reversed(sky or ()):
            self._sky = self._sky << 8 | int(channel * 255.0)
        self._farthest = scene.farthest
        projections = [camera_projection(model, camera, image_size) for camera in chosen]
        if len({projection.orthographic for projection in projections}) > 1:
            raise ValueError(
                "expected cameras that are all perspective or all orthographic, got both: draw them "
                "one after the other"
            )
        self._draw = draw_kernel(projections[0].orthographic)
        self._rays = _structs(
            Rays,
            x=[p.x_of_column for p in projections],
            y=[p.y_of_row for p in projections],
            orthographic=[p.orthographic for p in projections],
        )
        self._static = [
            _array(scene.kind, wp.int32),
            _array(scene.geom, wp.int32),
            _array(scene.size, wp.vec3),
            _array(scene.centre, wp.vec3),
            _array(scene.mat_rgba, wp.vec4),
            _array(scene.glow, wp.vec3),
            _array(scene.texture, wp.int32),
        ]
        self._lights = Lights()
        self._lights.index = _array(scene.light, wp.int32)
        self._lights.kind = _array(scene.light_type, wp.int32)
        self._lights.attenuation = _array(scene.light_attenuation, wp.vec3)
        self._lights.cone = _array(scene.light_cone, wp.vec2)
        self._lights.headlight = wp.vec3(*scene.headlight)
        self._maps = Maps()
        self._maps.plane = _array(scene.texture_map, wp.vec4)
        self._maps.cube = _array(scene.texture_cube, wp.vec3)
        self._atlas = Atlas()
        self._atlas.texels = _array(scene.textures.texels, wp.uint32)
        for name in ("start", "width", "height"):
            setattr(self._atlas, name, _array(getattr(scene.textures, name), wp.int32))
        self._atlas.cube = _array(scene.textures.cube, wp.bool)
        triangles = scene.triangles
        self._mesh = Mesh()
        for name, dtype in (
            ("vertices", wp.vec3),
            ("faces", wp.vec3i),
            ("face_shape", wp.int32),
            ("normals", wp.vec3),
            ("face_normals", wp.vec3i),
            ("uv", wp.vec2),
            ("face_uv", wp.vec3i),
            ("ranges", Range),
            ("corners", wp.float32),
        ):
            setattr(self._mesh, name, _array(getattr(triangles, name), dtype))
        views, pixels_each = num_worlds * len(cameras), self._height * self._width
        self._inputs = {
            "geom_xpos": wp.zeros((num_worlds, geoms), dtype=wp.vec3),
            "geom_xmat": wp.zeros((num_worlds, geoms), dtype=wp.mat33),
            "geom_rgba": wp.zeros((num_worlds, geoms), dtype=wp.vec4),
            "eye_xpos": wp.zeros((num_worlds, len(cameras)), dtype=wp.vec3),
            "eye_xmat": wp.zeros((num_worlds, len(cameras)), dtype=wp.mat33),
            "light_xpos": wp.zeros((num_worlds, lights), dtype=wp.vec3),
            "light_xdir": wp.zeros((num_worlds, lights), dtype=wp.vec3),
            "light_diffuse": wp.zeros((num_worlds, lights), dtype=wp.vec3),
        }
        self._memory = {name: array.numpy() for name, array in self._inputs.items()}
        self._memory["light_diffuse"][:, : model.nlight] = model.light_diffuse
        self._tiles_across = -(-self._width // TILE_WIDTH)
        tiles = self._tiles_across * -(-self._height // TILE_HEIGHT)
        meshes = len(triangles.ranges) > 0
        unused = 1  # an array without any columns cannot be sliced
        self._buffers = {
            "shapes": wp.zeros((views, max(len(scene.geom), unused)), dtype=Shape),
            "tiles": wp.zeros((views, tiles, len(scene.geom) + 1), dtype=wp.int16),
            "mesh_depth": wp.zeros((views, pixels_each if meshes else unused), dtype=wp.float32),
            "mesh_face": wp.zeros((views, pixels_each if meshes else unused), dtype=wp.int32),
            "packed": wp.zeros((views, self._height * self._tiles_across if lens else unused), dtype=Colors),
        }
        self._cameras = len(cameras)

    def write(self, kinematics: dict[str, NDArray[Any]]) -> None:
        """Take the worlds' poses, and `light_diffuse` where it is there."""
        inputs = self._memory
        for name in ("geom_xpos", "geom_xmat", "light_xpos", "light_xdir", "light_diffuse"):
            if name in kinematics:
                values = kinematics[name]
                into = inputs[name][:, : values.shape[1]]
                into[...] = values.reshape(into.shape)
        for name in ("xpos", "xmat"):
            into = inputs[f"geom_{name}"][:, self._geoms :]
            if into.shape[1]:
                into[...] = kinematics[f"site_{name}"].reshape(into.shape)
        for kind, indices, chosen in (
            ("cam", self._fixed, self._camera_ids),
            ("free", self._free, slice(None)),
        ):
            if indices:
                for name in ("xpos", "xmat"):
                    values = kinematics[f"{kind}_{name}"][:, chosen]
                    into = inputs[f"eye_{name}"]
                    into[:, indices] = values.reshape(len(into), len(indices), *into.shape[2:])

    def recolor(self, geom_rgba: NDArray[np.float32]) -> None:
        """Take the geoms' colours, float32 [num_worlds, ngeom (+ nsite), 4]."""
        self._memory["geom_rgba"][...] = geom_rgba

    def record(self, worlds: slice) -> tuple[Any, Output]:
        """Record the launches that draw the worlds [start, stop).

        Returns:
            The recording, for `warp.capture_launch`, and the output that it writes to.
        """
        views = slice(worlds.start * self._cameras, worlds.stop * self._cameras)
        inputs = {name: array[worlds] for name, array in self._inputs.items()}
        buffers = {name: array[views] for name, array in self._buffers.items()}
        pixels = {name: values[views] for name, values in self._pixels.items()}
        output = make_output(pixels, self._width, wp.get_device("cpu"))
        count, shapes = views.stop - views.start, len(self._static[0])

        def launch() -> None:
            if shapes:
                wp.launch(
                    place_shapes,
                    dim=(count, shapes),
                    inputs=[
                        *self._static,
                        self._rays,
                        *(
                            inputs[name]
                            for name in ("geom_xpos", "geom_xmat", "geom_rgba", "eye_xpos", "eye_xmat")
                        ),
                    ],
                    outputs=[buffers["shapes"]],
                )
            wp.launch(
                list_tiles,
                dim=(count, buffers["tiles"].shape[1]),
                inputs=[buffers["shapes"], self._rays, self._tiles_across],
                outputs=[buffers["tiles"]],
            )
            if len(self._mesh.ranges):
                wp.launch(
                    draw_triangles,
                    dim=count,
                    inputs=[
                        self._mesh,
                        buffers["shapes"],
                        self._rays,
                        self._width,
                        self._height,
                        self._farthest,
                    ],
                    outputs=[buffers["mesh_depth"], buffers["mesh_face"]],
                )
            wp.launch(
                self._draw,
                dim=(count, -(-self._height // TILE_HEIGHT), self._tiles_across),
                inputs=[
                    buffers["shapes"],
                    self._static[1],
                    buffers["tiles"],
                    self._rays,
                    self._width,
                    self._height,
                    self._tiles_across,
                    self._farthest,
                    self._sky,
                    self._skybox,
                    inputs["geom_xmat"],
                    inputs["eye_xpos"],
                    inputs["eye_xmat"],
                    inputs["light_xpos"],
                    inputs["light_xdir"],
                    inputs["light_diffuse"],
                    self._lights,
                    self._maps,
                    self._atlas,
                    self._mesh,
                    buffers["mesh_depth"],
                    buffers["mesh_face"],
                    self._scenery,
                    int(self._lens is not None),
                ],
                outputs=[buffers["packed"], output],
            )
            if self._lens is not None:
                self._lens.launch(worlds, self._rays, inputs["eye_xmat"], buffers["packed"], output)

        # Compiled, or loaded from the cache, before they are recorded: side by side.
        used = [place_shapes, self._draw]
        used += [draw_triangles] if len(self._mesh.ranges) else []
        used += [paint] if self._lens else []
        wp.force_load(device="cpu", modules=[kernel.module for kernel in used])
        with wp.ScopedCapture("cpu") as capture:
            launch()
        return capture.graph, output


def _array(values: NDArray[Any], dtype: Any) -> Any:
    return wp.array(values, dtype=dtype, device="cpu")


def _structs(struct: Any, **fields: Sequence[Any]) -> Any:
    """A Warp array of structs from their fields."""
    rows = np.zeros(len(next(iter(fields.values()))), struct.numpy_dtype())
    for name, values in fields.items():
        rows[name] = values
    return wp.array(rows, dtype=struct, device="cpu")
