"""Images of any axes, dtype and number go into a policy of Stable-Baselines3 whole."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pixel_env import IMAGES, STEPS, H, PixelEnv, W
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from robot_attn.layout import ImageLayout, image_layout, rearrange
from robot_attn_policies.probing.decision import decision
from robot_attn_policies.probing.explain import explain_episode
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.record import record
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.extractor import PerceptionExtractor, find_extractor, perceive
from robot_attn_policies.sb3.images import image_entries

ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"class": PPO, "n_steps": 4, "batch_size": 4, "n_epochs": 1},
    "a2c": {"class": A2C, "n_steps": 4},
    "sac": {"class": SAC, "buffer_size": 16, "learning_starts": 2, "batch_size": 4},
    "dqn": {"class": DQN, "buffer_size": 16, "learning_starts": 2, "batch_size": 4},
}


def policy_kwargs(**options: Any) -> dict[str, Any]:
    return {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": "query", "num_heads": 2, "features_dim": 8, **options},
        "net_arch": [8],
    }


def model_of(name: str, env: Any, **kwargs: Any) -> BaseAlgorithm:
    settings = dict(ALGORITHMS[name])
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "CnnPolicy"
    kwargs = {"policy_kwargs": policy_kwargs(), **settings, **kwargs}
    model: BaseAlgorithm = kwargs.pop("class")(policy, env, seed=0, **kwargs)
    return model


def actions_for(name: str) -> spaces.Space[Any] | None:
    return spaces.Discrete(3) if name == "dqn" else None


def frames_by_hand(image: NDArray[Any], space: spaces.Box) -> NDArray[np.float32]:
    """Frames float [C, H, W] in [0, 1] of one image, without our code."""
    scaled = np.asarray(image, np.float32) / np.float32(space.high.max())
    if scaled.ndim == 2:
        return scaled[None]
    if scaled.ndim == 4:  # (k, H, W, C)
        return np.concatenate([np.moveaxis(frame, -1, 0) for frame in scaled])
    return scaled if scaled.shape[0] < 32 else np.moveaxis(scaled, -1, 0)


def seen_by(model: BaseAlgorithm, observation: Any, image: str | None) -> NDArray[np.float32]:
    """Frames [B, C, H, W] as the perception receives them, in [0, 1]."""
    received: list[torch.Tensor] = []
    extractor = find_extractor(model.policy)
    hook = extractor.perception_of(image).register_forward_pre_hook(
        lambda _, arguments: received.append(arguments[0])
    )
    model.predict(observation, deterministic=True)
    hook.remove()
    return received[0].numpy(force=True)


@pytest.mark.parametrize("in_dict", [False, True], ids=["alone", "in a dict"])
@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_images_of_any_form_reach_the_perception_and_the_record(name: str, kind: str, in_dict: bool) -> None:
    space = IMAGES[kind]
    env = PixelEnv(space, actions_for(name), state=in_dict)
    model = model_of(name, env)
    model.learn(4)
    observation, _ = env.reset(seed=3)
    image = observation["image"] if in_dict else observation
    key = "image" if in_dict else None
    np.testing.assert_allclose(
        seen_by(model, observation, key)[0], frames_by_hand(image, space), rtol=0, atol=1e-6
    )
    percept = perceive(model, observation)
    actions, same, _ = act(model.policy, observation)
    assert_array_equal(actions, model.predict(observation, deterministic=True)[0])
    torch.testing.assert_close(same.attention, percept.attention)
    frames, _ = decision(model.policy, observation, key)
    np.testing.assert_allclose(frames[0].numpy(force=True), frames_by_hand(image, space), rtol=0, atol=1e-6)

    episode = record(model, env, seed=3)
    assert episode.images.shape == (STEPS, *percept_size(model), 3)
    colors = np.moveaxis(frames_by_hand(image, space), 0, -1)[..., :3]
    np.testing.assert_allclose(
        episode.images[0] / 255, np.broadcast_to(colors, episode.images.shape[1:]), atol=1 / 254
    )
    torch.testing.assert_close(torch.from_numpy(episode.attention[0]), percept.attention[0])


def percept_size(model: BaseAlgorithm) -> tuple[int, int]:
    (layout,) = image_entries(model.observation_space).values()
    return layout.image_size


@pytest.mark.parametrize(
    "kind", ["grey", "flat grey", "rgb", "channels first", "float", "float channels first"]
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_stacks_of_gymnasium_are_channels_with_the_newest_last(name: str, kind: str) -> None:
    env = FrameStackObservation(PixelEnv(IMAGES[kind], actions_for(name)), 3)
    assert env.observation_space.shape == (3, *IMAGES[kind].shape)
    model = model_of(name, env)
    model.learn(4)
    env.reset(seed=1)
    observation = env.step(env.action_space.sample())[0]
    frames = np.concatenate([frames_by_hand(image, IMAGES[kind]) for image in observation])
    np.testing.assert_allclose(seen_by(model, observation, None)[0], frames, rtol=0, atol=1e-6)
    episode = record(model, env, seed=3)
    newest = np.moveaxis(frames_by_hand(env.env.reset(seed=3)[0], IMAGES[kind]), 0, -1)
    np.testing.assert_allclose(episode.images[0] / 255, np.broadcast_to(newest, (H, W, 3)), atol=1 / 254)


@pytest.mark.parametrize("kind", ["grey", "rgb", "channels first"])
def test_stacks_of_sb3_are_recorded_by_their_newest_frame(kind: str) -> None:
    env = VecFrameStack(DummyVecEnv([lambda: PixelEnv(IMAGES[kind])]), 3)
    model = model_of("ppo", env)
    model.learn(4)
    episode = record(model, env, seed=3)
    newest = np.moveaxis(frames_by_hand(PixelEnv(IMAGES[kind]).reset(seed=3)[0], IMAGES[kind]), 0, -1)
    np.testing.assert_allclose(episode.images[0] / 255, np.broadcast_to(newest, (H, W, 3)), atol=1 / 254)
    assert find_extractor(model.policy).perception.image_shape[0] == 3 * newest.shape[-1]


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("flat grey", False), ("channels first", False), ("float", False), ("stack", False), ("rgba", True)],
)
def test_pixels_of_any_form_can_be_ablated(kind: str, plain: bool) -> None:
    """A report needs frames that can be taken out of an observation, changed and put back."""
    pytest.importorskip("captum")
    env: gymnasium.Env[Any, Any] = PixelEnv(IMAGES["rgb" if kind == "stack" else kind])
    env = FrameStackObservation(env, 2) if kind == "stack" else env
    model = model_of("ppo", env, **({"policy_kwargs": {"net_arch": [8]}} if plain else {}))
    report = explain_episode(model, env, 1)
    names = {section.name for section in report.sections}
    assert {"actions", "gradients", "weights", "failures"} <= names


# SB3 writes into the dict that it is given.


@pytest.mark.parametrize("order", [(False, True), (True, False), (False, True, False)])
@pytest.mark.parametrize("name", ["ppo", "sac", "dqn"])
def test_one_dict_of_kwargs_serves_models_that_divide_and_models_that_do_not(
    name: str, order: tuple[bool, ...]
) -> None:
    env = PixelEnv(IMAGES["rgb"], actions_for(name))
    shared = policy_kwargs()
    observation, _ = env.reset(seed=1)
    expected = frames_by_hand(observation, IMAGES["rgb"])
    for divides in order:
        shared["normalize_images"] = divides
        model = model_of(name, env, policy_kwargs=shared)
        seen = seen_by(model, observation, None)[0]
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "of SB3"])
def test_a_decision_without_division_is_that_of_the_policy(plain: bool) -> None:
    env = PixelEnv(IMAGES["rgb"])
    kwargs = {"net_arch": [8]} if plain else policy_kwargs()
    model = model_of("ppo", env, policy_kwargs={**kwargs, "normalize_images": False})
    observation, _ = env.reset(seed=1)
    frames, decide = decision(model.policy, observation, None)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    actions = np.clip(decide(frames).numpy(force=True), low, high)[0]
    np.testing.assert_allclose(actions, model.predict(observation, deterministic=True)[0], atol=1e-6)


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "of SB3"])
@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_a_policy_with_state_dependent_noise_is_explained(name: str, plain: bool) -> None:
    pytest.importorskip("captum")
    env = PixelEnv(IMAGES["rgb"])
    kwargs = {"policy_kwargs": {"net_arch": [8]}} if plain else {}
    model = model_of(name, env, use_sde=True, **kwargs)
    model.learn(4)
    report = explain_episode(model, env, 1)
    assert "weights" in {section.name for section in report.sections}
    model.learn(4)  # the report has left the policy as it was


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    space = spaces.Dict(image=IMAGES["rgb"], goal=spaces.MultiDiscrete([2, 3]))
    extractor = PerceptionExtractor(space, "query", num_heads=np.int64(4), features_dim=np.int32(8))
    assert extractor.perception.context_dim == 5
    assert extractor.features_dim == 8 + 5


# What an image is.


@pytest.mark.parametrize(
    ("shape", "order", "image_shape"),
    [
        ((37, 53), "HW", (1, 37, 53)),
        ((37, 53, 5), "HWC", (5, 37, 53)),
        ((5, 37, 53), "CHW", (5, 37, 53)),
        ((37, 41, 53), "CHW", (37, 41, 53)),
        ((2, 37, 53, 5), "KHWC", (10, 37, 53)),
        ((2, 5, 37, 53), "KCHW", (10, 37, 53)),
    ],
)
def test_the_axes_of_an_image_are_known_by_its_shape(
    shape: tuple[int, ...], order: str, image_shape: tuple[int, int, int]
) -> None:
    layout = image_layout(shape)
    assert layout is not None and layout.order == order and layout.image_shape == image_shape
    frames = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    last = layout.to_channels_last(frames)
    channels, height, width = image_shape
    assert last.shape == (2, height, width, channels)
    assert_array_equal(layout.from_channels_last(last), frames)
    assert_array_equal(layout.from_channels_first(layout.to_channels_first(frames)), frames)


@pytest.mark.parametrize("shape", [(20, 53), (37, 5, 53), (5, 6, 7), (2, 20, 53, 3), (9,), (1, 2, 37, 53, 3)])
def test_other_shapes_are_no_images(shape: tuple[int, ...]) -> None:
    assert image_layout(shape) is None


def test_frames_of_another_shape_are_not_rearranged() -> None:
    with pytest.raises(ValueError, match=r"\(3, 37, 53\), got \(1, 37, 53\): wrap the environment"):
        rearrange(np.zeros((37, 53)), ImageLayout((37, 53), "HW"), ImageLayout((3, 37, 53), "CHW"))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (H, W, 3), np.int32), r"of uint8 in \[0, 255\] or of floats.*int32"),
        (spaces.Box(0, 9, (H, W, 3), np.uint8), r"of uint8 in \[0, 255\] or of floats"),
        (spaces.Box(-np.inf, np.inf, (H, W, 3), np.float32), "finite bounds.*range of its pixels"),
        (spaces.Box(0, 255, (20, 24, 3), np.uint8), "sides from 32 to 2048"),
        (spaces.Box(0, 255, (3, 20, 24), np.uint8), "sides from 32 to 2048"),
        (spaces.Box(0, 255, (3, 64, 2049), np.uint8), "sides from 32 to 2048"),
    ],
)
def test_images_that_no_perception_takes_are_refused_by_name(space: spaces.Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceptionExtractor(space)
    with pytest.raises(ValueError, match=message):
        PerceptionExtractor(spaces.Dict(left=space, right=IMAGES["rgb"]))


def test_floats_that_are_no_image_stay_vectors() -> None:
    grid = spaces.Box(0, 1, (4, 5, 6), np.float32)
    extractor = PerceptionExtractor(spaces.Dict(image=IMAGES["rgb"], grid=grid))
    assert extractor.vector_keys == ["grid"]
    assert extractor.perception.context_dim == 4 * 5 * 6


def test_a_probe_of_a_stack_has_the_size_of_a_frame() -> None:
    env = FrameStackObservation(PixelEnv(IMAGES["rgb"]), 4)
    probe = probe_policy(model_of("ppo", env))
    assert probe.grid.image_size == (H, W)
