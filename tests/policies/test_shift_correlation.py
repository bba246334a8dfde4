"""Rank correlations with the share of return kept, against values computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robot_attn_policies.evaluation.result_cache import Baselines, NuisanceScores, Scores
from robot_attn_policies.evaluation.shift_correlation import (
    MIN_RUNS,
    RunResult,
    ShiftTable,
    shift_correlation,
    shift_table,
)

SCENES = ("easy", "hard")
BASELINES = Baselines(random=(0.0, 2.0), oracle=(10.0, 12.0))


def scores(mean: float, spread: float = 0.1, mass: float = 0.5) -> Scores:
    """Scores of two episodes of 10 frames each."""
    each = (1.0, 1.0)
    return Scores(
        returns=(mean - 1 - spread, mean + 1 + spread),
        lengths=(10, 10),
        successes=None,
        head=0,
        mass=(10 * mass, 10 * mass),
        hits=each,
        chance=each,
        center_bias=each,
        visible=(10, 10),
    )


def nuisance(share: float) -> NuisanceScores:
    """Nuisance of two episodes with 4 and 2 scored frames; half on the backdrop and half on distractors."""
    half = (2 * share, 1 * share)
    return NuisanceScores(half, half, (0.0, 0.0), (2.0, 1.0), (3.6, 1.8), (4, 2), (0, 2), (0, 0))


def result(name: str, means: Any, shares: Any = (0.1, 0.2, 0.3), **options: Any) -> RunResult:
    cells = [(scores(mean), BASELINES) for mean in means]
    return replace(RunResult(name, "query", False, cells, [nuisance(share) for share in shares]), **options)


def test_the_share_kept_by_hand() -> None:
    table = shift_table(
        [
            result("a", (9, 5, 1)),
            result("b", (6, 6, -0.5), (0.4, 0.5, 0.6), arm="cnn", uniform=True),
            result("c", (1.05, 6, 6)),
        ],
        SCENES,
    )
    assert table.runs == ("a", "b") and table.arms == ("query", "cnn") and table.scenes == SCENES
    # Gains over the random return of 1, divided by that of the oracle, 10, which cancels.
    assert table.kept == pytest.approx(np.array([[4 / 8, 0 / 8], [5 / 5, -1.5 / 5]]))
    assert table.predictors["nuisance_trained"] == pytest.approx(np.array([[0.1, 0.1], [0.4, 0.4]]))
    assert table.predictors["nuisance_shifted"] == pytest.approx(np.array([[0.2, 0.3], [0.5, 0.6]]))
    assert table.predictors["clipped_shifted"] == pytest.approx(np.full((2, 2), 0.5))
    assert table.predictors["attention_trained"][0] == pytest.approx((0.5, 0.5))
    assert np.isnan(table.predictors["attention_trained"][1]).all()
    assert table.left_out == pytest.approx({"c": 0.5})  # 0.05 / 0.1


def test_without_an_oracle_returns_above_random_are_compared() -> None:
    bare = Baselines(BASELINES.random, None)
    run = result("a", (9, 5, 1), scores=[(scores(mean), bare) for mean in (9, 5, 1)])
    assert shift_table([run], SCENES).kept == pytest.approx(np.array([[0.5, 0.0]]))


def test_scores_are_divided_by_the_oracle_of_each_scene() -> None:
    harder = Baselines(BASELINES.random, (5.0, 7.0))  # an oracle with half of the gain keeps half at most
    run = result("a", (9, 5, 1), scores=[(scores(9), BASELINES), (scores(5), harder), (scores(1), harder)])
    assert shift_table([run], SCENES).kept == pytest.approx(np.array([[(4 / 5) / (8 / 10), 0.0]]))


def table(x: Any, y: Any, arms: Any = None) -> ShiftTable:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    runs = tuple(f"run-{index}" for index in range(len(x)))
    names = tuple(f"scene-{index}" for index in range(x.shape[1]))
    values: Any = {"nuisance_shifted": x}
    return ShiftTable(runs, tuple(arms or ["query"] * len(x)), names, y, values, {})


def correlation(points: ShiftTable, span: Any = "all", **options: Any) -> Any:
    found = shift_correlation(points, "nuisance_shifted", span, **options)
    assert found is not None
    return found


def test_spearman_with_ties_by_hand() -> None:
    x = [[1.0], [2.0], [2.0], [4.0], [5.0], [6.0]]  # ranks 1, 2.5, 2.5, 4, 5, 6
    y = [[6.0], [5.0], [4.0], [3.0], [1.0], [1.0]]  # ranks 6, 5, 4, 3, 1.5, 1.5
    (value, low, high), runs = correlation(table(x, y))
    # Deviations of the ranks from 3.5: (-2.5, -1, -1, 0.5, 1.5, 2.5) and (2.5, 1.5, 0.5, -0.5, -2, -2).
    assert value == pytest.approx(-16.5 / 17)
    assert runs == 6
    assert -1 <= low < value < high < 0


def test_the_scenes_of_a_run_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12, 1))
    one = correlation(table(x, y))[0]
    # Scenes that repeat the same points add nothing that is known, unlike independent points.
    copies = correlation(table(x.repeat(8, axis=1), y.repeat(8, axis=1)))[0]
    assert copies == pytest.approx(one, abs=1e-9)
    independent = correlation(table(np.repeat(x, 8, axis=0), np.repeat(y, 8, axis=0)))[0]
    assert independent.high - independent.low < 0.6 * (one.high - one.low)


def test_within_scenes_and_arms_a_difference_between_them_plays_no_part() -> None:
    run = np.arange(6.0)[:, None]
    scene = np.array([[0.0, 100.0]])
    # In each scene nuisance goes with return kept; the harder scene has more nuisance and keeps less.
    points = table(run + scene, run - scene)
    assert correlation(points, "scenes")[0].value == pytest.approx(1.0)
    assert correlation(points)[0].value < 0
    arm = 100 * (np.arange(6) >= 3)[:, None]
    points = table(run - scene / 100 + arm, -run + scene / 100 + arm, ["query"] * 3 + ["cnn"] * 3)
    assert correlation(points, "arms")[0].value == pytest.approx(-1.0)
    assert correlation(points)[0].value > 0


def test_too_few_runs_have_no_correlation() -> None:
    points = table(np.arange(10.0).reshape(5, 2), np.arange(10.0).reshape(5, 2))
    assert len(points.runs) == MIN_RUNS - 1
    assert shift_correlation(points, "nuisance_shifted") is None
    enough = table(np.arange(12.0).reshape(6, 2), np.arange(12.0).reshape(6, 2), ["a"] * 5 + ["b"])
    assert shift_correlation(enough, "nuisance_shifted") is not None
    assert shift_correlation(enough, "nuisance_shifted", "arms") is None  # five runs in arms of several
    unknown = np.arange(12.0).reshape(6, 2)
    unknown[0, 1] = np.nan
    assert shift_correlation(table(unknown, unknown), "nuisance_shifted") is None


def test_the_same_seed_gives_the_same_interval() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 8, 2))
    assert correlation(table(x, y), seed=3) == correlation(table(x, y), seed=3)
    assert correlation(table(x, y), seed=3) != correlation(table(x, y), seed=4)
