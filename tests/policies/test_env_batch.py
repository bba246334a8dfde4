"""Environments of every kind as the batch of a rollout: seeds, masks and infos of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import MaskablePPO
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage
from toy_ball import Ball
from toy_env import ToyEnv

from robot_attn_policies.probing.explain import explain
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.record import record
from robot_attn_policies.rollouts.action_masks import action_masks
from robot_attn_policies.rollouts.env_batch import EnvBatch
from robot_attn_policies.rollouts.rollout import Step, random_actor, rollout_episodes
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.vec_env import BatchVecEnv

QUICK: Any = {"curves": False, "ablations": ()}


def masked(kind: str) -> tuple[Any, list[Ball]]:
    """Environments that allow one action at each step, and the environments inside."""
    inner = [Ball(discrete=True, masked=True) for _ in range(1 if kind == "single" else 2)]
    if kind == "single":
        return inner[0], inner
    if kind == "masker":
        plain = [Ball(discrete=True) for _ in inner]
        return DummyVecEnv([lambda env=env: Monitor(ActionMasker(env, Ball.allowed)) for env in plain]), plain  # type: ignore[misc]
    functions = [lambda env=env: env for env in inner]  # type: ignore[misc]
    if kind == "vector":
        return SyncVectorEnv(functions, autoreset_mode=AutoresetMode.SAME_STEP), inner
    return VecTransposeImage(DummyVecEnv(functions)), inner


@pytest.mark.parametrize("kind", ["single", "vector", "vec_env", "masker"])
def test_only_actions_that_are_allowed_are_taken(kind: str) -> None:
    env, inner = masked(kind)
    model = MaskablePPO("CnnPolicy", Ball(discrete=True, masked=True), n_steps=4, batch_size=4, seed=0)
    batch = env if kind == "vector" else EnvBatch(env, 100)
    for act in (probe_policy(model).act, random_actor(batch.action_space)):
        rollout_episodes(act, batch, [3, 4])
    if kind == "single":
        record(model, env, seed=5)
        explain(model, env, seeds=[5, 6], **QUICK)
    taken = [pair for each in inner for pair in each.taken]
    assert len(taken) >= 16 and all(action == step % 3 for step, action in taken)


def test_a_policy_with_masks_asks_for_an_environment_with_masks() -> None:
    model = MaskablePPO("CnnPolicy", Ball(discrete=True, masked=True), n_steps=4, batch_size=4, seed=0)
    with pytest.raises(ValueError, match=r"expected an environment with action masks.*ActionMasker"):
        record(model, Ball(discrete=True))


def test_masks_of_another_shape_are_refused() -> None:
    env = Ball(discrete=True, masked=True)
    env.reset(seed=0)
    assert action_masks(EnvBatch(env, 10)).tolist() == [[True, False, False]]  # type: ignore[union-attr]
    env.action_masks = lambda: True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"bool \[1, actions\], got \[1\]"):
        action_masks(EnvBatch(env, 10))


def test_a_batch_of_sb3_plays_the_seeds_that_were_asked_for() -> None:
    inner = [Ball(), Ball()]
    env = DummyVecEnv([lambda each=each: each for each in inner])  # type: ignore[misc]
    model = PPO("CnnPolicy", env, n_steps=4, batch_size=4, seed=0)
    frames: dict[int, Any] = {}

    def keep(step: Step) -> None:
        for i in np.flatnonzero(step.running):
            frames.setdefault(int(step.episode[i]), np.array(step.observation[i]))  # type: ignore[index]

    rollout_episodes(probe_policy(model).act, EnvBatch(env, 100), [5, 100, 7], on_step=keep)  # type: ignore[arg-type]
    for episode, seed in enumerate([5, 100, 7]):
        np.testing.assert_array_equal(frames[episode], Ball().reset(seed=seed)[0])


def test_a_batch_of_sb3_is_explained_with_its_masks() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    env = DummyVecEnv([lambda: Ball(target=True)] * 2)
    model = PPO("CnnPolicy", env, n_steps=4, batch_size=4, seed=0)
    report = explain(model, env, seeds=[5, 100], **QUICK)
    focus = report.sections[0]
    assert focus.verdict is not None and "visible in 100% of the frames" in focus.text[0]
    part = explain(model, DummyVecEnv([lambda: Ball(target=True), Ball]), seeds=[5, 100], **QUICK)
    assert part.sections[0].text == ("This environment gives no target masks.",)


def test_the_environment_of_a_model_trained_in_a_batch_is_explained() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    options = {"features_extractor_class": PerceptionExtractor}
    env = BatchVecEnv(ToyEnv(2), channels_first=True)
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, seed=0, policy_kwargs=options)
    report = explain(model, model.get_env(), seeds=range(4), **QUICK)  # type: ignore[arg-type]
    assert report.sections[0].verdict is not None
