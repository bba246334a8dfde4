"""`act`: the actions of `predict`, bit for bit, and the percept, from one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_array_equal
from sb3_contrib import QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor
from toy_frames import H, RandomFrames, W

from robot_attn import Percept
from robot_attn.families import Query
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.rollouts.policy_actor import policy_actor
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.extractor import PerceptionExtractor, find_extractor, perceive
from robot_attn_policies.sb3.policy import PerceptionPolicy

B = 4
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (B, H, W, 3), dtype=np.uint8)
STATE = RNG.uniform(-1, 1, (B, 2)).astype(np.float32)
LOPSIDED = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))
DISCRETE = spaces.Discrete(3)


class Counting(Query):
    """`Query` that counts its forward passes."""

    passes = 0

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        Counting.passes += 1
        return super().perceive(frames, context)


def make(
    algorithm: type[BaseAlgorithm],
    actions: spaces.Space[Any],
    policy: str | type[Any] = "CnnPolicy",
    vector: bool = False,
    **kwargs: Any,
) -> BaseAlgorithm:
    if algorithm in (SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN):
        kwargs["buffer_size"] = 8
    kwargs["policy_kwargs"] = kwargs.get("policy_kwargs", {}) | {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": Counting},
    }
    return algorithm(policy, RandomFrames(actions, vector), seed=0, **kwargs)  # type: ignore[arg-type]


def check(model: BaseAlgorithm, observation: Any, passes: int = 1) -> None:
    """Check that `act` equals `predict` and `perceive`, in the given number of forward passes."""
    policy = model.policy
    expected, _ = model.predict(observation, deterministic=True)
    expected_percept = perceive(policy, observation)
    Counting.passes = 0
    actions, percept, memory = act(policy, observation)
    assert Counting.passes == passes
    assert memory is None
    assert actions.dtype == expected.dtype and actions.shape == expected.shape
    assert_array_equal(actions, expected)
    assert_array_equal(percept.attention, expected_percept.attention)
    assert_array_equal(percept.features, expected_percept.features)
    assert not percept.attention.requires_grad and not policy.training


@pytest.mark.parametrize(
    ("algorithm", "actions", "kwargs"),
    [
        (PPO, DISCRETE, {}),
        (PPO, LOPSIDED, {}),
        (PPO, spaces.MultiDiscrete([2, 3]), {}),
        (PPO, spaces.MultiBinary(4), {}),
        (PPO, LOPSIDED, {"policy_kwargs": {"share_features_extractor": False}}),
        (PPO, LOPSIDED, {"policy_kwargs": {"normalize_images": False}}),
        (A2C, LOPSIDED, {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
        (TRPO, LOPSIDED, {}),
        (SAC, LOPSIDED, {}),
        (SAC, LOPSIDED, {"use_sde": True}),
        (TQC, LOPSIDED, {}),
        (TD3, LOPSIDED, {}),
        (DDPG, LOPSIDED, {}),
        (DQN, DISCRETE, {}),
        (QRDQN, DISCRETE, {}),
    ],
)
@pytest.mark.parametrize("vector", [False, True])
def test_the_actions_are_those_of_predict_and_the_features_are_computed_once(
    algorithm: type[BaseAlgorithm], actions: spaces.Space[Any], kwargs: dict[str, Any], vector: bool
) -> None:
    model = make(algorithm, actions, "MultiInputPolicy" if vector else "CnnPolicy", vector, **kwargs)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter *= 3  # some actions go out of bounds, and are clipped
    batch: Any = {"image": FRAMES, "state": STATE} if vector else FRAMES
    check(model, batch)
    check(model, {"image": FRAMES[0], "state": STATE[0]} if vector else FRAMES[0])  # one alone
    actions_of, percept = policy_actor(model.policy)(batch)
    assert_array_equal(actions_of, act(model.policy, batch)[0])
    assert percept is not None and percept.attention.shape[:2] == (B, 8)


def test_crossq_with_a_policy_for_vectors() -> None:
    check(make(CrossQ, LOPSIDED, "MlpPolicy"), FRAMES)


def test_the_policy_of_training_passes_uint8_frames() -> None:
    model = make(PPO, LOPSIDED, PerceptionPolicy)
    check(model, FRAMES)


@pytest.mark.parametrize(
    "options", [{}, {"n_lstm_layers": 2}, {"shared_lstm": True, "enable_critic_lstm": False}]
)
def test_a_recurrent_policy_carries_its_state(options: dict[str, Any]) -> None:
    model = make(RecurrentPPO, LOPSIDED, "CnnLstmPolicy", policy_kwargs={"lstm_hidden_size": 8, **options})
    state = memory = None
    previous_actions = []
    for step in range(4):
        frames = np.roll(FRAMES, 5 * step, axis=1)
        expected, state = model.predict(frames, state=state, deterministic=True)
        Counting.passes = 0
        actions, percept, memory = act(model.policy, frames, memory)
        assert Counting.passes == 1
        assert_array_equal(actions, expected)
        assert state is not None and memory is not None
        for ours, theirs in zip(memory, state, strict=True):
            assert_array_equal(ours, theirs)
        assert_array_equal(percept.attention, perceive(model, frames).attention)
        previous_actions.append(actions)
    assert not np.array_equal(
        act(model.policy, frames)[0], previous_actions[-1]
    )  # without its state it acts differently


class Mirrored(ActorCriticCnnPolicy):
    """Negates its actions."""

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return -super()._predict(observation, deterministic)


class Brighter(ActorCriticCnnPolicy):
    """Extracts features from brightened frames."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Tensor:
        frames = preprocess_obs(obs, self.observation_space)
        return (features_extractor or self.features_extractor)((1.5 * frames).clamp(max=1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Mirrored, Brighter])
def test_a_policy_that_overrides_a_method_uses_predict(kind: type[ActorCriticPolicy]) -> None:
    check(make(PPO, LOPSIDED, kind), FRAMES, passes=2)


def test_a_method_set_on_the_instance_is_used() -> None:
    model: Any = make(PPO, LOPSIDED)
    predict = model.policy.predict
    model.policy.predict = lambda *args, **kwargs: (0.5 * predict(*args, **kwargs)[0], None)
    check(model, FRAMES, passes=2)


@pytest.mark.parametrize(
    "actions", [DISCRETE, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)], ids=lambda space: str(space)
)
def test_maskable_ppo_obeys_its_masks(actions: spaces.Space[Any]) -> None:
    model: Any = make(MaskablePPO, actions)
    check(model, FRAMES)
    choices = {"Discrete": 3, "MultiDiscrete": 5, "MultiBinary": 4}[type(actions).__name__]
    masks = np.tile(np.arange(choices) % 2 == 1, (B, 1))  # every second
    expected, _ = model.predict(FRAMES, deterministic=True, action_masks=masks)
    Counting.passes = 0
    taken, _, _ = act(model.policy, FRAMES, action_masks=masks)
    assert Counting.passes == 1
    assert_array_equal(taken, expected)
    single, _, _ = act(model.policy, FRAMES[0], action_masks=masks[0])
    assert_array_equal(single, expected[0])
    if actions is DISCRETE:
        assert (taken == 1).all()


class Uniform(BasePolicy):
    """No policy of Stable-Baselines3 beyond its base class."""

    def __init__(self, space: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        super().__init__(space, actions, PerceptionExtractor, {"perception": Counting})
        self.features_extractor = self.make_features_extractor()

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        features: Tensor = self.extract_features(observation, self.features_extractor)
        return features[:, :2].tanh()


def test_a_policy_of_another_class_uses_predict() -> None:
    policy = Uniform(spaces.Box(0, 255, (3, H, W), np.uint8), LOPSIDED)
    expected, _ = policy.predict(FRAMES, deterministic=True)
    Counting.passes = 0
    assert_array_equal(act(policy, FRAMES)[0], expected)
    assert Counting.passes == 2


def test_qr_dqn_returns_attention() -> None:
    model = make(QRDQN, DISCRETE)
    extractor = find_extractor(model.policy)
    assert extractor is model.policy.quantile_net.features_extractor
    assert find_extractor(model.policy, "critic") is extractor
    assert perceive(model, FRAMES).attention.shape[:2] == (B, 8)
    assert probe_policy(model).kind == "attention"
