"""Environments that are not ours, seen through their cameras by our renderer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from toy_mujoco import Cart

from robot_attn_envs import CameraObservation, CameraVectorEnv
from robot_attn_envs.anymujoco.cameras import find_camera
from robot_attn_envs.anymujoco.things import find_thing, nameable

GYMNASIUM = ("Pusher-v5", "Ant-v5", "Reacher-v5", "Humanoid-v5", "HalfCheetah-v5")
TARGETS = {"Pusher-v5": "object", "Reacher-v5": "target"}


@contextmanager
def carts(num_envs: int = 3, **options: Any) -> Iterator[CameraVectorEnv]:
    own = {name: options.pop(name) for name in ("own", "more", "length") if name in options}
    with closing(CameraVectorEnv([lambda: Cart(**own)] * num_envs, **options)) as env:
        yield env


def played(env: CameraVectorEnv, steps: int, seed: int = 3) -> list[np.ndarray]:
    """The frames of the first world under fixed actions, those before automatic resets included."""
    frames = [env.reset(seed=seed)[0]["image"][0]]
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (steps, 1, *env.single_action_space.shape)).astype(np.float32)
    for action in actions:
        observation, _, _, _, infos = env.step(np.repeat(action, env.num_envs, axis=0) * _scale(env))
        if "final_obs" in infos and infos["_final_obs"][0]:
            frames.append(infos["final_obs"]["image"][0])
        frames.append(observation["image"][0])
    return frames


def _scale(env: CameraVectorEnv) -> Any:
    return env.single_action_space.high


# Frames.


@pytest.mark.parametrize("name", GYMNASIUM)
def test_gymnasiums_environments_are_drawn_as_its_renderer_places_the_camera(name: str) -> None:
    env = gymnasium.make(name)
    env.reset(seed=0)
    inner: Any = env.unwrapped
    # MuJoCo's own scene, which needs no OpenGL, with the camera as Gymnasium's viewer sets it up.
    scene, view = mujoco.MjvScene(inner.model, 1000), mujoco.MjvCamera()
    view.lookat[:], view.distance = np.median(inner.data.geom_xpos, axis=0), inner.model.stat.extent
    for key, value in (inner.mujoco_renderer.default_cam_config or {}).items():
        setattr(view, key, value)
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FREE, -1
    mujoco.mjv_updateScene(
        inner.model, inner.data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, scene
    )
    eyes = scene.camera
    camera = find_camera(env, "free")
    assert camera.xpos == pytest.approx((eyes[0].pos + eyes[1].pos) / 2, abs=1e-3)
    axes = camera.xmat.reshape(3, 3)
    assert -axes[:, 2] == pytest.approx(eyes[0].forward, abs=1e-5)
    assert axes[:, 1] == pytest.approx(eyes[0].up, abs=1e-5)
    wrapped = CameraObservation(env, image_size=(40, 56))
    observation, _ = wrapped.reset(seed=1)
    assert observation["image"].shape == (40, 56, 3)
    assert observation["image"].std() > 5.0
    assert wrapped.observation_space.contains(observation)
    wrapped.close()


class Around(gymnasium.Env[Any, Any]):
    """An environment around another, as gymnasium-robotics' mazes are."""

    def __init__(self) -> None:
        self.robot: Any = gymnasium.make("Pusher-v5")
        self.observation_space, self.action_space = self.robot.observation_space, self.robot.action_space
        self.model, self.data = self.robot.unwrapped.model, self.robot.unwrapped.data

    def reset(self, **options: Any) -> Any:
        return self.robot.reset(**options)


def test_the_free_camera_is_that_of_an_environment_inside() -> None:
    inside = CameraObservation(gymnasium.make("Pusher-v5"))
    around = CameraObservation(Around())
    expected, observation = inside.reset(seed=1)[0], around.reset(seed=1)[0]
    np.testing.assert_array_equal(observation["image"], expected["image"])
    inside.close()
    around.close()


@pytest.mark.parametrize("name", ["Reacher-v5", "Ant-v5"])
def test_frames_do_not_depend_on_the_number_of_environments_or_threads(name: str) -> None:
    runs = []
    for num_envs, threads in ((1, 1), (7, 1), (7, 2), (32, 2)):
        make = [lambda: gymnasium.make(name, max_episode_steps=6)] * num_envs
        with closing(CameraVectorEnv(make, shift=["lighting", "camera", "noise"], threads=threads)) as env:
            runs.append(played(env, 9))
    for other in runs[1:]:
        for frame, same in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(frame, same)
    assert len({frame.tobytes() for frame in runs[0]}) == len(runs[0])


def test_many_together_are_each_alone() -> None:
    with carts(3, target="cart", shift=["camera", "noise"]) as env:
        together, infos = env.reset(seed=5)
        action = np.full((3, 1), 0.5, np.float32)
        stepped = env.step(action)
    for index in range(3):
        one = CameraObservation(Cart(), target="cart", shift=["camera", "noise"])
        observation, info = one.reset(seed=5 + index)
        for name, values in observation.items():
            np.testing.assert_array_equal(values, together[name][index])
        np.testing.assert_array_equal(info["target_mask"], infos["target_mask"][index])
        observation, reward, *_ = one.step(action[index])
        np.testing.assert_array_equal(observation["image"], stepped[0]["image"][index])
        assert reward == stepped[1][index]
        one.close()


def test_the_simulation_is_the_one_without_us() -> None:
    name, steps = "Ant-v5", 5
    plain = gymnasium.make(name)
    ours = CameraObservation(gymnasium.make(name), target="torso", suite="easy")
    expected, observation = plain.reset(seed=2)[0], ours.reset(seed=2)[0]
    np.testing.assert_array_equal(observation["state"], expected)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        action = rng.uniform(-1.0, 1.0, plain.action_space.shape).astype(np.float32)
        ours.render_counterfactual("target", removed=True)
        ours.view(image_size=48)
        theirs, mine = plain.step(action), ours.step(action)
        np.testing.assert_array_equal(mine[0]["state"], theirs[0])
        assert mine[1:4] == theirs[1:4]
        assert mine[4]["x_position"] == theirs[4]["x_position"]
    plain.close()
    ours.close()


def test_the_last_frame_of_an_episode_is_drawn_before_the_next_begins() -> None:
    with carts(2, length=3, target="cart") as env:
        env.reset(seed=0)
        push = np.ones((2, 1), np.float32)
        for _ in range(2):
            before = env.step(push)
        after = env.step(push)
        alone = CameraObservation(Cart(length=9), target="cart")
        alone.reset(seed=0)
        for _ in range(3):
            expected = alone.step(push[0])
        alone.close()
    final, infos = after[4]["final_obs"], after[4]
    assert after[3].tolist() == infos["_final_obs"].tolist() == [True, True]
    assert "final_obs" not in before[4]
    np.testing.assert_array_equal(final["image"][0], expected[0]["image"])
    np.testing.assert_array_equal(final["state"][0], expected[0]["state"])
    np.testing.assert_array_equal(infos["final_info"]["target_mask"][0], expected[4]["target_mask"])
    assert (after[0]["image"] != final["image"]).any(axis=(1, 2, 3)).all()
    assert infos["start"].tolist() == pytest.approx(after[0]["state"][:, 0].tolist())


# Observations.


def test_the_environments_own_observation_is_kept_beside_the_frames() -> None:
    with carts(2) as env:
        assert list(env.single_observation_space.spaces) == ["image", "state"]
        observation, _ = env.reset(seed=0)
        assert observation["state"].dtype == np.float64
        assert env.observation_space.contains(observation)
    with carts(2, own="dict", camera=("top", "free")) as env:
        assert set(env.single_observation_space.spaces) == {"top", "free", "observation", "side"}
        assert env.reset(seed=0)[0]["observation"].shape == (2, 2)
    with carts(2, state=False) as env:
        assert list(env.single_observation_space.spaces) == ["image"]


def test_a_name_for_both_a_camera_and_an_entry_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="under different names, got 'side' for both"),
        carts(1, own="dict", camera=("top", "side")),
    ):
        pass


def test_several_cameras_are_those_drawn_one_by_one() -> None:
    names = ("side", 1, "free")
    with carts(2, camera=names, target="goal", image_size=(48, 64)) as env:
        both, infos = env.reset(seed=4)
        assert list(both) == ["side", "camera1", "free", "state"]
        np.testing.assert_array_equal(both["side"], both["camera1"])  # both stand in the same place
        np.testing.assert_array_equal(infos["target_mask"], infos["target_mask/side"])
        for name, choice in zip(both, names, strict=False):
            with carts(2, camera=choice, target="goal", image_size=(48, 64)) as alone:
                single, info = alone.reset(seed=4)
            np.testing.assert_array_equal(single["image"], both[name])
            np.testing.assert_array_equal(info["target_mask"], infos[f"target_mask/{name}"])


# Targets.


def test_masks_are_of_a_body_with_its_descendants_a_geom_or_a_site() -> None:
    sums = {}
    for target in ("cart", "geom:chassis", "pole", "mast", "goal", "block"):
        with carts(1, camera="side", target=target) as env:
            observation, infos = env.reset(seed=0)
            mask, frame = infos["target_mask"][0], observation["image"][0].astype(int)
            sums[target] = int(mask.sum())
            if target in ("cart", "goal"):  # red, and yellow: nothing else is
                red, green = frame[..., 0] > 60, frame[..., 1] > 60
                hue = red & ~green if target == "cart" else red & green
                assert (mask == hue).mean() > 0.998
            assert infos["target_visible"].tolist() == [True]
    assert sums["cart"] == sums["geom:chassis"] + sums["pole"]
    assert sums["mast"] == sums["pole"]


@pytest.mark.parametrize("kind", ["site", "geom"])
def test_what_is_faint_is_drawn_if_it_is_named(kind: str) -> None:
    collides = ' contype="0" conaffinity="0"' if kind == "geom" else ""
    more = f'<{kind} name="sensor" type="sphere" size=".2" pos="-.5 -.5 .2" rgba="0 1 1 .3"{collides}/>'
    with carts(1, more=more, camera="top") as plain, carts(1, camera="top") as without:
        frame = plain.reset(seed=0)[0]["image"]
        np.testing.assert_array_equal(frame, without.reset(seed=0)[0]["image"])
    with carts(1, more=more, camera="top", target="sensor") as env:
        observation, infos = env.reset(seed=0)
        changed = (observation["image"] != frame).any(axis=-1)
        np.testing.assert_array_equal(changed, infos["target_mask"])
        assert changed.any()


def test_only_what_is_drawn_can_be_named() -> None:
    model = Cart().model
    assert nameable(model) == [
        *(("body", name) for name in ("cart", "mast", "block")),
        *(("geom", name) for name in ("floor", "chassis", "pole")),
        ("site", "goal"),
    ]
    assert find_thing(model, "cart").shape == "box"
    for name, message in (
        ("crat", "did you mean 'cart'"),
        ("geom:cart", "expected a geom of the model"),
        ("world", "expected a body, geom or site"),
        ("ghost", "expected something that is drawn, got the geom 'ghost'"),
        ("hull", "expected something that is drawn, got the geom 'hull'"),
    ):
        with pytest.raises(ValueError, match=message):
            find_thing(model, name)
    with (
        pytest.raises(ValueError, match="'cart' and 'pole', which share a geom"),
        carts(1, target="cart", distractors=["pole"]),
    ):
        pass


def test_a_counterfactual_changes_one_thing_of_several_geoms() -> None:
    with carts(3, camera="side", target="cart", distractors=["block", "goal"], image_size=96) as env:
        observation, infos = env.reset(seed=1)
        shown = observation["image"]
        moved = env.render_counterfactual("target", shift=(0.25, 0.0))
        places = [np.argwhere(moved[key][0]).mean(axis=0) for key in ("before", "after")]
        assert places[1] - places[0] == pytest.approx([0.0, 24.0], abs=0.5)
        np.testing.assert_array_equal(moved["before"], infos["target_mask"])
        gone = env.render_counterfactual("target", removed=True)
        blue = env.render_counterfactual("target", rgba=(0.0, 0.0, 1.0, 1.0))
        for edit in (gone, blue):
            changed = (edit["image"] != shown).any(axis=-1)
            assert changed.any(axis=(1, 2)).all()
            assert not (changed & ~infos["target_mask"]).any()
        assert not gone["target_after"].any()
        np.testing.assert_array_equal(blue["after"], infos["target_mask"])
        other = env.render_counterfactual("distractor", removed=True)
        assert not (other["before"] & infos["target_mask"]).any()
        assert other["before"].any(axis=(1, 2)).all()
        np.testing.assert_array_equal(other["target_after"] | other["target"], other["target_after"])
        np.testing.assert_array_equal(env.observe()["image"], shown)
    with carts(1) as env, pytest.raises(ValueError, match="name one with target="):
        env.render_counterfactual("target", removed=True)


def test_a_counterfactual_without_distractors_changes_nothing() -> None:
    with carts(2, target="cart") as env:
        shown = env.reset(seed=1)[0]["image"]
        other = env.render_counterfactual("distractor", rgba=(0.0, 0.0, 1.0, 1.0))
        assert not other["before"].any()
        np.testing.assert_array_equal(other["image"], shown)


def test_a_view_is_the_frame_of_that_camera_at_that_size() -> None:
    with carts(2, camera="top", target="goal", suite="easy", backdrop="floor") as env:
        shown, infos = env.reset(seed=2)
        np.testing.assert_array_equal(env.view()[0], shown["image"])
        np.testing.assert_array_equal(env.view("top")[1], infos["target_mask"])
        large = env.view(image_size=(96, 128))
        assert large[0].shape == (2, 96, 128, 3)
        assert large[1].shape == (2, 96, 128)
        assert env.render()[0].shape == (480, 480, 3)
    with carts(2, camera="top", target="goal") as env, carts(2, camera="side", target="goal") as other:
        env.reset(seed=2)
        expected, infos = other.reset(seed=2)
        frame, mask = env.view("side")
        np.testing.assert_array_equal(frame, expected["image"])
        np.testing.assert_array_equal(mask, infos["target_mask"])
        with pytest.raises(ValueError, match="did you mean 'side'"):
            env.view("sid")


# Shifts.


@pytest.mark.parametrize(
    "shift", ["colors", "lookalikes", "background", "lighting", "camera", "noise", "occlusion"]
)
def test_shifts_change_the_frames_and_nothing_else(shift: str) -> None:
    cameras = ("side", "free")
    options: dict[str, Any] = {"target": "cart", "distractors": ["block"], "camera": cameras, "length": 99}
    with carts(2, **options) as plain, carts(2, shift=shift, intensity=1.0, **options) as shifted:
        expected, observation = plain.reset(seed=6)[0], shifted.reset(seed=6)[0]
        for _ in range(20):
            if all((observation[name] != expected[name]).any(axis=(1, 2, 3)).all() for name in cameras):
                break
            push = np.ones((2, 1), np.float32)  # patches start outside of the frame
            expected, observation = plain.step(push)[0], shifted.step(push)[0]
        for name in cameras:
            assert (observation[name] != expected[name]).any(axis=(1, 2, 3)).all()
        np.testing.assert_array_equal(observation["state"], expected["state"])


def test_colors_of_named_things_stay_away_from_the_targets() -> None:
    options: dict[str, Any] = {"camera": "side", "target": "cart", "distractors": ["block"]}
    with carts(4, shift={"lookalikes": 1.0}, **options) as env, carts(4, **options) as plain:
        env.reset(seed=0)
        plain.reset(seed=0)
        before, after = plain.frames.geom_rgba, env.frames.geom_rgba
        model = env.envs[0].unwrapped.model
        block = find_thing(model, "block").geoms
        changed = (after != before).any(axis=(0, 2))
        assert np.flatnonzero(changed).tolist() == block.tolist()
        assert (after[:, block, 0] > after[:, block, 2]).all()  # near the target's red


def test_a_shift_that_would_change_nothing_is_refused_and_of_a_suite_left_out_aloud() -> None:
    with (
        pytest.raises(ValueError, match=r"distractors .needs a task that can place more objects"),
        carts(1, shift="distractors"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="name them with target= and distractors="),
        carts(1, target="cart", shift="lookalikes"),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"background .needs scenery to paint over"),
        carts(1, backdrop=(), shift="background"),
    ):
        pass
    with (
        pytest.warns(UserWarning, match="left out: distractors .*, lookalikes"),
        carts(1, target="cart", suite="medium") as env,
    ):
        assert list(env.frames.left_out) == ["distractors", "lookalikes"]


def test_shifts_leave_the_environments_model_as_it_is() -> None:
    env = gymnasium.make("Ant-v5")
    inner: Any = env.unwrapped
    before = inner.model.mat_texid.copy(), inner.model.mat_rgba.copy(), inner.model.geom_rgba.copy()
    ours = CameraObservation(env, target="torso", shift=["background", "colors"])
    ours.reset(seed=0)
    after = inner.model.mat_texid, inner.model.mat_rgba, inner.model.geom_rgba
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    ours.close()


# Models that change.


BALL = "<mujoco><worldbody><geom size='1'/></worldbody></mujoco>"


class Repainted(Cart):
    """Its model changes at every reset: a colour, the size of a geom, or the whole model."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def reset(self, **options: Any) -> Any:
        answer = super().reset(**options)
        shade = self.np_random.uniform(0.2, 0.9)
        if self.change == "color":
            self.model.geom_rgba[3] = (shade, shade, shade, 1.0)
        elif self.change == "size":
            self.model.geom_size[3] = 0.3 * shade
        elif self.change == "model":
            self.__init__(self.change)  # type: ignore[misc]
            self.model.geom_size[3] = 0.3 * shade
            return super().reset(**options)
        elif self.change == "parts":
            self.model = mujoco.MjModel.from_xml_string(BALL)
            self.data = mujoco.MjData(self.model)
        return answer


@pytest.mark.parametrize("change", ["color", "size", "model"])
def test_a_model_that_changes_at_a_reset_is_drawn_as_it_is(change: str) -> None:
    with closing(CameraVectorEnv([lambda: Repainted(change)] * 2, camera="side", target="block")) as env:
        frames = []
        for seed in (3, 8):
            observation, infos = env.reset(seed=seed)
            for index in range(2):
                fresh = CameraObservation(Repainted(change), camera="side", target="block")
                expected, info = fresh.reset(seed=seed + index)
                np.testing.assert_array_equal(observation["image"][index], expected["image"])
                np.testing.assert_array_equal(infos["target_mask"][index], info["target_mask"])
                fresh.close()
                frames.append(expected["image"])
        assert len({frame.tobytes() for frame in frames}) == 4


def test_a_model_of_other_parts_is_refused() -> None:
    first = Repainted("parts")
    first.change = ""
    env = CameraObservation(first)
    first.change = "parts"
    with pytest.raises(ValueError, match=r"changed ngeom from 6 to 1: .*renderer=opengl"):
        env.reset(seed=0)
    env.close()


# Refusals.


SKIN = """
<body name="cloth" pos="0 0 1"><flexcomp name="cloth" type="grid" count="3 3 1" spacing=".1 .1 .1" dim="2"
  radius=".01"><edge equality="true"/></flexcomp></body>
"""


def test_what_cannot_be_drawn_names_the_renderer_that_can() -> None:
    with pytest.raises(ValueError, match=r"1 flex.*renderer=opengl"), carts(1, more=SKIN):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "tpo"}, "a camera among top, camera1, side, free, got 'tpo': did you mean 'top'"),
        ({"camera": 3}, "index of one of 3 camera.s., or -1 for the free one, got 3"),
        ({"camera": ()}, "at least one camera, got none"),
        ({"camera": ("top", 0)}, "expected different cameras, got top, top"),
        ({"image_size": 16}, "integers from 32 to 2048"),
        ({"image_size": 4096}, "integers from 32 to 2048"),
        ({"suite": "medim"}, "did you mean 'medium'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message), carts(1, **options):
        pass


def test_a_copy_is_refused_in_one_sentence() -> None:
    env = CameraObservation(Cart())
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="copy the function that makes it"):
            copied(env)
    env.close()


def test_an_environment_without_mujoco_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a MuJoCo `model` and `data`, got CartPoleEnv: .*need MuJoCo"):
        CameraObservation(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match="at least one environment"):
        CameraVectorEnv([])
