"""The private parts of Stable-Baselines3 that training, batches and policies need, under public names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from torch import Tensor, nn

# ---- Algorithms ----


class UnwrappingPPO(PPO):
    """PPO that leaves environments unwrapped where `keeps_env` says so."""

    @classmethod
    def keeps_env(cls, env: GymEnv) -> bool:
        """Whether the environment is taken as it is: no channels moved, no monitor around it."""
        return False

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VecEnv) and cls.keeps_env(env):
            return env
        return PPO._wrap_env(env, verbose, monitor_wrapper)


class StepCallback(BaseCallback):
    """Calls a function after every step of a rollout; the rollout ends when that returns False."""

    def __init__(self, on_step: Callable[[], bool]) -> None:
        super().__init__()
        self.on_step_taken = on_step

    def _on_step(self) -> bool:
        return self.on_step_taken()


def rollout_start(model: OnPolicyAlgorithm) -> tuple[Any, NDArray[np.bool_]]:
    """What the next rollout starts from.

    Returns:
        The observations, an array [n_envs, ...] or a dict of them, and bool [n_envs], whether they are the
        first of an episode.
    """
    return model._last_obs, model._last_episode_starts  # type: ignore[return-value]


def start_rollout_from(model: OnPolicyAlgorithm, observation: Any, episode_starts: NDArray[np.bool_]) -> None:
    """Have the next rollout start from these observations.

    Args:
        model: the algorithm.
        observation: an array [n_envs, ...] or a dict of them.
        episode_starts: bool [n_envs], whether they are the first of an episode.
    """
    model._last_obs, model._last_episode_starts = observation, episode_starts


def count_episodes(model: OnPolicyAlgorithm, infos: list[dict[str, Any]], dones: NDArray[np.bool_]) -> None:
    """Keep the returns, lengths and successes of the episodes that ended in a step."""
    model._update_info_buffer(infos, dones)


def updates_done(model: OnPolicyAlgorithm) -> int:
    """Number of updates, counted in passes over a rollout."""
    return model._n_updates


def set_updates_done(model: OnPolicyAlgorithm, updates: int) -> None:
    """Set what `updates_done` returns."""
    model._n_updates = updates


def progress_remaining(model: OnPolicyAlgorithm) -> float:
    """The share of the training that is left, from 1 to 0: what schedules are functions of."""
    return model._current_progress_remaining


def set_progress(model: OnPolicyAlgorithm, steps: int, total_steps: int) -> None:
    """Set `progress_remaining` to what is left after `steps` of `total_steps`."""
    model._update_current_progress_remaining(steps, total_steps)


def apply_learning_rate(model: OnPolicyAlgorithm) -> None:
    """Set the optimiser's learning rate by the schedule, and log it."""
    model._update_learning_rate(model.policy.optimizer)


# ---- Policies ----


def distribution_of(policy: ActorCriticPolicy, latent: Tensor) -> Distribution:
    """The distribution of the actions, given the actor's last hidden layer [B, units]."""
    return policy._get_action_dist_from_latent(latent)


def greedy_actions(policy: BasePolicy, observation: PyTorchObs) -> Tensor:
    """The actions [B, ...] without exploration noise, as the policy's networks give them: not rescaled."""
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
    """Whether a policy, or a network of it, gets from observations to actions as its library wrote it.

    Args:
        model: a policy, an actor or a Q-network.
        also: modules, by their full names, that may define its methods beside Stable-Baselines3 and
            sb3-contrib.

    Returns:
        False where a subclass or the object itself has another method for any step on that way.
    """
    methods = [getattr(model, name) for name in _ACTING if hasattr(model, name)]
    sources = {getattr(method, "__module__", "") for method in methods}
    return all(name.split(".")[0] in ("stable_baselines3", "sb3_contrib") for name in sources - {*also})


# ---- Vectorised environments ----


def requested_seeds(env: VecEnv) -> Sequence[int | None]:
    """The seeds, one an environment, that `VecEnv.seed` set for the next reset; None for no seed."""
    return env._seeds


def requested_options(env: VecEnv) -> Sequence[dict[str, Any]]:
    """The options, one dict an environment, that `VecEnv.set_options` set for the next reset."""
    return env._options


def clear_requests(env: VecEnv) -> None:
    """Forget the seeds and the options of the next reset, after which they do not hold any more."""
    env._reset_seeds()
    env._reset_options()


def env_indices(env: VecEnv, indices: VecEnvIndices) -> Iterable[int]:
    """The environments that `indices` stands for: all for None, one for a number."""
    return env._get_indices(indices)
