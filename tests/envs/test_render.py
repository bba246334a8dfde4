"""The tiled renderer: pixels against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from robot_attn_envs.render.camera import KINEMATICS, BatchCamera, chunk_sizes
from robot_attn_envs.render.lens import Lens, neutral_settings
from robot_attn_envs.render.lens_kernels import PICTURE_SIDE
from robot_attn_envs.render.scene import FreeCamera, camera_projection, scene_of

SKY = (0.62, 0.74, 0.86)
SKY_BYTES = tuple(int(255 * c) for c in SKY)
DARK = '<visual><headlight ambient="0 0 0" diffuse="0 0 0" specular="0 0 0"/></visual>'
PLAIN = '<visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>'
# 45 degrees to each side: the ray of a pixel is (x, y, -1) with x and y from -1 to 1.
EYE = '<camera name="eye" pos="0 0 2" fovy="90"/>'


class View:
    """The frames of a model's camera in its initial pose."""

    def __init__(
        self,
        body: str,
        *,
        size: tuple[int, int] = (65, 65),
        head: str = PLAIN,
        camera: Any = "eye",
        assets: str = "",
        eye: str = EYE,
        worlds: int = 1,
        extent: float = 1.0,
        **options: Any,
    ) -> None:
        self.model = mujoco.MjModel.from_xml_string(
            f'<mujoco><statistic extent="{extent}"/>{head}<asset>{assets}</asset>'
            f"<worldbody>{eye}{body}</worldbody></mujoco>"
        )
        data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, data)
        self.kinematics: dict[str, NDArray[np.float64]] = {
            name: np.repeat(getattr(data, name)[None], worlds, axis=0) for name in KINEMATICS
        }
        self.camera = BatchCamera(self.model, worlds, camera, size, threads=1, depth=True, **options)

    def draw(self, **kinematics: Any) -> View:
        self.kinematics |= kinematics
        self.camera.render(self.kinematics, recolor=True)
        return self

    @property
    def rgb(self) -> NDArray[np.int_]:
        return self.camera.rgb[0].astype(int)

    @property
    def geom_id(self) -> NDArray[np.int32]:
        return self.camera.geom_id[0]

    @property
    def depth(self) -> NDArray[np.float32]:
        assert self.camera.depth is not None
        return self.camera.depth[0]

    @property
    def middle(self) -> NDArray[np.int_]:
        """Colour of the pixel on the optical axis."""
        height, width = self.camera.image_size
        return self.rgb[height // 2, width // 2]


def _bytes(color: Sequence[float]) -> list[int]:
    return [int(255 * min(c, 1.0) + 1e-6) for c in color]


def _close(actual: Any, color: Sequence[float]) -> None:
    np.testing.assert_allclose(actual, np.broadcast_to(_bytes(color), np.shape(actual)), atol=1)


def _rays(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the rays of a square frame of 90 degrees, [side, side]."""
    x = (np.arange(side) + 0.5) / side * 2 - 1
    return np.broadcast_to(x, (side, side)), np.broadcast_to(-x[:, None], (side, side))


# ---------------------------------------------------------------- where surfaces are


def test_depth_and_outline_of_a_sphere() -> None:
    view = View('<geom size="0.5" pos="0.2 0 0"/>').draw()
    x, y = _rays(65)
    # |t (x, y, -1) - (0.2, 0, -2)| = 0.5
    a, b, c = x * x + y * y + 1, -0.2 * x - 2, 0.04 + 4 - 0.25
    inside = b * b - a * c
    hit = inside > 0
    sure = np.abs(inside) > 1e-4
    np.testing.assert_array_equal((view.geom_id == 0)[sure], hit[sure])
    hit &= sure
    depth = (-b - np.sqrt(np.maximum(inside, 0))) / a
    np.testing.assert_allclose(view.depth[hit], depth[hit], rtol=1e-5)
    assert hit.sum() > 200 and (view.depth[~hit & sure] == 0).all()
    assert (view.rgb[~hit & sure] == SKY_BYTES).all()


def test_depth_of_a_slanted_plane() -> None:
    # Through the origin, turned by 30 degrees about x: z cos = y sin.
    view = View('<geom type="plane" size="0 0 1" euler="30 0 0"/>').draw()
    x, y = _rays(65)
    del x
    slope = np.tan(np.radians(30))
    # 2 - t = slope * t y
    depth = 2 / (1 + slope * y)
    assert (view.geom_id == 0).all()
    np.testing.assert_allclose(view.depth, depth, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "size", "depth"),
    [
        ("box", "0.3 0.4 0.5", 1.5),
        ("cylinder", "0.3 0.5", 1.5),
        ("capsule", "0.3 0.5", 1.2),
        ("ellipsoid", "0.3 0.4 0.6", 1.4),
        ("sphere", "0.3", 1.7),
    ],
)
def test_depth_in_the_middle_and_a_geom_that_the_camera_is_in(kind: str, size: str, depth: float) -> None:
    wall = '<geom type="plane" size="9 9 1" pos="0 0 -3"/>'
    view = View(wall + f'<geom type="{kind}" size="{size}"/>').draw()
    assert view.geom_id[32, 32] == 1
    np.testing.assert_allclose(view.depth[32, 32], depth, rtol=1e-6)
    # Only the sides that face the camera are there.
    inside = View(wall + f'<geom type="{kind}" size="{size}" pos="0.05 0.02 2.1"/>').draw()
    assert (inside.geom_id == 0).all()


def test_a_plane_is_seen_from_its_front_alone() -> None:
    assert (View('<geom type="plane" size="1 1 1" euler="180 0 0"/>').draw().geom_id == -1).all()


@pytest.mark.parametrize("kind", ["box", "cylinder", "capsule", "plane", "mesh"])
def test_geoms_that_reach_from_before_the_eye_to_behind_it(kind: str) -> None:
    # Half a metre below the optical axis, along it, from 3 m ahead to 1 m behind.
    shape = {
        "box": 'size="0.3 0.5 2" pos="0 -1 1"',
        "cylinder": 'size="0.5 2" pos="0 -1 1"',
        "capsule": 'size="0.5 1.5" pos="0 -1 1"',
        "plane": 'size="0.5 2 1" pos="0 -0.5 1" zaxis="0 1 0"',
        "mesh": 'mesh="beam" pos="0 -1 1"',
    }[kind]
    corners = [f"{x} {y} {z}" for x in (-0.3, 0.3) for y in (-0.5, 0.5) for z in (-2, 2)]
    view = View(
        f'<geom type="{kind}" {shape}/>', assets=f'<mesh name="beam" vertex="{" ".join(corners)}"/>'
    ).draw()
    # The ray straight down and ahead meets it half a metre away, the higher it looks the farther.
    column = view.geom_id[:, 32]
    y = _rays(65)[1][:, 32]
    below = -0.5 / np.minimum(y, -1e-9)
    expected = (y < 0) & (below < (2.5 if kind == "capsule" else 3.0))
    sure = expected | (y > 0) | (below > 3.5)  # there are the ends
    np.testing.assert_array_equal((column == 0)[sure], expected[sure])
    np.testing.assert_allclose(view.depth[expected, 32], below[expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ('type="box" size="1 1 0.5"', 'type="box" size="0.5 0.5 0.5"'),
        ('type="box" size="1 1 0.5"', 'type="cylinder" size="0.5 0.5"'),
        ('type="box" size="1 1 0.5"', 'type="plane" size="0.5 0.5 1" pos="0 0 0.5"'),
        ('type="box" size="1 1 0.5"', 'type="mesh" mesh="block"'),
        ('type="mesh" mesh="block"', 'type="box" size="1 1 0.5"'),
        ('type="mesh" mesh="block"', 'type="mesh" mesh="block"'),
        ('type="hfield" hfield="flat" pos="0 0 0.5"', 'type="box" size="1 1 0.5"'),
        ('type="box" size="1 1 0.5"', 'type="hfield" hfield="flat" pos="0 0 0.5"'),
    ],
)
def test_of_surfaces_at_the_same_depth_the_one_with_the_higher_id_is_drawn(lower: str, higher: str) -> None:
    corners = [f"{x} {y} {z}" for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    assets = (
        f'<mesh name="block" vertex="{" ".join(corners)}"/>'
        '<hfield name="flat" nrow="2" ncol="2" size="0.5 0.5 1 0.1" elevation="0 0 0 0"/>'
    )
    view = View(f"<geom {lower}/><geom {higher}/>", assets=assets).draw()
    assert (view.geom_id[26:39, 26:39] == 1).all()
    np.testing.assert_allclose(view.depth[26:39, 26:39], 1.5, rtol=1e-6)


def test_thin_bodies_far_away_keep_their_outline() -> None:
    # Half axes of 2 m, 1.5 m and 2 cm, 30 m away: the outline is x^2 / 4 + y^2 / 2.25 = 1.
    body = '<geom type="ellipsoid" size="2 1.5 0.02" pos="0 0 -28"/>'
    eye = '<camera name="eye" pos="0 0 2" fovy="10"/>'
    view = View(body, eye=eye, size=(128, 128), extent=10.0).draw()
    step = 2 * np.tan(np.radians(5)) / 128
    x = (np.arange(128) - 63.5) * step * 30
    level = x[None, :] ** 2 / 4 + x[:, None] ** 2 / 2.25
    sure = np.abs(level - 1) > 0.003  # a tenth of a pixel
    np.testing.assert_array_equal((view.geom_id == 0)[sure], (level < 1)[sure])


def test_farther_than_zfar_nothing_is_drawn() -> None:
    body = '<geom type="plane" size="0 0 1" euler="60 0 0"/>'
    head = '<visual><map zfar="4"/><headlight active="0"/></visual>'
    view = View(body, head=head).draw()
    y = _rays(65)[1]
    depth = 2 / (1 + np.tan(np.radians(60)) * y)
    expected = (depth > 0) & (depth < 4)
    np.testing.assert_array_equal(view.geom_id == 0, expected)
    assert expected.any() and not expected.all()


# ---------------------------------------------------------------- cameras


def test_rays_of_an_orthographic_camera_are_parallel() -> None:
    eye = '<camera name="eye" pos="0 0 2" fovy="2" projection="orthographic"/>'
    body = '<geom type="sphere" size="0.5"/><geom type="box" size="0.1 0.1 0.1" pos="0.8 0.8 -5"/>'
    view = View(body, eye=eye, size=(64, 128), extent=10.0).draw()
    # 2 m high, 4 m wide.
    x = (np.arange(128) + 0.5) / 32 - 2
    y = 1 - (np.arange(64) + 0.5) / 32
    radius = x[None, :] ** 2 + y[:, None] ** 2
    expected = np.where(radius < 0.25, 0, -1)
    expected[(np.abs(y - 0.8) < 0.1)[:, None] & (np.abs(x - 0.8) < 0.1)[None, :]] = 1
    np.testing.assert_array_equal(view.geom_id, expected)
    ball = expected == 0
    np.testing.assert_allclose(view.depth[ball], 2 - np.sqrt(0.25 - radius[ball]), rtol=1e-5)
    np.testing.assert_allclose(view.depth[expected == 1], 6.9, rtol=1e-6)


def test_intrinsics_place_the_principal_point() -> None:
    # A sensor of 4 mm x 4 mm 2 mm behind the pinhole; the principal point is 0.5 mm right and 1 mm up of the
    # middle: 90 degrees, moved by 1/4 and 1/2 of the half width.
    eye = (
        '<camera name="eye" pos="0 0 2" sensorsize="0.004 0.004" focal="0.002 0.002" '
        'principal="0.0005 0.001" resolution="64 64"/>'
    )
    view = View('<geom type="box" size="0.5 0.5 0.5"/>', eye=eye, size=(64, 64)).draw()
    projection = camera_projection(view.model, 0, (64, 64))
    x = projection.x_of_column[0] * np.arange(64) + projection.x_of_column[1]
    y = projection.y_of_row[0] * np.arange(64) + projection.y_of_row[1]
    np.testing.assert_allclose(x, (np.arange(64) + 0.5) / 32 - 0.75, rtol=1e-6)
    np.testing.assert_allclose(y, 0.5 - (np.arange(64) + 0.5) / 32, rtol=1e-6)
    expected = (np.abs(y)[:, None] < 1 / 3) & (np.abs(x)[None, :] < 1 / 3)
    np.testing.assert_array_equal(view.geom_id == 0, expected)


BODY = (
    '<light pos="0 0 3" dir="0 0.2 -1" type="spot" cutoff="60" diffuse="0.5 0.3 0.2"/>'
    '<geom type="plane" size="0 0 1"/><geom type="box" size="0.3 0.2 0.4" euler="20 30 40" rgba="1 0 0 1"/>'
    '<geom type="capsule" size="0.2 0.3" pos="0.5 0.5 0.3" euler="0 50 0" rgba="0 1 0 1"/>'
    '<geom type="mesh" mesh="tent" pos="-0.5 -0.5 0.5"/>'
)
TENT = '<mesh name="tent" vertex="-.3 -.3 -.2 .3 -.3 -.2 .3 .3 -.2 -.3 .3 -.2 0 0 .4"/>'
SIDE_EYE = '<camera name="side" pos="2 0.5 1" xyaxes="0 1 0 -0.4 0 1" fovy="50"/>'


def _pose(view: View, name: str) -> dict[str, NDArray[np.float64]]:
    """The pose of a camera as that of a free camera."""
    index = view.model.camera(name).id
    return {f"free_{part}": view.kinematics[f"cam_{part}"][:, index : index + 1] for part in ("xpos", "xmat")}


def _scene(camera: Any, **options: Any) -> View:
    return View(BODY, assets=TENT, eye=EYE + SIDE_EYE, camera=camera, size=(47, 33), head="", **options)


def test_a_free_camera_sees_what_the_models_own_sees_from_there() -> None:
    own = _scene("side").draw()
    free = _scene(FreeCamera(fovy=50.0))
    free.draw(**_pose(free, "side"))
    for name in ("rgb", "geom_id", "depth"):
        np.testing.assert_array_equal(getattr(free, name), getattr(own, name))
    assert set(np.unique(own.geom_id)) >= {0, 1, 2, 3}


def test_several_cameras_see_what_each_sees_alone() -> None:
    cameras = ["side", FreeCamera(fovy=70.0), "eye"]
    pose = {
        "free_xpos": np.array([[[0.0, 0.3, 1.5]], [[0.2, 0.1, 1.7]]]),
        "free_xmat": np.tile(np.eye(3).ravel(), (2, 1, 1)),
    }
    together = _scene(cameras, worlds=2)
    assert together.camera.name == ("side", "free", "eye")
    together.kinematics["geom_xpos"][1, 1] += 0.1  # the second world is another one
    together.draw(**pose)
    assert together.camera.rgb.shape == (2, 3, 47, 33, 3)
    for index, camera in enumerate(cameras):
        alone = _scene(camera, worlds=2)
        alone.kinematics["geom_xpos"][1, 1] += 0.1
        alone.draw(**pose)
        for name in ("rgb", "geom_id", "depth"):
            np.testing.assert_array_equal(
                getattr(together.camera, name)[:, index], getattr(alone.camera, name)
            )
    assert (together.camera.rgb[0] != together.camera.rgb[1]).any(axis=(1, 2, 3)).all()


def test_parallel_and_perspective_cameras_are_not_drawn_together() -> None:
    with pytest.raises(ValueError, match="all perspective or all orthographic, got both"):
        _scene(["eye", FreeCamera(orthographic=True)])


@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_frames_do_not_depend_on_the_number_of_worlds_threads_and_chunks(size: tuple[int, int]) -> None:
    worlds = 9  # one thread draws them in a single chunk, three threads in chunks of 2 and 1
    rng = np.random.default_rng(0)

    def frames(chosen: NDArray[np.intp], threads: int) -> list[NDArray[Any]]:
        view = View(BODY, assets=TENT, size=size, head="")
        many = {name: np.repeat(values, worlds, axis=0) for name, values in view.kinematics.items()}
        many["geom_xpos"] = many["geom_xpos"] + offsets
        camera = BatchCamera(view.model, len(chosen), "eye", size, threads=threads, depth=True)
        camera.render({name: values[chosen] for name, values in many.items()})
        camera.close()
        assert camera.depth is not None
        return [camera.rgb, camera.geom_id, camera.depth]

    offsets = rng.normal(0, 0.1, (worlds, 4, 3)) * [1, 1, 0.3]
    together = frames(np.arange(worlds), 1)
    assert len({frame.tobytes() for frame in together[0]}) == worlds
    for threads, chosen in ((3, np.arange(worlds)), (1, np.array([7, 2])), (2, np.array([4]))):
        for one, other in zip(frames(chosen, threads), together, strict=True):
            np.testing.assert_array_equal(one, other[chosen])


def test_only_the_worlds_that_are_named_are_drawn() -> None:
    view = View('<geom type="box" size="0.3 0.3 0.3"/>', worlds=4)
    for threads in (1, 2):
        camera = BatchCamera(view.model, 4, "eye", (64, 64), threads=threads)
        camera.render(view.kinematics)
        assert (camera.geom_id[:, 32, 32] == 0).all()
        camera.render(view.kinematics | {"geom_xpos": np.full((4, 1, 3), 9.0)}, np.array([1, 3]))
        assert (camera.geom_id[:, 32, 32] == 0).tolist() == [True, False, True, False]
        camera.close()


@pytest.mark.parametrize(
    ("worlds", "largest", "threads", "expected"),
    [
        (64, 16, 1, [16, 16, 16, 16]),
        (64, 16, 2, [16, 12, 9, 7, 5, 4, 3, 2, 2, 1, 1, 1, 1]),
        (5, 1, 2, [1, 1, 1, 1, 1]),
        (3, 16, 8, [1, 1, 1]),
        (1, 16, 2, [1]),
    ],
)
def test_chunks_get_smaller(worlds: int, largest: int, threads: int, expected: list[int]) -> None:
    assert chunk_sizes(worlds, largest, threads) == expected
    assert sum(expected) == worlds


def test_worlds_have_their_own_colours_lights_and_camera_axes() -> None:
    body = '<light type="directional" dir="0 0 -1" diffuse="0 0 0"/><geom type="plane" size="1 1 1"/>'
    view = View(body, worlds=3)
    view.camera.geom_rgba[1, 0] = (0.2, 0.4, 0.6, 1.0)
    view.kinematics["cam_xmat"][2] = np.diag([0.5, 0.5, 1.0]).ravel()
    view.draw(light_diffuse=np.array([[[0.5, 0, 0]], [[0, 0, 0]], [[0, 0, 0.4]]]))
    colors = view.camera.rgb[:, 32, 32]
    _close(colors[0], [0.75, 0.5, 0.5])
    _close(colors[1], [0.2, 0.4, 0.6])
    _close(colors[2], [0.5, 0.5, 0.7])
    # The plane is seen from -1/2 to 1/2; under half the field of view from -1 to 1.
    seen = (view.camera.geom_id == 0).sum(axis=(1, 2))
    assert seen.tolist() == [33 * 33, 33 * 33, 65 * 65]


# ---------------------------------------------------------------- light and colour

WALL = '<geom type="plane" size="9 9 1" rgba="0.5 0.4 0.3 1"/>'


def test_ambient_light_and_a_directional_light() -> None:
    light = (
        '<light type="directional" dir="0 1 -1" diffuse="0.6 0.8 1" ambient="0.1 0.2 0.3" specular="0 0 0"/>'
    )
    view = View(light + WALL, head=DARK).draw()
    cosine = np.sqrt(0.5)
    expected = [0.5 * (0.1 + 0.6 * cosine), 0.4 * (0.2 + 0.8 * cosine), 0.3 * (0.3 + cosine)]
    _close(view.rgb.reshape(-1, 3), expected)


def test_an_inactive_light_is_off() -> None:
    light = '<light type="directional" active="false" dir="0 0 -1" diffuse="1 1 1" ambient="1 1 1"/>'
    assert (View(light + WALL, head=DARK).draw().rgb == 0).all()


def test_the_headlight_shines_along_the_optical_axis() -> None:
    head = '<visual><headlight ambient="0.1 0.1 0.1" diffuse="0.8 0.6 0.4"/></visual>'
    body = '<geom type="plane" size="0 0 1" euler="60 0 0" rgba="1 1 1 1"/>'
    view = View(body, head=head).draw()
    hit = view.geom_id == 0
    _close(view.rgb[hit], [0.1 + 0.8 / 2, 0.1 + 0.6 / 2, 0.1 + 0.4 / 2])
    off = View(body, head='<visual><headlight active="0"/></visual>').draw()
    _close(off.rgb[hit], [0.3, 0.3, 0.3])  # without any light there is a little


def test_a_point_light_fades_with_distance() -> None:
    light = '<light type="point" pos="0.5 0 1" diffuse="1 0.8 0.5" attenuation="1 0.5 0.25"/>'
    view = View(light + WALL, head=DARK).draw()
    x, y = _rays(65)
    away = np.sqrt((2 * x - 0.5) ** 2 + (2 * y) ** 2 + 1)
    share = 1 / away / (1 + 0.5 * away + 0.25 * away**2)
    expected = np.stack([0.5 * share, 0.4 * 0.8 * share, 0.3 * 0.5 * share], axis=-1)
    np.testing.assert_allclose(view.rgb, np.floor(255 * expected), atol=1)


def test_a_spot_light_has_a_cutoff_and_an_exponent() -> None:
    light = '<light type="spot" pos="0 0 1" dir="0 0 -1" diffuse="1 1 1" cutoff="30" exponent="7"/>'
    view = View(light + WALL, head=DARK).draw()
    x, y = _rays(65)
    cosine = 1 / np.sqrt(4 * x * x + 4 * y * y + 1)
    sure = np.abs(cosine - np.cos(np.radians(30))) > 1e-4
    share = np.where(cosine > np.cos(np.radians(30)), cosine * cosine**7, 0.0)
    np.testing.assert_allclose(view.rgb[..., 0][sure], np.floor(255 * 0.5 * share)[sure], atol=1)
    assert (share > 0).sum() > 200 and (share == 0).sum() > 200


def test_emission_is_a_share_of_the_colour() -> None:
    assets = '<material name="lamp" emission="0.5" rgba="0.8 0.6 0.4 1"/>'
    view = View('<geom type="plane" size="9 9 1" material="lamp"/>', head=DARK, assets=assets).draw()
    _close(view.middle, [0.4, 0.3, 0.2])


def test_light_is_cut_off_at_white() -> None:
    head = '<visual><headlight ambient="3 1 0"/></visual>'
    assert View('<geom type="plane" size="9 9 1" rgba="1 1 1 1"/>', head=head).draw().middle[0] == 255


def test_a_geom_has_the_colour_of_its_material_unless_it_has_its_own() -> None:
    assets = '<material name="paint" rgba="0.1 0.5 0.9 1"/>'
    plain = View('<geom type="plane" size="9 9 1" material="paint"/>', assets=assets).draw()
    _close(plain.middle, [0.1, 0.5, 0.9])
    own = View('<geom type="plane" size="9 9 1" material="paint" rgba="1 0 0 1"/>', assets=assets).draw()
    _close(own.middle, [1, 0, 0])
    own.camera.geom_rgba[0, 0] = (0.5, 0.5, 0.5, 1.0)  # the default colour
    _close(own.draw().middle, [0.1, 0.5, 0.9])


def test_a_geom_with_alpha_0_is_invisible_and_others_are_opaque() -> None:
    view = View(WALL + '<geom type="box" size="1 1 0.5" rgba="1 0 0 0.1"/>').draw()
    assert view.geom_id[32, 32] == 1
    _close(view.middle, [1, 0, 0])
    view.camera.geom_rgba[0, 1, 3] = 0.0
    assert (view.draw().geom_id == 0).all()


def test_groups_choose_what_is_drawn() -> None:
    body = WALL + '<geom type="box" size="1 1 0.5" group="3"/>'
    assert (View(body).draw().geom_id == 0).all()
    assert (View(body, groups=(3,)).draw().geom_id[32, 32]) == 1
    assert (View(body, groups=(1, 2)).draw().geom_id == -1).all()


# ---------------------------------------------------------------- textures


def _painted(view: View, pixels: NDArray[Any]) -> View:
    """The view with another picture in its model's only texture, uint8 [height, width, 3]."""
    view.model.tex_data[:] = pixels.ravel()
    options = {"threads": 1, "depth": True}
    view.camera = BatchCamera(view.model, 1, "eye", view.camera.image_size, **options)
    return view.draw()


def _ramps(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose red is the column and whose green is the row, from 0 to 255."""
    rows, columns = np.mgrid[:height, :width]
    red, green = columns * 255 / (width - 1), rows * 255 / (height - 1)
    return np.stack([red, green, np.full_like(red, 100)], axis=-1).astype(np.uint8)


def _textured(
    geom: str, *, repeat: str = "1 1", uniform: str = "false", assets: str = "", **options: Any
) -> View:
    assets += (
        '<texture name="t" type="2d" builtin="flat" width="64" height="32"/>'
        f'<material name="m" texture="t" texrepeat="{repeat}" texuniform="{uniform}"/>'
    )
    view = View(f'<geom {geom} material="m"/>', assets=assets, size=(64, 64), **options)
    return _painted(view, _ramps(32, 64))


def _check_uv(view: View, u: NDArray[Any], v: NDArray[Any], where: NDArray[np.bool_]) -> None:
    """Red and green are u and v of the texture, at pixels that are off the seam between repeats."""
    u, v = u % 1.0, v % 1.0
    off_seam = where & (np.minimum(u, 1 - u) > 0.05) & (np.minimum(v, 1 - v) > 0.05)
    assert off_seam.sum() > 0.2 * where.sum() > 0
    expected = np.stack([(u * 64 - 0.5) / 63, (v * 32 - 0.5) / 31], axis=-1)
    np.testing.assert_allclose(view.rgb[off_seam][:, :2], 255 * expected[off_seam], atol=2.0)


# Texture coordinates of points in the plane's frame: MuJoCo's conventions, u along x and v against y.
@pytest.mark.parametrize(
    ("size", "repeat", "uniform", "factors"),
    [
        ((1.6, 0.8), (1, 1), False, lambda x, y: ((x + 1.6) / 3.2, (0.8 - y) / 1.6)),
        ((1.6, 0.8), (2, 3), False, lambda x, y: ((x + 1.6) / 1.6, 3 * (0.8 - y) / 1.6)),
        ((1.6, 0.8), (2, 3), True, lambda x, y: (2 * (x + 1.6) / 2, 3 * (0.8 - y) / 2)),
        ((0, 0), (1, 2), False, lambda x, y: (x / 2 - 0.5, -y - 0.5)),
        ((0, 0), (1, 2), True, lambda x, y: (x / 2 - 0.5, -y - 0.5)),
    ],
)
def test_the_texture_of_a_plane(size: Any, repeat: Any, uniform: bool, factors: Any) -> None:
    view = _textured(
        f'type="plane" size="{size[0]} {size[1]} 1"',
        repeat=f"{repeat[0]} {repeat[1]}",
        uniform=str(uniform).lower(),
    )
    x, y = _rays(64)
    u, v = factors(2 * x, 2 * y)
    _check_uv(view, u, v, view.geom_id == 0)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_texture_of_a_height_field(uniform: bool) -> None:
    assets = (
        '<hfield name="flat" nrow="3" ncol="4" size="0.8 1.2 1 0.1" elevation="0 0 0 0 0 0 0 0 0 0 0 0"/>'
    )
    geom = 'type="hfield" hfield="flat"'
    view = _textured(geom, repeat="2 1.5", uniform=str(uniform).lower(), assets=assets)
    x, y = _rays(64)
    half_x, half_y = (1.0, 1.0) if uniform else (0.8, 1.2)
    _check_uv(view, 2 * (2 * x) / half_x / 2 - 0.5, -1.5 * (2 * y) / half_y / 2 - 0.5, view.geom_id == 0)


FACES = {
    "+z": ("1 0 0 0", lambda x, y: (x, y)),
    "-z": ("0 1 0 0", lambda x, y: (x, -y)),
    "+x": ("1 0 -1 0", lambda x, y: (y, -x)),  # its z axis points to the left
    "-x": ("1 0 1 0", lambda x, y: (y, x)),
    "+y": ("1 1 0 0", lambda x, y: (x, -y)),  # its z axis points down
    "-y": ("1 -1 0 0", lambda x, y: (x, y)),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("uniform", [False, True])
def test_the_texture_of_a_box_is_projected_through_it(face: str, uniform: bool) -> None:
    quat, along = FACES[face]
    view = _textured(
        f'type="box" size="0.5 0.5 0.5" quat="{quat}"', repeat="0.9 1.3", uniform=str(uniform).lower()
    )
    x, y = _rays(64)
    right, up = along(1.5 * x, 1.5 * y)  # of the box's frame: u is along the first, v against the second
    scale = 0.5 if uniform else 1.0
    _check_uv(view, 0.9 * scale * (0.5 + right), 1.3 * scale * (0.5 - up), view.geom_id == 0)


@pytest.mark.parametrize("uniform", [False, True])
def test_the_texture_of_a_mesh_without_coordinates_is_projected_along_z(uniform: bool) -> None:
    corners = [f"{x} {y} {z}" for x in (-0.8, 0.8) for y in (-0.5, 0.5) for z in (-0.3, 0.3)]
    assets = f'<mesh name="block" vertex="{" ".join(corners)}"/>'
    view = _textured(
        'type="mesh" mesh="block"', repeat="1.2 0.7", uniform=str(uniform).lower(), assets=assets
    )
    # The compiler may turn a mesh: its axes are those of the geom's frame.
    axes = view.kinematics["geom_xmat"][0, 0].reshape(3, 3)
    x, y = _rays(64)
    points = np.stack([1.7 * x, 1.7 * y, np.full_like(x, 0.3)], axis=-1) @ axes
    size = (1.0, 1.0) if uniform else view.model.geom_size[0]
    u, v = 1.2 * points[..., 0] / size[0] / 2 - 0.5, -0.7 * points[..., 1] / size[1] / 2 - 0.5
    _check_uv(view, u, v, np.isclose(view.depth, 1.7, rtol=1e-4))


@pytest.mark.parametrize("uniform", [False, True])
def test_the_texture_coordinates_and_normals_of_a_mesh(uniform: bool) -> None:
    # A square of two triangles whose normals lean by 30 degrees outward at the left and right ends.
    s, c = np.sin(np.radians(30)), np.cos(np.radians(30))
    assets = (
        '<mesh name="sheet" inertia="shell" vertex="-1 -.75 0 1 -.75 0 1 .75 0 -1 .75 0" face="0 1 2 0 2 3" '
        'texcoord="0 0 0.5 0 0.5 0.25 0 0.25" '
        f'normal="{-s} 0 {c} {s} 0 {c} {s} 0 {c} {-s} 0 {c}"/>'
    )
    head = '<visual><headlight ambient="0 0 0" diffuse="1 1 1"/></visual>'
    geom = 'type="mesh" mesh="sheet" rgba="1 1 1 1" contype="0" conaffinity="0"'
    view = _textured(
        geom, repeat="0.9 0.8", uniform=str(uniform).lower(), assets=assets, head=head, extent=2.0
    )
    x, y = _rays(64)
    hit = view.geom_id == 0
    assert hit.sum() == 32 * 24
    x, y = 2 * x, 2 * y
    lean = np.stack([x * s, np.full_like(x, c)], axis=-1)
    cosine = (lean / np.linalg.norm(lean, axis=-1, keepdims=True))[..., 1]
    u, v = 0.9 * (x + 1) / 4, 0.8 * (y / 0.75 + 1) / 8
    if uniform:  # MuJoCo multiplies by the size of the mesh in its own frame, in which its z axis is our x
        np.testing.assert_allclose(view.model.geom_size[0], [0, 0.75, 1], atol=1e-9)
        v = v * 0.75
    expected = np.stack([(u * 64 - 0.5) / 63, (v * 32 - 0.5) / 31], axis=-1) * cosine[..., None]
    inner = hit & (u > 0.02) & (v > 0.04)
    np.testing.assert_allclose(view.rgb[inner][:, :2], 255 * expected[inner], atol=2.0)


def test_the_faces_of_a_cube_texture() -> None:
    assets = (
        '<texture name="t" type="cube" builtin="flat" width="8" height="48"/><material name="m" texture="t"/>'
    )
    # OpenGL's order: +x, -x, +y, -y, +z, -z.
    faces = np.repeat(np.arange(6), 8 * 8).reshape(48, 8)
    pixels = np.stack([faces * 40 + 20, faces * 0, faces * 0], axis=-1).astype(np.uint8)
    for index, name in enumerate(["+x", "-x", "+y", "-y", "+z", "-z"]):
        view = View(
            f'<geom type="box" size="0.5 0.4 0.3" quat="{FACES[name][0]}" material="m"/>', assets=assets
        )
        assert _painted(view, pixels).middle.tolist() == [index * 40 + 20, 0, 0]


def test_the_sky_box_is_drawn_where_nothing_is() -> None:
    assets = '<texture name="t" type="skybox" builtin="flat" width="8" height="48"/>'
    faces = np.repeat(np.arange(6), 8 * 8).reshape(48, 8)
    # Up in the world is the face +y, and ahead, along y, is -z.
    expected = {"0 0 1": 2, "0 0 -1": 3, "0 1 0": 5, "0 -1 0": 4, "1 0 0": 0, "-1 0 0": 1}
    for ahead, face in expected.items():
        back = " ".join(str(-float(part)) for part in ahead.split())
        eye = '<body><camera name="eye" fovy="60"/></body>'
        view = View('<geom size="0.1" group="5"/>', assets=assets, eye=eye, sky=None)
        view.model.tex_data[:] = np.stack([faces * 40 + 20] * 3, axis=-1).astype(np.uint8).ravel()
        view.camera = BatchCamera(view.model, 1, "eye", (33, 33), threads=1, depth=True, sky=None)
        z = np.array([float(part) for part in back.split()])
        x = np.array([0.0, 1.0, 0.0]) if abs(z[1]) < 0.5 else np.array([1.0, 0.0, 0.0])
        view.kinematics["cam_xmat"][0, 0] = np.stack([x, np.cross(z, x), z], axis=1).ravel()
        np.testing.assert_allclose(view.draw().rgb, np.full((33, 33, 3), face * 40 + 20), atol=1)
    plain = View('<geom size="0.1"/>', sky=None).draw()
    assert (plain.rgb[plain.geom_id < 0] == 0).all()


def test_height_fields_are_two_triangles_a_cell() -> None:
    # One cell, 2 m wide, whose corner at (1, 1) is 1 m high (rows are given from the top): the diagonal from
    # (-1, -1) divides it.
    assets = '<hfield name="f" nrow="2" ncol="2" size="1 1 1 0.1" elevation="0 1 0 0"/>'
    eye = '<camera name="eye" pos="0 0 2" fovy="2" projection="orthographic"/>'
    view = View('<geom type="hfield" hfield="f"/>', assets=assets, eye=eye, size=(64, 64)).draw()
    x, y = _rays(64)
    height = np.minimum((x + 1) / 2, (y + 1) / 2)
    assert (view.geom_id == 0).all()
    np.testing.assert_allclose(view.depth, 2 - height, atol=1e-5)


def test_a_flat_height_field_has_no_holes() -> None:
    # The camera is just above it, on a slant: a box test in single precision loses rays in flat triangles.
    elevation = "1 1 0 1 0 0 1 0 1 0 1 1 0 1 0 0"
    assets = f'<hfield name="f" nrow="2" ncol="8" size="0.118289 1 0.871503 0.1" elevation="{elevation}"/>'
    body = '<geom type="hfield" hfield="f" pos="-1.33041 -2 -0.012453" quat="-1 0 0.01 -0.435936"/>'
    eye = '<camera name="eye" pos="-1.27648 -2 0" quat="1 0 1 0" fovy="32"/>'
    view = View(body, assets=assets, eye=eye, size=(48, 96)).draw()
    seen = view.geom_id == 0
    around = [np.roll(seen, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
    hole = ~seen & np.all(around, axis=0)
    assert seen.sum() > 1000 and not hole[1:-1, 1:-1].any()


# ---------------------------------------------------------------- refusals


SOFT = """<mujoco><worldbody><camera name="eye"/>
  <flexcomp name="cloth" type="grid" count="3 3 1" spacing="0.1 0.1 0.1" dim="2"/></worldbody></mujoco>"""
SKIN = """<mujoco><asset/><worldbody><camera name="eye"/><body name="b"><geom size="0.1"/></body></worldbody>
  <deformable><skin vertex="0 0 0 1 0 0 0 1 0" face="0 1 2"><bone body="b" bindpos="0 0 0" bindquat="1 0 0 0"
  vertid="0 1 2" vertweight="1 1 1"/></skin></deformable></mujoco>"""


@pytest.mark.parametrize(("xml", "name"), [(SOFT, r"1 flex\(es\)"), (SKIN, r"1 skin\(s\)")])
def test_what_is_not_drawn_is_refused_by_name(xml: str, name: str) -> None:
    model = mujoco.MjModel.from_xml_string(xml)
    with pytest.raises(ValueError, match=rf"got {name}: remove them from the model, or use mujoco.Renderer"):
        BatchCamera(model, 1, "eye", (16, 16))


def test_an_image_light_is_refused_by_name() -> None:
    view = View('<light name="dome" type="point"/><geom size="1"/>')
    view.model.light_type[0] = int(mujoco.mjtLightType.mjLIGHT_IMAGE)
    with pytest.raises(ValueError, match="got light 'dome' of type mjLIGHT_IMAGE: remove them"):
        scene_of(view.model, (0,))


def test_more_geoms_than_a_tile_can_list_are_refused() -> None:
    spec = mujoco.MjSpec()
    spec.worldbody.add_camera(name="eye")
    for _ in range(2**15):
        spec.worldbody.add_geom(size=[0.1, 0, 0], contype=0, conaffinity=0)
    model = spec.compile()
    with pytest.raises(ValueError, match="at most 32,767 geoms, got 32,768: draw fewer groups"):
        BatchCamera(model, 1, "eye", (16, 16))
    model.geom_group[0] = 5
    camera = BatchCamera(model, 1, "eye", (16, 16), threads=1)
    assert camera.rgb.shape == (1, 16, 16, 3)


def test_renderers_are_chosen_by_name() -> None:
    pytest.importorskip("mujoco_warp", reason="it needs a newer MuJoCo")
    model = View(WALL).model
    assert BatchCamera(model, 1, "eye", (16, 16)).renderer == "tiled"
    with pytest.raises(ValueError, match="expected a renderer among tiled, mujoco_warp, got 'tilde'"):
        BatchCamera(model, 1, "eye", (16, 16), renderer="tilde")
    with pytest.raises(ValueError, match="expected a camera of the model among eye, got 'nose'"):
        BatchCamera(model, 1, "nose", (16, 16))
    with pytest.raises(ValueError, match="at least one camera, got none"):
        BatchCamera(model, 1, [], (16, 16))
    for cameras, sky in ((["eye", "eye"], SKY), ([FreeCamera()], SKY), (["eye"], None)):
        with pytest.raises(ValueError, match="one camera of the model and a colour of the sky"):
            BatchCamera(model, 1, cameras, (16, 16), renderer="mujoco_warp", sky=sky)


def test_the_tiled_renderer_is_refused_on_a_gpu() -> None:
    from robot_attn_envs.render.camera import chosen_renderer

    assert chosen_renderer(None, "cuda:0") == "mujoco_warp"
    with pytest.raises(ValueError, match="expected device='cpu' for renderer='tiled', got 'cuda:0'"):
        chosen_renderer("tiled", "cuda:0")


def test_mujoco_warp_is_not_imported_where_it_is_not_used() -> None:
    pytest.importorskip("mujoco.batch", reason="our tasks need a newer MuJoCo")
    code = (
        "import sys, gymnasium, robot_attn_envs\n"
        "env = gymnasium.make('RobotAttn/Track-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0); env.render(); env.close()\n"
        "assert 'warp' in sys.modules and 'mujoco_warp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- the lens


def test_a_lens_before_several_cameras_does_what_it_does_before_each() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 1 << 24, (1, PICTURE_SIDE, PICTURE_SIDE), dtype=np.uint32)
    settings = neutral_settings(2)
    settings["paint"], settings["zoom"], settings["offset"] = [128, 256], 64.0, 1024.0
    settings["patch_x"][:, 0], settings["patch_y"][:, 0] = 0.3, -0.2
    settings["patch_width"][:, 0], settings["patch_height"][:, 0] = 0.2, 0.3
    settings["blur"], settings["gain"][1] = 0.7, 1.3

    def frames(camera: Any) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        lens = Lens(settings.copy(), (47, 33), np.array([True, False, False, False]), pictures)
        view = _scene(camera, worlds=2, lens=lens).draw()
        return view.camera.rgb, view.camera.geom_id

    rgb, geom_id = frames(["eye", "side"])
    for index, camera in enumerate(["eye", "side"]):
        alone_rgb, alone_ids = frames(camera)
        np.testing.assert_array_equal(rgb[:, index], alone_rgb)
        np.testing.assert_array_equal(geom_id[:, index], alone_ids)
    plain = _scene(["eye", "side"], worlds=2).draw().camera.rgb
    assert (rgb != plain).any(axis=(2, 3, 4)).all()
