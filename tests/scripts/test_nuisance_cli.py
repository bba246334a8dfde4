"""`--nuisance` of `robot-attn evaluate` and `compare`, on run folders of a small task."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from matplotlib.image import imread
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run

from robot_attn_policies.evaluation.compare_plot import COLOURS, write_nuisance_plot
from robot_attn_policies.evaluation.shift_correlation import PREDICTORS, ShiftTable
from robot_attn_scripts import _nuisance, cli, compare, evaluate

PROGRAM = [sys.executable, str(Path(__file__).with_name("toy_compare.py")), "compare"]
RUNS = ("query-0", "cnn-0")


def arguments(runs: Path, *more: str) -> list[str]:
    measure = ["--episodes", "6", "--calibration-episodes", "2", "--envs", "3", "--suite", "hard"]
    return [*(str(runs / name) for name in RUNS), *measure, "--out", str(runs / "out"), *more]


NUISANCE = ("--nuisance", "--nuisance-frames", "12")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    runs = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        torch.manual_seed(0)
        make_run(runs / name, name.partition("-")[0])
    command = [*PROGRAM, *arguments(runs, *NUISANCE), "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return runs, done.stdout


def test_evaluate_measures_the_nuisance_of_a_policy_with_attention(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--episodes", "4", "--calibration-episodes", "2", "--nuisance", "--nuisance-frames", "8"]
    assert cli.main(["evaluate", str(folder), *options, "--json", str(tmp_path / "f.json")]) == 0
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "f.json").read_text())["nuisance"]
    assert 0 <= found["total"]["low"] <= found["total"]["value"] <= found["total"]["high"] <= 1
    parts = [found[name]["value"] for name in ("backdrop", "distractors", "occluder")]
    assert sum(parts) == pytest.approx(found["total"]["value"])
    assert parts[1:] == [0, 0]  # the task has none
    frames = [value["value"] for name, value in found.items() if name.startswith("frames")]
    assert 0 < sum(frames) <= 8
    assert found["frames_scored"]["value"] > 0
    # A target of 5 x 5 pixels, and a cell of 4 or 5 around it, of 36 x 44.
    assert 0.8 < found["uniform_map"]["value"] < 0.95
    assert "nuisance: causal mass on what cannot matter" in told
    assert f"{100 * found['total']['value']:.1f} [" in told
    assert max(map(len, told.splitlines())) <= 80
    assert "nuisance" not in evaluate.evaluate(evaluate.Options(folder, episodes=1, calibration_episodes=1))


def test_compare_has_a_column_and_the_points_of_the_correlation(compared: tuple[Path, str]) -> None:
    runs, told = compared
    figures = json.loads((runs / "out" / "comparison.json").read_text())
    for scene in ("trained", "hard"):
        share = figures["scenes"][scene]["cnn"]["nuisance"]
        assert share["unit"] == "fraction of the causal map"
        assert 0 <= share["value"] <= 1
        assert f"{100 * share['value']:.1f} [" in told
    nuisance = figures["nuisance"]
    # Untrained runs gain nothing that a share could be taken of.
    assert sorted(nuisance["left_out"]) == sorted(str(runs / name) for name in RUNS)
    assert all(value < 10 for value in nuisance["left_out"].values())
    assert nuisance["points"] == []
    assert set(nuisance["correlations"]) == set(PREDICTORS)
    assert all(each is None for by_span in nuisance["correlations"].values() for each in by_span.values())
    assert "too few runs" in told
    assert "nuisance: 48 frames in 4 cells, with 96 to 480 passes" in " ".join(told.split())
    markdown = (runs / "out" / "comparison.md").read_text()
    assert "| nuisance, % |" in markdown
    assert "| return kept and | all runs and scenes | within scenes | within arms |" in markdown
    assert (runs / "out" / "nuisance.png").stat().st_size > 1000


def test_nuisance_has_cells_of_its_own_and_leaves_the_others_valid(compared: tuple[Path, str]) -> None:
    runs, _ = compared
    names = {path.name for path in (runs / "out" / "cells").glob("[!.]*.json")}
    assert len(names) == 2 * 2 + 2 + 2 * 2
    assert sum(name.startswith("nuisance-") for name in names) == 4

    def missing(*more: str) -> set[str]:
        options = tyro.cli(compare.Options, args=arguments(runs, *more))
        configs = {name: policy.config for name, policy in compare.load_policies(options).items()}
        planned = compare.plan(options, configs, runs / "out" / "cells").values()
        return {job.path.name for jobs in planned for job in jobs if job.answer() is None}

    assert missing() == missing(*NUISANCE) == set()
    fewer = missing("--nuisance", "--nuisance-frames", "11")
    assert len(fewer) == 4 and all(name.startswith("nuisance-") for name in fewer)


def table(runs: int) -> ShiftTable:
    values = (np.arange(runs)[:, None] + (0.0, 0.5)) / 16  # exact, also when subtracted from 1
    names = tuple(f"run-{index}" for index in range(runs))
    arms = ("query",) * (runs // 2) + ("cnn",) * (runs - runs // 2)
    predictors: Any = dict.fromkeys(PREDICTORS, values)
    return ShiftTable(names, arms, ("easy", "hard"), 1 - values, predictors, {"short": 1.5})


def test_the_table_of_correlations_fits_and_says_what_is_left_out() -> None:
    figures: Any = _nuisance.correlation_figures(table(8))
    assert len(figures["points"]) == 16
    assert figures["points"][3]["kept"] == pytest.approx(1 - 1.5 / 16)
    for by_span in figures["correlations"].values():
        assert {span: each["value"] for span, each in by_span.items()} == pytest.approx(
            {"all": -1.0, "scenes": -1.0, "arms": -1.0}
        )
    file = io.StringIO()
    _nuisance.show_correlations(figures, Console(file=file, width=80))
    told = file.getvalue()
    assert max(map(len, told.splitlines())) <= 80
    assert told.count("-1.00 [-1.00,-1.00]") == 3 * len(PREDICTORS)
    words = " ".join(told.split())
    assert "Left out: short, whose gain in the scene of training is less than 10 standard errors" in words
    assert "for 8 of 8 runs that have any" in words


def test_the_plot_has_the_points_of_each_arm_in_both_panels(tmp_path: Path) -> None:
    for runs in (0, 8):
        write_nuisance_plot(tmp_path / f"{runs}.png", table(runs), "toy")
    pictures = [(imread(tmp_path / f"{runs}.png")[..., :3] * 255).round().astype(int) for runs in (0, 8)]
    for colour in COLOURS[:2]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        shown = 0.8 * rgb + 0.2 * 255  # markers are translucent
        empty, full = (np.all(abs(picture - shown) < 3, axis=-1) for picture in pictures)
        assert not empty.any()
        columns = np.flatnonzero(full[: len(full) * 4 // 5].any(axis=0))  # above the legend
        assert columns.min() < full.shape[1] / 2 < columns.max()
