"""`robot-attn compare` on run folders of a small task, in processes that are stopped and killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run

from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED
from robot_attn_scripts import cli, compare, evaluate

PROGRAM = [sys.executable, str(Path(__file__).with_name("toy_compare.py")), "compare"]
MEASURE = ["--episodes", "40", "--calibration-episodes", "4", "--envs", "4", "--suite", "easy", "hard"]
RUNS = ("query-0", "query-1", "cnn-0")
CELLS = 4 * 3  # these and the ends of the score, in the scene of training and two suites


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        perception, seed = name.split("-")
        torch.manual_seed(int(seed))
        make_run(folder / name, perception, seed=int(seed))
    return folder


def arguments(runs: Path, out: Path) -> list[str]:
    return [*(str(runs / name) for name in RUNS), *MEASURE, "--out", str(out)]


@pytest.fixture(scope="module")
def compared(runs: Path) -> Path:
    out = runs / "out"
    command = [*PROGRAM, *arguments(runs, out), "--jobs", "2", "--json", str(runs / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (runs / "told.txt").write_text(done.stdout)
    return out


def run(*given: object) -> int:
    return cli.main(["compare", *map(str, given)])


def cells(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "cells").glob("[!.]*.json")}


def test_every_cell_is_a_file_beside_tables_and_plot(compared: Path) -> None:
    assert len(cells(compared)) == CELLS
    assert sorted(path.name for path in compared.iterdir()) == [
        "cells",
        "comparison.json",
        "comparison.md",
        "comparison.png",
    ]
    figures = json.loads((compared / "comparison.json").read_text())
    assert json.loads((compared.parent / "figures.json").read_text()) == figures
    assert {arm: [each["seed"] for each in entry["runs"]] for arm, entry in figures["arms"].items()} == {
        "query": [0, 1],
        "cnn": [0],
    }
    assert figures["arms"]["query"]["runs"][1]["config"]["options"] == {"num_heads": 3}
    assert list(figures["scenes"]) == list(figures["differences"]) == ["trained", "easy", "hard"]


def test_a_cell_says_what_evaluate_says_of_the_run(runs: Path, compared: Path) -> None:
    figures = json.loads((compared / "comparison.json").read_text())["scenes"]
    for scene, suite in (("trained", None), ("hard", "hard")):
        options = evaluate.Options(runs / "query-1", episodes=40, calibration_episodes=4, envs=4, suite=suite)
        alone: Any = evaluate.evaluate(options)
        best = alone["focus"]["best_head"]
        for metric, value in (
            ("normalised_score", alone["normalised_score"]["mean"]["value"]),
            ("success", alone["success"]["mean"]["value"]),
            ("mass_over_chance", best["mass_over_chance"]["value"]),
            ("mass_over_center_bias", best["mass_over_center_bias"]["value"]),
            ("pointing_game", best["pointing_game"]["value"]),
        ):
            assert figures[scene]["query"][metric]["runs"][1] == pytest.approx(value, rel=1e-3), metric
    trained, hard = (figures[scene]["query"]["return"]["runs"][1] for scene in ("trained", "hard"))
    assert trained != pytest.approx(hard, rel=1e-5)


def test_a_map_that_is_uniform_has_the_focus_of_chance(compared: Path) -> None:
    figures = json.loads((compared / "comparison.json").read_text())
    assert [arm for arm, entry in figures["arms"].items() if entry["uniform_attention"]] == ["cnn"]
    assert figures["scenes"]["hard"]["cnn"]["mass_over_chance"]["value"] == pytest.approx(1.0, rel=1e-5)


def test_the_tables_fit_and_hold_the_figures(compared: Path) -> None:
    told = (compared.parent / "told.txt").read_text()
    assert max(map(len, told.splitlines())) <= 80 or str(compared) in told
    assert "…" not in told
    figures = json.loads((compared / "comparison.json").read_text())
    score = figures["scenes"]["hard"]["query"]["normalised_score"]
    cell = f"{score['value']:.3f} [{score['low']:.3f},{score['high']:.3f}]"
    difference = figures["differences"]["hard"][0]
    assert difference["arms"] == ["query", "cnn"]
    markdown = (compared / "comparison.md").read_text()
    for text in (told, markdown):
        assert cell in text
        assert f"{difference['value']:+.3f} [{difference['low']:+.3f},{difference['high']:+.3f}]" in text
        words = " ".join(text.split())
        assert "One seed: the interval of cnn is over episodes only." in words
        assert "With 2 runs the interval is approximate." in words
        assert "The map of cnn is uniform by construction: it scores chance." in words
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == (2 + 3 * 2) + (2 + 3)
    assert len({line.count("|") for line in lines[:8]}) == 1


def test_what_is_measured_is_not_measured_again(runs: Path, compared: Path) -> None:
    files = [*(compared / "cells").glob("*.json"), compared / "comparison.png", compared / "comparison.md"]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    assert run(*arguments(runs, compared)) == 0  # no process: there is nothing to do
    for path, (content, written) in before.items():
        assert path.read_bytes() == content
        if path.parent.name == "cells":
            assert path.stat().st_mtime_ns == written


def missing(runs: Path, out: Path, *more: str) -> set[str]:
    """The cells that are to be measured."""
    import tyro

    options = tyro.cli(compare.Options, args=[*arguments(runs, out), *more])
    configs = {name: policy.config for name, policy in compare.load_policies(options).items()}
    pairs = compare.plan(options, configs, out / "cells").values()
    return {job.path.name for pair in pairs for job in pair if job.answer() is None}


def test_a_run_that_changed_is_measured_again_and_no_other(
    runs: Path, compared: Path, tmp_path: Path
) -> None:
    for name in RUNS:
        shutil.copytree(runs / name, tmp_path / name)
    assert missing(tmp_path, compared) == set()
    torch.manual_seed(5)
    make_run(tmp_path / "query-1", seed=1)
    changed = missing(tmp_path, compared)
    assert len(changed) == 3 and all(name.startswith("query-") and "-1-" in name for name in changed)
    assert len(missing(runs, compared, "--episodes", "41")) == CELLS
    assert len(missing(runs, compared, "--calibration-episodes", "5")) == CELLS - 3  # all but the ends
    assert len(missing(runs, compared, "--which", "last")) == 0  # the same policies: nobody trained


def start(runs: Path, out: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A comparison in the middle of its cells, and its processes."""
    before = len(cells(out)) if out.exists() else 0
    command = [*PROGRAM, *arguments(runs, out), "--jobs", "2"]
    out.mkdir(exist_ok=True)
    (out / "hold").write_text(str(before))
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOLD": str(out / "hold")},
    )
    while not (out / "cells").is_dir() or len(cells(out)) <= before:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    return child, psutil.Process(child.pid).children(recursive=True)


@pytest.mark.slow
def test_it_goes_on_after_a_kill_and_after_ctrl_c(runs: Path, compared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child, workers = start(runs, out)
    child.kill()
    (out / "hold").unlink()
    child.communicate()
    assert psutil.wait_procs(workers, timeout=120)[1] == []  # they notice that they are alone
    killed = cells(out)
    assert 0 < len(killed) < CELLS

    child, workers = start(runs, out)
    child.send_signal(signal.SIGINT)
    told, error = child.communicate(timeout=1200)
    assert child.returncode == 130, error
    (out / "hold").unlink()
    stopped = cells(out)
    assert len(killed) < len(stopped) < CELLS
    assert f"stopped: {len(stopped)} of {CELLS} cells are measured" in told
    assert "the same command resumes with the others" in told
    assert error.splitlines()[-1] == "robot-attn: interrupted"
    assert "Traceback" not in error
    assert psutil.wait_procs(workers, timeout=120)[1] == []
    assert not (out / "comparison.json").exists()

    command = [*PROGRAM, *arguments(runs, out), "--jobs", "1"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert cells(out) == cells(compared)  # as if it had never been stopped, whatever --jobs
    assert {name: cells(out)[name] for name in killed} == killed
    assert (out / "comparison.png").read_bytes() == (compared / "comparison.png").read_bytes()


Damage = Callable[[Path], None]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([], "expected run folders to compare, got none: name them"),
        (["nothing"], "expected a run folder with a config.json"),
        (["query-0", "query-0"], "expected each run once, got query-0, which is named twice"),
        (["query-0", "../runs/query-0"], "which is named twice"),
        (["query-0", "copy"], "expected runs that differ in configuration or seed"),
        (["query-0", "other-task"], "expected runs of one task"),
        (["query-0", "never"], "best/policy.safetensors, got none"),
        (["query-0", "--suite", "hrad"], "got 'hrad': did you mean 'hard'?"),
        (["query-0", "--episodes", "0"], "from 1 to"),
        (["query-0", "--seed", "1000001"], "have not used, got 1000001"),
        (["query-0", "--seed", str(CALIBRATION_SEED)], f"have not used, got {CALIBRATION_SEED}"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_written(
    runs: Path,
    tmp_path: Path,
    named: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copytree(runs / "query-0", folder / "query-0")
    shutil.copytree(runs / "query-0", folder / "copy")
    shutil.copytree(runs / "query-0", folder / "never")
    (folder / "never" / "best" / "policy.safetensors").unlink()
    make_run(folder / "other-task", task="toi")
    monkeypatch.chdir(folder)
    before = sorted(tmp_path.rglob("*"))
    assert run(*named) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_cell_and_a_folder_that_is_none_are_one_line(
    runs: Path, compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(compared, tmp_path / "out")
    damaged = next((tmp_path / "out" / "cells").glob("query-*-0-hard.json"))
    damaged.write_text(damaged.read_text()[:-5])
    (tmp_path / "file").write_text("kept")
    for out, message in ((tmp_path / "out", damaged.name), (tmp_path / "file", "cannot write")):
        assert run(*arguments(runs, out)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"
