"""Every algorithm with every kind of observation and extractor: acting, recording, explaining, loading."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sb3_contrib import ARS, QRDQN, TQC, TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack
from toy_ball import SIDE, Ball

pytest.importorskip("captum")
pytest.importorskip("sklearn")
pytest.importorskip("cv2")

from robot_attn_policies.probing.explain import explain_episode
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.record import record
from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.zip_file import load_zip, zip_algorithm

ON_POLICY = (PPO, A2C, TRPO, RecurrentPPO, MaskablePPO)
OFF_POLICY = (SAC, TD3, TQC, DQN, QRDQN)
DISCRETE = (DQN, QRDQN, MaskablePPO, A2C)
STEPS = 3
OBSERVATIONS = ("box", "dict", "stack")
CASES = [
    (algorithm, observation, extractor)
    for algorithm in (*ON_POLICY, *OFF_POLICY, ARS)
    for observation in OBSERVATIONS
    for extractor in ("ours", "cnn")
    # ARS has policies for one array alone, and none with an extractor.
    if algorithm is not ARS or (observation != "dict" and extractor == "cnn")
]


def environment(algorithm: type[BaseAlgorithm], observation: str) -> VecEnv:
    options = {"discrete": algorithm in DISCRETE, "masked": algorithm is MaskablePPO}
    env = DummyVecEnv([lambda: Ball(state=observation == "dict", steps=STEPS, target=True, **options)])
    return VecFrameStack(env, 2) if observation == "stack" else env


def model_of(algorithm: type[BaseAlgorithm], observation: str, extractor: str) -> BaseAlgorithm:
    kind = "MultiInput" if observation == "dict" else "Cnn"
    policy = {RecurrentPPO: f"{kind}LstmPolicy", ARS: "LinearPolicy"}.get(algorithm, f"{kind}Policy")
    options: dict[str, Any] = {"net_arch": [8]} if algorithm is not ARS else {}
    if extractor == "ours":
        options |= {
            "features_extractor_class": PerceptionExtractor,
            "features_extractor_kwargs": {"perception": "query", "num_heads": 2},
        }
    if algorithm is RecurrentPPO:
        options |= {"lstm_hidden_size": 8}
    short: dict[str, Any] = {"buffer_size": 8} if algorithm in OFF_POLICY else {}
    env = environment(algorithm, observation)
    return algorithm(policy, env, seed=0, policy_kwargs=options, **short)  # type: ignore[arg-type]


def random_states() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    ("algorithm", "observation", "extractor"),
    CASES,
    ids=[f"{algorithm.__name__}-{observation}-{extractor}" for algorithm, observation, extractor in CASES],
)
def test_a_policy_acts_as_it_predicts_and_is_recorded_explained_and_loaded(
    algorithm: type[BaseAlgorithm], observation: str, extractor: str, tmp_path: Path
) -> None:
    model: Any = model_of(algorithm, observation, extractor)
    env = environment(algorithm, observation)
    probe = probe_policy(model)
    assert probe.kind == ("attention" if extractor == "ours" else "causal")
    state: Any = None

    def check_actions(step: Step) -> None:
        nonlocal state
        masks = {} if algorithm is not MaskablePPO else {"action_masks": step.context.action_masks}
        expected, state = model.predict(step.observation, state=state, deterministic=True, **masks)
        assert_array_equal(step.actions, expected)
        assert step.percept is not None
        assert torch.allclose(step.percept.attention.sum(dim=(2, 3)), torch.tensor(1.0), atol=1e-5)

    states = random_states()
    rollout_episodes(probe.act, EnvBatch(env, 10), [3], on_step=check_actions)
    episode = record(model, env, seed=3)
    assert len(episode) == STEPS and episode.rewards.tolist() == [1.0] * STEPS
    assert episode.images.shape == (STEPS, SIDE, SIDE, 3) and episode.target_masks is not None
    assert (episode.images[episode.target_masks] == 250).all()
    assert episode.maps == probe.kind and np.isfinite(episode.attention).all()
    report = explain_episode(model, env, seed=3)
    assert {section.name for section in report.sections} >= {"actions", "gradients", "weights", "time"}
    assert random_states() == states, "a global random state moved"

    model.save(tmp_path / "model")
    assert zip_algorithm(tmp_path / "model.zip") == algorithm.__name__
    loaded = load_zip(tmp_path / "model.zip", trust=True)
    assert random_states() == states, "loading moved a global random state"
    again = record(loaded, env, seed=3)
    assert_array_equal(again.actions, episode.actions)
    assert_array_equal(again.attention, episode.attention)
