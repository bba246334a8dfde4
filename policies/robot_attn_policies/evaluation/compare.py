"""Compare trainings: which of them make an arm, how good an arm is in each scene, and how far arms are apart.

An arm is a configuration; its trainings differ in their seeds and are the unit of every interval.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn_policies.evaluation.evaluate import normalised, with_baselines
from robot_attn_policies.evaluation.result_cache import Baselines, Scores
from robot_attn_policies.evaluation.statistics import (
    Interval,
    Statistic,
    bootstrap_arms,
    iqm,
    mean,
    ratio_of_sums,
)
from robot_attn_policies.training.presets import TrainConfig

TRAINED = "trained"
"""The scene that a run was trained in."""


def arm_of(config: TrainConfig) -> TrainConfig:
    """What the trainings of an arm have in common: all but the seed, and the threads that rounding sees."""
    return replace(config, seed=0, threads=0)


def group(configs: Mapping[str, TrainConfig]) -> dict[str, list[str]]:
    """Runs by name -> the names of each arm's runs, by the arm's label, in the order given.

    A label is the perception family, and what tells the arm from others.

    Raises:
        ValueError: runs of different tasks, or two of the same arm and seed.
    """
    tasks = {config.task: name for name, config in configs.items()}
    if len(tasks) > 1:
        (one, first), (other, second), *_ = tasks.items()
        raise ValueError(f"{first} is a run of {one}, {second} one of {other}: compare runs of one task")
    arms: list[tuple[TrainConfig, list[str]]] = []
    for name, config in configs.items():
        runs = next((runs for common, runs in arms if common == arm_of(config)), None)
        if runs is None:
            arms.append((arm_of(config), [name]))
            continue
        for earlier in runs:
            if configs[earlier].seed == config.seed:
                raise ValueError(
                    f"{earlier} and {name} are one training, of the same configuration and seed: name one"
                )
        runs.append(name)
    commons = [common for common, _ in arms]
    return {_label(common, commons): runs for common, runs in arms}


def _label(config: TrainConfig, arms: Sequence[TrainConfig]) -> str:
    """A family's options are told where arms of that family differ in them, all else where any arms do."""
    kin = [arm.options for arm in arms if arm.perception == config.perception]
    parts = [*_own(config.options, kin), *_own(_settings(config), [_settings(arm) for arm in arms])]
    return " ".join([config.perception, *parts])


def _own(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}={_plain(value)}"
        for name, value in settings.items()
        if any(name not in other or other[name] != value for other in others)
    ]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """All but the family and its options: {"steps": ..., "env.distractors": ..., "ppo.gamma": ...}."""
    flat: dict[str, Any] = {}
    for name, value in asdict(replace(config, perception="", options={})).items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


class Metric(NamedTuple):
    """A figure: what it takes of each episode, and what it makes of them."""

    unit: str
    rows: Callable[[Scores, Baselines], NDArray[np.float64]]
    """[E] or [E, K]."""
    statistic: Statistic
    pooled: bool = False
    """Taken over the episodes of all runs, not averaged over runs."""


def _score_rows(scores: Scores, ends: Baselines) -> NDArray[np.float64]:
    return with_baselines(*(np.asarray(values) for values in (scores.returns, ends.random, ends.oracle)))


def _columns(*names: str) -> Callable[[Scores, Baselines], NDArray[np.float64]]:
    def rows(scores: Scores, ends: Baselines) -> NDArray[np.float64]:
        return np.stack([np.asarray(getattr(scores, name), np.float64) for name in names], axis=-1)

    return rows


METRICS: Mapping[str, Metric] = {
    "normalised_score": Metric("0 random, 1 oracle", _score_rows, normalised(mean)),
    "normalised_score_iqm": Metric("0 random, 1 oracle", _score_rows, normalised(iqm), pooled=True),
    "return": Metric("reward an episode", lambda scores, ends: np.asarray(scores.returns, np.float64), mean),
    "random_return": Metric(
        "reward an episode", lambda scores, ends: np.asarray(ends.random, np.float64), mean
    ),
    "oracle_return": Metric(
        "reward an episode", lambda scores, ends: np.asarray(ends.oracle, np.float64), mean
    ),
    "success": Metric(
        "fraction of episodes", lambda scores, ends: np.asarray(scores.successes, np.float64), mean
    ),
    "mass": Metric("fraction of the map", _columns("mass", "visible"), ratio_of_sums),
    "mass_over_chance": Metric("times chance", _columns("mass", "chance"), ratio_of_sums),
    "mass_over_center_bias": Metric(
        "times the centre-bias map", _columns("mass", "center_bias"), ratio_of_sums
    ),
    "pointing_game": Metric("fraction of frames", _columns("hits", "visible"), ratio_of_sums),
}
"""Focus is that of the best head; for a family whose map is uniform it is that map's, which is chance."""


class Measured(NamedTuple):
    """A figure of an arm in a scene, and of each of its runs."""

    interval: Interval
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Figures by scene, arm and metric."""

    figures: Mapping[str, Mapping[str, Mapping[str, Measured]]]
    differences: Mapping[str, Mapping[tuple[str, str], Interval]]
    """By scene and pair of arms: normalised score of the first less that of the second."""
    seeds: Mapping[str, Sequence[int]]
    """Of each arm's runs."""
    uniform: frozenset[str]
    """Arms whose attention says nothing, by construction."""


def compare(
    cells: Mapping[str, Mapping[str, Sequence[tuple[Scores, Baselines]]]],
    seeds: Mapping[str, Sequence[int]],
    uniform: frozenset[str] = frozenset(),
) -> Comparison:
    """Figures and differences with their intervals (`bootstrap_arms`), by scene and arm.

    Args:
        cells: by scene and arm, for each run its scores and the ends of the score, on the same seeds.
        seeds: of each arm's runs, in that order.
        uniform: arms whose attention says nothing.

    Raises:
        ValueError: the oracle earned no more than the random policy, or episodes that are not the same.
    """
    figures: dict[str, dict[str, dict[str, Measured]]] = {}
    differences: dict[str, dict[tuple[str, str], Interval]] = {}
    for scene, arms in cells.items():
        figures[scene] = {arm: {} for arm in arms}
        silent = any(scores.successes is None for runs in arms.values() for scores, _ in runs)
        for name, metric in METRICS.items():
            if name == "success" and silent:
                continue
            rows = [np.stack([metric.rows(*cell) for cell in runs]) for runs in arms.values()]
            estimates = bootstrap_arms(rows, metric.statistic, pooled=metric.pooled)
            for arm, table, estimate in zip(arms, rows, estimates, strict=True):
                each = tuple(metric.statistic(table, 1).tolist())
                figures[scene][arm][name] = Measured(estimate.interval(), each)
            if name == "normalised_score":
                differences[scene] = {
                    (one, other): a.minus(b).interval()
                    for (one, a), (other, b) in itertools.combinations(zip(arms, estimates, strict=True), 2)
                }
    return Comparison(figures, differences, seeds, uniform)
