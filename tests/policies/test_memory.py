"""How far back a frame matters to recurrent and stacked policies, against policies of known memory."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import Tensor, nn

pytest.importorskip("captum")
pytest.importorskip("sklearn")

from robot_attn_policies.pages.report import Section
from robot_attn_policies.probing.explain import explain
from robot_attn_policies.probing.memory import Timing, has_memory, memory_section
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.probing.steps import StepCollector
from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.rollouts.rollout import rollout_episodes

SIDE, STEPS, EPISODES = 36, 24, 8


class Shades(gymnasium.Env[Any, Any]):
    """Frames of one random brightness each."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    dt = 0.05

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.render_frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.render_frame(), 0.0, False, self.count == self.steps, {}

    def render_frame(self) -> Any:
        return np.full((SIDE, SIDE, 1), self.np_random.integers(256), np.uint8)


class Brightness(BaseFeaturesExtractor):
    """The mean of each channel."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(2, 3))


class ShiftRegister(nn.LSTM):
    """A memory with an LSTM's interface that holds the last features, the newest first."""

    def forward(self, features: Tensor, state: Any = None) -> Any:  # type: ignore[override]
        hidden, cell = state
        outputs = []
        for now in features:  # [T, B, 1], one step after the other
            hidden = torch.cat([now[None], hidden[..., :-1]], dim=2)
            outputs.append(hidden[0])
        return torch.stack(outputs), (hidden, cell)


def with_memory(weights: list[float]) -> RecurrentPPO:
    """A recurrent policy whose action is a weighted sum of the last frames' brightness, the newest first."""
    options = {"lstm_hidden_size": len(weights), "net_arch": [], "features_extractor_class": Brightness}
    model = RecurrentPPO("CnnLstmPolicy", Shades(), policy_kwargs=options | {"enable_critic_lstm": False})
    network: Any = model.policy
    network.lstm_actor = ShiftRegister(1, len(weights))
    set_action(model, weights)
    return model


def with_stack(weights: list[float]) -> PPO:
    """A policy on a stack whose action is a weighted sum of the frames' brightness, the oldest first."""
    env = VecFrameStack(DummyVecEnv([Shades]), len(weights))
    options = {"net_arch": [], "features_extractor_class": Brightness}
    model = PPO("CnnPolicy", env, policy_kwargs=options)
    set_action(model, weights)
    return model


def set_action(model: Any, weights: list[float]) -> None:
    with torch.no_grad():
        model.policy.action_net.weight.copy_(torch.tensor([weights]) / sum(weights))
        model.policy.action_net.bias.zero_()


def section_of(model: BaseAlgorithm, env: Any, *, episodes: int = EPISODES, stack: int = 1) -> Section:
    probe = probe_policy(model, maps="gradient")
    collector = StepCollector(probe.grid)
    rollout_episodes(probe.act, env, range(episodes), on_step=collector)
    return memory_section(probe, collector.batch(), Timing(stack, Shades.dt))


def batch(steps: int = STEPS) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: Shades(steps)] * 4, autoreset_mode=AutoresetMode.SAME_STEP)


def curve(section: Section, series: int = 0) -> np.ndarray[Any, Any]:
    return np.asarray(section.charts[0].series[series].y)


@pytest.mark.parametrize(
    ("weights", "answer"),
    [
        ([0, 0, 0, 0, 0, 1], "It remembers back to 5 steps (0.25 s): no earlier frame"),
        ([1, 1, 1, 1, 1, 1, 0, 0], "It remembers back to 5 steps (0.25 s): no earlier frame"),
        ([1, 0, 0], "It acts on the current frame only"),
        ([0.9**lag for lag in range(40)], "It remembers back to at least 12 steps (0.6 s), the largest lag"),
    ],
    ids=["only the sixth last", "the last six", "the last", "decay"],
)
def test_a_recurrent_policy_remembers_back_to_what_it_was_made_to(weights: list[float], answer: str) -> None:
    section = section_of(with_memory(weights), batch())
    assert section.text[0].startswith(answer)
    alone, together = curve(section), curve(section, 2)
    known = np.array(weights + [0.0] * 40)[: len(alone)]
    # Each frame's share is its weight's, up to the spread of the brightness of the frames that were replaced.
    np.testing.assert_allclose(alone / alone.max(), known / known.max(), atol=0.35)
    assert (alone[known == 0] < 1e-6).all()
    # From the oldest frame in memory on, all that the memory holds is replaced.
    np.testing.assert_allclose(together[len(weights) - 1 :], 1, rtol=1e-4)
    if len(weights) > len(together):
        assert 0.8 < together[-1] < 1


def test_the_half_life_of_a_decaying_memory_is_found() -> None:
    section = section_of(with_memory([0.8**lag for lag in range(30)]), batch())
    # 1 - 0.8 ** n is half at n = 3.1 frames: those of ages 0 to 3, or to 2 by chance.
    assert "at most 3 steps (0.15 s) old" in section.text[1] or "at most 2 steps" in section.text[1]


@pytest.mark.parametrize(
    ("weights", "answer"),
    [
        ([0, 1, 0, 0], "It uses frames back to 2 steps (0.1 s): no earlier frame"),
        ([0, 0, 0, 1], "It acts on the current frame only"),
        ([1, 0, 0, 0], "It uses frames back to 3 steps (0.15 s), the oldest frame of its stack"),
    ],
)
def test_a_stacked_policy_uses_the_frames_it_was_made_to(weights: list[float], answer: str) -> None:
    env = EnvBatch(VecFrameStack(DummyVecEnv([Shades] * 4), 4), 100)
    section = section_of(with_stack(weights), env, stack=4)
    assert section.text[0].startswith(answer)
    alone = curve(section)
    assert (alone[np.array(weights[::-1]) == 0] < 1e-6).all()


def test_a_policy_with_neither_memory_nor_stack_has_no_section() -> None:
    assert not has_memory(probe_policy(with_stack([1])), Timing())
    assert has_memory(probe_policy(with_stack([1, 1])), Timing(stack=2))
    assert has_memory(probe_policy(with_memory([1])), Timing())


@pytest.mark.parametrize("kind", ["recurrent", "stacked"])
def test_a_report_says_how_far_back_a_policy_remembers(kind: str) -> None:
    env: Any = DummyVecEnv([Shades] * 4)
    model: BaseAlgorithm
    if kind == "recurrent":
        model, answer = with_memory([0, 0, 0, 0, 0, 1]), "It remembers back to 5 steps (0.25 s)"
    else:
        env, model = VecFrameStack(env, 4), with_stack([0, 1, 0, 0])
        answer = "It uses frames back to 2 steps (0.1 s)"
    probe = probe_policy(model, maps="gradient")
    report = explain(probe, env, seeds=range(EPISODES), curves=False, ablations=())
    section = next(section for section in report.sections if section.name == "memory")
    assert section.text[0].startswith(answer)
    assert f"Memory: {section.text[0]}" in report.summary


def test_steps_that_were_left_out_are_not_replayed() -> None:
    probe = probe_policy(with_memory([0, 1]), maps="gradient")
    collector = StepCollector(probe.grid)
    rollout_episodes(probe.act, batch(), [0], on_step=collector)
    steps = collector.batch().subsample(STEPS // 2)
    with pytest.raises(ValueError, match="expected every step of the episodes, got some of them"):
        memory_section(probe, steps, Timing())


def test_few_episodes_give_no_answer() -> None:
    section = section_of(with_memory([0, 1]), batch(), episodes=2)
    assert section.text[0].startswith("At least 8 episodes are needed")
    assert curve(section)[1] > 0.3
    single = section_of(with_memory([0, 1]), batch(), episodes=1)
    # A blank frame has the same brightness.
    assert single.text == ("The actions are the same with all frames replaced by a blank frame.",)
