"""`robot-attn benchmark envs`: the figures are what was measured, beside their targets."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robot_attn_envs
from robot_attn_scripts.benchmarks.envs import Options, advance, measure_rates, median, run, start, verdicts

TRACK = "RobotAttn/Track-v0"


def test_rates_are_compared_within_each_round() -> None:
    figures = measure_rates({"track": TRACK, "again": TRACK}, 2, rounds=3, steps=5)
    assert list(figures) == ["track", "again"]
    track, again = figures["track"], figures["again"]
    assert list(track) == ["no shifts", "hard", "mujoco_warp", "gain", "cost"]
    assert list(again) == ["no shifts", "hard", "mujoco_warp", "share", "gain", "cost"]
    assert {figure["unit"] for figure in (track["hard"], again["no shifts"])} == {"steps/s"}
    plain, hard = np.array(again["no shifts"]["rounds"]), np.array(again["hard"]["rounds"])
    assert len(plain) == 3 and plain.min() > 0
    assert again["share"]["rounds"] == pytest.approx(plain / track["no shifts"]["rounds"])
    assert again["cost"]["rounds"] == pytest.approx(100 - 100 * hard / plain)
    assert again["gain"]["rounds"] == pytest.approx(plain / again["mujoco_warp"]["rounds"])
    assert not [figure for figure in again.values() if "target" in figure]


def test_a_rate_is_of_the_steps_of_all_environments() -> None:
    began = time.perf_counter()
    figures = measure_rates({"track": TRACK}, 32, rounds=3, steps=64)["track"]
    took = time.perf_counter() - began
    # The turns, of 64 steps each, are part of what the whole took; of a 32nd of the rate they would not be.
    turns = [64 / rate for way in ("no shifts", "hard") for rate in figures[way]["rounds"]]
    assert 0 < sum(turns) < took


def test_a_turn_has_its_share_of_resets() -> None:
    batch = start(TRACK, {"suite": "hard"}, 32)
    before = batch.worlds.steps.copy()
    # Their episodes of 150 steps end one after another, not all in the same step.
    assert len(set(before)) > 16 and before.min() >= 0 and before.max() < 150
    advance(batch, 20)
    assert (before >= 130).any()
    np.testing.assert_array_equal(batch.worlds.steps, (before + 20) % 150)
    batch.close()


@pytest.mark.slow
def test_a_small_benchmark_gives_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "envs.json"
    figures = run(Options(tasks=("track",), envs=(64, 1), rounds=1, steps=1, json=path))
    assert json.loads(path.read_text()) == figures
    rates, memory = figures["rates"], figures["memory"]
    assert isinstance(rates, dict) and isinstance(memory, dict)
    assert list(rates) == ["1 environment", "64 environments"]
    assert "target" not in rates["1 environment"]["track"]["cost"]
    assert rates["64 environments"]["track"]["cost"]["target"] == "<= 25"
    for way in ("no shifts", "hard"):
        grown = memory["track"][way]
        # The frame, its copy and the ids of its geoms alone are 28 kB.
        assert grown["value"] > 0.028 and grown["environments"] == [1, 64]
    out = capsys.readouterr().out
    assert out.count("track, memory") == 2 and out.count("track, 64 environments, cost") == 1


def test_the_interval_of_a_median_is_between_the_ranks_of_the_sign_test() -> None:
    # 15 values: as few as 3 heads of 15, or as few tails, come in 2 * 576 / 2^15 = 3.5 % of the cases.
    figure = median([float(value) for value in (7, 3, 15, 1, 9, 5, 11, 13, 2, 4, 6, 8, 10, 12, 14)], "x")
    assert (figure["median"], figure["low"], figure["high"]) == (8, 4, 12)
    assert (figure["min"], figure["max"], figure["rounds"][0]) == (1, 15, 7)
    few = median([3.0, 1.0], "x")
    assert (few["low"], few["high"]) == (1, 3)


def test_a_verdict_is_of_the_whole_interval() -> None:
    def share(low: float, high: float) -> dict[str, object]:
        return {"median": 0.5, "low": low, "high": high, "unit": "x", "target": ">= 0.5"}

    cost = {"median": 15.25, "low": 15.001, "high": 16.0, "unit": "%", "target": "<= 15"}
    rate = {"median": 9.0, "unit": "steps/s"}
    figures = {
        "64 environments": {
            "reach": {"no shifts": rate, "share": share(0.5, 0.75), "cost": cost},
            "push": {"share": share(0.375, 0.625), "cost": {**cost, "low": 2.0, "high": 15.0}},
        },
        "memory": {"reach": {"hard": {"value": 1.0, "unit": "MB", "target": "<= 1"}}},
    }
    assert verdicts(figures) == [
        "meets   >= 0.5: reach, 64 environments, share: 0.50 [0.50,0.75] x",
        "MISSES  <= 15: reach, 64 environments, cost: 15.25 [15.00,16.00] %",
        "unclear >= 0.5: push, 64 environments, share: 0.50 [0.38,0.62] x",
        "meets   <= 15: push, 64 environments, cost: 15.25 [2.00,15.00] %",
        "meets   <= 1: reach, memory, hard: 1.00 MB",
    ]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"steps": 0}, {"envs": ()}, {"envs": (64, 0)}])
def test_nothing_to_measure(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        run(Options(**wrong))


def test_an_unknown_task_names_the_nearest() -> None:
    assert TRACK in robot_attn_envs.TASKS
    with pytest.raises(ValueError, match="'trak': did you mean 'track'"):
        run(Options(tasks=("trak",)))
