"""Run a policy for one episode a seed: what it earned, whether it succeeded, and where it looked."""

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
from robot_attn_policies.rollouts.rollout import Actor, Rollouts, Step, rollout_episodes

EVALUATION_SEED = 1_000_000_000
"""The first evaluation seed. Far above those that training draws from, so that no episode is met twice."""
CALIBRATION_SEED = 1_500_000_000
"""The first calibration seed: what is chosen (the best head) or fitted (the prior map) uses these alone."""

REFERENCES = ("center_bias", "prior", "uniform")
"""The reference maps, in the order in which they follow the heads in `Focus.totals`."""


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
    num_heads: int
    best_head: int

    def index(self, reference: str) -> int:
        """The place of a reference map in `totals`."""
        return self.num_heads + REFERENCES.index(reference)


def calibrate(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    *,
    on_step: Callable[[Step], None] | None = None,
) -> Calibration:
    """Choose the best head and measure the prior map on the episodes of `seeds`.

    Raises:
        ValueError: as `rollout_episodes`; or no map or mask to measure; or the target was never visible.
    """
    meter: FocusMeter | None = None
    prior = PriorMap(grid.image_size)

    def see(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, grid)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        prior.add(masks)
        if on_step is not None:
            on_step(step)

    rollout_episodes(act, env, seeds, on_step=see)
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
    grid: AttentionGrid,
    calibration: Calibration,
    *,
    on_step: Callable[[Step], None] | None = None,
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
        [center_bias_map(grid.image_size), calibration.prior, uniform_map(grid.image_size)]
    ).astype(np.float32)
    meter: FocusMeter | None = None

    def see(step: Step) -> None:
        nonlocal meter
        maps, masks = _maps_and_masks(step, grid)
        maps = np.concatenate([maps, np.broadcast_to(references, (len(maps), *references.shape))], axis=1)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(step.episode[step.running], maps, masks)
        if on_step is not None:
            on_step(step)

    rollouts = rollout_episodes(act, env, seeds, on_step=see)
    assert meter is not None, "rollout_episodes takes at least one step"
    totals = meter.totals()
    return rollouts, Focus(totals, totals.mass.shape[1] - len(REFERENCES), calibration.best_head)


def _maps_and_masks(step: Step, grid: AttentionGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if step.percept is None:
        raise ValueError("the policy gave no attention to score; give an actor that returns a Percept")
    if "target_mask" not in step.info:
        raise ValueError("the environment gave no target_mask to score against; make it with masks=True")
    attention = step.percept.attention.numpy(force=True)[step.running]
    maps = AttentionMaps(attention.astype(np.float32, copy=False), grid).upsampled()
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
    return bootstrap_interval(with_baselines(returns, random, oracle), normalised(statistic))


def with_baselines(
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
    """The statistic of rows `with_baselines` that places their returns between the baselines' means."""

    def normalise(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        low, high = mean(rows[..., 1], axis), mean(rows[..., 2], axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(high > low, (statistic(rows[..., 0], axis) - low) / (high - low), np.nan)

    return normalise
