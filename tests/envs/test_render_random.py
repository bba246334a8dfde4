"""Random models: frames of the tiled renderer against mujoco_warp's ray caster."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import mujoco
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot_attn_envs.render.camera import KINEMATICS, BatchCamera
from robot_attn_envs.render.scene import camera_projection, scene_of

GEOMS = 8  # in every model, so that the reference is compiled once; those that are not drawn are invisible
LIGHTS = 4
KINDS = ("plane", "hfield", "sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")
QUARTER_TURNS = ((1, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0))
SIZES = ((64, 64), (33, 47), (48, 96))
# How far the reference's camera is turned to see which of its pixels lie on an edge, in pixels.
TURN = 0.05
DIRECTIONS = ((1.0, 0.3), (-0.2, 0.9), (-0.8, -0.5), (0.4, -1.0))  # without symmetry
NEAREST = 1e-4  # m
BESIDE = (0.013, 0.017, 0.0)  # m: few planes go through the eye, which the reference sees as a wall
HEADER = """
  <statistic extent="2" center="0 0 0"/>
  <visual><map zfar="25" znear="0.001"/>
    <headlight ambient="0.2 0.25 0.3" diffuse="0.35 0.3 0.25" specular="0 0 0"/></visual>"""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as MJCF, and the size of its frames."""

    xml: str
    image_size: tuple[int, int]


def _text(values: Any) -> str:
    return " ".join(f"{round(float(value), 6):g}" for value in np.ravel(values))


def _floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


@st.composite
def _quaternions(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any rotation; half of them by quarter turns, in which faces and edges line up with rays."""
    if draw(st.booleans()):
        quarter = np.array(
            [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]
        )
        return np.asarray(quarter[draw(st.integers(0, len(quarter) - 1))], float)
    parts = np.array([draw(_floats(-1.0, 1.0)) for _ in range(4)])
    return parts if np.linalg.norm(parts) > 0.1 else np.array([1.0, 0.3, 0.2, 0.1])


def _turned(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion / np.linalg.norm(quaternion))
    return matrix.reshape(3, 3)


@st.composite
def _meshes(draw: st.DrawFn, name: str) -> str:
    """A convex body or a crumpled strip of triangles, with and without normals and texture coordinates."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    scale = 10.0 ** draw(_floats(-2.0, 0.7))
    points = rng.normal(size=(draw(st.integers(4, 24)), 3)) * scale
    text = f'<mesh name="{name}" inertia="shell" vertex="{_text(points)}"'
    if draw(st.booleans()):
        # No two on the same corners: of coinciding triangles the reference misses both.
        faces = rng.permuted(np.tile(np.arange(len(points)), (draw(st.integers(4, 20)), 1)), axis=1)[:, :3]
        faces = faces[np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1]]
        text += f' face="{" ".join(map(str, faces.ravel()))}"'
        if draw(st.booleans()):
            text += f' texcoord="{_text(rng.uniform(-1, 2, (len(points), 2)))}"'
        if draw(st.booleans()):
            text += f' normal="{_text(points / np.linalg.norm(points, axis=1, keepdims=True))}"'
    elif draw(st.booleans()):
        text += ' smoothnormal="true"'
    return text + "/>"


@st.composite
def _height_fields(draw: st.DrawFn, name: str) -> str:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    rows, columns = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    heights = rng.uniform(0.0, 1.0, (rows, columns))
    if draw(st.booleans()):
        heights = np.round(heights)
    half = [10.0 ** draw(_floats(-1.5, 1.0)) for _ in range(2)]
    top = 10.0 ** draw(_floats(-1.5, 0.5))
    return (
        f'<hfield name="{name}" nrow="{rows}" ncol="{columns}" elevation="{_text(heights)}" '
        f'size="{_text([*half, top, 0.1])}"/>'
    )


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A camera among geoms of all kinds, under lights of all kinds."""
    image_size = draw(st.sampled_from(SIZES))
    place = np.array([draw(_floats(-2.0, 2.0)) for _ in range(3)]) * draw(st.sampled_from([0.0, 1.0, 10.0]))
    turn = draw(_quaternions())
    axes = _turned(turn)
    parallel = draw(st.integers(0, 4)) == 0
    fovy = draw(_floats(0.2, 6.0)) if parallel else draw(_floats(8.0, 130.0))
    assets, geoms, lights = [], [], []
    uniforms: list[int] = []
    textures = draw(st.integers(0, 3))
    for index in range(4):
        repeat = [draw(_floats(0.3, 4.0)) for _ in range(2)] if index < textures else [1.0, 1.0]
        uniform = "true" if index < textures and draw(st.booleans()) else "false"
        uniforms += [index] if uniform == "true" else []
        emission = draw(st.sampled_from([0.0, 0.3]))
        tint = [draw(_floats(0.0, 1.0)) for _ in range(3)] if index < textures else [1.0, 1.0, 1.0]
        width, height = (
            (draw(st.sampled_from([1, 2, 8, 17])) for _ in range(2)) if index < textures else (4, 4)
        )
        # A gradient, so that rounding moves colours by little.
        assets.append(
            f'<texture name="t{index}" type="2d" builtin="gradient" rgb1="0.9 0.4 0.2" rgb2="0.1 0.3 0.8" '
            f'width="{width}" height="{height}" mark="cross" markrgb="0.2 0.9 0.3"/>'
            f'<material name="m{index}" texture="t{index}" texrepeat="{_text(repeat)}" '
            f'texuniform="{uniform}" rgba="{_text([*tint, 1.0])}" emission="{emission}"/>'
        )
    assets.append('<material name="m4" rgba="0.3 0.8 0.6 1" emission="0.2"/>')
    mesh = draw(_meshes("mesh"))
    assets.append(mesh)
    assets.append(draw(_height_fields("hills")))
    drawn = draw(st.integers(1, GEOMS))
    for index in range(GEOMS):
        kind = KINDS[index] if index >= drawn else draw(st.sampled_from(KINDS))
        size = np.array([10.0 ** draw(_floats(-2.0, 1.0)) for _ in range(3)]) if index < drawn else np.ones(3)
        away, quaternion, look = 0.0, np.array([1.0, 0, 0, 0]), "0.5 0.5 0.5 0"
        direction = np.array([0.0, 0.0, -1.0])
        material = ""
        if index < drawn:
            away = 10.0 ** draw(_floats(-1.5, 1.2))
            direction = np.array([draw(_floats(-1.0, 1.0)), draw(_floats(-1.0, 1.0)), -1.0])
            if draw(st.integers(0, 4)) == 0:
                direction[2] = draw(_floats(-0.5, 1.0))
            quaternion = draw(_quaternions())
            look = _text(
                [*(draw(_floats(0.1, 1.0)) for _ in range(3)), draw(st.sampled_from([1.0, 1.0, 0.3]))]
            )
            if draw(st.booleans()):
                number = draw(st.integers(0, 4))
                # The reference puts some textures elsewhere than MuJoCo does.
                if kind in ("box", "hfield") or (
                    kind == "mesh" and number in uniforms and "texcoord" in mesh
                ):
                    number = 4
                material = f' material="m{number}"'
                if draw(st.booleans()):
                    look = "0.5 0.5 0.5 1"
        if kind == "plane":
            flat = [0.0 if draw(st.integers(0, 3)) == 0 else part for part in size[:2]]
            shape = f'size="{_text([*flat, 1.0])}"'
        elif kind == "mesh":
            shape = 'mesh="mesh"'
        elif kind == "hfield":
            shape = 'hfield="hills"'
        else:
            shape = f'size="{_text(size)}"'
        at = place + axes @ (direction * away + BESIDE)
        geoms.append(
            f'<geom type="{kind}" {shape} pos="{_text(at)}" quat="{_text(quaternion)}" rgba="{look}"'
            f"{material}/>"
        )
    shining = draw(st.integers(0, LIGHTS))
    for index in range(LIGHTS):
        kind = draw(st.sampled_from(["directional", "point", "spot"]))
        direction = axes @ [draw(_floats(-1.0, 1.0)), draw(_floats(-1.0, 1.0)), -1.0]
        at = place + axes @ [draw(_floats(-4.0, 4.0)) for _ in range(3)]
        lights.append(
            f'<light type="{kind if index else "spot"}" active="{"true" if index < shining else "false"}" '
            f'pos="{_text(at)}" dir="{_text(direction)}" castshadow="false" specular="0 0 0" '
            f'diffuse="{_text([draw(_floats(0.0, 0.7)) for _ in range(3)])}" '
            f'ambient="{_text([draw(st.sampled_from([0.0, 0.1]))] * 3)}" '
            f'attenuation="1 {draw(st.sampled_from(["0.1", "0.2"]))} 0.05" '
            f'cutoff="{_text(draw(_floats(5.0, 85.0)))}" exponent="{_text(draw(_floats(0.0, 20.0)))}"/>'
        )
    # The invisible geoms: one of each kind.
    hidden = [
        '<geom type="plane" size="1 1 1" rgba="1 1 1 0"/>',
        '<geom type="hfield" hfield="hills" rgba="1 1 1 0"/>',
        '<geom type="mesh" mesh="mesh" rgba="1 1 1 0"/>',
        *(
            f'<geom type="{kind}" size="1 1 1" rgba="1 1 1 0"/>'
            for kind in ("sphere", "capsule", "ellipsoid", "cylinder", "box")
        ),
    ]
    projection = "orthographic" if parallel else "perspective"
    xml = f"""<mujoco>{HEADER}
  <asset>{"".join(assets)}</asset>
  <worldbody>
    <camera name="eye" pos="{_text(place)}" quat="{_text(turn)}" fovy="{_text(fovy)}"
      projection="{projection}"/>
    {"".join(lights)}
    {"".join(geoms)}
    {"".join(hidden)}
  </worldbody>
</mujoco>"""
    return Model(xml, image_size)


def _jittered(model: mujoco.MjModel, height: int, kinematics: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The kinematics as they are, and with the camera turned by a fraction of a pixel in four directions."""
    five = {name: np.repeat(values, 5, axis=0) for name, values in kinematics.items()}
    fovy = float(model.cam_fovy[0])
    if model.cam_projection[0] == int(mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC):
        axes = kinematics["cam_xmat"][0, 0].reshape(3, 3)
        step = TURN * fovy / height
        for world, (x, y) in enumerate(DIRECTIONS, start=1):
            five["cam_xpos"][world, 0] += step * (x * axes[:, 0] + y * axes[:, 1])
    else:
        step = TURN * 2.0 * math.tan(math.radians(fovy) / 2) / height
        axes = kinematics["cam_xmat"][0, 0].reshape(3, 3)
        for world, (x, y) in enumerate(DIRECTIONS, start=1):
            small = np.array([[1, 0, x * step], [0, 1, y * step], [-x * step, -y * step, 1]])
            five["cam_xmat"][world, 0] = (axes @ small / np.cbrt(np.linalg.det(small))).ravel()
    return five


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two frames: `sure` are the pixels off edges, `ids`, `depth` and `rgb` where they differ, [H, W].

    `edges` is the number of pixels on edges that show the wrong geom, `misses` that of pixels at which the
    reference is wrong.
    """

    sure: NDArray[np.bool_]
    ids: NDArray[np.bool_]
    depth: NDArray[np.bool_]
    rgb: NDArray[np.bool_]
    edges: int
    misses: int
    ours: BatchCamera
    reference: BatchCamera


def true_hit(model: mujoco.MjModel, data: mujoco.MjData, size: tuple[int, int], row: int, column: int) -> Any:
    """Geom and depth of the nearest surface that a pixel's ray enters, in double precision; (-1, 0) for none.

    The reference marches past culled triangles in steps that may be too short for single precision, so that
    it misses what comes after; and it rounds what it sees of thin bodies from far away.
    """
    projection = camera_projection(model, 0, size)
    x = projection.x_of_column[0] * column + projection.x_of_column[1]
    y = projection.y_of_row[0] * row + projection.y_of_row[1]
    axes = data.cam_xmat[0].reshape(3, 3)
    eye, ray = data.cam_xpos[0], axes @ [x, y, -1.0]
    if projection.orthographic:
        eye, ray = eye + axes @ [x, y, 0.0], -axes[:, 2]
    scene = scene_of(model, range(mujoco.mjNGROUP))
    triangles = scene.triangles
    surfaces = {int(scene.geom[shape]): slice(first, stop) for shape, first, stop, _ in triangles.ranges}
    nearest, depth = -1, scene.farthest
    for geom in range(model.ngeom):
        kind, matrix, place = int(model.geom_type[geom]), data.geom_xmat[geom], data.geom_xpos[geom]
        if geom in surfaces:
            points = triangles.vertices[triangles.faces[surfaces[geom]]].astype(np.float64)
            corners = place + points @ matrix.reshape(3, 3).T - eye
            a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
            weights = [np.cross(p, q) @ ray for p, q in ((b, c), (c, a), (a, b))]
            inside = (np.max(weights, axis=0) <= 0.0) & (np.sum(weights, axis=0) < 0.0)
            with np.errstate(all="ignore"):
                normals = np.cross(b - a, c - a)
                distances = (a * normals).sum(axis=1) / (normals @ ray)
            distance = np.min(distances[inside & (distances > 0.0)], initial=np.inf)
        else:
            distance = mujoco.mju_rayGeom(place, matrix, model.geom_size[geom], eye, ray, kind, None)
            # From inside, a ray leaves: further along it enters from outside.
            beyond = eye + ray * max(distance, 0.0) * (1 + 1e-9) + ray * 1e-12
            again = mujoco.mju_rayGeom(place, matrix, model.geom_size[geom], beyond, ray, kind, None)
            if kind != mujoco.mjtGeom.mjGEOM_PLANE and again < 0.0:
                distance = -1.0
        color = model.geom_rgba[geom]
        if (color == (0.5, 0.5, 0.5, 1.0)).all() and model.geom_matid[geom] >= 0:
            color = model.mat_rgba[model.geom_matid[geom]]
        if color[3] > 0.0 and 0.0 < distance <= depth * (1 + 1e-6):
            nearest, depth = geom, min(depth, distance)
    return nearest, depth if nearest >= 0 else 0.0


def compare(sample: Model) -> Comparison:
    """Draw a model with both renderers.

    A pixel is sure where the reference, with its camera turned by a little in four directions, still sees
    the same geom; there depths and colours may differ by rounding and by what they change under these turns.
    Where they differ by more, a ray in double precision decides which frame is right about geom and depth.
    """
    model = mujoco.MjModel.from_xml_string(sample.xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    kinematics = {name: getattr(data, name)[None].copy() for name in KINEMATICS}
    height, width = sample.image_size
    ours = BatchCamera(model, 1, "eye", (height, width), threads=1, depth=True)
    reference = BatchCamera(model, 5, "eye", (height, width), threads=1, depth=True, renderer="mujoco_warp")
    ours.render(kinematics)
    reference.render(_jittered(model, height, kinematics))
    assert ours.depth is not None and reference.depth is not None
    edges = (reference.geom_id != reference.geom_id[:1]).any(axis=0)
    # Nor is a surface sure that goes through the eye.
    apart = np.ones((height, width), np.bool_)
    for seen in (ours, reference):
        assert seen.depth is not None
        apart &= ((seen.depth > NEAREST) | (seen.geom_id < 0)).all(axis=0)
    sure = apart & ~edges
    spread = np.ptp(reference.depth, axis=0)
    depth_off = np.abs(ours.depth[0] - reference.depth[0]) > 1e-4 * reference.depth[0] + 1e-5 + spread
    shades = reference.rgb.astype(int)
    rgb_off = (np.abs(ours.rgb[0].astype(int) - shades[0]) > 2 + np.ptp(shades, axis=0)).any(axis=-1)
    ids_off = ours.geom_id[0] != reference.geom_id[0]
    edges_off = misses = 0
    for row, column in np.argwhere(((ids_off | depth_off | rgb_off) & sure) | (ids_off & edges & apart)):
        geom, depth = true_hit(model, data, sample.image_size, row, column)
        seen_id, seen_depth = ours.geom_id[0, row, column], ours.depth[0, row, column]
        if edges[row, column]:
            edges_off += int(seen_id != geom)
            continue
        error, reference_error = abs(seen_depth - depth), abs(reference.depth[0, row, column] - depth)
        wrong = ids_off[row, column] or reference_error > max(1e-5 * depth, 2.0 * error)
        if wrong and seen_id == geom and error <= 1e-4 * depth:
            misses += 1
            ids_off[row, column] = depth_off[row, column] = rgb_off[row, column] = False
    return Comparison(sure, ids_off, depth_off, rgb_off, edges_off, misses, ours, reference)


@settings(max_examples=75)
@given(models())
def test_random_models_look_as_in_the_reference(sample: Model) -> None:
    found = compare(sample)
    assert not (found.ids & found.sure).any()
    assert not (found.depth & found.sure).any()
    assert not (found.rgb & found.sure).any()
    assert found.edges <= 10  # none was measured in 4,400 models
