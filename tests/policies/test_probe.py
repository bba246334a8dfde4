"""Policy probes: actions, attention, causal maps and gradients of any algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import QRDQN, TQC, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from toy_frames import H, RandomFrames, W

from robot_attn import AttentionMaps
from robot_attn.explain import peak_places
from robot_attn_policies.probing.decision import decision, response
from robot_attn_policies.probing.policy_maps import GRID, action_gradient_maps, policy_causal_maps
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.rollouts.actor import peek, start_step
from robot_attn_policies.rollouts.policy_actor import policy_actor
from robot_attn_policies.sb3.context import Context
from robot_attn_policies.sb3.extractor import PerceptionExtractor, perceive

CONTINUOUS = spaces.Box(-1, 1, (2,), np.float32)
DISCRETE = spaces.Discrete(3)
FRAMES = np.random.default_rng(0).integers(0, 256, (4, H, W, 3), dtype=np.uint8)


def make(
    algorithm: type[BaseAlgorithm], actions: spaces.Space[Any], policy: str = "CnnPolicy", **kwargs: Any
) -> BaseAlgorithm:
    if algorithm in (SAC, TD3, TQC, DQN, QRDQN):
        kwargs["buffer_size"] = 8
    return algorithm(policy, RandomFrames(actions, "Multi" in policy), seed=0, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("algorithm", "actions", "outputs"),
    [
        (PPO, DISCRETE, 1),
        (A2C, CONTINUOUS, 2),
        (PPO, spaces.MultiDiscrete([2, 3]), 2),
        (PPO, spaces.MultiBinary(4), 4),
        (SAC, CONTINUOUS, 2),
        (TD3, CONTINUOUS, 2),
        (TQC, CONTINUOUS, 2),
        (DQN, DISCRETE, 1),
        (QRDQN, DISCRETE, 1),
    ],
)
def test_a_policy_without_attention_is_probed_by_gradients(
    algorithm: type[BaseAlgorithm], actions: spaces.Space[Any], outputs: int
) -> None:
    model = make(algorithm, actions)
    probe = probe_policy(model, maps="gradient")
    assert probe.kind == "gradient" and probe.num_heads == 1 and probe.grid.image_size == (H, W)
    actions_taken, percept = probe.act(FRAMES)
    assert percept is not None
    assert_array_equal(actions_taken, model.predict(FRAMES, deterministic=True)[0])
    assert percept.attention.shape == (4, 1, GRID, GRID) and percept.attention.min() >= 0
    assert_allclose(percept.attention.sum(dim=(2, 3)), 1, rtol=1e-5)
    assert percept.attention.amax() > 1.5 / GRID**2, "expected maps that are not uniform"
    frames, decide = decision(model.policy, FRAMES, None)
    assert decide(frames).shape == (4, outputs)
    values = probe.values(FRAMES)
    assert values is not None and values.shape == (4,) and len(set(values.tolist())) == 4
    assert_array_equal(values, probe.values(FRAMES))  # of the deterministic action


def test_a_recurrent_policy_starts_from_its_initial_state_and_has_no_values() -> None:
    model = make(RecurrentPPO, CONTINUOUS, "CnnLstmPolicy", policy_kwargs={"lstm_hidden_size": 8})
    probe = probe_policy(model)
    frames, decide = decision(model.policy, FRAMES, None)
    starting, memory = model.predict(FRAMES, episode_start=np.ones(4, bool), deterministic=True)
    assert_allclose(decide(frames).detach(), starting, atol=1e-6)
    assert probe.values(FRAMES) is None
    frames, decide = decision(model.policy, FRAMES, None, context=Context(memory))  # type: ignore[arg-type]
    later = model.predict(FRAMES, state=memory, deterministic=True)[0]
    assert np.abs(later - starting).max() > 1e-5
    assert_allclose(decide(frames.repeat(2, 1, 1, 1)).detach(), np.concatenate([later] * 2), atol=1e-6)


@pytest.mark.parametrize("kind", ["causal", "gradient", "attention"])
def test_a_recurrent_policy_carries_its_state_from_step_to_step(kind: str) -> None:
    options: dict[str, Any] = {"lstm_hidden_size": 8}
    if kind == "attention":
        options |= {"features_extractor_class": PerceptionExtractor}
    model = make(RecurrentPPO, CONTINUOUS, "CnnLstmPolicy", policy_kwargs=options)
    probe = probe_policy(model, maps=kind)  # type: ignore[arg-type]
    state: Any = None
    for step in range(3):
        before = state
        expected, state = model.predict(FRAMES, state=before, deterministic=True)
        context = start_step(probe.act, None, np.full(4, step == 0))
        if before is not None:
            assert_array_equal(context.memory, before)
        peek(probe.act, np.roll(FRAMES, 1, axis=0))  # leaves no trace
        actions, percept = probe.act(FRAMES)
        assert_array_equal(actions, expected)
        assert (
            probe.kind == kind and percept is not None and percept.attention.shape[:2] == (4, probe.num_heads)
        )
    if kind == "attention":
        assert_array_equal(percept.attention, perceive(model, FRAMES).attention)


def test_a_recurrent_policy_forgets_where_an_episode_starts() -> None:
    model = make(RecurrentPPO, CONTINUOUS, "CnnLstmPolicy", policy_kwargs={"lstm_hidden_size": 8})
    probe = probe_policy(model)
    start_step(probe.act, None, np.ones(4, bool))
    probe.act(FRAMES)
    _, state = model.predict(FRAMES, deterministic=True)
    starts = np.array([False, True, False, True])
    start_step(probe.act, None, starts)
    expected, _ = model.predict(FRAMES, state=state, episode_start=starts, deterministic=True)
    assert_array_equal(probe.act(FRAMES)[0], expected)


class Flat(BaseFeaturesExtractor):
    """The flattened frame."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 3 * H * W)
        self.flatten = nn.Flatten()

    def forward(self, frames: Tensor) -> Tensor:
        return self.flatten(frames)  # type: ignore[no-any-return]


def linear(weights: Tensor) -> BaseAlgorithm:
    """A policy whose actions are `weights` [2, 3, H, W] times the frame in [0, 1]."""
    model = make(PPO, CONTINUOUS, policy_kwargs={"features_extractor_class": Flat, "net_arch": []})
    policy: Any = model.policy
    with torch.no_grad():
        policy.action_net.weight.copy_(weights.flatten(1))
        policy.action_net.bias.zero_()
    return model


def test_the_map_of_a_linear_policy_is_the_norm_of_its_weights() -> None:
    weights = torch.zeros(2, 3, H, W)
    weights[0, 0, 5, 7], weights[1, 2, 5, 7] = 3.0, -4.0  # norm 5
    weights[0, 1, 30, 40] = 10.0
    maps = action_gradient_maps(linear(weights).policy, FRAMES, None)
    expected = nn.functional.adaptive_avg_pool2d(weights.square().sum(dim=(0, 1)).sqrt()[None, None], GRID)
    assert_allclose(maps, (expected / expected.sum()).expand(4, 1, -1, -1)[:, 0], rtol=1e-5)


def test_a_policy_that_ignores_the_frame_gets_a_uniform_map() -> None:
    assert_allclose(action_gradient_maps(linear(torch.zeros(2, 3, H, W)).policy, FRAMES, None), 1 / GRID**2)


def test_cells_are_at_the_mean_position_of_their_pixels() -> None:
    """Pooling the pixels' coordinates gives the cells' centres."""
    grid = probe_policy(make(PPO, DISCRETE)).grid
    for length, centers in ((H, grid.ys), (W, grid.xs)):
        pixels = torch.arange(length, dtype=torch.float32)[None]
        assert_allclose(centers, nn.functional.adaptive_avg_pool1d(pixels, GRID)[0], rtol=1e-6)


def test_decide_repeats_the_other_entries_for_more_frames() -> None:
    model = make(PPO, CONTINUOUS, "MultiInputPolicy")
    state = np.random.default_rng(1).uniform(-1, 1, (4, 2)).astype(np.float32)
    frames, decide = decision(model.policy, {"image": FRAMES, "state": state}, "image")
    assert frames.shape == (4, 3, H, W) and 0 <= frames.min() < frames.max() <= 1
    once = decide(frames)
    assert_allclose(decide(frames.repeat(3, 1, 1, 1)).detach(), once.repeat(3, 1).detach(), atol=1e-6)
    assert_allclose(once.detach(), model.predict({"image": FRAMES, "state": state}, deterministic=True)[0])


@pytest.mark.parametrize("perception", ["query", "cnn"])
def test_a_policy_with_attention_is_probed_by_its_attention(perception: str) -> None:
    kwargs = {
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": perception},
    }
    model = make(PPO, CONTINUOUS, policy_kwargs=kwargs)
    probe = probe_policy(model, maps="attention")
    assert probe.uniform == (perception == "cnn")
    percept = probe.act(FRAMES)[1]
    assert percept is not None
    assert_array_equal(percept.attention, perceive(model, FRAMES).attention)
    assert_array_equal(probe.act(FRAMES)[0], policy_actor(model.policy)(FRAMES)[0])
    assert probe_policy(model).kind == ("causal" if perception == "cnn" else "attention")


def test_a_policy_without_images_is_rejected() -> None:
    with pytest.raises(ValueError, match="expected a policy that observes images"):
        probe_policy(PPO("MlpPolicy", "Pendulum-v1"))


def test_a_causal_map_is_on_the_pixels_that_decide() -> None:
    # The first action follows the brightness of a 6 x 6 square; the second one ignores the frame.
    weights = torch.zeros(2, 3, H, W)
    weights[0, :, 20:26, 30:36] = 1.0
    frames = np.full((3, H, W, 3), 20, np.uint8)
    frames[:, 20:26, 30:36] = 220
    probe = probe_policy(linear(weights))
    assert probe.kind == "causal" and probe.grid.shape == (GRID, GRID)
    for one in (probe, probe.with_fast_maps()):
        percept = one.act(frames)[1]
        assert percept is not None
        maps = AttentionMaps(percept.attention.numpy(), one.grid)
        assert_allclose(maps.weights.sum(axis=(2, 3)), 1, rtol=1e-5)
        peaks = peak_places(maps[:, 0])
        assert (np.abs(peaks - [22.5, 32.5]) < 5).all()
        near = np.zeros((H, W), bool)
        near[12:34, 22:44] = True
        assert maps.mass_on(np.broadcast_to(near, (3, H, W))).min() > 0.9


def test_the_causal_map_of_a_policy_that_ignores_the_frame_is_uniform_and_has_no_significant_pixel() -> None:
    model = linear(torch.zeros(2, 3, H, W))
    percept = probe_policy(model).act(FRAMES)[1]
    assert percept is not None
    assert_allclose(percept.attention, 1 / GRID**2)
    assert not policy_causal_maps(model.policy, FRAMES, None).significant().any()


def test_the_causal_map_of_a_policy_with_attention_on_request() -> None:
    options = {"features_extractor_class": PerceptionExtractor}
    probe = probe_policy(make(PPO, CONTINUOUS, policy_kwargs=options), maps="causal")
    assert probe.kind == "causal" and probe.num_heads == 1
    with pytest.raises(ValueError, match="expected a kind of maps among attention, causal, gradient, got"):
        probe_policy(make(PPO, CONTINUOUS), maps="saliency")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("algorithm", "actions", "kinds"),
    [
        (PPO, DISCRETE, ("action", "log_probability", "value")),
        (A2C, CONTINUOUS, ("action", "log_probability", "value")),
        (PPO, spaces.MultiDiscrete([2, 3]), ("action", "log_probability", "value")),
        (PPO, spaces.MultiBinary(4), ("action", "log_probability", "value")),
        (SAC, CONTINUOUS, ("action", "value")),
        (DQN, DISCRETE, ("action", "value")),
    ],
)
def test_responses(
    algorithm: type[BaseAlgorithm], actions: spaces.Space[Any], kinds: tuple[str, ...]
) -> None:
    model = make(algorithm, actions)
    others = np.random.default_rng(5).integers(0, 256, FRAMES.shape, dtype=np.uint8)
    for kind in ("action", "log_probability", "value"):
        if kind not in kinds:
            with pytest.raises(ValueError, match="expected a policy with a distribution over actions"):
                response(model.policy, FRAMES, None, kind)
            continue
        frames, function = response(model.policy, FRAMES, None, kind)  # type: ignore[arg-type]
        changed, _ = response(model.policy, others, None, kind)  # type: ignore[arg-type]
        with torch.no_grad():
            outputs = function(torch.cat([frames, changed]))
            assert_allclose(outputs[:4], function(frames), atol=1e-5)
            if kind == "action":
                assert_allclose(outputs[:4], decision(model.policy, FRAMES, None)[1](frames), atol=1e-5)
        assert len(outputs) == 8 and (outputs[:4] != outputs[4:]).any()


def test_the_response_of_a_discrete_policy_follows_the_action_that_was_chosen() -> None:
    """Its margin falls below 0 where another action becomes the highest, as the maximum's never does."""
    model = make(PPO, DISCRETE, policy_kwargs={"features_extractor_class": Flat, "net_arch": []})
    policy: Any = model.policy
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
        policy.action_net.weight[2] = 1.0  # a bright frame calls for the last action
    frames, function = response(policy, np.zeros((2, H, W, 3), np.uint8), None)
    assert_allclose(function(frames).detach(), [[1.0], [1.0]], atol=1e-5)
    bright = torch.ones_like(frames)
    assert (function(bright) < 0).all() and (decision(policy, FRAMES, None)[1](bright) > 0).all()


def test_actions_that_are_not_allowed_do_not_matter_to_the_response() -> None:
    model = MaskablePPO("CnnPolicy", RandomFrames(DISCRETE, False), seed=0)  # type: ignore[arg-type]
    allowed = np.array([[True, True, False]] * 4)
    _, function = response(model.policy, FRAMES, None, context=Context(None, allowed))
    frames, log_probability = response(
        model.policy, FRAMES, None, "log_probability", context=Context(None, allowed)
    )
    taken, _ = model.predict(FRAMES, action_masks=allowed, deterministic=True)
    assert (taken != 2).all()
    with torch.no_grad():
        # Of two actions: the margin is half the difference of their logits, and gives the probability.
        expected = -np.log1p(np.exp(-2 * function(frames).numpy()))
        assert_allclose(log_probability(frames), expected, atol=1e-5)


def test_a_recurrent_policy_has_no_values_of_single_frames() -> None:
    model = make(RecurrentPPO, CONTINUOUS, "CnnLstmPolicy", policy_kwargs={"lstm_hidden_size": 8})
    with pytest.raises(ValueError, match="expected a policy with a value function of single observations"):
        response(model.policy, FRAMES, None, "value")
    with pytest.raises(ValueError, match="expected a response among action, log_probability, value, got"):
        response(model.policy, FRAMES, None, "reward")  # type: ignore[arg-type]
