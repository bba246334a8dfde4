"""PerceptionExtractor in policies of Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from toy_env import HEIGHT, WIDTH, ToyEnv

import robot_attn
from robot_attn import MAX_TOKENS, tokenize
from robot_attn.vocabulary import WORDS
from robot_attn_policies.sb3.extractor import PerceptionExtractor, find_extractor, perceive
from robot_attn_policies.sb3.vec_env import BatchVecEnv

IMAGE = spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8)
STATE = spaces.Box(-1, 1, (2,), np.float32)


def algorithm(kind: str, *, box: bool, normalize_images: bool = True, **kwargs: Any) -> BaseAlgorithm:
    env = BatchVecEnv(ToyEnv(2, box=box))
    policy_kwargs = {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": "query", "num_heads": 3},
        "normalize_images": normalize_images,
        **kwargs,
    }
    policy = "CnnPolicy" if box else "MultiInputPolicy"
    if kind == "sac":
        return SAC(
            policy, env, buffer_size=64, learning_starts=8, batch_size=8, seed=0, policy_kwargs=policy_kwargs
        )
    if kind == "recurrent":
        name = "CnnLstmPolicy" if box else "MultiInputLstmPolicy"
        policy_kwargs["lstm_hidden_size"] = 8
        return RecurrentPPO(
            name, env, n_steps=8, batch_size=8, n_epochs=1, seed=0, policy_kwargs=policy_kwargs
        )
    return PPO(policy, env, n_steps=8, batch_size=8, n_epochs=1, seed=0, policy_kwargs=policy_kwargs)


@pytest.mark.parametrize("box", [True, False], ids=["box", "dict"])
@pytest.mark.parametrize("kind", ["ppo", "sac", "recurrent"])
def test_it_trains_with_sb3_and_returns_attention(kind: str, box: bool) -> None:
    model = algorithm(kind, box=box)
    probe = find_extractor(model.policy)
    before = [parameter.detach().clone() for parameter in probe.parameters()]
    model.learn(32)
    moved = [not torch.equal(old, new) for old, new in zip(before, probe.parameters(), strict=True)]
    assert all(moved)  # gradients reach every parameter of the perception
    percept = perceive(model, ToyEnv(4, box=box).reset(seed=0)[0])
    assert percept.features.shape == (4, probe.perception.features_dim)
    assert percept.attention.shape == (4, 3, *probe.perception.grid.shape)
    torch.testing.assert_close(percept.attention.sum((2, 3)), torch.ones(4, 3))
    assert not percept.features.requires_grad


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_frames_are_divided_once(kind: str) -> None:
    models = [algorithm(kind, box=False, normalize_images=divided) for divided in (True, False)]
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    observation = ToyEnv(3).reset(seed=0)[0]
    first, second = (perceive(model, observation) for model in models)
    torch.testing.assert_close(first.features, second.features)
    frames = torch.from_numpy(np.moveaxis(observation["image"], -1, 1).copy())
    module = find_extractor(models[0].policy).perception
    direct = module(frames, torch.from_numpy(observation["state"]))
    torch.testing.assert_close(first.features, direct.features)
    torch.testing.assert_close(first.attention, direct.attention)


def test_floating_point_frames_are_not_rescaled() -> None:
    space = spaces.Box(0, 1, (3, 32, 32), np.float32)
    for normalized in (False, True):
        torch.manual_seed(0)
        extractor = PerceptionExtractor(space, "query", normalized_image=normalized)
        frames = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(extractor(frames), extractor.perception(frames).features)


def test_vectors_are_context_and_reach_the_policy_in_order_of_their_keys() -> None:
    space = spaces.Dict({"z": STATE, "image": IMAGE, "a": spaces.Box(-1, 1, (2, 2), np.float32)})
    extractor = PerceptionExtractor(space, "query")
    assert extractor.perception.context_dim == 6
    assert extractor.features_dim == extractor.perception.features_dim + 6
    observation = {
        "z": torch.tensor([[5.0, 6.0]]),
        "image": torch.rand(1, 3, HEIGHT, WIDTH),
        "a": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
    }
    assert extractor(observation)[0, -6:].tolist() == [1, 2, 3, 4, 5, 6]


def test_discrete_entries_become_one_hot() -> None:
    space = spaces.Dict({"image": IMAGE, "goal": spaces.Discrete(4)})
    kwargs = {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": "query"},
    }
    policy = ActorCriticPolicy(space, spaces.Discrete(2), lambda _: 1e-3, **kwargs)
    observation = {"image": np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), "goal": np.array([1, 3])}
    assert perceive(policy, observation).features.shape[0] == 2
    assert find_extractor(policy).perception.context_dim == 4


def test_single_observations_and_both_channel_orders() -> None:
    model = algorithm("ppo", box=False)
    batch = ToyEnv(2).reset(seed=0)[0]
    one = {key: value[0] for key, value in batch.items()}
    first = {**one, "image": np.moveaxis(one["image"], -1, 0)}
    expected = perceive(model, batch).attention[:1]
    for observation in (one, first, {key: torch.from_numpy(np.array(value)) for key, value in one.items()}):
        torch.testing.assert_close(perceive(model, observation).attention, expected)


def test_sac_has_separate_extractors() -> None:
    model = algorithm("sac", box=False)
    observation = ToyEnv(1).reset(seed=0)[0]
    assert find_extractor(model.policy, "actor") is model.policy.actor.features_extractor
    assert find_extractor(model.policy, "critic") is model.policy.critic.features_extractor
    actor, critic = (perceive(model, observation, extractor=which).features for which in ("actor", "critic"))
    assert not torch.equal(actor, critic)
    with pytest.raises(ValueError, match="'actor' or 'critic', got 'both'"):
        perceive(model, observation, extractor="both")  # type: ignore[arg-type]


def test_separate_extractors_of_ppo() -> None:
    model = algorithm("ppo", box=True, share_features_extractor=False)
    assert find_extractor(model.policy, "actor") is model.policy.pi_features_extractor
    assert find_extractor(model.policy, "critic") is model.policy.vf_features_extractor
    model.learn(16)


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (STATE, {}, "expected an image space"),
        (spaces.Dict(state=STATE), {}, "expected an image among"),
        (spaces.Dict(left=IMAGE, right=IMAGE), {"image": "up"}, r"\['left', 'right'\], each once, got 'up'"),
        (spaces.Dict(left=IMAGE, right=IMAGE), {"image": ("left", "left")}, "each once"),
        (spaces.Dict(left=IMAGE, right=IMAGE), {"image": ()}, r"one or more.*got \(\)"),
        (IMAGE, {"image": "front"}, "leave it out"),
        (spaces.Box(0, 100, (3, 32, 32), np.uint8), {}, r"uint8 in \[0, 255\]"),
        (spaces.Box(0, np.inf, (3, 32, 32), np.float32), {}, "floats with finite bounds"),
        (IMAGE, {"perception": "qeury"}, "'query'"),
    ],
)
def test_spaces_without_a_usable_image_are_rejected(
    space: spaces.Space[Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PerceptionExtractor(space, **kwargs)


def test_the_named_image_is_used_and_the_others_are_named() -> None:
    space = spaces.Dict(left=IMAGE, right=IMAGE)
    with pytest.warns(UserWarning, match=r"does not see the images \['left'\], since image='right'"):
        extractor = PerceptionExtractor(space, image="right")
    frames = {"left": torch.zeros(1, 3, HEIGHT, WIDTH), "right": torch.rand(1, 3, HEIGHT, WIDTH)}
    torch.testing.assert_close(extractor(frames), extractor.perception(frames["right"]).features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((32, 32, 3), np.uint8)}, r"\(3, 36, 44\).*got \(32, 32, 3\)"),
        ({"image": np.zeros((36, 44, 3), np.float32)}, "dtype uint8, got float32"),
        ({"image": np.zeros((44, 3, 36), np.uint8)}, r"got \(44, 3, 36\)"),
        ({"image": np.zeros((1, 2, 36, 44, 3), np.uint8)}, r"got \(1, 2, 36, 44, 3\)"),
        ({"state": np.array([0, np.nan], np.float32)}, "NaN"),
        ({"state": np.zeros((5, 2), np.float32)}, "one batch size"),
    ],
)
def test_observations_that_do_not_fit_are_rejected(change: dict[str, Any], message: str) -> None:
    model = algorithm("ppo", box=False)
    observation = {"image": np.zeros((36, 44, 3), np.uint8), "state": np.zeros(2, np.float32)}
    perceive(model, observation)
    with pytest.raises(ValueError, match=message):
        perceive(model, observation | change)


def test_incomplete_observations_are_rejected() -> None:
    model = algorithm("ppo", box=False)
    with pytest.raises(ValueError, match=r"got \['image'\]: add \['state'\]"):
        perceive(model, {"image": np.zeros((36, 44, 3), np.uint8)})
    with pytest.raises(ValueError, match="expected a dict"):
        perceive(model, np.zeros((36, 44, 3), np.uint8))


def test_a_policy_without_the_extractor_is_rejected() -> None:
    model = PPO("MultiInputPolicy", BatchVecEnv(ToyEnv(1)), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="PerceptionExtractor, got CombinedExtractor"):
        perceive(model, ToyEnv(1).reset()[0])


def test_uniform_families_are_marked() -> None:
    assert robot_attn.FAMILIES["cnn"].uniform


def instruction_space(tokens: spaces.Box) -> spaces.Dict:
    return spaces.Dict(
        {
            "image": spaces.Box(0, 255, (3, 37, 41), np.uint8),
            "state": spaces.Box(-1, 1, (2,), np.float32),
            "tokens": tokens,
            "wind": spaces.Box(-1, 1, (1,), np.float32),  # sorts after the tokens
        }
    )


TOKENS_SPACE = spaces.Box(0, 40, (MAX_TOKENS,), np.int64)


def observations_with(*texts: str) -> dict[str, torch.Tensor]:
    count = len(texts)
    return {
        "image": torch.rand(1, 3, 37, 41).expand(count, -1, -1, -1),
        "state": torch.tensor([[0.25, -0.5]]).expand(count, -1),
        "tokens": torch.stack([tokenize(text) for text in texts]).float(),  # as SB3 hands them over
        "wind": torch.tensor([[0.125]]).expand(count, -1),
    }


def test_the_instruction_family_reads_the_tokens_and_the_features_omit_them() -> None:
    torch.manual_seed(0)
    extractor = PerceptionExtractor(instruction_space(TOKENS_SPACE), "instruction", features_dim=11)
    features = extractor(observations_with("the red ball", "the blue box"))
    assert extractor.features_dim == features.shape[1] == 11 + 3
    np.testing.assert_array_equal(features[:, 11:].numpy(force=True), [[0.25, -0.5, 0.125]] * 2)
    attention = extractor.percept(observations_with("the red ball", "the blue box")).attention
    assert not torch.equal(attention[0], attention[1])
    same = extractor.percept(observations_with("the red ball", "the red sphere")).attention
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize("family", ["query", "instruction"])
def test_other_families_get_the_instruction_as_a_bag_of_words(family: str) -> None:
    options = {"instruction": "the red ball"} if family == "instruction" else {}
    extractor = PerceptionExtractor(instruction_space(TOKENS_SPACE), family, features_dim=11, **options)
    features = extractor(observations_with("the red ball", "box, the blue box"))
    assert extractor.features_dim == features.shape[1] == 11 + 3 + len(WORDS)
    words = features[:, 14:].numpy(force=True)
    assert [[WORDS[i] for i in np.flatnonzero(row)] for row in words] == [
        ["the", "red", "sphere"],
        ["the", "blue", "box"],
    ]
    assert set(np.unique(words)) == {0.0, 1.0}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 40, (MAX_TOKENS,), np.float32),
        spaces.Box(0, 40, (MAX_TOKENS - 1,), np.int64),
        spaces.Box(-1, 40, (MAX_TOKENS,), np.int64),
        spaces.Box(0, len(WORDS) + 1, (MAX_TOKENS,), np.int64),
    ],
)
def test_tokens_that_are_not_an_instruction_are_rejected(space: spaces.Box) -> None:
    with pytest.raises(ValueError, match=f"{MAX_TOKENS} whole numbers from 0 to {len(WORDS)}"):
        PerceptionExtractor(instruction_space(space), "query")
