"""Private parts of Stable-Baselines3 that training, environments and policies need, under public names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution, MultiCategoricalDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from torch import Tensor, nn

# ---- Algorithms ----


ACTING_ONLY: Mapping[str, Any] = {
    "seed": None,
    "n_envs": 1,
    "learning_rate": 0.0,
    "lr_schedule": lambda _: 0.0,
    "clip_range": lambda _: 0.0,
    "clip_range_vf": None,
    "exploration_schedule": lambda _: 0.0,
    "buffer_size": 1,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
    "optimize_memory_usage": False,
    "rollout_buffer_class": None,
    "rollout_buffer_kwargs": {},
    "action_noise": None,
    "ep_info_buffer": None,
    "ep_success_buffer": None,
    "tensorboard_log": None,
    "_last_obs": None,
    "_last_original_obs": None,
    "_last_episode_starts": None,
    "_last_lstm_states": None,
}
"""Attributes of a saved algorithm that only training needs, with values to load it with instead: they would
cost memory, seed global generators, or need an environment or the Python version of the training."""


class UnwrappingPPO(PPO):
    """PPO that does not wrap the environments for which `keeps_env` returns True."""

    @classmethod
    def keeps_env(cls, env: GymEnv) -> bool:
        """Whether the environment is used unwrapped, without `VecTransposeImage` and `Monitor`."""
        return False

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VecEnv) and cls.keeps_env(env):
            return env
        return PPO._wrap_env(env, verbose, monitor_wrapper)


class StepCallback(BaseCallback):
    """Calls a function after every step of a rollout; the rollout ends if it returns False."""

    def __init__(self, on_step: Callable[[], bool]) -> None:
        super().__init__()
        self.on_step_taken = on_step

    def _on_step(self) -> bool:
        return self.on_step_taken()


def rollout_start(model: OnPolicyAlgorithm) -> tuple[Any, NDArray[np.bool_]]:
    """Return the start of the next rollout.

    Returns:
        The observations, an array [n_envs, ...] or a dict of them, and bool [n_envs], whether they are the
        first of an episode.
    """
    return model._last_obs, model._last_episode_starts  # type: ignore[return-value]


def start_rollout_from(model: OnPolicyAlgorithm, observation: Any, episode_starts: NDArray[np.bool_]) -> None:
    """Set the start of the next rollout.

    Args:
        model: the algorithm.
        observation: an array [n_envs, ...] or a dict of them.
        episode_starts: bool [n_envs], whether they are the first of an episode.
    """
    model._last_obs, model._last_episode_starts = observation, episode_starts


def count_episodes(model: OnPolicyAlgorithm, infos: list[dict[str, Any]], dones: NDArray[np.bool_]) -> None:
    """Add the returns, lengths and successes of the episodes that ended in a step to the statistics."""
    model._update_info_buffer(infos, dones)


def updates_done(model: OnPolicyAlgorithm) -> int:
    """Number of updates, counted in passes over a rollout."""
    return model._n_updates


def set_updates_done(model: OnPolicyAlgorithm, updates: int) -> None:
    """Set what `updates_done` returns."""
    model._n_updates = updates


def progress_remaining(model: OnPolicyAlgorithm) -> float:
    """Remaining fraction of the training, from 1 to 0: the argument of schedules."""
    return model._current_progress_remaining


def set_progress(model: OnPolicyAlgorithm, steps: int, total_steps: int) -> None:
    """Set `progress_remaining` to its value after `steps` of `total_steps`."""
    model._update_current_progress_remaining(steps, total_steps)


def apply_learning_rate(model: OnPolicyAlgorithm) -> None:
    """Set the optimiser's learning rate from the schedule, and log it."""
    model._update_learning_rate(model.policy.optimizer)


# ---- Policies ----


def divides_images() -> bool | None:
    """Whether the policy that is constructing its features extractor divides uint8 images by 255.

    Stable-Baselines3 tells an extractor by `normalized_image=True`, which it writes into the dict that the
    caller passed as `features_extractor_kwargs` and never takes back. For a second policy from the same dict,
    only the policy itself knows.

    Returns:
        The policy's `normalize_images`; None outside of the construction of a policy.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not BaseModel.make_features_extractor.__code__:
        frame = frame.f_back
    return None if frame is None else bool(frame.f_locals["self"].normalize_images)


def distribution_of(policy: ActorCriticPolicy, latent: Tensor) -> Distribution:
    """Return the distribution of the actions for the actor's last hidden layer [B, units]."""
    return policy._get_action_dist_from_latent(latent)


@contextmanager
def traceable_distribution(policy: BasePolicy) -> Iterator[None]:
    """Let `torch.export` trace the distribution of a policy's actions.

    torch checks the values of a distribution's parameters, on which a graph cannot branch; and
    Stable-Baselines3 keeps the numbers of choices of a `MultiDiscrete` space as numbers of NumPy, which a
    graph takes for variables.

    Args:
        policy: the policy; it is as before when the context ends.
    """
    checks = torch.distributions.Distribution._validate_args
    found = getattr(policy, "action_dist", None)
    multiple = [found] if isinstance(found, MultiCategoricalDistribution) else []
    sizes = [distribution.action_dims for distribution in multiple]
    torch.distributions.Distribution.set_default_validate_args(False)
    for distribution in multiple:
        distribution.action_dims = [int(size) for size in distribution.action_dims]
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(checks)
        for distribution, before in zip(multiple, sizes, strict=True):
            distribution.action_dims = before


def greedy_actions(policy: BasePolicy, observation: PyTorchObs) -> Tensor:
    """Return the deterministic actions [B, ...] of the policy's networks, before rescaling."""
    return policy._predict(observation, deterministic=True)


_ACTING = (
    "predict",
    "_predict",
    "obs_to_tensor",
    "extract_features",
    "forward",
    "get_distribution",
    "get_action_dist_params",
    "unscale_action",
)


def acts_as_published(model: nn.Module, also: Collection[str] = ()) -> bool:
    """Whether a policy or network maps observations to actions with the methods of its library.

    Args:
        model: a policy, an actor or a Q-network.
        also: full names of further modules that may define its methods, besides those of Stable-Baselines3
            and sb3-contrib.

    Returns:
        False if a subclass or the object itself overrides one of these methods.
    """
    methods = [getattr(model, name) for name in _ACTING if hasattr(model, name)]
    sources = {getattr(method, "__module__", "") for method in methods}
    return all(name.split(".")[0] in ("stable_baselines3", "sb3_contrib") for name in sources - {*also})


# ---- Vectorised environments ----


def requested_seeds(env: VecEnv) -> Sequence[int | None]:
    """Return the seeds that `VecEnv.seed` set for the next reset, one per environment; None for no seed."""
    return env._seeds


def requested_options(env: VecEnv) -> Sequence[dict[str, Any]]:
    """Return the options that `VecEnv.set_options` set for the next reset, one dict per environment."""
    return env._options


def request_seeds(env: VecEnv, seeds: Sequence[int]) -> None:
    """Set the seeds for the next reset, one per environment, where `VecEnv.seed` sets consecutive ones."""
    env.unwrapped._seeds = list(seeds)


def clear_requests(env: VecEnv) -> None:
    """Clear the seeds and options after the reset that used them."""
    env._reset_seeds()
    env._reset_options()


def env_indices(env: VecEnv, indices: VecEnvIndices) -> Iterable[int]:
    """Return the indices of environments: all for None, one for a number."""
    return env._get_indices(indices)
