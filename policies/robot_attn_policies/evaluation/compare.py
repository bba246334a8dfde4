"""Compare training runs: group them into arms, estimate each arm's figures per scene, and their differences.

An arm is a configuration. Its runs differ in their seeds and are the unit of every interval.
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
from robot_attn_policies.evaluation.result_cache import Baselines, NuisanceScores, Scores
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
"""Name of the scene that a run was trained in."""


def arm_config(config: TrainConfig) -> TrainConfig:
    """The configuration that an arm's runs share, with `seed` and `threads` (which affects rounding) 0."""
    return replace(config, seed=0, threads=0)


def group_runs(configs: Mapping[str, TrainConfig]) -> dict[str, list[str]]:
    """Group runs into arms.

    Args:
        configs: configurations by name of the run.

    Returns:
        Names of each arm's runs by the arm's label, in the order given. A label has the perception family and
        the settings in which arms differ.

    Raises:
        ValueError: runs of different tasks, or two runs of the same arm and seed.
    """
    tasks = {config.task: name for name, config in configs.items()}
    if len(tasks) > 1:
        (one, first), (other, second), *_ = tasks.items()
        raise ValueError(
            f"expected runs of one task, got {first} of {one} and {second} of {other}: name runs of one"
        )
    arms: list[tuple[TrainConfig, list[str]]] = []
    for name, config in configs.items():
        runs = next((runs for common, runs in arms if common == arm_config(config)), None)
        if runs is None:
            arms.append((arm_config(config), [name]))
            continue
        for earlier in runs:
            if configs[earlier].seed == config.seed:
                raise ValueError(
                    f"expected runs that differ in configuration or seed, got the same for {earlier} and "
                    f"{name}: leave one out"
                )
        runs.append(name)
    commons = [common for common, _ in arms]
    return {_label(common, commons): runs for common, runs in arms}


def _label(config: TrainConfig, arms: Sequence[TrainConfig]) -> str:
    """An arm's label: family options in which arms of that family differ, other settings in which any do."""
    same_family = [arm.options for arm in arms if arm.perception == config.perception]
    parts = [
        *_distinguishing(config.options, same_family),
        *_distinguishing(_settings(config), [_settings(arm) for arm in arms]),
    ]
    return " ".join([config.perception, *parts])


def _distinguishing(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
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
    """How a figure is computed from episodes."""

    unit: str
    """Unit, for tables and plots."""
    rows: Callable[[Scores, Baselines], NDArray[np.float64]]
    """Values per episode, [E] or [E, K]."""
    statistic: Statistic
    """Reduces them to the figure."""
    pooled: bool = False
    """Whether it is computed over the episodes of all runs, instead of averaged over runs."""
    needs_oracle: bool = False
    """Whether it is unknown in an environment without an oracle."""


def _score_rows(scores: Scores, baselines: Baselines) -> NDArray[np.float64]:
    return with_baselines(
        *(np.asarray(values) for values in (scores.returns, baselines.random, baselines.oracle))
    )


def _columns(*names: str) -> Callable[[Scores, Baselines], NDArray[np.float64]]:
    def rows(scores: Scores, baselines: Baselines) -> NDArray[np.float64]:
        return np.stack([np.asarray(getattr(scores, name), np.float64) for name in names], axis=-1)

    return rows


METRICS: Mapping[str, Metric] = {
    "normalised_score": Metric("0 random, 1 oracle", _score_rows, normalised(mean), needs_oracle=True),
    "normalised_score_iqm": Metric(
        "0 random, 1 oracle", _score_rows, normalised(iqm), pooled=True, needs_oracle=True
    ),
    "return": Metric(
        "reward an episode", lambda scores, baselines: np.asarray(scores.returns, np.float64), mean
    ),
    "random_return": Metric(
        "reward an episode", lambda scores, baselines: np.asarray(baselines.random, np.float64), mean
    ),
    "oracle_return": Metric(
        "reward an episode",
        lambda scores, baselines: np.asarray(baselines.oracle, np.float64),
        mean,
        needs_oracle=True,
    ),
    "success": Metric(
        "fraction of episodes", lambda scores, baselines: np.asarray(scores.successes, np.float64), mean
    ),
    "mass": Metric("fraction of the map", _columns("mass", "visible"), ratio_of_sums),
    "mass_over_chance": Metric("times chance", _columns("mass", "chance"), ratio_of_sums),
    "mass_over_center_bias": Metric(
        "times the centre-bias map", _columns("mass", "center_bias"), ratio_of_sums
    ),
    "pointing_game": Metric("fraction of frames", _columns("hits", "visible"), ratio_of_sums),
    "attended": Metric("fraction of all frames", _columns("attended", "lengths"), ratio_of_sums),
    "mass_on_distractors": Metric("fraction of the map", _columns("distractors", "lengths"), ratio_of_sums),
}
"""The metrics by name. Focus metrics are of the best head; a uniform map scores chance level."""
OPTIONAL = {"success": "successes", "attended": "attended", "mass_on_distractors": "distractors"}
"""Metrics that a cell may lack, and the field of `Scores` that is None then."""


NUISANCE = "nuisance"
UNITS = {name: metric.unit for name, metric in METRICS.items()} | {NUISANCE: "fraction of the causal map"}
"""Unit of each figure of `compare`."""


class ArmFigure(NamedTuple):
    """A figure of an arm in a scene."""

    interval: Interval
    """The arm's estimate and its interval."""
    runs: tuple[float, ...]
    """The figure of each run."""


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`."""

    figures: Mapping[str, Mapping[str, Mapping[str, ArmFigure]]]
    """Figures by scene, arm and metric."""
    differences: Mapping[str, Mapping[tuple[str, str], Interval]]
    """By scene and pair of arms: `score` of the first minus that of the second."""
    seeds: Mapping[str, Sequence[int]]
    """Training seeds of each arm's runs."""
    uniform: frozenset[str]
    """Arms whose attention is uniform by construction and carries no information."""
    score: str
    """The metric that arms are ranked by: "normalised_score", or "return" without an oracle."""


def compare(
    cells: Mapping[str, Mapping[str, Sequence[tuple[Scores, Baselines]]]],
    seeds: Mapping[str, Sequence[int]],
    uniform: frozenset[str] = frozenset(),
    nuisance: Mapping[str, Mapping[str, Sequence[NuisanceScores]]] | None = None,
) -> Comparison:
    """Estimate the figures of arms and their differences, with intervals from `bootstrap_arms`.

    Args:
        cells: by scene and arm, each run's scores and the baselines on the same seeds.
        seeds: training seeds of each arm's runs, in that order.
        uniform: arms whose attention is uniform by construction.
        nuisance: by scene and arm, each run's nuisance, which becomes a figure too.

    Returns:
        The figures by scene, arm and metric, and the differences by scene and pair of arms.

    Raises:
        ValueError: the oracle's return is not above the random policy's, or runs have different episodes.
    """
    cells_of_runs = [cell for arms in cells.values() for runs in arms.values() for cell in runs]
    without_oracle = any(baselines.oracle is None for _, baselines in cells_of_runs)
    score = "return" if without_oracle else "normalised_score"
    figures: dict[str, dict[str, dict[str, ArmFigure]]] = {}
    differences: dict[str, dict[tuple[str, str], Interval]] = {}
    for scene, arms in cells.items():
        figures[scene] = {arm: {} for arm in arms}
        scores_of_runs = [scores for runs in arms.values() for scores, _ in runs]
        unknown = {
            name
            for name, field in OPTIONAL.items()
            if any(getattr(scores, field) is None for scores in scores_of_runs)
        }
        for name, metric in METRICS.items():
            if name in unknown or (metric.needs_oracle and without_oracle):
                continue
            rows = [np.stack([metric.rows(*cell) for cell in runs]) for runs in arms.values()]
            estimates = bootstrap_arms(rows, metric.statistic, pooled=metric.pooled)
            for arm, table, estimate in zip(arms, rows, estimates, strict=True):
                each = tuple(metric.statistic(table, 1).tolist())
                figures[scene][arm][name] = ArmFigure(estimate.interval(), each)
            if name == score:
                differences[scene] = {
                    (one, other): a.minus(b).interval()
                    for (one, a), (other, b) in itertools.combinations(zip(arms, estimates, strict=True), 2)
                }
        if nuisance is not None:
            shares = [np.stack([run.rows for run in runs]) for runs in nuisance[scene].values()]
            for arm, table, estimate in zip(
                nuisance[scene], shares, bootstrap_arms(shares, ratio_of_sums), strict=True
            ):
                each = tuple(ratio_of_sums(table, 1).tolist())
                figures[scene][arm][NUISANCE] = ArmFigure(estimate.interval(), each)
    return Comparison(figures, differences, seeds, uniform, score)
