"""Evaluate a policy with one episode per seed: return, success, and attention on the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.focus import FocusMeter, FocusTotals, PriorMap, center_bias_map, uniform_map
from robot_attn_policies.evaluation.statistics import Interval, Statistic, bootstrap_interval, mean
from robot_attn_policies.rollouts.actor import Actor
from robot_attn_policies.rollouts.rollout import Rollouts, Step, rollout_episodes

EVALUATION_SEED = 1_000_000_000
"""First evaluation seed, far above the seeds of training, so that the episodes do not overlap."""
CALIBRATION_SEED = 1_500_000_000
"""First calibration seed. The best head and the prior map are chosen on calibration episodes only."""

REFERENCES = ("center_bias", "prior", "uniform")
"""Reference maps, in the order in which they follow the heads in `Focus.totals`."""


@dataclass(frozen=True)
class Calibration:
    """What is chosen on calibration episodes, which are never scored."""

    best_head: int
    """The head with the largest mean mass on the target."""
    prior: NDArray[np.float64]
    """The mean target mask, [H, W]."""
    seeds: NDArray[np.int64]
    """Seeds of the calibration episodes, [C]."""


@dataclass(frozen=True)
class Focus:
    """Attention of every head on the target in E episodes, with the reference maps'."""

    totals: FocusTotals
    """Maps 0 to num_heads - 1 are the heads, followed by `REFERENCES`."""
    num_heads: int
    """Number of heads."""
    best_head: int
    """The head chosen on calibration episodes."""

    def index(self, reference: str) -> int:
        """Index of a reference map in `totals`."""
        return self.num_heads + REFERENCES.index(reference)


def calibrate(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    *,
    on_step: Callable[[Step], None] | None = None,
) -> Calibration:
    """Choose the best head and compute the prior map on calibration episodes.

    Args:
        act: maps observations to actions and a `Percept`.
        env: the environments, made with `masks=True`.
        seeds: one episode per seed.
        grid: where the cells of the attention maps lie in a frame.
        on_step: called with every step.

    Raises:
        ValueError: an error of `rollout_episodes`, no attention maps or target masks, or a target that was
            never visible.
    """
    meter: FocusMeter | None = None
    prior = PriorMap(grid.image_size)

    def add_step(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, grid)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        prior.add(masks)
        if on_step is not None:
            on_step(step)

    rollout_episodes(act, env, seeds, on_step=add_step)
    assert meter is not None, "rollout_episodes takes at least one step"
    totals = meter.totals()
    if totals.visible.sum() == 0:
        raise ValueError(
            f"expected a visible target, got none in {len(seeds)} calibration episodes: run more of them, or "
            "choose a target, a camera or an image size in which it covers at least a pixel"
        )
    return Calibration(int(totals.mass.sum(axis=0).argmax()), prior.map(), np.asarray(seeds, dtype=np.int64))


def evaluate_policy(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    calibration: Calibration,
    *,
    on_step: Callable[[Step], None] | None = None,
) -> tuple[Rollouts, Focus]:
    """Run one episode per seed, and score every head and the reference maps against the target masks.

    Args:
        act: maps observations to actions and a `Percept`.
        env: the environments, made with `masks=True`.
        seeds: one episode per seed.
        grid: where the cells of the attention maps lie in a frame.
        calibration: the result of `calibrate` on other seeds.
        on_step: called with every step.

    Returns:
        Returns, lengths and successes of the episodes, and the attention on the target.

    Raises:
        ValueError: an error of `rollout_episodes`, no attention maps or target masks, or a seed that
            calibration used.
    """
    shared = sorted(set(calibration.seeds.tolist()) & {int(seed) for seed in seeds})
    if shared:
        raise ValueError(
            f"expected seeds that calibration did not use, got {shared[:3]}: use others, since the best head "
            "was chosen on them"
        )
    references = np.stack(
        [center_bias_map(grid.image_size), calibration.prior, uniform_map(grid.image_size)]
    ).astype(np.float32)
    meter: FocusMeter | None = None

    def add_step(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, grid)
        maps = np.concatenate([maps, np.broadcast_to(references, (len(maps), *references.shape))], axis=1)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        if on_step is not None:
            on_step(step)

    rollouts = rollout_episodes(act, env, seeds, on_step=add_step)
    assert meter is not None, "rollout_episodes takes at least one step"
    totals = meter.totals()
    return rollouts, Focus(totals, totals.mass.shape[1] - len(REFERENCES), calibration.best_head)


def _maps_and_masks(step: Step, grid: AttentionGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if step.percept is None:
        raise ValueError("expected a policy with attention, got none: use an actor that returns a Percept")
    if "target_mask" not in step.info:
        raise ValueError("expected a target_mask from the environment, got none: make it with masks=True")
    attention = step.percept.attention.numpy(force=True)[step.running]
    maps = AttentionMaps(attention.astype(np.float32, copy=False), grid).upsampled()
    return np.asarray(maps, dtype=np.float32), np.asarray(step.info["target_mask"])[step.running]


def normalised_score(
    returns: NDArray[np.float64],
    random: NDArray[np.float64],
    oracle: NDArray[np.float64],
    statistic: Statistic = mean,
) -> Interval:
    """Score between the random policy (0) and the oracle (1), with a bootstrap interval.

    It is (statistic of returns - mean random) / (mean oracle - mean random). The three returns of an episode
    are resampled together, because an episode that is hard is hard for all of them.

    Args:
        returns: the policy's return per episode, [E].
        random: the random policy's, [E], with the same seeds in the same order.
        oracle: the oracle's, [E].
        statistic: reduces the policy's returns.

    Raises:
        ValueError: an error of `bootstrap_interval`, or an oracle whose mean return is not above the random
            policy's.
    """
    return bootstrap_interval(with_baselines(returns, random, oracle), normalised(statistic))


def with_baselines(
    returns: NDArray[np.float64], random: NDArray[np.float64], oracle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Stack the returns [E] of a policy, the random policy and the oracle for `normalised`.

    Returns:
        float64 [E, 3].

    Raises:
        ValueError: the oracle's mean return is not above the random policy's.
    """
    if oracle.mean() <= random.mean():
        raise ValueError(
            f"expected a mean return of the oracle above the random policy's, {random.mean():.3f}, got "
            f"{oracle.mean():.3f}: the score cannot be normalised"
        )
    return np.stack([returns, random, oracle], axis=1)


def normalised(statistic: Statistic) -> Statistic:
    """A statistic of `with_baselines` rows that normalises `statistic` of the returns to the baselines."""

    def normalise(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        low, high = mean(rows[..., 1], axis), mean(rows[..., 2], axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(high > low, (statistic(rows[..., 0], axis) - low) / (high - low), np.nan)

    return normalise
