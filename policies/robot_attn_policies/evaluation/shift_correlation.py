"""What goes with the return that runs keep under visual shifts: rank correlations with an interval over runs.

Observational: runs also differ in other things than what they look at, and a scene that is harder lowers the
return and raises the nuisance of every run. `Spans` says between which points a correlation is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import rank_agreement
from robot_attn_policies.evaluation.result_cache import Baselines, NuisanceScores, Scores
from robot_attn_policies.evaluation.statistics import RESAMPLES, Estimate, Interval, ratio_of_sums

Predictor: TypeAlias = Literal[
    "nuisance_trained",
    "nuisance_shifted",
    "clipped_trained",
    "clipped_shifted",
    "attention_trained",
    "attention_shifted",
]
PREDICTORS: dict[Predictor, str] = {
    "nuisance_trained": "nuisance, trained",
    "nuisance_shifted": "nuisance, shifted",
    "clipped_trained": "clipped, trained",
    "clipped_shifted": "clipped, shifted",
    "attention_trained": "focus, trained",
    "attention_shifted": "focus, shifted",
}
"""What the share of return kept is correlated with, with its name in text: nuisance, the same of importance
that is clipped at 0, and attention mass on the target, in the scene of training and in the shifted one."""

Span: TypeAlias = Literal["all", "scenes", "arms"]
SPANS: dict[Span, str] = {
    "all": "all runs and scenes",
    "scenes": "within scenes",
    "arms": "within arms",
}
"""Points between which a correlation is taken. Within scenes it is the mean of the correlations in each,
so that it does not show how strong a shift is; likewise within arms."""

MIN_RUNS = 6
"""Runs below which no correlation is given: the interval of fewer says nothing."""
MIN_RUNS_OF_ARM = 2
"""Runs below which an arm has no correlation within it."""
MIN_PRECISION = 10.0
"""Smallest gain over the random policy in the training scene, in standard errors over episodes. The share
kept is divided by it, and is noise where it is near 0."""


@dataclass(frozen=True)
class ShiftTable:
    """Share of return kept and its predictors for R runs in S shifted scenes."""

    runs: tuple[str, ...]
    """Names of the runs."""
    arms: tuple[str, ...]
    """Arm of each run."""
    scenes: tuple[str, ...]
    """Names of the shifted scenes."""
    kept: NDArray[np.float64]
    """[R, S] share of return kept: 1 is all of it, 0 that of a random policy."""
    predictors: Mapping[Predictor, NDArray[np.float64]]
    """[R, S] values of each predictor; NaN where it is not defined, as attention of a policy without any."""
    left_out: Mapping[str, float]
    """Runs whose gain over the random policy in the scene of training is too near 0 to divide by: that gain,
    in standard errors over episodes."""


@dataclass(frozen=True)
class RunResult:
    """Results of a run in the scene of training and in S shifted ones, in the same order."""

    name: str
    """Name of the run."""
    arm: str
    """Its arm."""
    uniform: bool
    """Whether its attention is uniform by construction."""
    scores: Sequence[tuple[Scores, Baselines]]
    """Scores and baselines, S + 1; the first is of the scene of training."""
    nuisance: Sequence[NuisanceScores]
    """Nuisance, S + 1."""


def shift_table(runs: Sequence[RunResult], scenes: Sequence[str]) -> ShiftTable:
    """Compute the share of return that each run keeps in each shifted scene, and its predictors.

    The share is the gain over the random policy in the shifted scene divided by that in the scene of
    training, each in units of the oracle's gain in the same scene if there is an oracle. A run whose gain in
    the scene of training is less than `MIN_PRECISION` standard errors is left out.

    Args:
        runs: results of the runs.
        scenes: names of the S shifted scenes.

    Returns:
        The table, in the order given.
    """
    kept: dict[str, list[float]] = {}
    left_out: dict[str, float] = {}
    for run in runs:
        precision = _precision(*run.scores[0])
        if precision < MIN_PRECISION:
            left_out[run.name] = precision
            continue
        first, *shifted = (_gain(*cell) for cell in run.scores)
        kept[run.name] = [gain / first for gain in shifted]
    used = [run for run in runs if run.name in kept]

    def values(of: Any, shifted: bool) -> NDArray[np.float64]:
        rows = [[of(run, scene) for scene in range(1, len(scenes) + 1)] for run in used]
        first = [[of(run, 0)] * len(scenes) for run in used]
        return np.array(rows if shifted else first, np.float64).reshape(len(used), len(scenes))

    def nuisance(run: RunResult, scene: int) -> float:
        return float(ratio_of_sums(run.nuisance[scene].rows, 0))

    def clipped(run: RunResult, scene: int) -> float:
        measured = run.nuisance[scene]
        return float(ratio_of_sums(np.stack([measured.clipped, measured.scored], axis=1), 0))

    def attention(run: RunResult, scene: int) -> float:
        scores, _ = run.scores[scene]
        mass = float(ratio_of_sums(np.stack([scores.mass, scores.visible], axis=1), 0))
        return float("nan") if run.uniform else mass

    return ShiftTable(
        tuple(run.name for run in used),
        tuple(run.arm for run in used),
        tuple(scenes),
        np.array([kept[run.name] for run in used]).reshape(len(used), len(scenes)),
        {
            "nuisance_trained": values(nuisance, False),
            "nuisance_shifted": values(nuisance, True),
            "clipped_trained": values(clipped, False),
            "clipped_shifted": values(clipped, True),
            "attention_trained": values(attention, False),
            "attention_shifted": values(attention, True),
        },
        left_out,
    )


def _gain(scores: Scores, baselines: Baselines) -> float:
    gain = float(np.mean(scores.returns) - np.mean(baselines.random))
    return (
        gain
        if baselines.oracle is None
        else gain / float(np.mean(baselines.oracle) - np.mean(baselines.random))
    )


def _precision(scores: Scores, baselines: Baselines) -> float:
    """Mean gain over the random policy, in standard errors over episodes."""
    gains = np.asarray(scores.returns) - np.asarray(baselines.random)
    if len(gains) < 2:
        return 0.0
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return float(gains.mean() / error) if error > 0 else float(np.sign(gains.mean()) * np.inf)


def shift_correlation(
    table: ShiftTable, predictor: Predictor, span: Span = "all", *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Interval, int] | None:
    """Compute Spearman's rank correlation of a predictor with the share of return kept.

    The interval is a cluster bootstrap: runs are resampled with all of their scenes, since the scenes of a
    run are not independent. Within arms, they are resampled in each arm. With few runs the interval is rough
    and on average too narrow.

    Args:
        table: the table.
        predictor: what to correlate.
        span: points between which it is taken.
        seed: random seed; the same seed gives the same interval.
        resamples: number of bootstrap resamples.

    Returns:
        The correlation, with its 95 % interval, and the number of runs in it, which are those that have the
        predictor in every scene; None for too few runs.
    """
    x, y = table.predictors[predictor], table.kept
    runs = np.flatnonzero(np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1))
    arms: list[NDArray[np.int64]] = [runs]
    if span == "arms":
        of_arm = {arm: [run for run in runs if table.arms[run] == arm] for arm in dict.fromkeys(table.arms)}
        arms = [np.array(rows) for rows in of_arm.values() if len(rows) >= MIN_RUNS_OF_ARM]
    count = sum(map(len, arms))
    if count < MIN_RUNS or not table.scenes:
        return None
    rng = np.random.default_rng(seed)

    def correlation(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Correlation of resamples [N, runs of each arm]."""
        parts = []
        for chosen in rows:
            pair = np.stack([x[chosen], y[chosen]])  # [2, N, runs, S]
            groups = np.moveaxis(pair, 3, 2) if span == "scenes" else pair.reshape(2, len(chosen), 1, -1)
            parts.append(rank_agreement(*groups.reshape(2, -1, 1, groups.shape[3])).reshape(len(chosen), -1))
        each = np.concatenate(parts, axis=1)
        known = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, each, 0).sum(axis=1) / known.sum(axis=1))

    value = correlation([rows[None] for rows in arms])[0]
    samples = correlation([rows[rng.integers(len(rows), size=(resamples, len(rows)))] for rows in arms])
    return Estimate(float(value), samples).interval(), count
