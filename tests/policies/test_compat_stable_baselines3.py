"""Contract of the private parts of Stable-Baselines3 that are used: each exists and behaves as assumed."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage
from torch.distributions import Distribution, Normal

sys.path.insert(0, str(Path(__file__).parent))
from toy_env import ToyEnv

from robot_attn_policies.compat.stable_baselines3 import (
    StepCallback,
    UnwrappingPPO,
    apply_learning_rate,
    clear_requests,
    distribution_of,
    divides_images,
    env_indices,
    greedy_actions,
    progress_remaining,
    requested_options,
    requested_seeds,
    rollout_start,
    set_progress,
    set_updates_done,
    start_rollout_from,
    traceable_distribution,
    updates_done,
)
from robot_attn_policies.sb3.vec_env import BatchVecEnv

PARTS = {
    "algorithm": (
        "_wrap_env",
        "_last_obs",
        "_last_episode_starts",
        "_n_updates",
        "_current_progress_remaining",
        "_update_current_progress_remaining",
        "_update_learning_rate",
        "_update_info_buffer",
    ),
    "policy": ("_get_action_dist_from_latent", "_predict"),
    "environments": ("_seeds", "_options", "_reset_seeds", "_reset_options", "_get_indices"),
    "callback": ("_on_step",),
    "distribution": ("_validate_args",),
}


def pendulums(count: int) -> DummyVecEnv:
    return DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * count)


def small_ppo(kind: type[PPO] = PPO, **options: Any) -> PPO:
    model = kind("MlpPolicy", pendulums(2), n_steps=4, batch_size=4, n_epochs=2, seed=0, **options)
    model.set_logger(Logger(None, []))
    return model


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner in PARTS for name in PARTS[owner]])
def test_stable_baselines3_still_has(owner: str, name: str) -> None:
    model = small_ppo()
    kept = {
        "algorithm": model,
        "policy": model.policy,
        "environments": model.get_env(),
        "callback": StepCallback(lambda: True),
        "distribution": Distribution,
    }
    assert hasattr(kept[owner], name), f"the {owner} of this Stable-Baselines3 or torch has no {name}"


def test_an_environment_that_is_kept_is_not_wrapped() -> None:
    class Keeping(UnwrappingPPO):
        @classmethod
        def keeps_env(cls, env: Any) -> bool:
            return isinstance(env, BatchVecEnv)

    frames = BatchVecEnv(ToyEnv(2, box=True), channels_first=False)
    options: Any = {
        "n_steps": 4,
        "batch_size": 4,
        "policy_kwargs": {"features_extractor_class": FlattenExtractor},
    }
    assert Keeping("CnnPolicy", frames, **options).env is frames
    moved = UnwrappingPPO("CnnPolicy", frames, **options).env
    assert isinstance(moved, VecTransposeImage) and moved.venv is frames
    single = gymnasium.make("Pendulum-v1")  # no batch: always wrapped
    assert Keeping("MlpPolicy", single, n_steps=4, batch_size=4).get_env().num_envs == 1


def test_a_callback_ends_a_rollout_at_its_step() -> None:
    model, answers = small_ppo(), iter([True, True, False])
    model.learn(8, callback=StepCallback(lambda: next(answers)))
    assert model.num_timesteps == 3 * 2
    assert next(answers, "none left") == "none left"


def test_a_rollout_starts_from_the_given_observation() -> None:
    model = small_ppo()
    model.learn(8)
    observation, starts = rollout_start(model)
    assert observation.shape == (2, 3) and starts.tolist() == [False, False]
    elsewhere = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -2.0]], np.float32)
    start_rollout_from(model, elsewhere, np.array([True, False]))
    model.learn(8, reset_num_timesteps=False)
    # An update leaves the buffer's observations flat, all of one environment before the next one's.
    np.testing.assert_array_equal(model.rollout_buffer.observations[[0, 4]], elsewhere)
    np.testing.assert_array_equal(model.rollout_buffer.episode_starts[0], [1.0, 0.0])


def test_updates_are_counted_in_passes_over_a_rollout() -> None:
    model = small_ppo()
    assert updates_done(model) == 0
    model.learn(16)  # two rollouts of two passes
    assert updates_done(model) == 4
    set_updates_done(model, 7)
    model.train()
    assert updates_done(model) == 9


def test_progress_sets_the_learning_rate() -> None:
    model = small_ppo(learning_rate=lambda left: 0.5 * left)
    assert progress_remaining(model) == 1.0
    set_progress(model, 30, 40)
    assert progress_remaining(model) == 0.25
    apply_learning_rate(model)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == [0.125]
    assert model.logger.name_to_value["train/learning_rate"] == 0.125


def test_a_latent_gives_the_distribution_of_the_policy() -> None:
    policy = small_ppo().policy
    observation = torch.tensor([[0.6, 0.8, -1.0], [1.0, 0.0, 3.0]])
    features = policy.extract_features(observation, policy.pi_features_extractor)
    found = distribution_of(policy, policy.mlp_extractor.forward_actor(features)).distribution
    expected = policy.get_distribution(observation).distribution
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.stddev, expected.stddev)


@pytest.mark.parametrize("divides", [True, False])
@pytest.mark.parametrize("kind", [PPO, SAC])
def test_an_extractor_can_tell_whether_its_policy_divides_images(
    kind: type[PPO | SAC], divides: bool
) -> None:
    found = []

    class Listening(FlattenExtractor):
        def __init__(self, space: Any) -> None:
            found.append(divides_images())
            super().__init__(space)

    kind(
        "MlpPolicy",
        pendulums(1),
        policy_kwargs={"features_extractor_class": Listening, "normalize_images": divides},
    )
    assert found and set(found) == {divides}
    assert divides_images() is None


class TwoDials(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.MultiDiscrete([3, 2])


def test_a_distribution_is_traceable_for_a_while() -> None:
    policy = PPO("MlpPolicy", TwoDials()).policy
    before = policy.action_dist.action_dims
    torch.distributions.Distribution.set_default_validate_args(True)  # torch.compile turns it off for all
    with traceable_distribution(policy):
        assert [type(size) for size in policy.action_dist.action_dims] == [int, int]
        Normal(torch.tensor(0.0), torch.tensor(-1.0))  # a negative width is not noticed
    assert policy.action_dist.action_dims is before
    with pytest.raises(ValueError, match="scale"):
        Normal(torch.tensor(0.0), torch.tensor(-1.0))


def test_greedy_actions_are_what_predict_rescales() -> None:
    model = SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), seed=0)
    observation = np.array([[0.6, 0.8, -1.0], [1.0, 0.0, 3.0]], np.float32)
    with torch.no_grad():
        found = greedy_actions(model.policy, torch.from_numpy(observation)).numpy()
    assert found.shape == (2, 1) and (np.abs(found) < 1).all()
    predicted, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(2 * found, predicted, rtol=1e-6)  # a torque of up to 2 N m


def test_requests_hold_until_they_are_cleared() -> None:
    envs = pendulums(3)
    assert list(requested_seeds(envs)) == [None] * 3
    envs.seed(5)
    envs.set_options({"x_init": 0.1})
    assert list(requested_seeds(envs)) == [5, 6, 7]
    assert list(requested_options(envs)) == [{"x_init": 0.1}] * 3
    clear_requests(envs)
    assert list(requested_seeds(envs)) == [None] * 3
    assert list(requested_options(envs)) == [{}] * 3


def test_indices_select_environments() -> None:
    envs = pendulums(3)
    assert [list(env_indices(envs, indices)) for indices in (None, 1, [2, 0])] == [[0, 1, 2], [1], [2, 0]]
