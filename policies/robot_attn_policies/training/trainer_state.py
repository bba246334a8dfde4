"""Complete state of a PPO training, for bit-identical resuming: tensors and plain containers only."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_attn_policies.compat.stable_baselines3 import (
    rollout_start,
    set_updates_done,
    start_rollout_from,
    updates_done,
)
from robot_attn_policies.sb3.policy import fill_policy, policy_weights
from robot_attn_policies.sb3.ppo import PerceptionPPO
from robot_attn_policies.sb3.vec_env import BatchVecEnv


def begin_episodes(model: PerceptionPPO, env: BatchVecEnv) -> None:
    """Reset the environments and start the next rollout from there."""
    start_rollout_from(model, env.reset(), np.ones(env.num_envs, bool))


def model_state(model: PerceptionPPO, env: BatchVecEnv) -> dict[str, Any]:
    """Copy the state of the algorithm and, if they have `get_state`, of its environments.

    Args:
        model: the algorithm, between two updates.
        env: its environments.

    Returns:
        The state by name, for `restore_model`.
    """
    observation, episode_starts = rollout_start(model)
    return {
        "steps": model.num_timesteps,
        "updates": updates_done(model),
        "policy": {name: weights.clone() for name, weights in policy_weights(model.policy).items()},
        "optimizer": _copy_tree(model.policy.optimizer.state_dict()),
        "environment": {
            key: _tensor(value) for key, value in (env.get_state() if env.stateful else {}).items()
        },
        "observation": {key: _tensor(value) for key, value in _entries(observation).items()},
        "episode_starts": _tensor(episode_starts),
        "episodes": [[episode["r"], episode["l"], episode["t"]] for episode in model.ep_info_buffer or ()],
        "successes": [bool(success) for success in model.ep_success_buffer or ()],
    }


def restore_model(model: PerceptionPPO, env: BatchVecEnv, state: Mapping[str, Any], seed: int) -> None:
    """Restore a `model_state`.

    Environments without `set_state` start new episodes, with seeds that were not used in training.

    Args:
        model: a new algorithm of the same configuration.
        env: its environments.
        state: the state.
        seed: seed of the training.

    Raises:
        ValueError: weights of another architecture. Other errors of types and keys are those of a damaged
            state.
    """
    fill_policy(model.policy, state["policy"])
    model.policy.optimizer.load_state_dict(_copy_tree(state["optimizer"]))
    model.num_timesteps = int(state["steps"])
    set_updates_done(model, int(state["updates"]))
    if env.stateful:
        env.set_state({key: value.numpy() for key, value in state["environment"].items()})
        entries = {key: value.numpy().copy() for key, value in state["observation"].items()}
        start_rollout_from(
            model,
            entries[""] if list(entries) == [""] else entries,
            state["episode_starts"].numpy().copy(),
        )
    else:
        # Not the seeds of the start, whose episodes were already trained on.
        env.seed(seed_after(seed, model.num_timesteps))
        begin_episodes(model, env)
    assert model.ep_info_buffer is not None and model.ep_success_buffer is not None
    model.ep_info_buffer.extend({"r": r, "l": length, "t": t} for r, length, t in state["episodes"])
    model.ep_success_buffer.extend(state["successes"])


def seed_after(seed: int, steps: int) -> int:
    """Return a seed for environments that start new episodes after `steps` steps of training with `seed`."""
    return int(np.random.SeedSequence((seed, steps)).generate_state(1)[0])


def _entries(observation: Any) -> dict[str, NDArray[Any]]:
    return observation if isinstance(observation, dict) else {"": observation}


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def _copy_tree(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _copy_tree(value) for key, value in tree.items()}
    return type(tree)(_copy_tree(value) for value in tree) if isinstance(tree, list | tuple) else tree


def random_state() -> dict[str, Any]:
    """Return the state of the global random generators of Python, NumPy and torch."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.array(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
