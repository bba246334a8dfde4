"""What the renderer draws of a compiled MuJoCo model: shapes, triangles, textures, lights, cameras."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name

_PLANE, _HEIGHT_FIELD, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX, _MESH, _SDF = (
    int(kind)
    for kind in (
        mujoco.mjtGeom.mjGEOM_PLANE,
        mujoco.mjtGeom.mjGEOM_HFIELD,
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_MESH,
        mujoco.mjtGeom.mjGEOM_SDF,
    )
)
_MESHES = (_MESH, _SDF)
_PRIMITIVES = (_PLANE, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX)
_LIGHTS = tuple(
    int(kind)
    for kind in (
        mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        mujoco.mjtLightType.mjLIGHT_POINT,
        mujoco.mjtLightType.mjLIGHT_SPOT,
    )
)
BATCH = 32
"""Triangles that are worked on together."""
# Light that a model without lights and without a headlight gets, so that it is not black.
_AMBIENT_WITHOUT_LIGHTS = 0.3


@dataclasses.dataclass(frozen=True)
class FreeCamera:
    """A camera that the model does not have, placed by its pose alone.

    Attributes:
        name: what it is called.
        fovy: vertical field of view in degrees, or the height of the view in m of an orthographic camera.
        orthographic: whether rays are parallel.
    """

    name: str = "free"
    fovy: float = 45.0
    orthographic: bool = False


@dataclasses.dataclass(frozen=True)
class Projection:
    """Rays of a camera: through the centre of a pixel goes (x, y, -1), with x and y linear in column and row.

    Attributes:
        x_of_column: slope and value at column 0 of x.
        y_of_row: slope and value at row 0 of y.
        orthographic: whether rays go along (0, 0, -1) from (x, y, 0) instead.
    """

    x_of_column: tuple[float, float]
    y_of_row: tuple[float, float]
    orthographic: bool


def camera_index(model: mujoco.MjModel, name: str | int) -> int:
    """The index of a camera of the model.

    Args:
        model: the compiled model.
        name: the camera's name, or its index, as cameras need no name.

    Raises:
        ValueError: the model has no camera of that name or index.
    """
    if not isinstance(name, str):
        if 0 <= name < model.ncam:
            return int(name)
        raise ValueError(f"expected the index of one of {model.ncam} camera(s) of the model, got {name}")
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        raise unknown_name("camera of the model", name, [model.camera(i).name for i in range(model.ncam)])
    return int(index)


def camera_projection(
    model: mujoco.MjModel, camera: int | FreeCamera, image_size: tuple[int, int]
) -> Projection:
    """The rays of a camera.

    Args:
        model: the compiled model.
        camera: index of a camera of the model, or a free camera.
        image_size: (height, width) in pixels.

    Returns:
        The projection, by MuJoCo's conventions for `fovy`, `sensorsize`, `intrinsic` and `projection`: a
        sensor of another aspect ratio than the image is cropped.
    """
    height, width = image_size
    if isinstance(camera, FreeCamera):
        fovy, orthographic, sensor, intrinsic = camera.fovy, camera.orthographic, (0.0, 0.0), (0.0,) * 4
    else:
        fovy = float(model.cam_fovy[camera])
        orthographic = model.cam_projection[camera] == int(mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC)
        sensor, intrinsic = model.cam_sensorsize[camera], model.cam_intrinsic[camera]
    if orthographic:
        top, right = fovy / 2, fovy / 2 * width / height
        bottom, left = -top, -right
    elif sensor[1] > 0.0:
        sensor_width, sensor_height = float(sensor[0]), float(sensor[1])
        if width / height > sensor_width / sensor_height:
            sensor_height = sensor_width * height / width
        else:
            sensor_width = sensor_height * width / height
        focal_x, focal_y, centre_x, centre_y = (float(value) for value in intrinsic)
        left, right = -(sensor_width / 2 - centre_x) / focal_x, (sensor_width / 2 + centre_x) / focal_x
        bottom, top = -(sensor_height / 2 + centre_y) / focal_y, (sensor_height / 2 - centre_y) / focal_y
    else:
        top = math.tan(math.radians(fovy) / 2)
        right = top * width / height
        bottom, left = -top, -right
    across, down = (right - left) / width, (bottom - top) / height
    return Projection((across, left + across / 2), (down, top + down / 2), bool(orthographic))


@dataclasses.dataclass(frozen=True)
class Triangles:
    """The triangles of the meshes and height fields, one copy for each shape.

    Attributes:
        vertices: positions in the shape's frame, m, float32 [V, 3].
        faces: indices of a triangle's vertices, counter-clockwise from the front, int32 [F, 3].
        face_shape: index of the triangle's shape, int32 [F].
        normals: unit normals of corners, float32 [N, 3].
        face_normals: indices of the corners' normals, int32 [F, 3]; -1 where the triangle is flat.
        uv: texture coordinates of corners, float32 [T, 2].
        face_uv: indices of the corners' texture coordinates, int32 [F, 3]; -1 where there are none.
        ranges: shape, its first triangle, the first after it, its first column in `corners`: int32 [shapes
            with triangles, 4].
        corners: x, y and z of a triangle's three vertices, float32 [9, C]; each shape's are padded to a
            multiple of `BATCH` with triangles of no size.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    face_shape: NDArray[np.int32]
    normals: NDArray[np.float32]
    face_normals: NDArray[np.int32]
    uv: NDArray[np.float32]
    face_uv: NDArray[np.int32]
    ranges: NDArray[np.int32]
    corners: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Textures:
    """The model's textures, one after the other.

    Attributes:
        texels: 0xBBGGRR, uint32 [texels].
        start: index of each texture's first texel, int32 [textures].
        width: in texels, int32 [textures].
        height: in texels, int32 [textures]; a cube's six faces lie below each other.
        cube: whether it is a cube (or sky box), bool [textures].
    """

    texels: NDArray[np.uint32]
    start: NDArray[np.int32]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    cube: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Scene:
    """What does not change between frames. A shape is a geom that is drawn.

    Attributes:
        geom: the shapes' geom ids, rising, int32 [S]; a site's is the number of geoms plus its own id.
        kind: their `mjtGeom`, int32 [S].
        size: sizes, m, float32 [S, 3]; half the extent of meshes and height fields.
        centre: centre of the extent in the shape's frame, m, float32 [S, 3].
        mat_rgba: colours of their materials, float32 [S, 4]; negative without one.
        glow: ambient light and emission, a factor of their colour, float32 [S, 3].
        texture: index of the texture, int32 [S]; -1 for none.
        texture_map: factor and offset of u and of v in texture coordinates, float32 [S, 4].
        texture_cube: factors of x, y and z in the direction that a cube texture is sampled in, float32 [S,
            3].
        triangles: the triangles.
        textures: the textures.
        skybox: index of the sky's texture; -1 for none.
        light_type: `mjtLightType` of the active lights, int32 [L].
        light: their indices in the model, int32 [L].
        light_attenuation: constant, linear and quadratic attenuation, float32 [L, 3].
        light_cone: cosine of the cutoff and exponent of spot lights, float32 [L, 2].
        headlight: colour of the headlight, (3,); black if off.
        farthest: depth in m beyond which nothing is drawn.
    """

    geom: NDArray[np.int32]
    kind: NDArray[np.int32]
    size: NDArray[np.float32]
    centre: NDArray[np.float32]
    mat_rgba: NDArray[np.float32]
    glow: NDArray[np.float32]
    texture: NDArray[np.int32]
    texture_map: NDArray[np.float32]
    texture_cube: NDArray[np.float32]
    triangles: Triangles
    textures: Textures
    skybox: int
    light_type: NDArray[np.int32]
    light: NDArray[np.int32]
    light_attenuation: NDArray[np.float32]
    light_cone: NDArray[np.float32]
    headlight: tuple[float, float, float]
    farthest: float


class _Shapes(NamedTuple):
    """What a model says of the shapes that are drawn: its geoms', then its sites'.

    Attributes:
        kind: `mjtGeom`, [S].
        size: sizes, m, float64 [S, 3].
        material: index of the material, [S]; -1 for none.
        data: index of the mesh or of the height field, [S]; -1 for none.
    """

    kind: NDArray[Any]
    size: NDArray[Any]
    material: NDArray[Any]
    data: NDArray[Any]


def scene_of(model: mujoco.MjModel, groups: Iterable[int], *, sites: bool = False) -> Scene:
    """Take what the renderer draws from a model.

    Args:
        model: the compiled model.
        groups: groups of geoms, and of sites, to draw.
        sites: whether to draw sites too.

    Raises:
        ValueError: the model has something that cannot be drawn, which is named.
    """
    drawn = list(groups)
    geoms = _in_groups(model.geom_group, drawn)
    _refuse(model, geoms)
    places = _in_groups(model.site_group, drawn) if sites else np.zeros(0, np.intp)
    all_shapes = _Shapes(
        kind=np.concatenate([model.geom_type[geoms], model.site_type[places]]),
        size=np.concatenate([model.geom_size[geoms], model.site_size[places]]),
        material=np.concatenate([model.geom_matid[geoms], model.site_matid[places]]),
        data=np.concatenate([model.geom_dataid[geoms], np.full(len(places), -1)]),
    )
    materials, size = all_shapes.material, all_shapes.size.astype(np.float32)
    with_material = materials >= 0
    shapes = len(materials)
    mat_rgba = np.full((shapes, 4), -1.0, np.float32)
    mat_rgba[with_material] = model.mat_rgba[materials[with_material]]
    active = np.flatnonzero(model.light_active[: model.nlight])
    headlight = model.vis.headlight
    ambient = np.zeros(3)
    if headlight.active:
        ambient += headlight.ambient
    elif model.nlight == 0:
        ambient += _AMBIENT_WITHOUT_LIGHTS
    ambient += model.light_ambient[active].sum(axis=0)
    glow = np.tile(ambient, (shapes, 1))
    glow[with_material] += model.mat_emission[materials[with_material], None]
    texture = np.full(shapes, -1, np.int32)
    texture[with_material] = model.mat_texid[
        materials[with_material], int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
    ]
    centre = np.zeros((shapes, 3), np.float32)
    triangles = _triangles(model, geoms)
    for shape, first, stop, _ in triangles.ranges.tolist():
        own = triangles.vertices[triangles.faces[first:stop].ravel()]
        low, high = own.min(axis=0), own.max(axis=0)
        size[shape], centre[shape] = (high - low) / 2, (high + low) / 2
    skies = np.flatnonzero(model.tex_type == int(mujoco.mjtTexture.mjTEXTURE_SKYBOX))
    red, green, blue = (float(c) if headlight.active else 0.0 for c in headlight.diffuse)
    cutoff = np.cos(np.radians(model.light_cutoff[active]))
    return Scene(
        geom=np.concatenate([geoms, model.ngeom + places]).astype(np.int32),
        kind=all_shapes.kind.astype(np.int32),
        size=size,
        centre=centre,
        mat_rgba=mat_rgba,
        glow=glow.astype(np.float32),
        texture=texture,
        texture_map=_texture_map(model, all_shapes),
        texture_cube=_texture_cube(model, all_shapes),
        triangles=triangles,
        textures=_textures(model),
        skybox=int(skies[0]) if len(skies) else -1,
        light_type=model.light_type[active].astype(np.int32),
        light=active.astype(np.int32),
        light_attenuation=model.light_attenuation[active].astype(np.float32),
        light_cone=np.stack([cutoff, model.light_exponent[active]], axis=1).astype(np.float32),
        headlight=(red, green, blue),
        farthest=float(model.vis.map.zfar * model.stat.extent),
    )


def _in_groups(group: NDArray[np.int32], drawn: list[int]) -> NDArray[np.intp]:
    return np.flatnonzero(np.isin(np.clip(group, 0, mujoco.mjNGROUP - 1), drawn))


def _refuse(model: mujoco.MjModel, geoms: NDArray[np.intp]) -> None:
    """Refuse what is not drawn rather than leave it out of the picture."""
    found = []
    if model.nskin:
        found.append(f"{model.nskin} skin(s)")
    if model.nflex:
        found.append(f"{model.nflex} flex(es)")
    drawn = (*_PRIMITIVES, *_MESHES, _HEIGHT_FIELD)
    found += [
        f"geom {model.geom(geom).name or geom!r} of type {mujoco.mjtGeom(model.geom_type[geom]).name}"
        for geom in geoms
        if model.geom_type[geom] not in drawn
    ]
    found += [
        f"light {model.light(light).name or light!r} of type "
        f"{mujoco.mjtLightType(model.light_type[light]).name}"
        for light in range(model.nlight)
        if model.light_active[light] and model.light_type[light] not in _LIGHTS
    ]
    if found:
        raise ValueError(
            "expected a model of primitives, planes, meshes and height fields under directional, point "
            f"and spot lights, got {', '.join(found)}: remove them from the model, or use "
            "mujoco.Renderer"
        )


def _texture_map(model: mujoco.MjModel, shapes: _Shapes) -> NDArray[np.float32]:
    """Factor and offset of u and v.

    For planes and height fields they take x and y in m, for other primitives coordinates in [0, 1]. For
    meshes there are two factors of the mesh's texture coordinates, then two of x and y in m for a mesh
    without any. By MuJoCo's conventions: a repeat counts over the object, or, if the material is uniform,
    over 1 m.
    """
    result = np.tile(np.array([1.0, 1.0, 0.0, 0.0]), (len(shapes.kind), 1))
    for row, kind, extents, material, data in zip(result, *shapes, strict=True):
        if material < 0:
            continue
        repeat, uniform = model.mat_texrepeat[material].astype(float), bool(model.mat_texuniform[material])
        size = np.maximum(extents, 0.0)
        row[:2] = repeat
        if kind == _PLANE:
            infinite = (size[:2] <= 0.0).any()
            for axis, sign in ((0, 1.0), (1, -1.0)):
                if size[axis] > 0.0:
                    times = repeat[axis] * (size[axis] if uniform else 1.0)
                    row[axis], row[2 + axis] = sign * times / (2 * size[axis]), times / 2
                else:
                    row[axis] = sign * repeat[axis] / 2
            row[2:] -= 0.5 * infinite
        elif kind == _HEIGHT_FIELD:
            extent = np.maximum(model.hfield_size[data, :2], 1e-6)
            row[:2], row[2:] = repeat / (2.0 * (1.0 if uniform else extent)) * (1.0, -1.0), -0.5
        elif kind in _MESHES:
            extent = np.where(size[:2] > 0.0, size[:2], 1.0)
            row[:2], row[2:] = (repeat * extent, repeat) if uniform else (repeat, repeat / extent)
        elif uniform:
            across = size[0] if kind == _SPHERE else size[1]
            if kind in (_CAPSULE, _CYLINDER):
                across = size[0]
            row[:2] = repeat * (size[0], across)
    return result.astype(np.float32)


def _texture_cube(model: mujoco.MjModel, shapes: _Shapes) -> NDArray[np.float32]:
    """Factors of x, y and z: a cube texture is wrapped around the unit shape, or around the real one.

    By MuJoCo's conventions a uniform material has coordinates in m times the size: those of solids are
    divided by it, those of planes, meshes and height fields are not.
    """
    result = np.ones((len(shapes.kind), 3))
    for row, kind, size, material, _ in zip(result, *shapes, strict=True):
        if material < 0:
            continue
        if kind == _SPHERE:
            size = size[[0, 0, 0]]
        elif kind in (_CAPSULE, _CYLINDER):
            size = size[[0, 0, 1]]
        uniform, solid = model.mat_texuniform[material], kind in _PRIMITIVES and kind != _PLANE
        if solid and not uniform:
            row[:] = 1.0 / size
        elif uniform and not solid:
            row[:] = size
    return result.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Surface:
    """The triangles of one shape, with the fields of `Triangles`, indices counted from its first entry."""

    vertices: NDArray[Any]
    faces: NDArray[Any]
    normals: NDArray[Any]
    face_normals: NDArray[Any]
    uv: NDArray[Any]
    face_uv: NDArray[Any]


def _triangles(model: mujoco.MjModel, geoms: NDArray[np.intp]) -> Triangles:
    surfaces: list[tuple[int, _Surface]] = []
    for shape, geom in enumerate(geoms.tolist()):
        kind, data = int(model.geom_type[geom]), int(model.geom_dataid[geom])
        if kind == _HEIGHT_FIELD:
            surfaces.append((shape, _height_field(model, data)))
        elif kind in _MESHES and data >= 0:
            surfaces.append((shape, _mesh(model, data)))

    def joined(name: str, indexes: str | None, tail: int) -> NDArray[Any]:
        """One field of all surfaces; indices are moved to where the entries of their surface begin."""
        parts, start = [np.zeros((0, tail), np.int32 if indexes else np.float32)], 0
        for _, surface in surfaces:
            values = getattr(surface, name)
            parts.append(np.where(values >= 0, values + start, -1) if indexes else values)
            start += len(getattr(surface, indexes or name))
        return np.ascontiguousarray(np.concatenate(parts), np.int32 if indexes else np.float32)

    ranges, padded, face = [], [np.zeros((9, 0))], 0
    for shape, surface in surfaces:
        size = len(surface.faces)
        ranges.append((shape, face, face + size, sum(part.shape[1] for part in padded)))
        corners = surface.vertices[surface.faces].reshape(size, 9).T
        padded.append(np.pad(corners, ((0, 0), (0, -size % BATCH))))
        face += size
    return Triangles(
        vertices=joined("vertices", None, 3),
        faces=joined("faces", "vertices", 3),
        face_shape=np.array([r[0] for r in ranges for _ in range(r[1], r[2])], np.int32),
        normals=joined("normals", None, 3),
        face_normals=joined("face_normals", "normals", 3),
        uv=joined("uv", None, 2),
        face_uv=joined("face_uv", "uv", 3),
        ranges=np.array(ranges, np.int32).reshape(-1, 4),
        corners=np.ascontiguousarray(np.concatenate(padded, axis=1), np.float32),
    )


def _mesh(model: mujoco.MjModel, mesh: int) -> _Surface:
    def rows(name: str, start: str, count: str) -> NDArray[Any]:
        first = int(getattr(model, start)[mesh])
        return np.asarray(getattr(model, name)[first : first + int(getattr(model, count)[mesh])])

    faces = ("mesh_faceadr", "mesh_facenum")
    uv, face_uv = np.zeros((0, 2)), np.full((int(model.mesh_facenum[mesh]), 3), -1)
    if model.mesh_texcoordadr[mesh] >= 0:
        uv = rows("mesh_texcoord", "mesh_texcoordadr", "mesh_texcoordnum")
        face_uv = rows("mesh_facetexcoord", *faces)
        face_uv = np.where((face_uv >= 0).all(axis=1, keepdims=True), face_uv, -1)
    return _Surface(
        rows("mesh_vert", "mesh_vertadr", "mesh_vertnum"),
        rows("mesh_face", *faces),
        rows("mesh_normal", "mesh_normaladr", "mesh_normalnum"),
        rows("mesh_facenormal", *faces),
        uv,
        face_uv,
    )


def _height_field(model: mujoco.MjModel, field: int) -> _Surface:
    """The surface of a height field: two flat triangles for each cell."""
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    start = model.hfield_adr[field]
    heights = model.hfield_data[start : start + rows * columns].reshape(rows, columns)
    half_x, half_y, top, _ = model.hfield_size[field]
    y, x = np.meshgrid(
        np.linspace(-half_y, half_y, rows), np.linspace(-half_x, half_x, columns), indexing="ij"
    )
    points = np.stack([x, y, heights * top], axis=-1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    corner, right = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    above, across = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    first, second = np.stack([corner, right, across], axis=1), np.stack([corner, across, above], axis=1)
    faces = np.stack([first, second], axis=1).reshape(-1, 3)
    none = np.full_like(faces, -1)
    return _Surface(points, faces, np.zeros((0, 3)), none, np.zeros((0, 2)), none)


def _textures(model: mujoco.MjModel) -> Textures:
    texels, start, width, height = [], [], [], []
    total = 0
    for texture in range(model.ntex):
        if model.tex_adr[texture] < 0:  # kept by reference to a file
            pixels = mujoco.mj_loadTexture(model, texture)[0]
        else:
            shape = (model.tex_height[texture], model.tex_width[texture], model.tex_nchannel[texture])
            first = model.tex_adr[texture]
            pixels = model.tex_data[first : first + int(np.prod(shape))].reshape(shape)
        channels = np.zeros((*pixels.shape[:2], 3), np.uint32)
        channels[..., : min(3, pixels.shape[2])] = pixels[..., :3]
        texels.append((channels[..., 0] | channels[..., 1] << 8 | channels[..., 2] << 16).ravel())
        start.append(total)
        height.append(pixels.shape[0])
        width.append(pixels.shape[1])
        total += texels[-1].size
    whole = np.int32
    return Textures(
        texels=np.concatenate([*texels, np.zeros(1, np.uint32)]),
        start=np.array(start, whole),
        width=np.array(width, whole),
        height=np.array(height, whole),
        cube=np.asarray(model.tex_type != int(mujoco.mjtTexture.mjTEXTURE_2D)),
    )
