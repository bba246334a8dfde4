"""Policies with several cameras: perceived, recorded, explained and scored at each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from numpy.testing import assert_array_equal
from pixel_env import IMAGES, STEPS, H, PixelEnv, W
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from robot_attn.export import export_onnx
from robot_attn_policies.evaluation.evaluate import calibrate, evaluate_policy
from robot_attn_policies.pages.page import build_page
from robot_attn_policies.probing.decision import decision
from robot_attn_policies.probing.explain import explain, explain_episode
from robot_attn_policies.probing.probe import image_module, probe_cameras, probe_policy
from robot_attn_policies.recording.episode_file import load_episode, save_episode
from robot_attn_policies.recording.record import record, record_cameras
from robot_attn_policies.rollouts.camera import at_camera
from robot_attn_policies.rollouts.policy_actor import policy_actor
from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.extractor import PerceptionExtractor, find_extractor, perceive

LEFT = spaces.Box(0, 255, (H, W, 3), np.uint8)
WRIST = spaces.Box(0, 1, (36, 33, 1), np.float32)
CAMERAS = {"left": LEFT, "wrist": WRIST}
STATE = spaces.Box(-1, 1, (2,), np.float32)
CLASSES: dict[str, Any] = {"ppo": PPO, "sac": SAC, "dqn": DQN, "recurrent": RecurrentPPO}


class TwoCameras(PixelEnv):
    """A left and a wrist camera of other sizes and dtypes, with a target mask for some of them."""

    thing_names = ("backdrop", "target", "robot")

    def describe_things(self) -> list[tuple[str, ...]]:
        return [("floor", "white square", "arm")]

    def __init__(self, masks: tuple[str, ...] = ("left", "wrist"), **options: Any) -> None:
        super().__init__(CAMERAS, state=True, **options)
        self.masked = masks

    def info(self) -> dict[str, Any]:
        masks = {}
        for turn, (name, (height, width)) in enumerate({"left": (H, W), "wrist": (36, 33)}.items()):
            mask = np.zeros((height, width), bool)
            y, x = (np.roll(self.place, turn) * (height - 8, width - 8)).astype(int)
            mask[y : y + 8, x : x + 8] = True
            if name in self.masked:
                masks[f"target_mask/{name}"] = mask
                masks[f"things/{name}"] = np.where(mask, 1, 2).astype(np.uint8)
        return masks

    def reset(self, **options: Any) -> tuple[Any, Any]:
        return super().reset(**options)[0], self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, self.info()


def kwargs_of(**options: Any) -> dict[str, Any]:
    return {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": "query", "num_heads": 2, "features_dim": 8, **options},
        "net_arch": [8],
    }


def model_of(name: str = "ppo", env: Any = None, **options: Any) -> BaseAlgorithm:
    env = env or TwoCameras(actions=spaces.Discrete(3) if name == "dqn" else None)
    kwargs = options.pop("policy_kwargs", None) or kwargs_of(**options)
    sizes: dict[str, Any] = {"n_steps": 4, "batch_size": 4, "n_epochs": 1}
    if name in ("sac", "dqn"):
        sizes = {"buffer_size": 16, "learning_starts": 2, "batch_size": 4}
    policy = "MultiInputLstmPolicy" if name == "recurrent" else "MultiInputPolicy"
    model: BaseAlgorithm = CLASSES[name](policy, env, seed=0, policy_kwargs=kwargs, **sizes)
    return model


def random_observation(batch: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "left": rng.integers(0, 256, (batch, H, W, 3), np.uint8),
        "wrist": rng.random((batch, 36, 33, 1), np.float32),
        "state": rng.uniform(-1, 1, (batch, 2)).astype(np.float32),
    }


# Perception.


@pytest.mark.parametrize("image", [None, ("left", "wrist"), ("wrist", "left"), ["left", "wrist"]])
def test_every_camera_has_a_module_whose_features_follow_each_other(image: Any) -> None:
    space = spaces.Dict(**CAMERAS, state=STATE)
    extractor = PerceptionExtractor(space, "query", image=image, features_dim=5)
    keys = tuple(image or ("left", "wrist"))
    assert extractor.image_keys == keys
    assert extractor.features_dim == 5 + 5 + 2
    observation = {key: torch.from_numpy(value) for key, value in random_observation().items()}
    frames = {
        "left": observation["left"].movedim(-1, 1),
        "wrist": observation["wrist"].movedim(-1, 1),
    }
    percepts = {key: extractor.perception_of(key)(frames[key], observation["state"]) for key in keys}
    expected = torch.cat([*(percepts[key].features for key in keys), observation["state"]], 1)
    torch.testing.assert_close(extractor(observation), expected)
    for key in keys:
        torch.testing.assert_close(extractor.percept(observation, key).attention, percepts[key].attention)
    assert extractor.perception_of("left").image_shape == (3, H, W)
    assert extractor.perception_of("wrist").image_shape == (1, 36, 33)


def test_shared_weights_are_one_module() -> None:
    space = spaces.Dict(left=LEFT, right=LEFT)
    extractor = PerceptionExtractor(space, "query", share_weights=True)
    own = PerceptionExtractor(space, "query")
    assert extractor.perception_of("left") is extractor.perception_of("right")
    assert own.perception_of("left") is not own.perception_of("right")
    count = sum(weights.numel() for weights in own.parameters())
    assert count == 2 * sum(weights.numel() for weights in extractor.parameters())
    with pytest.raises(ValueError, match=r"one shape for share_weights.*leave share_weights out"):
        PerceptionExtractor(spaces.Dict(CAMERAS), "query", share_weights=True)


def test_no_camera_is_chosen_in_silence() -> None:
    extractor = PerceptionExtractor(spaces.Dict(CAMERAS), "query")
    observation = {key: torch.from_numpy(random_observation()[key]) for key in CAMERAS}
    for call in (extractor.perception_of, lambda: extractor.percept(observation)):
        with pytest.raises(ValueError, match=r"cameras \['left', 'wrist'\], got none: choose one"):
            call()
    with pytest.raises(ValueError, match="that the policy uses, got 'right'"):
        extractor.perception_of("right")
    model = model_of()
    for call in (
        lambda: perceive(model, random_observation()),
        lambda: act(model.policy, random_observation()),
        lambda: policy_actor(model.policy),
        lambda: probe_policy(model),
        lambda: record(model, TwoCameras()),
    ):
        with pytest.raises(ValueError, match=r"cameras \['left', 'wrist'\], got none: choose one"):
            call()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("share", [False, True])
def test_every_camera_decides_and_learns(name: str, share: bool) -> None:
    env: Any = TwoCameras(actions=spaces.Discrete(3) if name == "dqn" else None)
    if share:
        env = PixelEnv({"left": LEFT, "wrist": LEFT}, env.action_space, state=True)
    model = model_of(name, env, share_weights=share)
    before = [weights.detach().clone() for weights in find_extractor(model.policy).parameters()]
    model.learn(8)
    after = find_extractor(model.policy).parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    observation, _ = env.reset(seed=1)
    for key in CAMERAS:
        frames, decide = decision(model.policy, {k: v[None] for k, v in observation.items()}, key)
        frames.requires_grad_()
        (slope,) = torch.autograd.grad(decide(frames).sum(), frames)
        assert slope.abs().max() > 0


@pytest.mark.parametrize("name", CLASSES)
def test_actions_are_those_of_the_algorithm_and_attention_that_of_the_camera(name: str) -> None:
    model = model_of(name)
    observation = random_observation()
    expected, _ = model.predict(observation, deterministic=True)  # type: ignore[arg-type]
    for key, probe in probe_cameras(model).items():
        actions, percept = probe.act(observation)
        assert_array_equal(actions, expected)
        assert percept is not None
        torch.testing.assert_close(percept.attention, perceive(model, observation, image=key).attention)
        assert percept.attention.shape[2:] == probe.grid.shape
        assert probe.grid.image_size == CAMERAS[str(key)].shape[:2]


def test_weights_of_a_single_camera_keep_their_names() -> None:
    names = [name for name, _ in PerceptionExtractor(spaces.Dict(left=LEFT), "query").named_parameters()]
    assert names and all(name.startswith("perception.") for name in names)
    with pytest.warns(UserWarning, match=r"does not see the images \['wrist'\]"):
        chosen = PerceptionExtractor(spaces.Dict(CAMERAS), "query", image=("left",))
    assert [name for name, _ in chosen.named_parameters()] == names


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    model = model_of()
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip")
    for key in CAMERAS:
        one, other = (perceive(each, random_observation(), image=key) for each in (model, loaded))
        torch.testing.assert_close(one.attention, other.attention, rtol=0, atol=0)


def test_each_camera_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    extractor = find_extractor(model_of().policy)
    observation = random_observation()
    for key in CAMERAS:
        module = extractor.perception_of(key)
        path = export_onnx(module, tmp_path / f"{key}.onnx", uint8=key == "left")
        frames = np.moveaxis(observation[key], -1, 1)
        found = runtime.InferenceSession(path).run(
            ["attention"], {"frames": np.ascontiguousarray(frames), "context": observation["state"]}
        )[0]
        expected = module(torch.from_numpy(frames.copy()), torch.from_numpy(observation["state"])).attention
        np.testing.assert_allclose(found, expected.numpy(force=True), atol=1e-6)


# Records.


@pytest.mark.parametrize("kind", ["attention", "causal"])
@pytest.mark.parametrize("wrapped", ["env", "vec", "sb3"])
def test_one_rollout_is_recorded_at_every_camera(kind: str, wrapped: str) -> None:
    plain = {"left": LEFT, "wrist": spaces.Box(0, 255, (36, 40, 3), np.uint8)}
    model = (
        model_of()
        if kind == "attention"
        else model_of(env=PixelEnv(plain, state=True), policy_kwargs={"net_arch": [8]})
    )

    def make() -> Any:
        return TwoCameras() if kind == "attention" else PixelEnv(plain, state=True)

    env = {"env": make, "vec": lambda: SyncVectorEnv([make]), "sb3": lambda: DummyVecEnv([make])}[wrapped]()
    episodes = record_cameras(model, env, seed=3, best_heads={"wrist": 1} if kind == "attention" else None)
    assert list(episodes) == ["left", "wrist"]
    left, wrist = episodes.values()
    assert (left.camera, left.other_cameras) == ("left", ("wrist",))
    assert (wrist.camera, wrist.other_cameras) == ("wrist", ("left",))
    assert (left.maps, wrist.maps) == (kind, kind)
    assert wrist.best_head == (1 if kind == "attention" else 0)
    for name in ("actions", "rewards", "dones", "state"):
        assert_array_equal(getattr(left, name), getattr(wrist, name))

    alone = make()
    observation, info = alone.reset(seed=3)
    for step in range(STEPS):
        for key, episode in episodes.items():
            image = observation[key]
            pixels = np.rint(image * 255) if image.dtype == np.float32 else image
            assert_array_equal(episode.images[step], np.broadcast_to(pixels, episode.images.shape[1:]))
            if kind == "attention":
                attention = perceive(model, observation, image=key).attention[0].numpy(force=True)
                np.testing.assert_allclose(episode.attention[step], attention, atol=1e-6)
                assert episode.target_masks is not None
                assert_array_equal(episode.target_masks[step], info[f"target_mask/{key}"])
                assert episode.things is not None and episode.thing_names == TwoCameras.thing_names
                assert_array_equal(episode.things[step], info[f"things/{key}"])
        observation, reward, _, _, info = alone.step(left.actions[step])
        assert reward == pytest.approx(left.rewards[step])


def test_a_camera_without_a_mask_has_none() -> None:
    episodes = record_cameras(model_of(), TwoCameras(masks=("wrist",)), seed=3)
    assert episodes["left"].target_masks is None
    assert episodes["wrist"].target_masks is not None
    assert episodes["left"].things is None and episodes["left"].thing_names == ()
    assert episodes["wrist"].things is not None
    assert episodes["wrist"].thing_descriptions == ("floor", "white square", "arm")


def test_one_camera_can_be_recorded_alone_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    episode = record(model_of(), TwoCameras(), seed=3, image="wrist")
    assert (episode.camera, episode.other_cameras) == ("wrist", ("left",))
    save_episode(tmp_path / "wrist.hdf5", episode)
    loaded = load_episode(tmp_path / "wrist.hdf5")
    assert (loaded.camera, loaded.other_cameras) == ("wrist", ("left",))
    assert_array_equal(loaded.images, episode.images)
    page = build_page(loaded)
    assert "These are the frames of the camera wrist. The policy also sees: left." in page


def test_a_recurrent_policy_is_recorded_with_its_memory_at_every_camera() -> None:
    env = TwoCameras()
    model = model_of("recurrent", env)
    episodes = record_cameras(model, env, seed=3)
    observation, _ = env.reset(seed=3)
    state: Any = None
    for step in range(STEPS):
        action, state = model.predict(observation, state=state, deterministic=True)
        np.testing.assert_allclose(episodes["wrist"].actions[step], action, atol=1e-6)
        observation, *_ = env.step(action)


# Scores and explanations.


def batch(count: int, masks: tuple[str, ...] = ("left", "wrist")) -> Any:
    return SyncVectorEnv([lambda: gymnasium.wrappers.TimeLimit(TwoCameras(masks), STEPS)] * count)


def test_focus_is_scored_at_each_camera_with_its_own_mask() -> None:
    model, env = model_of(), batch(2)
    for key, probe in probe_cameras(model).items():
        seen = at_camera(env, key, only=False)
        calibration = calibrate(probe.act, seen, [5, 6], probe.grid)
        _, focus = evaluate_policy(probe.act, seen, [1, 2], probe.grid, calibration)
        share = 64 / (H * W if key == "left" else 36 * 33)
        assert focus.totals.mean_chance().denominator.sum() > 0
        chance = focus.totals.mean_chance()
        assert chance.numerator.sum() / chance.denominator.sum() == pytest.approx(share)


def test_a_single_mask_is_that_of_the_only_camera_or_of_the_image_called_image() -> None:
    class OneMask(TwoCameras):
        def info(self) -> dict[str, Any]:
            return {"target_mask": super().info()["target_mask/left"]}

    for key, only in (("left", False), ("image", False), ("left", True)):
        env = at_camera(SyncVectorEnv([OneMask]), key, only=only)
        infos: list[Any] = []
        rollout_episodes(
            lambda _: (np.zeros((1, 2), np.float32), None),
            env,
            [1],
            on_step=lambda step, infos=infos: infos.append(step.info),  # type: ignore[misc]
        )
        assert len(infos) == STEPS
        assert all(("target_mask" in info) == (only or key == "image") for info in infos)


def test_an_environment_with_one_image_is_as_it_was() -> None:
    env = SyncVectorEnv([lambda: PixelEnv(IMAGES["rgb"], state=True)])
    assert at_camera(env, "image", only=True) is env


def test_a_report_has_every_section_for_every_camera() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    model = model_of()
    report = explain(model, batch(2), seeds=range(3), curves=False, ablations=())
    names = [section.name for section in report.sections]
    own = [name.removeprefix("camera-1-") for name in names if name.startswith("camera-1-")]
    assert {"focus", "faithful", "heads", "actions", "weights", "gradients"} <= set(own)
    assert names == [f"camera-{number}-{name}" for number in (1, 2) for name in own]
    titles = [section.title for section in report.sections]
    assert titles[0].startswith("Camera left. ") and titles[-1].startswith("Camera wrist. ")
    assert ("Cameras", "left, wrist") in report.facts
    assert {line.split(":")[0] for line in report.summary} == {"Camera left", "Camera wrist"}
    assert all(report.sections[i].verdict is not None for i in (0, len(own)))  # both cameras have masks


def test_pixels_of_one_camera_are_ablated_and_the_other_stays() -> None:
    pytest.importorskip("captum")
    model = model_of()
    alone = explain_episode(probe_policy(model, image="wrist"), TwoCameras(), 1)
    both = explain_episode(model, TwoCameras(), 1)
    wrist = [section for section in both.sections if section.name.startswith("camera-2-")]
    assert [section.name for section in wrist] == [f"camera-2-{section.name}" for section in alone.sections]
    assert [section.text for section in wrist] == [section.text for section in alone.sections]
    assert [str(section.charts) for section in wrist] == [str(section.charts) for section in alone.sections]


def test_feature_maps_are_those_of_the_camera() -> None:
    probes = probe_cameras(model_of())
    for key, probe in probes.items():
        assert image_module(probe) is find_extractor(probe.policy).perception_of(key)
    env = PixelEnv({"left": LEFT, "wrist": LEFT}, state=True)
    plain = model_of(env=env, policy_kwargs={"net_arch": [8]})
    for key, probe in probe_cameras(plain).items():
        assert image_module(probe) is plain.policy.features_extractor.extractors[key]  # type: ignore[union-attr,index]
    alone = probe_policy(PPO("CnnPolicy", PixelEnv(LEFT), n_steps=4, batch_size=4))
    assert image_module(alone) is alone.policy


def test_a_policy_of_sb3_is_explained_at_every_camera() -> None:
    pytest.importorskip("captum")
    env = PixelEnv({"left": LEFT, "wrist": LEFT}, state=True)
    model = model_of(env=env, policy_kwargs={"net_arch": [8]})
    report = explain_episode(model, env, 1)
    assert {section.name.split("-")[1] for section in report.sections} == {"1", "2"}


def test_interventions_show_in_every_camera_and_are_reported_at_the_one_with_masks() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    rendered: list[dict[str, Any]] = []

    class Counterfactual(SyncVectorEnv):
        """The target moves in both cameras; the masks are those of the wrist, the first camera."""

        def render_counterfactual(self, what: str, **edit: Any) -> dict[str, Any]:
            full = {
                name: np.ones((self.num_envs, 36, 33), bool)
                for name in ("before", "after", "target", "target_after")
            }
            wrist = np.full((self.num_envs, 36, 33, 1), 0.5, np.float32)
            left = np.full((self.num_envs, H, W, 3), 200, np.uint8)
            rendered.append({"image": wrist, "wrist": wrist, "left": left})
            return {**rendered[-1], **full}

    model = model_of()
    env = Counterfactual([lambda: gymnasium.wrappers.TimeLimit(TwoCameras(), STEPS)] * 2)
    received: list[torch.Tensor] = []
    left = find_extractor(model.policy).perception_of("left")
    hook = left.register_forward_pre_hook(lambda _, arguments: received.append(arguments[0]))
    report = explain_episode(model, SyncVectorEnv([TwoCameras]), 1)
    assert not any("interventions" in section.name and section.tables for section in report.sections)
    received.clear()
    report = explain(model, env, seeds=[1, 2], curves=False, ablations=())
    hook.remove()
    changed = torch.full((3, H, W), 200 / 255)
    assert any(torch.allclose(frames[0], changed) for frames in received)
    tables = {section.name: section.tables for section in report.sections if "interventions" in section.name}
    assert not tables["camera-1-interventions"]
    assert tables["camera-2-interventions"]

    # A policy that uses one of the cameras gets the counterfactual frames of that one, or none.
    for key, tested in (("left", False), ("wrist", True)):
        with pytest.warns(UserWarning, match="does not see"):
            alone = model_of(image=key)
        report = explain(alone, env, seeds=[1, 2], curves=False, ablations=())
        (section,) = (section for section in report.sections if section.name == "interventions")
        assert bool(section.tables) == tested
