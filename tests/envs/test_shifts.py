"""Visual shifts: their options, what each changes, and that none changes physics, state or rewards."""

import colorsys
from typing import Any

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.labels import OCCLUDER
from robot_attn_envs.render.pixels import PATCH_ID
from robot_attn_envs.shifts import SHIFTS, SUITES, chosen_shifts
from robot_attn_envs.shifts._hues import hue_of
from robot_attn_envs.shifts._lookalikes import SIMILAR_SHAPES
from robot_attn_envs.tasks.instructions import COLORS
from robot_attn_envs.tasks.track import Track
from robot_attn_envs.worlds import Worlds

TRACK = "RobotAttn/Track-v0"


def test_options_choose_shifts_and_intensities() -> None:
    assert chosen_shifts((), 0.5, None) == {}
    assert chosen_shifts("noise", 0.25, None) == {"noise": 0.25}
    assert list(chosen_shifts(["noise", "colors"], 1, None)) == ["colors", "noise"]
    assert chosen_shifts({"camera": 0.2, "noise": 0}, 0.9, None) == {"camera": 0.2}
    assert chosen_shifts("noise", 0.0, None) == {}
    assert chosen_shifts((), 0.5, "hard") == chosen_shifts((), 0.5, "hard-v0") == SUITES["hard-v0"]


def test_each_suite_is_harder_than_the_previous_one() -> None:
    easy, medium, hard = (chosen_shifts((), 0.5, name) for name in ("easy", "medium", "hard"))
    assert easy.keys() < medium.keys() < hard.keys() == SHIFTS.keys()
    assert all(easy[name] < medium[name] for name in easy) and all(medium[n] < hard[n] for n in medium)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shift": "colours"},
            r"expected a visual shift among distractors, colors, .*, got 'colours': did you mean 'colors'\?$",
        ),
        ({"shift": ["noise", "xyzzy"]}, r"expected a visual shift among .*, occlusion, got 'xyzzy'$"),
        ({"shift": "noise", "intensity": 1.01}, r"expected intensity to be a number from 0 to 1, got 1.01"),
        ({"shift": "noise", "intensity": -0.1}, r"from 0 to 1, got -0.1"),
        ({"shift": "noise", "intensity": float("nan")}, r"from 0 to 1, got nan"),
        ({"shift": "noise", "intensity": "high"}, r"from 0 to 1, got 'high'"),
        ({"shift": "noise", "intensity": True}, r"from 0 to 1, got True"),
        (
            {"shift": {"noise": 0.5, "camera": 2}},
            r"expected the intensity of camera to be a number from 0 to 1, got 2",
        ),
        (
            {"suite": "hrad"},
            r"expected a suite of shifts among easy, medium, .*, got 'hrad': did you mean 'hard'\?$",
        ),
        ({"suite": "hard-v99"}, r"got 'hard-v99': did you mean 'hard-v0'\?$"),
        (
            {"suite": "hard", "shift": "noise"},
            r"a shift or a suite, got both: shift=\['noise'\] and suite='hard'",
        ),
    ],
)
def test_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(TRACK, **options)


def roll(**options: Any) -> dict[str, np.ndarray]:
    """Three steps of three Track episodes with fixed actions; arrays [steps, worlds, ...]."""
    env = gymnasium.make_vec(TRACK, num_envs=3, image_size=32, threads=1, depth=True, **options)
    observation, _ = env.reset(seed=4)
    rows = [{**observation, "reward": np.zeros(3)}]
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 3, 2)):
        observation, reward, *_ = env.step(action)
        rows.append({**observation, "reward": reward})
    env.close()
    return {name: np.stack([step[name] for step in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def unshifted() -> dict[str, np.ndarray]:
    return roll()


def test_at_intensity_0_nothing_changes(unshifted: dict[str, np.ndarray]) -> None:
    for name, values in roll(shift=list(SHIFTS), intensity=0.0).items():
        np.testing.assert_array_equal(values, unshifted[name])


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_images_and_nothing_else(shift: str, unshifted: dict[str, np.ndarray]) -> None:
    mild, strong = roll(shift=shift, intensity=0.25), roll(shift=shift, intensity=1.0)
    for rolled in (mild, strong):
        np.testing.assert_array_equal(rolled["state"], unshifted["state"])
        np.testing.assert_array_equal(rolled["reward"], unshifted["reward"])
        if shift not in ("camera", "distractors"):
            np.testing.assert_array_equal(rolled["depth"], unshifted["depth"])
    plain = unshifted["image"].astype(float)
    changed = [np.abs(rolled["image"] - plain).mean() for rolled in (mild, strong)]
    assert 0.1 < changed[0] < changed[1]


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_samples_the_same_whichever_others_are_on(shift: str) -> None:
    intensity = SUITES["hard-v0"][shift]
    alone, all_on = (
        Worlds(Track, 2, image_size=32, **options)
        for options in ({"shift": shift, "intensity": intensity}, {"suite": "hard"})
    )
    for worlds in (alone, all_on):
        worlds.seed([5, 6])
        worlds.reset(np.arange(2))
    for name, values in alone.shifts.episode.items():
        np.testing.assert_array_equal(all_on.shifts.episode[name], values)
    alone.close()
    all_on.close()


def drawn(num_worlds: int, **options: Any) -> Worlds:
    """Worlds of Track at the start of new episodes, with the smallest frames."""
    worlds = Worlds(Track, num_worlds, image_size=32, **options)
    worlds.seed(range(num_worlds))
    worlds.reset(np.arange(num_worlds))
    worlds.close()
    return worlds


def colors_of(worlds: Worlds, world: int, slots: np.ndarray) -> np.ndarray:
    """RGB of these objects, float64 [slots, 3]."""
    objects = worlds.task.objects
    return worlds.camera.geom_rgba[world, objects.geoms[slots], :3].astype(float)


def degrees_apart(one: float, other: float) -> float:
    return abs((one - other + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize(
    ("color", "hue"),
    [((1, 0, 0), 0), ((1, 1, 0), 60), ((0.2, 0.6, 0.2), 120), ((0.1, 0.1, 0.9), 240), ((1, 0, 1), 300)],
)
def test_hues(color: tuple[float, float, float], hue: float) -> None:
    assert degrees_apart(hue_of(np.array(color)), hue) < 1e-9


@pytest.mark.parametrize(("intensity", "more"), [(0.05, 1), (0.25, 2), (0.5, 3), (1.0, 6)])
def test_distractors_are_added(intensity: float, more: int) -> None:
    plain, shifted = drawn(4), drawn(4, shift="distractors", intensity=intensity)
    objects = shifted.task.objects
    assert objects.present.sum(axis=1).tolist() == [7 + more] * 4
    place = shifted.batch.bind("mocap_pos")
    np.testing.assert_array_equal(place[:, :7], plain.batch.bind("mocap_pos"))
    assert (place[:, 7:, 2] > 0).all()


def test_distractors_take_colours_that_training_never_shows() -> None:
    for intensity, count in ((0.5, 3), (1.0, 6)):
        plain, shifted = drawn(32), drawn(32, shift="colors", intensity=intensity)
        red = hue_of(np.array(COLORS["red"]))
        for world in range(32):
            slots = shifted.task.objects.distractors(world)
            before, after = colors_of(plain, world, slots), colors_of(shifted, world, slots)
            repainted = after[(before != after).any(axis=1)]
            assert len(repainted) == count
            for color in repainted:
                _, saturation, value = colorsys.rgb_to_hsv(*color)
                assert saturation <= 0.4 + 1e-6 or value <= 0.35 + 1e-6
                assert not (saturation >= 0.45 and value >= 0.4)
                assert degrees_apart(hue_of(color), red) > 49.9
            np.testing.assert_array_equal(
                colors_of(plain, world, np.zeros(1, int)), colors_of(shifted, world, np.zeros(1, int))
            )


def test_scenery_is_blended_towards_another_colour() -> None:
    half, whole = drawn(3, shift="colors", intensity=0.5), drawn(3, shift="colors", intensity=1.0)
    wall = half.model.geom("wall_north").id
    trained = np.array([0.80, 0.77, 0.71])  # of its material in the scene
    to_half, to_whole = (w.camera.geom_rgba[:, wall, :3] - trained for w in (half, whole))
    np.testing.assert_allclose(2 * to_half, to_whole, atol=1e-6)
    assert (np.abs(to_whole).max(axis=1) > 0.1).all()


def test_lookalikes_have_hues_near_the_targets_but_not_equal() -> None:
    hues: dict[str, list[float]] = {"similar": [], "other": []}
    for intensity, count in ((0.5, 3), (1.0, 6)):
        plain, shifted = drawn(32), drawn(32, shift="lookalikes", intensity=intensity)
        red, shapes = hue_of(np.array(COLORS["red"])), shifted.task.objects.shapes
        for world in range(32):
            slots = shifted.task.objects.distractors(world)
            before, after = colors_of(plain, world, slots), colors_of(shifted, world, slots)
            changed = (before != after).any(axis=1)
            assert changed.sum() == count
            for slot, color in zip(slots[changed], after[changed], strict=True):
                similar = any({shapes[slot], "sphere"} <= group for group in SIMILAR_SHAPES)
                if intensity == 1.0:
                    hues["similar" if similar else "other"].append(degrees_apart(hue_of(color), red))
                assert degrees_apart(hue_of(color), red) < 61
    assert min(hues["similar"]) > 27.9 and max(hues["similar"]) < 45.1
    assert min(hues["other"]) > 11.9 and max(hues["other"]) < 22.1


@pytest.mark.parametrize("instruction", [True, "held_out"])
def test_shifts_keep_the_instruction_true(instruction: bool | str) -> None:
    plain = drawn(24, instruction=instruction)
    named = drawn(24, instruction=instruction, shift="colors", intensity=1.0)
    for world in range(24):
        slots = np.arange(7)
        np.testing.assert_array_equal(colors_of(plain, world, slots), colors_of(named, world, slots))
    shifted = drawn(24, instruction=instruction, shift=["lookalikes", "distractors"], intensity=1.0)
    objects, names = shifted.task.objects, list(COLORS)
    near = 0
    for world in range(24):
        assert objects.words(world) == plain.task.objects.words(world)
        target = int(objects.target[world])
        named, shape = int(objects.colors[world, target]), objects.shapes[target]
        for slot in objects.distractors(world):
            color = int(objects.colors[world, slot])
            assert (color, objects.shapes[slot]) != (named, shape)
            near += color == named
            rgb = colors_of(shifted, world, np.array([slot]))[0]
            assert np.abs(rgb - COLORS[names[color]]).max() < 0.0601
    # All have the target's colour, except those of its shape and held-out pairs.
    assert near > 24 * 6


def test_no_picture_has_the_targets_colour() -> None:
    worlds = drawn(1, shift="background")
    packed = worlds.shifts._shifts["background"].clips.pictures
    rgb = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1) / 255.0
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    assert ((high - low) / high).max() < 0.5  # saturation; the target's is 0.88
    assert packed.shape == (16, 128, 128) and rgb.std(axis=(1, 2)).mean(axis=1).min() > 0.03


@pytest.mark.parametrize("shift", ["camera", "background", "noise", "occlusion"])
def test_moving_shifts_depend_on_the_step(shift: str) -> None:
    worlds = Worlds(Track, 1, image_size=32, threads=1, shift=shift, intensity=1.0, distractors=0)
    worlds.seed([0])
    worlds.reset(np.arange(1))
    first = worlds.camera.rgb.copy()
    worlds.render()
    np.testing.assert_array_equal(worlds.camera.rgb, first)
    worlds.steps += 9
    worlds.render()
    assert (worlds.camera.rgb != first).mean() > 0.02
    worlds.close()


def test_patches_start_at_the_border_and_are_left_out_of_the_targets_mask() -> None:
    shifted, plain = drawn(48, shift="occlusion", intensity=1.0), drawn(48)
    covered = []
    for worlds in (plain, shifted):
        for steps in (0, 40, 80):
            worlds.steps[:] = steps
            worlds.render()
            if worlds is shifted:
                hidden = worlds.camera.geom_id == PATCH_ID
                assert np.array_equal(hidden, worlds.things() == OCCLUDER)
                covered.append(hidden.mean())
                assert not (worlds.target_mask() & ~plain.target_mask()).any()
                if steps == 0:
                    assert hidden[:, 15:17, 15:17].any(axis=(1, 2)).sum() <= 4
    assert 0.03 < covered[0] < covered[1] < 0.22 and covered[2] > covered[0]


@pytest.mark.parametrize("suite", ["easy", "medium", "hard"])
def test_a_larger_frame_shows_the_same_as_the_policys(suite: str) -> None:
    worlds = drawn(3, suite=suite)
    coarse = worlds.large_frames(320)[:, 5::10, 5::10].astype(float)
    assert np.abs(coarse - worlds.camera.rgb).mean() < 8
    assert np.corrcoef(coarse.ravel(), worlds.camera.rgb.ravel())[0, 1] > 0.95


def test_the_camera_is_moved_rotated_and_zoomed_within_bounds() -> None:
    worlds = drawn(64, shift="camera", intensity=0.5)
    plain, steps = worlds._kinematics, np.zeros(64, np.int64)
    before = {name: values.copy() for name, values in plain.items()}
    shifted = worlds.shifts.apply(plain, steps)
    for name, values in plain.items():
        np.testing.assert_array_equal(values, before[name])
    assert 0.008 < np.abs(shifted["cam_xpos"] - plain["cam_xpos"]).max() < 0.5 * 0.02 * np.sqrt(3)
    eye = worlds.model.camera("eye").id
    axes, true = (each["cam_xmat"][:, eye].reshape(64, 3, 3) for each in (shifted, plain))
    # The columns stay orthogonal: the optical axis keeps its length, the others are scaled.
    lengths = np.linalg.norm(axes, axis=1)
    np.testing.assert_allclose(lengths[:, 2], 1.0)
    np.testing.assert_allclose(lengths[:, 0], lengths[:, 1])
    assert 0.8 < np.log(lengths[:, 0]).max() / 0.1 < 1 and -1 < np.log(lengths[:, 0]).min() / 0.1 < -0.8
    turned = np.einsum("nji,njk->nik", true, axes / lengths[:, None])
    np.testing.assert_allclose(np.linalg.det(turned), 1.0)
    angles = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    # Half of 5, 5 and 10 degrees, plus half of the sway of 1.5, 1.5 and 2.
    assert 4 < angles.max() < 0.5 * np.hypot(np.hypot(6.5, 6.5), 12.0)


def test_patches_start_at_the_border_of_wide_frames_too() -> None:
    worlds = Worlds(Track, 64, image_size=(32, 64), shift="occlusion", intensity=1.0)
    worlds.seed(range(64))
    worlds.reset(np.arange(64))
    settings = worlds.shifts.settings
    x, y = np.abs(settings["patch_x"]), np.abs(settings["patch_y"])
    np.testing.assert_allclose(np.maximum(x / 2, y), 0.5, rtol=1e-6)
    # 22 % of a frame of 1 by 2, a third of it per patch, times 0.6 to 1.4.
    shape = np.where(settings["patch_round"] > 0, np.pi, 4.0)
    areas = shape * settings["patch_width"] * settings["patch_height"] / (2 * 0.22 / 3)
    assert areas.min() > 0.6 - 1e-6 and areas.max() < 1.4 + 1e-6 and abs(areas.mean() - 1.0) < 0.05
    worlds.close()


def test_light_comes_from_above_and_differs_between_episodes() -> None:
    worlds = drawn(32, shift="lighting", intensity=1.0)
    shifted = worlds.shifts.apply(worlds._kinematics, worlds.steps)
    directions = shifted["light_xdir"]
    np.testing.assert_allclose(np.linalg.norm(directions, axis=2), 1.0)
    assert directions[..., 2].max() <= -0.25 and directions[..., :2].std() > 0.3
    # Lights of 0.4 and 0.2 in the scene, 2.5 x as strong times a factor of 0.5 to 2.
    factors = shifted["light_diffuse"] / np.array([[0.4], [0.2]]) / 2.5
    assert 0.49 < factors.min() < 0.6 and 1.7 < factors.max() < 2.02
    gain = worlds.shifts.settings["gain"]
    assert np.exp(-0.7 - 0.22) < gain.min() < 0.5 and 1.2 < gain.max() < np.exp(0.25 + 0.22)
