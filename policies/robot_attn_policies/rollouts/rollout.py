"""Run a policy for one episode per seed in a batch of environments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn import Percept
from robot_attn_policies.rollouts.action_masks import action_masks
from robot_attn_policies.rollouts.actor import Actor, ObservationBatch, start_step
from robot_attn_policies.rollouts.normalisation import without_normalisation_updates
from robot_attn_policies.rollouts.protocols import HasOracle, ability
from robot_attn_policies.sb3.context import NO_CONTEXT, Context


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
        context: what the policy acted on besides `observation`.
    """

    episode: NDArray[np.int64]
    running: NDArray[np.bool_]
    observation: ObservationBatch
    info: Mapping[str, Any]
    percept: Percept | None
    actions: NDArray[Any]
    rewards: NDArray[Any]
    done: NDArray[np.bool_]
    context: Context = NO_CONTEXT


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

    Wrappers that normalise observations or rewards by running statistics keep their statistics, and rewards
    are those from before their normalisation (`without_normalisation_updates`).

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
    with without_normalisation_updates(env):
        return _rollout_episodes(act, env, seeds, on_step)


def _rollout_episodes(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    on_step: Callable[[Step], None] | None,
) -> Rollouts:
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
        first_of_episode = np.ones(env.num_envs, np.bool_)
        while running.any():
            context = start_step(act, env, first_of_episode)
            actions, percept = act(observation)
            _check_actions(actions, env)
            next_observation, rewards, terminated, truncated, next_info = env.step(actions)
            if not np.isfinite(rewards[running]).all():
                raise ValueError(
                    f"expected finite rewards, got {rewards.tolist()}: check the environment's reward"
                )
            done = np.logical_or(terminated, truncated)
            if on_step is not None:
                on_step(
                    Step(episode, running.copy(), observation, info, percept, actions, rewards, done, context)
                )
            returns[episode[running]] += rewards[running]
            lengths[episode[running]] += 1
            for i in np.flatnonzero(running & done):
                successes[episode[i]] = _success(next_info, int(i))
            running = running & ~done
            observation, info, first_of_episode = next_observation, next_info, done
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


def random_actor(space: gymnasium.Space[Any], seed: int = 0) -> Actor:
    """Return an actor that samples uniform actions and ignores observations: a normalised score of 0.

    In an environment with action masks (`HasActionMasks`) it samples from the actions that are allowed.

    Args:
        space: the batched action space [N, ...]. A space without bounds is sampled with its own `sample`.
        seed: random seed.

    Returns:
        A function that maps observations to actions and no `Percept`.
    """
    return _RandomActor(space, seed)


class _RandomActor:
    def __init__(self, space: gymnasium.Space[Any], seed: int) -> None:
        self._space, self._generator = space, np.random.default_rng(seed)
        self._sampler = copy.deepcopy(space)
        self._sampler.seed(seed)
        self._masks: NDArray[np.bool_] | None = None

    def start_step(self, env: Any, first: NDArray[np.bool_]) -> Context:
        self._masks = action_masks(env)
        return Context(action_masks=self._masks)

    def __call__(self, observation: ObservationBatch) -> tuple[NDArray[Any], None]:
        if self._masks is not None:
            return self._allowed(self._masks), None
        space = self._space
        if isinstance(space, spaces.Box) and space.is_bounded():
            return self._generator.uniform(space.low, space.high).astype(space.dtype), None
        return self._sampler.sample(), None

    def _allowed(self, masks: NDArray[np.bool_]) -> NDArray[Any]:
        """Sample actions [N, ...] of which each is True in its part of `masks` [N, A]."""
        choices = _choices(self._space, len(masks))
        if sum(choices) != masks.shape[1]:
            raise ValueError(
                f"expected action masks [{len(masks)}, {sum(choices)}] for the actions {self._space}, got "
                f"{list(masks.shape)}: check the environment's `action_masks`"
            )
        scores = np.where(masks, self._generator.random(masks.shape), -1.0)
        parts = np.split(scores, np.cumsum(choices)[:-1], axis=1)
        picked = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        return picked.reshape(self._space.shape).astype(self._space.dtype)


def _choices(space: gymnasium.Space[Any], count: int) -> list[int]:
    """Return the number of choices of each action of one of `count` environments."""
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(count, -1)[0]]
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):  # of MultiBinary
        return [2] * int(np.prod(space.shape[1:]))
    return []


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
