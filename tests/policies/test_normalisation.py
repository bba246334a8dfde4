"""Normalising wrappers keep their statistics while a policy is watched; rewards are the environment's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from gymnasium.wrappers.vector import NormalizeReward as VectorNormalizeReward
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage
from toy_ball import Ball

from robot_attn_policies.probing.explain import explain, explain_episode
from robot_attn_policies.recording.record import record
from robot_attn_policies.rollouts.rollout import random_actor, rollout_episodes

STEPS = 50


def normalised(wrap: Callable[[Any], Any] = lambda env: env, steps: int = STEPS) -> tuple[VecNormalize, Any]:
    """A `VecNormalize` in the middle of a training, and what is around it."""
    batch = DummyVecEnv([lambda: Ball(state=True, steps=steps)])
    env = VecNormalize(batch, norm_obs_keys=["state"])
    env.reset()
    for _ in range(7):
        env.step(np.zeros((1, 2), np.float32))
    return env, wrap(env)


def statistics(env: VecNormalize) -> dict[str, Any]:
    found = {name: getattr(env, name) for name in ("training", "norm_reward", "returns")}
    means = {"rewards": env.ret_rms, "state": env.obs_rms["state"]}  # type: ignore[index]
    return copy.deepcopy(found | {name: vars(value) for name, value in means.items()})


def model_for(env: Any) -> PPO:
    return PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, seed=0)


@pytest.mark.parametrize("wrap", [lambda env: env, VecTransposeImage], ids=["outermost", "inside"])
def test_recorded_rewards_are_the_environments_and_nothing_moves(wrap: Callable[[Any], Any]) -> None:
    env, outer = normalised(wrap)
    model = model_for(outer)
    before = statistics(env)
    episode = record(model, outer, seed=3)
    assert episode.rewards.sum() == 50.0  # 4.34 when normalised
    np.testing.assert_equal(statistics(env), before)
    again = record(model, outer, seed=3)
    assert_array_equal(again.actions, episode.actions)
    assert_array_equal(again.images, episode.images)
    # The policy's observations stay normalised.
    assert episode.state is not None
    raw = record(model, Ball(state=True, steps=STEPS), seed=3).state
    rms = env.obs_rms["state"]  # type: ignore[index]
    expected = np.clip((raw - rms.mean) / np.sqrt(rms.var + env.epsilon), -10, 10)
    np.testing.assert_allclose(episode.state, expected, rtol=1e-6)


def test_explaining_moves_nothing() -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    env, _ = normalised(steps=4)
    model = model_for(env)
    before = statistics(env)
    explain_episode(model, env, seed=3)
    explain(model, env, seeds=range(2), curves=False, ablations=())
    np.testing.assert_equal(statistics(env), before)


def test_statistics_come_back_after_an_error() -> None:
    env, _ = normalised()
    model = model_for(env)
    before = statistics(env)
    env.venv.envs[0].step = None  # type: ignore[attr-defined, method-assign]
    with pytest.raises(TypeError):
        record(model, env, seed=3)
    np.testing.assert_equal(statistics(env), before)


def test_gymnasiums_wrappers_are_frozen_too() -> None:
    env: Any = NormalizeReward(NormalizeObservation(Ball(steps=STEPS)))
    env.reset(seed=0)
    for _ in range(7):
        env.step(np.zeros(2, np.float32))

    def state() -> dict[str, Any]:
        rewards, observations = env, env.env
        return copy.deepcopy(
            {
                "rewards": vars(rewards.return_rms),
                "observations": vars(observations.obs_rms),
                "running": rewards.discounted_reward,
                "flags": (rewards.update_running_mean, observations.update_running_mean, rewards.epsilon),
            }
        )

    before = state()
    batch = gymnasium.vector.SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)
    rollouts = rollout_episodes(random_actor(batch.action_space), batch, [3, 4])
    assert rollouts.returns.tolist() == [50.0, 50.0]
    np.testing.assert_equal(state(), before)


def test_a_normalised_batch_is_frozen() -> None:
    batch = SyncVectorEnv([lambda: Ball(steps=STEPS)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = VectorNormalizeReward(batch)
    env.reset(seed=0)
    env.step(np.zeros((2, 2), np.float32))
    before = copy.deepcopy((vars(env.return_rms), env.accumulated_reward, env.update_running_mean))
    assert rollout_episodes(random_actor(env.action_space), env, [3, 4, 5]).returns.tolist() == [50.0] * 3
    np.testing.assert_equal((vars(env.return_rms), env.accumulated_reward, env.update_running_mean), before)
