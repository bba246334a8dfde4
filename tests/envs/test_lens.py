"""The lens and the camera: pixels against values worked out by hand."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_attn_envs.render.camera import KINEMATICS, BatchCamera
from robot_attn_envs.render.lens import Lens, blur_strides, neutral_settings
from robot_attn_envs.render.lens_kernels import PICTURE_SIDE
from robot_attn_envs.render.pixels import PATCH_ID

SIDE = 64
WALL, BALL = 0, 1  # geoms
GREY = 0.5 * 255  # of the wall: see `SCENE`
# A wall perpendicular to the optical axis, 2 m away, lit from the camera alone: a pixel is its colour times
# 0.8 of ambient light plus 0.2 of the lamp's, whose light falls along the axis. A ball hangs in front of it.
SCENE = """
<mujoco>
  <visual><headlight ambient="0.8 0.8 0.8" diffuse="{head} {head} {head}" specular="0 0 0"/></visual>
  <worldbody>
    <light name="lamp" type="directional" dir="0 0 -1" diffuse="0 0 0" specular="0 0 0"/>
    <camera name="eye" pos="0 0 2" fovy="{fovy}"/>
    <geom name="wall" type="plane" size="9 9 0.1" rgba="0.5 0.5 0.5 0.999"/>
    <geom name="ball" type="sphere" size="0.2" pos="{ball} 0 1" rgba="0 0 1 1"/>
  </worldbody>
</mujoco>"""


class Bench:
    """Frames of the scene through a lens."""

    def __init__(
        self,
        *,
        size: tuple[int, int] = (SIDE, SIDE),
        fovy: float = 90.0,
        ball: float = 5.0,
        head: float = 0.2,
        pictures: np.ndarray | None = None,
        sensor: tuple[int, int] | None = None,
        worlds: int = 1,
    ) -> None:
        self.model = mujoco.MjModel.from_xml_string(SCENE.format(fovy=fovy, ball=ball, head=head))
        data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, data)
        self.kinematics = {name: np.repeat(getattr(data, name)[None], worlds, axis=0) for name in KINEMATICS}
        if pictures is None:
            pictures = np.zeros((1, PICTURE_SIDE, PICTURE_SIDE), np.uint32)
        self.lens = Lens(neutral_settings(worlds), sensor or size, np.array([True, False]), pictures)
        self.settings = self.lens.settings
        self.camera = BatchCamera(self.model, worlds, "eye", size, threads=1, depth=True, lens=self.lens)

    def frame(self) -> np.ndarray:
        """Frame of the first world, uint8 [H, W, 3]."""
        self.camera.render(self.kinematics)
        return self.camera.rgb[0].copy()


def test_a_neutral_lens_changes_no_bit() -> None:
    bench = Bench(ball=0.3, size=(40, 56))
    plain = BatchCamera(bench.model, 1, "eye", (40, 56), threads=1)
    plain.render(bench.kinematics)
    np.testing.assert_array_equal(bench.frame(), plain.rgb[0])
    np.testing.assert_array_equal(bench.camera.geom_id, plain.geom_id)
    assert set(np.unique(plain.geom_id)) == {WALL, BALL}


def test_pictures_are_painted_over_scenery_upright_and_unmirrored() -> None:
    # Red encodes the column of a texel, green its row.
    column, row = np.meshgrid(
        np.arange(PICTURE_SIDE, dtype=np.uint32), np.arange(PICTURE_SIDE, dtype=np.uint32)
    )
    bench = Bench(ball=0.3, pictures=(column << 16 | row << 8)[None])
    # The optical axis is the world's +x; up is its z.
    bench.kinematics["cam_xmat"][:] = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], float).reshape(1, 1, 9)
    bench.settings["paint"], bench.settings["zoom"], bench.settings["offset"] = 256, 64.0, 1024.0 + 64.0
    frame = bench.frame()
    assert not (bench.camera.geom_id == BALL).any()
    # A field of 90 degrees is a face of the cube, from -1 to 1 in steps of 1/32, which are two texels.
    expected = 64 + np.arange(-31.5, 32) * 2
    np.testing.assert_allclose(frame[..., 0], np.broadcast_to(expected, (64, 64)), atol=1)
    np.testing.assert_allclose(frame[..., 1], np.broadcast_to(expected[:, None], (64, 64)), atol=1)
    bench.settings["offset"] = [[1024.0 + 64.0 + 10.0, 1024.0 + 64.0 + 128.0]]
    moved = bench.frame()
    np.testing.assert_array_equal(moved[:, :, 0], (frame[:, :, 0] + 10) % PICTURE_SIDE)
    np.testing.assert_array_equal(moved[:, :, 1], frame[:, :, 1])


def test_the_picture_is_blended_over_scenery_and_not_over_objects() -> None:
    pictures = np.full((1, PICTURE_SIDE, PICTURE_SIDE), 0xFF0040, np.uint32)
    bench = Bench(ball=0.0, pictures=pictures)
    plain = bench.frame()
    bench.settings["paint"], bench.settings["zoom"], bench.settings["offset"] = 64, 64.0, 1024.0
    mixed = bench.frame()
    wall = bench.camera.geom_id[0] == WALL
    assert wall.any() and not wall.all()
    np.testing.assert_array_equal(mixed[~wall], plain[~wall])
    expected = 0.75 * plain[wall] + 0.25 * np.array([255, 0, 64])
    np.testing.assert_allclose(mixed[wall], expected, atol=1)


def test_patches_cover_pixels_and_geom_ids() -> None:
    bench = Bench(ball=0.0, size=(32, 64))
    plain = bench.frame()
    bench.settings["patch_x"], bench.settings["patch_y"] = [[0.0, -0.75, 0.0]], [[0.0, 0.25, 0.0]]
    bench.settings["patch_width"], bench.settings["patch_height"] = [[0.25, 0.25, 0.0]], [[0.125, 0.25, 0.0]]
    bench.settings["patch_round"], bench.settings["patch_color"] = (
        [[0.0, 1.0, 0.0]],
        [[0x102030, 0x405060, 0xFFFFFF]],
    )
    patched = bench.frame()
    # Half of 16 x 8 pixels to each side of the middle.
    box = (slice(12, 20), slice(24, 40))
    assert (patched[box] == (0x10, 0x20, 0x30)).all() and (bench.camera.geom_id[0][box] == PATCH_ID).all()
    # An ellipse of half axes 8 and 8 pixels about (8, 24): every pixel whose centre is in it.
    y, x = np.mgrid[:32, :64] + 0.5
    disc = (x - 8) ** 2 + (y - 24) ** 2 < 64
    assert (patched[disc] == (0x40, 0x50, 0x60)).all()
    rest = ~disc
    rest[box] = False
    np.testing.assert_array_equal(patched[rest], plain[rest])
    np.testing.assert_array_equal(bench.camera.geom_id[0] == PATCH_ID, ~rest)


def test_gain_multiplies_channels() -> None:
    bench = Bench()
    plain = bench.frame()[0, 0].astype(float)
    np.testing.assert_allclose(plain, GREY, atol=1)
    bench.settings["gain"] = [[0.5, 1.5, 3.0]]
    np.testing.assert_allclose(bench.frame()[0, 0], [plain[0] / 2, 1.5 * plain[1], 255], atol=1)


def test_blur_is_a_binomial_kernel() -> None:
    # One white pixel: a patch of half a pixel to each side.
    bench = Bench(head=0.0)
    bench.camera.geom_rgba[:] = (0.0, 0.0, 0.0, 1.0)
    bench.camera.render(bench.kinematics, recolor=True)
    bench.settings["patch_x"][0, 0] = bench.settings["patch_y"][0, 0] = 0.5 / SIDE
    bench.settings["patch_width"][0, 0] = bench.settings["patch_height"][0, 0] = 0.5 / SIDE
    bench.settings["patch_color"][0, 0] = 0xFFFFFF
    sharp = bench.frame().astype(int)
    assert sharp[32, 32].tolist() == [255, 255, 255] and sharp.sum() == 3 * 255
    kernel = np.outer([1, 2, 1], [1, 2, 1]) * 255 / 16
    for share in (0.5, 1.0):
        bench.settings["blur"] = share
        expected = (1 - share) * sharp[31:34, 31:34, 0] + share * kernel
        np.testing.assert_allclose(bench.frame()[31:34, 31:34, 0], expected, atol=1.5)
        assert bench.frame()[:30].max() == 0


def test_blur_preserves_the_brightness() -> None:
    bench = Bench(ball=0.2)
    before = bench.frame().mean()
    bench.settings["blur"] = 1.0
    assert abs(bench.frame().mean() - before) < 0.3


@given(st.integers(32, 1024))
def test_blurs_are_equally_wide_in_frames_of_any_size(height: int) -> None:
    strides = blur_strides(height)
    assert strides[-1] == 1
    assert all(small <= large <= 2 * small for large, small in pairwise(strides))
    # Within one pixel^2 of the variance of a 3 x 3 blur at 64 pixels, and above it only for the first stride.
    wanted = (height / 64) ** 2
    assert max(wanted, 1.0) - 1.0 < sum(s * s for s in strides) <= max(wanted, 1.0)


def test_noise_is_the_sensors_at_any_frame_size() -> None:
    bench = Bench(sensor=(SIDE, SIDE))
    plain = bench.frame().astype(float)
    bench.settings["noise"], bench.settings["seed"] = 0.05, 7
    noise = bench.frame() - plain
    # 12288 samples of 0.05 * 255 = 12.75: one sigma of their mean is 0.12, of their deviation 0.08.
    assert abs(noise.mean()) < 0.6 and abs(noise.std() - 12.75) < 0.5
    channels = np.corrcoef(noise.reshape(-1, 3).T)
    rows = np.corrcoef(noise[:, :, 0])
    assert np.abs(channels - np.eye(3)).max() < 0.06 and np.abs(rows - np.eye(SIDE)).max() < 0.65
    bench.settings["seed"] = 8
    assert abs(np.corrcoef(noise.ravel(), (bench.frame() - plain).ravel())[0, 1]) < 0.05
    large = Bench(size=(3 * SIDE, 3 * SIDE), sensor=(SIDE, SIDE))
    large.settings["noise"], large.settings["seed"] = 0.05, 7
    np.testing.assert_allclose(large.frame()[1::3, 1::3] - plain, noise, atol=1)
    np.testing.assert_allclose(large.frame()[2::3, ::3] - plain, noise, atol=1)


def test_longer_camera_axes_widen_the_field_of_view() -> None:
    narrow, wide = Bench(fovy=60.0, ball=0.3), Bench(fovy=90.0, ball=0.3)
    axes = narrow.kinematics["cam_xmat"].reshape(1, 1, 3, 3)
    axes[..., :2] *= np.tan(np.radians(45)) / np.tan(np.radians(30))
    difference = np.abs(narrow.frame().astype(int) - wide.frame())
    np.testing.assert_array_equal(narrow.camera.geom_id, wide.camera.geom_id)
    assert difference.max() <= 1 and (wide.camera.geom_id == BALL).any()
    assert narrow.camera.depth is not None and wide.camera.depth is not None
    np.testing.assert_allclose(narrow.camera.depth, wide.camera.depth, atol=1e-4)


def test_each_world_has_its_own_lights() -> None:
    bench = Bench(head=0.0, worlds=2)
    plain = bench.frame()[0, 0].astype(float)
    np.testing.assert_allclose(plain, 0.8 * GREY, atol=1)
    bench.kinematics["light_diffuse"] = np.array([[[0.2, 0.0, 0.1]], [[0.0, 0.4, 0.0]]])
    bench.frame()
    np.testing.assert_allclose(bench.camera.rgb[0, 0, 0], np.array([1.0, 0.8, 0.9]) * GREY, atol=1)
    np.testing.assert_allclose(bench.camera.rgb[1, 0, 0], np.array([0.8, 1.2, 0.8]) * GREY, atol=1)


@pytest.mark.parametrize("worlds", [1, 5])
def test_each_world_has_its_own_lens_settings(worlds: int) -> None:
    bench = Bench(worlds=worlds, size=(32, 32))  # four worlds are rendered together
    bench.settings["gain"][worlds - 1] = 0.5
    bench.frame()
    means = bench.camera.rgb.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, [GREY] * (worlds - 1) + [GREY / 2], atol=1)
