"""Run a policy for one episode per seed in a batch of environments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy

from robot_attn import Percept
from robot_attn_policies.rollouts.protocols import HasOracle, ability
from robot_attn_policies.sb3.act import act
from robot_attn_policies.sb3.extractor import find_extractor

ObservationBatch: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Observations of N environments as the environment returns them: [N, ...], or a mapping of such arrays."""

Actor: TypeAlias = Callable[[ObservationBatch], tuple[NDArray[Any], Percept | None]]
"""Maps a batch of observations to actions [N, ...] and, for a policy with attention, its `Percept`."""


class Step(NamedTuple):
    """One step of a batch of N environments.

    Attributes:
        episode: int64 [N], index into the seeds of the episode that each environment plays; valid where
            `running`.
        running: bool [N], False where the environment has no episode left and its row is to be ignored.
        observation: the observations on which the policy acted, N rows.
        info: the infos that came with `observation`; a `target_mask` in it, bool [N, H, W], belongs to that
            frame.
        percept: the policy's features and attention for `observation`, or None.
        actions: [N, ...].
        rewards: [N].
        done: bool [N], whether the episode ended (terminated or truncated) with this step.
    """

    episode: NDArray[np.int64]
    running: NDArray[np.bool_]
    observation: ObservationBatch
    info: Mapping[str, Any]
    percept: Percept | None
    actions: NDArray[Any]
    rewards: NDArray[Any]
    done: NDArray[np.bool_]


StartProgress: TypeAlias = Callable[[str, int], Callable[[Step], None]]
"""Called with the name of each rollout before it starts, and with the largest number of steps that it takes
over all its episodes; returns the rollout's `on_step`."""


@dataclass(frozen=True)
class Rollouts:
    """Results of E episodes, in the order of their seeds.

    Attributes:
        seeds: int64 [E].
        returns: float64 [E], undiscounted sums of rewards.
        lengths: int64 [E], steps.
        successes: bool [E], or None where the task does not report success.
    """

    seeds: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: NDArray[np.bool_] | None


def rollout_episodes(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    *,
    on_step: Callable[[Step], None] | None = None,
) -> Rollouts:
    """Run one episode per seed, `env.num_envs` at a time.

    The policy acts on batches of `env.num_envs` observations, and floating-point rounding depends on the
    batch size: with the same seeds, another number of environments can give other actions after some steps.
    Frames depend only on the seed and the actions.

    An environment that finishes before the others of its batch keeps running unrecorded, whichever way it
    resets itself. Steps are not stored: `on_step` accumulates what the caller needs.

    Args:
        act: maps observations to actions.
        env: the environments.
        seeds: one episode per seed.
        on_step: called after every step.

    Returns:
        Returns, lengths and successes of the episodes.

    Raises:
        ValueError: no seeds, actions of the wrong shape, or actions or rewards that are not finite.
    """
    if len(seeds) == 0:
        raise ValueError("expected at least one seed, got none: give one seed per episode")
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
    successes: list[bool | None] = [None] * len(seeds)
    for first in range(0, len(seeds), env.num_envs):
        episode = np.arange(first, first + env.num_envs)
        running = episode < len(seeds)
        # Surplus environments repeat the last seed, unrecorded.
        episode = np.minimum(episode, len(seeds) - 1)
        env_seeds = [int(seeds[int(i)]) for i in episode]
        # Gymnasium's vector environments accept a list; their type hint does not say so.
        observation, info = env.reset(seed=cast(Any, env_seeds))
        while running.any():
            actions, percept = act(observation)
            _check_actions(actions, env)
            next_observation, rewards, terminated, truncated, next_info = env.step(actions)
            if not np.isfinite(rewards[running]).all():
                raise ValueError(
                    f"expected finite rewards, got {rewards.tolist()}: check the environment's reward"
                )
            done = np.logical_or(terminated, truncated)
            if on_step is not None:
                on_step(Step(episode, running.copy(), observation, info, percept, actions, rewards, done))
            returns[episode[running]] += rewards[running]
            lengths[episode[running]] += 1
            for i in np.flatnonzero(running & done):
                successes[episode[i]] = _success(next_info, int(i))
            running = running & ~done
            observation, info = next_observation, next_info
    known = [value for value in successes if value is not None]
    return Rollouts(
        seeds=np.asarray(seeds, dtype=np.int64),
        returns=returns,
        lengths=lengths,
        successes=np.asarray(known) if len(known) == len(seeds) else None,
    )


def _check_actions(actions: NDArray[Any], env: VectorEnv[Any, Any, Any]) -> None:
    expected = env.action_space.shape
    if actions.shape != expected:
        raise ValueError(
            f"expected actions of shape {list(expected or ())}, got {list(actions.shape)}: use a "
            "policy that was trained for this action space"
        )
    if not np.isfinite(actions).all():
        raise ValueError(
            "expected finite actions, got one that is NaN or infinite: check the policy's weights and "
            "its observations"
        )


def _success(info: Mapping[str, Any], index: int) -> bool | None:
    # With autoreset in the same step, the infos of the finished episode are in final_info.
    final_info = info.get("final_info", info)
    for name in ("success", "is_success"):
        if name in final_info and final_info.get("_" + name, {index: True})[index]:
            return bool(final_info[name][index])
    return None


def policy_actor(policy: BasePolicy, *, image: str | None = None) -> Actor:
    """Return deterministic actions and attention of a policy, from one forward pass.

    A recurrent policy treats every observation as the first of an episode.

    Args:
        policy: a Stable-Baselines3 or sb3-contrib policy with a `PerceptionExtractor`.
        image: key of the camera whose attention to return; None for a policy with one camera.

    Returns:
        A function that maps observations to actions and a `Percept`.

    Raises:
        ValueError: an error of `find_extractor`, or no `image` for a policy with several cameras.
    """
    find_extractor(policy).camera(image)  # raises here rather than in the middle of an episode

    def actor(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        actions, percept, _ = act(policy, observation, image=image)
        return actions, percept

    return actor


def random_actor(space: gymnasium.Space[Any], seed: int = 0) -> Actor:
    """Return an actor that samples uniform actions and ignores observations: a normalised score of 0.

    Args:
        space: the batched action space [N, ...]. A space without bounds is sampled with its own `sample`.
        seed: random seed.

    Returns:
        A function that maps observations to actions and no `Percept`.
    """
    generator = np.random.default_rng(seed)
    sampler = copy.deepcopy(space)
    sampler.seed(seed)

    def act(observation: ObservationBatch) -> tuple[NDArray[Any], None]:
        if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
            return generator.uniform(space.low, space.high).astype(space.dtype), None
        return sampler.sample(), None

    return act


def oracle_actor(env: Any) -> Actor:
    """Return the scripted oracle of an environment: a normalised score of 1.

    Args:
        env: an environment with a method `oracle_actions()` that returns actions [N, ...] (`HasOracle`).

    Returns:
        A function that maps observations to actions and no `Percept`.

    Raises:
        ValueError: the environment has no oracle.
    """
    oracle = ability(env, HasOracle)
    if oracle is None:
        raise ValueError(
            f"expected an environment with an oracle, got {type(env).__name__}: give its class oracle_actions"
        )

    def act(observation: ObservationBatch) -> tuple[NDArray[Any], None]:
        return np.asarray(oracle.oracle_actions()), None

    return act
