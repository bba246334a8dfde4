"""Recording an episode of any policy in any environment with image observations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage
from toy_env import HORIZON, ToyEnv

from robot_attn_policies.probing.policy_maps import action_gradient_maps
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.episode_file import load_episode, save_episode
from robot_attn_policies.recording.record import record
from robot_attn_policies.sb3.context import Context
from robot_attn_policies.sb3.extractor import PerceptionExtractor, perceive
from robot_attn_policies.sb3.vec_env import BatchVecEnv

H, W, STEPS = 37, 53, 5
CONTINUOUS = spaces.Box(-1, 1, (2,), np.float32)
DISCRETE = spaces.Discrete(3)


def noise(seed: int, step: int, channels: int = 3) -> np.ndarray:
    """The frame of a step, channels last."""
    return np.random.default_rng([seed, step]).integers(0, 256, (H, W, channels), dtype=np.uint8)


class Noise(gymnasium.Env[Any, Any]):
    """A frame of noise per step, always in the same memory; the rewards are 1, 2, 3, ..."""

    dt = 0.05

    def __init__(
        self,
        actions: spaces.Space[Any] = CONTINUOUS,
        *,
        channels: int = 3,
        first: bool = False,
        vector: bool = False,
        high: float | None = None,
        steps: int = STEPS,
    ) -> None:
        shape = (channels, H, W) if first else (H, W, channels)
        frames = spaces.Box(0, 255, shape, np.uint8)
        if high is not None:
            frames = spaces.Box(-high, high, shape, np.float32)
        entries = {"camera": frames, "state": spaces.Box(-1, 1, (2,), np.float32)}
        self.observation_space = spaces.Dict(entries) if vector else frames
        self.action_space = actions
        self.channels, self.first, self.vector, self.high, self.steps = channels, first, vector, high, steps
        self.frame = np.zeros(shape, frames.dtype)
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed = 7 if seed is None else seed
        self.step_count = 0
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.step_count += 1
        over = self.step_count == self.steps
        return self.observe(), float(self.step_count), over, False, {**self.info(), "is_success": over}

    def observe(self) -> Any:
        frame = noise(self.seed, self.step_count, self.channels)
        frame = np.moveaxis(frame, -1, 0) if self.first else frame
        self.frame[:] = frame if self.high is None else (frame / 255 * 2 - 1) * self.high
        state = np.full(2, self.step_count / 10, np.float32)
        return {"camera": self.frame, "state": state} if self.vector else self.frame

    def info(self) -> dict[str, Any]:
        mask = np.zeros((H, W), bool)
        mask[self.step_count] = True
        return {"target_mask": mask, "note": "not kept"}

    def close(self) -> None:
        self.closed = True


def make(algorithm: type[BaseAlgorithm], env: Any, policy: str = "CnnPolicy", **kwargs: Any) -> BaseAlgorithm:
    if algorithm in (SAC, TD3, DQN):
        kwargs["buffer_size"] = 8
    return algorithm(policy, env, seed=0, **kwargs)  # type: ignore[arg-type]


def frames(seed: int, channels: int = 3) -> np.ndarray:
    return np.stack([noise(seed, step, channels) for step in range(STEPS)])


@pytest.mark.parametrize(
    ("algorithm", "actions", "policy"),
    [
        (PPO, DISCRETE, "CnnPolicy"),
        (A2C, CONTINUOUS, "MultiInputPolicy"),
        (PPO, spaces.MultiDiscrete([2, 3]), "CnnPolicy"),
        (SAC, CONTINUOUS, "MultiInputPolicy"),
        (TD3, CONTINUOUS, "CnnPolicy"),
        (DQN, DISCRETE, "CnnPolicy"),
    ],
)
def test_any_algorithm_in_any_kind_of_environment(
    algorithm: type[BaseAlgorithm], actions: spaces.Space[Any], policy: str
) -> None:
    vector = "Multi" in policy
    env = Noise(actions, vector=vector)
    model = make(algorithm, env, policy)
    episode = record(model, env, seed=3, maps="gradient")
    assert_array_equal(episode.images, frames(3))
    assert episode.rewards.tolist() == [1, 2, 3, 4, 5] and episode.dones.tolist() == [False] * 4 + [True]
    observations: Any = frames(3)
    if vector:
        state = np.repeat(np.arange(STEPS, dtype=np.float32)[:, None] / 10, 2, axis=1)
        observations = {"camera": observations, "state": state}
        assert episode.state is not None
        assert_array_equal(episode.state, state)
    actions_taken = model.predict(observations, deterministic=True)[0]
    flat = [spaces.flatten(actions, action) for action in actions_taken]
    assert_allclose(episode.actions, flat, atol=1e-6)
    maps = action_gradient_maps(model.policy, observations, "camera" if vector else None)
    assert_allclose(episode.attention[:, 0], maps, rtol=1e-4, atol=1e-7)
    assert episode.maps == "gradient" and episode.policy == algorithm.__name__ and not episode.uniform
    values = probe_policy(model).values(observations)
    assert episode.values is not None and values is not None
    assert_allclose(episode.values, values, rtol=1e-4, atol=1e-6)
    masks = episode.target_masks
    assert masks is not None and masks.sum() == STEPS * W and masks[3, 3].all()
    assert episode.success is True and episode.seed == 3
    for other in (
        SyncVectorEnv([lambda: Noise(actions, vector=vector)]),
        DummyVecEnv([lambda: Noise(actions, vector=vector)]),
        VecTransposeImage(DummyVecEnv([lambda: Noise(actions, vector=vector)])),
    ):
        again = record(model.policy, other, seed=3, maps="gradient")
        for name in ("images", "actions", "rewards", "dones", "attention", "values", "target_masks"):
            assert_array_equal(getattr(again, name), getattr(episode, name), err_msg=name)
        assert again.success is True and again.policy == type(model.policy).__name__


def test_attention_is_recorded_if_the_policy_has_it(tmp_path: Path) -> None:
    env = Noise(vector=True)
    options = {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": "query"},
    }
    model = make(PPO, env, "MultiInputPolicy", policy_kwargs=options)
    episode = record(model, env, best_head=2)
    observations = {"camera": episode.images, "state": episode.state}
    assert_allclose(episode.attention, perceive(model, observations).attention, rtol=1e-4, atol=1e-7)
    assert episode.maps == "attention" and episode.best_head == 2
    save_episode(tmp_path / "episode.hdf5", episode)
    again = load_episode(tmp_path / "episode.hdf5")
    assert_array_equal(again.attention, episode.attention)
    assert again.maps == "attention" and again.dt == 0.05


def test_a_recurrent_policy_carries_its_state() -> None:
    env = Noise()
    options = {"lstm_hidden_size": 8, "net_arch": []}
    model = make(RecurrentPPO, env, "CnnLstmPolicy", policy_kwargs=options)
    policy: Any = model.policy
    with torch.no_grad():  # an untrained policy hardly depends on its state
        policy.lstm_actor.weight_hh_l0.mul_(5)
        policy.action_net.weight.mul_(100)
    episode = record(model, env, seed=3, maps="gradient")
    state, actions, maps = None, [], []
    for frame in frames(3):
        maps.append(action_gradient_maps(policy, frame[None], None, context=Context(state))[0])
        action, state = model.predict(frame[None], state=state, deterministic=True)
        actions.append(action[0])
    assert_array_equal(episode.actions, actions)
    assert_array_equal(episode.attention[:, 0], torch.stack(maps))
    stateless = model.predict(frames(3), deterministic=True)[0]
    assert_allclose(stateless[0], actions[0], atol=1e-6)
    assert np.abs(stateless[1:] - np.stack(actions[1:])).max() > 1e-3
    assert (action_gradient_maps(policy, frames(3)[-1:], None)[0] - maps[-1]).abs().max() > 1e-5
    assert episode.values is None
    assert_array_equal(
        record(model, env, seed=3, maps="attention").actions, actions
    )  # the state is reset between episodes


@pytest.mark.parametrize(("channels", "count"), [(1, 4), (1, 3), (3, 2)])
def test_the_newest_frame_of_a_stack_is_recorded(channels: int, count: int) -> None:
    env = VecFrameStack(DummyVecEnv([lambda: Noise(DISCRETE, channels=channels)]), count)
    model = make(PPO, env)
    assert model.observation_space.shape == (channels * count, H, W)
    expected = np.broadcast_to(frames(3, channels), (STEPS, H, W, 3))
    for each in (env, VecTransposeImage(env)):
        assert_array_equal(record(model, each, seed=3).images, expected)
    if channels == 3:
        assert_array_equal(record(model, env, seed=3, stack=1 + 1).images, expected)
    else:
        with pytest.raises(ValueError, match="or set stack="):
            record(model, env, stack=2 * count)


class Grey(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Reshapes grey frames [H, W, 1] to [H, W]."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (H, W), np.uint8)

    def observation(self, observation: Any) -> Any:
        return observation[..., 0]


def test_the_newest_frame_of_a_gymnasium_stack_is_recorded() -> None:
    env: Any = FrameStackObservation(Grey(Noise(DISCRETE, channels=1)), 3)
    model = make(PPO, env)
    expected = np.broadcast_to(frames(3, 1), (STEPS, H, W, 3))
    for each in (env, DummyVecEnv([lambda: env])):
        assert_array_equal(record(model, each, seed=3).images, expected)


def test_channels_first_with_a_fourth_channel() -> None:
    env = Noise(channels=4, first=True)
    assert_array_equal(record(make(PPO, env), env, seed=3).images, frames(3, 4)[..., :3])


def test_floats_are_scaled_from_their_bounds() -> None:
    env = Noise(high=2.0, first=True)
    model = make(PPO, env, policy_kwargs={"normalize_images": False})
    assert_array_equal(record(model, env, seed=3).images, frames(3))


def test_the_environment_stays_open_at_the_end_of_the_episode() -> None:
    env = Noise(steps=100)
    model = make(PPO, env)
    episode = record(model, env, seed=3, max_steps=2)
    assert len(episode) == 2 and episode.dones.tolist() == [False, True]
    assert not env.closed and env.step_count == 2
    env.step(env.action_space.sample())
    batch = SyncVectorEnv([lambda: env])
    record(model, batch, seed=3, max_steps=2)
    assert not batch.closed and not env.closed
    stack = DummyVecEnv([lambda: env])
    assert len(record(model, stack, max_steps=1)) == 1
    stack.step(stack.action_space.sample()[None])
    assert not env.closed


@pytest.fixture
def registered() -> Iterator[str]:
    name = "Test/Noise-v3"
    kwargs = {"actions": DISCRETE}
    # Gymnasium's checker would warn of frames in the same memory.
    gymnasium.register(name, Noise, max_episode_steps=4, kwargs=kwargs, disable_env_checker=True)
    yield name
    del gymnasium.registry[name]


def test_the_name_options_and_step_duration_are_recorded(registered: str) -> None:
    env = gymnasium.make(registered, steps=50)
    model = make(PPO, env)
    for each in (env, gymnasium.make_vec(registered, 1, steps=50), DummyVecEnv([lambda: env])):
        episode = record(model, each)
        assert len(episode) == 4  # its time limit
        assert episode.env_args == {
            "env_name": registered,
            "env_kwargs": {"actions": "Discrete(3)", "steps": 50},
        }
    assert record(model, env).dt == 0.05
    env.unwrapped.dt = "slow"  # type: ignore[attr-defined]
    assert record(model, env).dt is None


def test_states_and_action_names_are_recorded_if_the_batch_has_them() -> None:
    options = {"features_extractor_class": PerceptionExtractor}
    model = make(PPO, BatchVecEnv(ToyEnv(1)), "MultiInputPolicy", policy_kwargs=options)
    env = ToyEnv(1)
    env.action_names = ("down", "right")
    episode = record(model, env, seed=5)
    assert set(episode.simulator) == {"positions", "clock", "random"}
    clock = episode.simulator["clock"][:, 0]
    assert_array_equal(clock, clock[0] + np.arange(len(episode)))
    assert 1 < len(episode) <= HORIZON and episode.action_names == ("down", "right")
    again = record(model, BatchVecEnv(ToyEnv(1)), seed=5)
    for name in ("images", "state", "actions", "attention", "target_masks"):
        assert_array_equal(getattr(again, name), getattr(episode, name), err_msg=name)
    assert again.success is episode.success is not None
    env.action_names = ("one",)
    assert record(model, env, seed=5).action_names == ()


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("CartPole-v1", {}, "expected an environment, got str"),
        (Noise(channels=1), {}, "the policy observes, got an environment with frames .37, 53, 1."),
        (Noise(vector=True), {}, "expected frames, got the observation space"),
        (SyncVectorEnv([Noise] * 2), {}, "batch of one environment, got 2: record one at a time"),
        (Noise(), {"max_steps": 0}, "expected max_steps of at least 1, got 0"),
        (Noise(), {"stack": 0}, "a stack of 0"),
    ],
)
def test_bad_input_is_rejected(env: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(make(PPO, Noise()), env, **options)


def test_unbounded_floats_are_rejected() -> None:
    env = Noise(high=np.inf, first=True)
    model = make(PPO, env, policy_kwargs={"normalize_images": False})
    with pytest.raises(ValueError, match="expected frames that are uint8 or bounded, got float32"):
        record(model, env)


def test_a_policy_without_images_is_rejected() -> None:
    with pytest.raises(ValueError, match="a policy that observes images"):
        record(PPO("MlpPolicy", "CartPole-v1"), gymnasium.make("CartPole-v1"))
