"""Run a policy for one episode a seed: what it earned, whether it succeeded, and where it looked."""

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
from robot_attn.focus import FocusMeter, FocusTotals, MaskMean, center_bias_map, uniform_map, upsample
from robot_attn_policies.extractor import find_extractor
from robot_attn_policies.statistics import Interval, Statistic, bootstrap_interval, mean

Observation: TypeAlias = NDArray[Any] | Mapping[str, NDArray[Any]]
Actor: TypeAlias = Callable[[Observation], tuple[NDArray[Any], Percept | None]]
"""A batch of observations as the environment gives them -> (actions, what was looked at, if anything)."""

EVALUATION_SEED = 1_000_000_000
"""The first evaluation seed. Far above those that training draws from, so that no episode is met twice."""
CALIBRATION_SEED = 1_500_000_000
"""The first calibration seed: what is chosen (the best head) or fitted (the prior map) uses these alone."""

REFERENCES = ("center_bias", "prior", "uniform")
"""The reference maps, in the order in which they follow the heads in `Focus.totals`."""


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
    watch: Callable[[Step], None] | None = None,
) -> Rollouts:
    """Run one episode a seed, `env.num_envs` at a time, and call `watch` after every step.

    An environment that has ended before the others of its batch goes on unrecorded, whichever way it resets
    itself.
    Nothing of a step is kept: what should be remembered is added up by `watch`.

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
            if watch is not None:
                watch(Step(episode, running.copy(), observation, info, percept, actions, rewards, done))
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

    Raises:
        ValueError: as `find_extractor`.
    """
    perception = find_extractor(policy).perception

    def act(observation: Observation) -> tuple[NDArray[Any], Percept]:
        looked: list[Percept] = []
        handle = perception.register_forward_hook(lambda module, given, percept: looked.append(percept))
        try:
            # SB3's hint wants a dict where a mapping does.
            actions, _ = policy.predict(cast(Any, observation), deterministic=True)
        finally:
            handle.remove()
        return actions, looked[-1]

    return act


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
    """The scripted oracle of an environment that has `oracle_actions()`: the score's one."""

    def act(observation: Observation) -> tuple[NDArray[Any], None]:
        return np.asarray(env.oracle_actions()), None

    return act


@dataclass(frozen=True)
class Cells:
    """Where the cells of an attention map lie: token centres in pixels, and the frame's size (H, W)."""

    ys: NDArray[np.float32]
    xs: NDArray[np.float32]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Calibration:
    """What is chosen on calibration episodes, never on those that are scored."""

    best_head: int
    """The head with the largest mean mass on the target."""
    prior: NDArray[np.float64]
    """[H, W] the mean target mask."""
    seeds: NDArray[np.int64]


@dataclass(frozen=True)
class Focus:
    """Where every head looked in E episodes, beside the reference maps."""

    totals: FocusTotals
    """Maps 0 to heads - 1 are the heads; then come `REFERENCES`."""
    heads: int
    best_head: int

    def index(self, reference: str) -> int:
        """The place of a reference map in `totals`."""
        return self.heads + REFERENCES.index(reference)


def calibrate(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    cells: Cells,
    *,
    watch: Callable[[Step], None] | None = None,
) -> Calibration:
    """Choose the best head and measure the prior map on the episodes of `seeds`.

    Raises:
        ValueError: as `rollout_episodes`; or no map or mask to measure; or the target was never visible.
    """
    meter: FocusMeter | None = None
    prior = MaskMean(cells.image_size)

    def see(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, cells)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        prior.add(masks)
        if watch is not None:
            watch(step)

    rollout_episodes(act, env, seeds, watch=see)
    assert meter is not None, "rollout_episodes takes at least one step"
    totals = meter.totals()
    if totals.visible.sum() == 0:
        raise ValueError(
            f"the target was never visible in {len(seeds)} calibration episodes; run more of them"
        )
    return Calibration(int(totals.mass.sum(axis=0).argmax()), prior.map(), np.asarray(seeds, dtype=np.int64))


def evaluate_policy(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    cells: Cells,
    calibration: Calibration,
    *,
    watch: Callable[[Step], None] | None = None,
) -> tuple[Rollouts, Focus]:
    """Run the episodes of `seeds`, and score every head and the reference maps against the target masks.

    Raises:
        ValueError: as `rollout_episodes`; no map or mask to score; or a seed that calibration has used.
    """
    shared = sorted(set(calibration.seeds.tolist()) & {int(seed) for seed in seeds})
    if shared:
        raise ValueError(
            f"seeds {shared[:3]} would be scored after the best head was chosen on them; use others"
        )
    references = np.stack(
        [center_bias_map(cells.image_size), calibration.prior, uniform_map(cells.image_size)]
    ).astype(np.float32)
    meter: FocusMeter | None = None

    def see(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, cells)
        maps = np.concatenate([maps, np.broadcast_to(references, (len(maps), *references.shape))], axis=1)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        if watch is not None:
            watch(step)

    rollouts = rollout_episodes(act, env, seeds, watch=see)
    assert meter is not None, "rollout_episodes takes at least one step"
    totals = meter.totals()
    return rollouts, Focus(totals, totals.mass.shape[1] - len(REFERENCES), calibration.best_head)


def _maps_and_masks(step: Step, cells: Cells) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if step.percept is None:
        raise ValueError("the policy gave no attention to score; give an actor that returns a Percept")
    if "target_mask" not in step.info:
        raise ValueError("the environment gave no target_mask to score against; make it with masks=True")
    attention = step.percept.attention.numpy(force=True)[step.running]
    maps = upsample(attention.astype(np.float32, copy=False), cells.image_size, cells.ys, cells.xs)
    return np.asarray(maps, dtype=np.float32), np.asarray(step.info["target_mask"])[step.running]


def normalised_score(
    returns: NDArray[np.float64],
    random: NDArray[np.float64],
    oracle: NDArray[np.float64],
    statistic: Statistic = mean,
) -> Interval:
    """(statistic of returns - mean random) / (mean oracle - mean random): 0 is random, 1 is the oracle.

    All three are [E], of the same seeds in the same order, and are drawn together in the bootstrap, since an
    episode that is hard is hard for all of them.

    Raises:
        ValueError: as `bootstrap_interval`; or the oracle earned no more than the random policy.
    """
    return bootstrap_interval(with_ends(returns, random, oracle), normalised(statistic))


def with_ends(
    returns: NDArray[np.float64], random: NDArray[np.float64], oracle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rows [E, 3] that `normalised` takes: an episode's return, the random policy's and the oracle's.

    Raises:
        ValueError: the oracle earned no more than the random policy.
    """
    if oracle.mean() <= random.mean():
        raise ValueError(
            f"the oracle's mean return, {oracle.mean():.3f}, is not above the random policy's, "
            f"{random.mean():.3f}: nothing to normalise by"
        )
    return np.stack([returns, random, oracle], axis=1)


def normalised(statistic: Statistic) -> Statistic:
    """The statistic of rows `with_ends` that puts that of their returns between the means of the ends."""

    def normalise(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        low, high = mean(rows[..., 1], axis), mean(rows[..., 2], axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(high > low, (statistic(rows[..., 0], axis) - low) / (high - low), np.nan)

    return normalise
