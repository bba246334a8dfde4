"""Evaluate a policy with one episode per seed: return, success, and attention on the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import (
    STATES,
    Captures,
    FrameStates,
    attention_states,
    captures,
    count_states,
    frame_states,
)
from robot_attn.focus import (
    FocusMeter,
    FocusTotals,
    PriorMap,
    RatioOfSums,
    center_bias_map,
    uniform_map,
)
from robot_attn.things import ThingMeter, ThingTotals
from robot_attn_policies.evaluation.statistics import Interval, Statistic, bootstrap_interval, mean
from robot_attn_policies.rollouts.actor import Actor, ObservationBatch
from robot_attn_policies.rollouts.camera import THINGS
from robot_attn_policies.rollouts.rollout import Rollouts, Step, rollout_episodes
from robot_attn_policies.rollouts.thing_words import ThingWords
from robot_attn_policies.rollouts.things import pixel_labels, thing_names

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
    states: NDArray[np.int64]
    """Frames of each episode by map and by `robot_attn.explain.STATES`, [E, maps, 3]."""
    captures: Captures
    """What took the best head's attention away from the target."""
    things: ThingTotals
    """Mass of the heads on each thing, over all frames; the things are backdrop and target where the
    environment labels no others."""

    def index(self, reference: str) -> int:
        """Index of a reference map in `totals`."""
        return self.num_heads + REFERENCES.index(reference)

    def share(self, index: int, state: str) -> RatioOfSums:
        """Share of all frames in which map `index` has a state of `robot_attn.explain.STATES`."""
        counts = self.states[:, index].astype(np.float64)
        return RatioOfSums(counts[:, STATES.index(state)], counts.sum(axis=1))


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
            meter = FocusMeter(len(seeds), maps.weights.shape[1])
        meter.add(step.episode[step.running], maps.upsampled(), masks)
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
    to_rgb: Callable[[ObservationBatch], NDArray[np.uint8]] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> tuple[Rollouts, Focus]:
    """Run one episode per seed, and score every head and the reference maps against the target masks.

    Args:
        act: maps observations to actions and a `Percept`.
        env: the environments, made with `masks=True`.
        seeds: one episode per seed.
        grid: where the cells of the attention maps lie in a frame.
        calibration: the result of `calibrate` on other seeds.
        to_rgb: converts observations to frames, uint8 [N, H, W, 3], for the colours of what captures
            attention; None if there are no colours.
        on_step: called with every step.

    Returns:
        Returns, lengths and successes of the episodes, and the attention on the target and on each thing.

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
    coarse = AttentionMaps.pooled(references, AttentionGrid.even(_coarse_shape(grid), grid.image_size))
    meter: FocusMeter | None = None
    things: ThingMeter | None = None
    counts: list[NDArray[np.int64]] = []
    seen: list[tuple[NDArray[np.int64], FrameStates]] = []
    words = ThingWords(env, len(seeds))

    def add_step(step: Step) -> None:
        nonlocal meter, things
        heads, masks = _maps_and_masks(step, grid)
        episode = step.episode[step.running]
        maps = heads.upsampled()
        if things is None:
            things = ThingMeter(len(seeds), maps.shape[1], thing_names(env))
        things.add(episode, maps, _labels(step))
        maps = np.concatenate([maps, np.broadcast_to(references, (len(maps), *references.shape))], axis=1)
        if meter is None:
            meter = FocusMeter(len(seeds), maps.shape[1])
        meter.add(episode, maps, masks)
        others = AttentionMaps(
            np.broadcast_to(coarse.weights, (len(maps), *coarse.weights.shape)), coarse.grid
        )
        labels = step.info[THINGS][step.running] if THINGS in step.info else None
        known: dict[str, Any] = {"labels": labels, "allowed": words.allowed}
        states = [attention_states(each, masks, **known) for each in (heads, others)]
        counts.append(count_states(np.concatenate(states, axis=1), episode, len(seeds)))
        frames = None if to_rgb is None else to_rgb(step.observation)[step.running]
        seen.append((episode, frame_states(heads[:, calibration.best_head], masks, frames=frames, **known)))
        words(step)
        if on_step is not None:
            on_step(step)

    rollouts = rollout_episodes(act, env, seeds, on_step=add_step)
    assert meter is not None, "rollout_episodes takes at least one step"
    assert things is not None
    totals = meter.totals()
    return rollouts, Focus(
        totals,
        totals.mass.shape[1] - len(REFERENCES),
        calibration.best_head,
        np.sum(counts, axis=0),
        _find_captures(seen, words),
        things.totals(),
    )


def _coarse_shape(grid: AttentionGrid) -> tuple[int, int]:
    """A grid for the reference maps, which are smooth, at which their states cost little."""
    height, width = (min(side, 32) for side in grid.image_size)
    return height, width


def _find_captures(seen: Sequence[tuple[NDArray[np.int64], FrameStates]], words: ThingWords) -> Captures:
    """Find the captures in the steps of a rollout, each with the episodes of its rows."""
    episode = np.concatenate([rows for rows, _ in seen])
    order = np.argsort(episode, kind="stable")  # keeps the steps of an episode in order
    episode = episode[order]
    first = np.searchsorted(episode, episode)
    states = FrameStates.concatenate([states for _, states in seen]).take(order)
    return captures(states, episode, np.arange(len(episode)) - first, descriptions=words.descriptions)


def _maps_and_masks(step: Step, grid: AttentionGrid) -> tuple[AttentionMaps, NDArray[np.bool_]]:
    if step.percept is None:
        raise ValueError("expected a policy with attention, got none: use an actor that returns a Percept")
    if "target_mask" not in step.info:
        raise ValueError("expected a target_mask from the environment, got none: make it with masks=True")
    attention = step.percept.attention.numpy(force=True)[step.running]
    maps = AttentionMaps(attention.astype(np.float32, copy=False), grid)
    return maps, np.asarray(step.info["target_mask"])[step.running]


def _labels(step: Step) -> NDArray[np.uint8]:
    """What each pixel of the running environments' frames shows; `_maps_and_masks` found masks at least."""
    labels = pixel_labels(step.info)
    assert labels is not None
    return labels[step.running]


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
