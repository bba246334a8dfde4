"""Play a policy for one episode a seed, in a batch of environments."""

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

Observation: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]


Actor: TypeAlias = Callable[[Observation], tuple[NDArray[Any], Percept | None]]
"""A batch of observations as the environment gives them -> (actions, what was looked at, if anything)."""


class Step(NamedTuple):
    """One step of a batch of N environments: what was seen, done and earned."""

    episode: NDArray[np.int64]
    """[N] which of the seeds each environment is at; valid where `running`."""
    running: NDArray[np.bool_]
    """[N] False where the environment has nothing left to do and its row means nothing."""
    observation: Observation
    info: Mapping[str, Any]
    """The infos that came with `observation`: a `target_mask` in it belongs to that frame."""
    percept: Percept | None
    actions: NDArray[Any]
    rewards: NDArray[Any]
    done: NDArray[np.bool_]


@dataclass(frozen=True)
class Rollouts:
    """E episodes, in the order of their seeds."""

    seeds: NDArray[np.int64]
    returns: NDArray[np.float64]
    """[E] undiscounted sums of rewards."""
    lengths: NDArray[np.int64]
    """[E] steps."""
    successes: NDArray[np.bool_] | None
    """[E], or None where the task does not say."""


def rollout_episodes(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    *,
    on_step: Callable[[Step], None] | None = None,
) -> Rollouts:
    """Run one episode a seed, `env.num_envs` at a time, and call `on_step` after every step.

    The policy acts in batches of `env.num_envs`, and floating-point rounding depends on the batch size: with
    the same seeds, another number of environments can give other actions after some steps. Frames depend on
    the seed and the actions alone.

    An environment that has ended before the others of its batch goes on unrecorded, whichever way it resets
    itself.
    Nothing of a step is kept: what should be remembered is added up by `on_step`.

    Raises:
        ValueError: no seeds, or actions of the wrong shape, or actions or rewards that are not finite
            numbers.
    """
    if len(seeds) == 0:
        raise ValueError("no seeds: an evaluation needs at least one episode")
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
    successes: list[bool | None] = [None] * len(seeds)
    for first in range(0, len(seeds), env.num_envs):
        episode = np.arange(first, first + env.num_envs)
        running = episode < len(seeds)
        episode = np.minimum(
            episode, len(seeds) - 1
        )  # environments too many repeat the last seed, unrecorded
        each = [int(seeds[int(i)]) for i in episode]
        observation, info = env.reset(
            seed=cast(Any, each)
        )  # gymnasium's own take a list; their hint does not say
        while running.any():
            actions, percept = act(observation)
            _check_actions(actions, env)
            following, rewards, terminated, truncated, next_info = env.step(actions)
            if not np.isfinite(rewards[running]).all():
                raise ValueError(
                    f"the environment gave a reward that is not a finite number: {rewards.tolist()}"
                )
            done = np.logical_or(terminated, truncated)
            if on_step is not None:
                on_step(Step(episode, running.copy(), observation, info, percept, actions, rewards, done))
            returns[episode[running]] += rewards[running]
            lengths[episode[running]] += 1
            for i in np.flatnonzero(running & done):
                successes[episode[i]] = _success(next_info, int(i))
            running = running & ~done
            observation, info = following, next_info
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
            f"the policy gave actions of shape {list(actions.shape)}, the environment takes {expected}"
        )
    if not np.isfinite(actions).all():
        raise ValueError(
            "the policy gave an action that is NaN or infinite: its weights or its input are broken"
        )


def _success(info: Mapping[str, Any], index: int) -> bool | None:
    # With autoreset in the same step, what belongs to the ended episode is in final_info.
    ended = info.get("final_info", info)
    for name in ("success", "is_success"):
        if name in ended and ended.get("_" + name, {index: True})[index]:
            return bool(ended[name][index])
    return None


def policy_actor(policy: BasePolicy) -> Actor:
    """A Stable-Baselines3 policy, without its exploration noise, and where it looks, in one pass.

    A recurrent policy meets every observation as an episode's first.

    Raises:
        ValueError: as `find_extractor`.
    """
    find_extractor(policy)  # refused here, and not in the middle of an episode

    def actor(observation: Observation) -> tuple[NDArray[Any], Percept]:
        actions, percept, _ = act(policy, observation)
        return actions, percept

    return actor


def random_actor(space: gymnasium.Space[Any], seed: int = 0) -> Actor:
    """Uniform actions in the batched `space` [N, ...], whatever the observation: the score's zero.

    What has no bounds is drawn as Gymnasium does.
    """
    generator = np.random.default_rng(seed)
    drawn = copy.deepcopy(space)
    drawn.seed(seed)

    def act(observation: Observation) -> tuple[NDArray[Any], None]:
        if isinstance(space, gymnasium.spaces.Box) and space.is_bounded():
            return generator.uniform(space.low, space.high).astype(space.dtype), None
        return drawn.sample(), None

    return act


def oracle_actor(env: Any) -> Actor:
    """The scripted oracle of an environment that has one: the score's one.

    Raises:
        ValueError: the environment has none (`HasOracle`).
    """
    oracle = ability(env, HasOracle)
    if oracle is None:
        raise ValueError(
            f"expected an environment with an oracle, got {type(env).__name__}: give its class oracle_actions"
        )

    def act(observation: Observation) -> tuple[NDArray[Any], None]:
        return np.asarray(oracle.oracle_actions()), None

    return act
