"""`robot-attn benchmark pointing`, on few worlds and for moments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("stable_baselines3")

from robot_attn import FAMILIES
from robot_attn.focus import mass_on_target
from robot_attn_scripts.benchmarks import pointing
from robot_attn_scripts.benchmarks.pointing import (
    MIN_PIXELS,
    SIDE,
    SPLITS,
    Frames,
    Options,
    Pointer,
    TrainJob,
    render_frames,
)
from robot_attn_scripts.cli import main

TINY = ["--train-worlds", "4", "--validation-worlds", "2", "--test-worlds", "2"]


@pytest.fixture(scope="module")
def train() -> Frames:
    return render_frames(24, SPLITS["train"], batch=24)


@pytest.fixture(scope="module")
def validation() -> Frames:
    return render_frames(8, SPLITS["validation"])


def test_frames_show_the_target_anywhere(train: Frames) -> None:
    count = len(train.images)
    assert train.images.shape == (count, 3, SIDE, SIDE) and train.images.dtype == np.uint8
    assert train.masks.shape == (count, SIDE, SIDE) and train.worlds.shape == (count,)
    assert train.masks.sum(axis=(1, 2)).min() >= MIN_PIXELS
    assert set(train.worlds) == set(range(train.count_worlds())) == set(range(24))
    x, y = train.positions().T
    for side in (x < -1 / 3, x > 1 / 3, y < -1 / 3, y > 1 / 3):
        assert 0.1 < side.mean() < 0.5
    red = train.images[:, 0] > train.images[:, 1:].sum(axis=1)
    assert red[train.masks].mean() > 0.99 and red[~train.masks].mean() < 0.01


def test_the_splits_share_no_seed_and_no_frame(train: Frames, validation: Frames) -> None:
    first = sorted(SPLITS.values())
    most = min(np.diff(first))
    with pytest.raises(ValueError, match="--train-worlds from 1 to 1,000,000, got 1,000,001"):
        pointing.run(Options(train_worlds=int(most) + 1))
    frames = {image.tobytes() for image in train.images}
    assert len(frames) == len(train.images)
    assert not frames & {image.tobytes() for image in validation.images}
    assert not frames & {image.tobytes() for image in render_frames(2, SPLITS["test"]).images}


def test_the_same_worlds_give_the_same_frames(validation: Frames) -> None:
    again = render_frames(8, SPLITS["validation"])
    assert all(np.array_equal(one, other) for one, other in zip(validation, again, strict=True))
    # The last batch has more worlds than are wanted: they are left out.
    odd = render_frames(9, SPLITS["validation"], batch=8)
    assert odd.count_worlds() == 9
    assert all(np.array_equal(one, other[odd.worlds < 8]) for one, other in zip(validation, odd, strict=True))


def test_the_place_is_the_middle_of_what_is_seen() -> None:
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 0, SIDE - 1] = True
    masks[1, 10, 20:23] = masks[1, 13, 20:23] = True
    positions = Frames(np.zeros((2, 3, SIDE, SIDE), np.uint8), masks, np.zeros(2, np.int64)).positions()
    pixel = 2 / SIDE
    assert positions == pytest.approx(
        np.array([[1 - pixel / 2, -1 + pixel / 2], [21.5 * pixel - 1, 12 * pixel - 1]]), abs=1e-6
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_mass_is_that_of_the_map_over_the_frame(family: str, validation: Frames) -> None:
    torch.manual_seed(0)
    pointer = Pointer(family)
    images, masks = torch.from_numpy(validation.images[:5]), validation.masks[:5]
    with torch.no_grad():
        attention, position = pointer(images)
        mass = pointer.mass(attention, torch.from_numpy(masks))
        assert mass.numpy() == pytest.approx(mass_on_target(pointer.maps(attention).numpy(), masks), abs=1e-6)
    assert position.shape == (5, 2)
    score = pointing.score(pointer, validation)
    assert 0 <= score.totals.pointing(score.best_head()).value <= score.ceiling.value <= 1
    assert score.totals.visible.tolist() == np.bincount(validation.worlds).tolist()
    near = pointing.score(pointer, validation, tolerance=1)
    assert near.ceiling.value > score.ceiling.value
    assert near.error.value == score.error.value


def test_a_map_without_mass_on_the_target_has_a_loss(validation: Frames) -> None:
    torch.manual_seed(0)
    pointer = Pointer("query")
    images = torch.from_numpy(validation.images[:2])
    positions = torch.from_numpy(validation.positions()[:2])
    nowhere = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    both, alone = (pointing.loss_of(pointer, images, nowhere, positions, s) for s in ("map", "position"))
    assert float((both - alone).detach()) == pytest.approx(-np.log(pointing.MASS_FLOOR), rel=1e-5)
    both.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in pointer.parameters() if p.grad is not None)


def test_a_trained_query_points_better_than_an_untrained_one(
    train: Frames, validation: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointing, "CHECK_STEPS", 20)
    monkeypatch.setattr(pointing, "PATIENCE", 3)
    reports: list[pointing.TrainProgress] = []
    trained = pointing.learn(
        TrainJob("query", "map"), train, validation, seconds=600.0, seed=3, report=reports.append
    )
    # Validation ended the training; the best state is kept, not the last.
    assert trained.steps == reports[-1].steps == trained.best_steps + 60
    first = pointing.untrained(TrainJob("query", "map"), validation, seed=3)
    before, after = (pointing.score(state.pointer, validation) for state in (first, trained))
    hits = after.totals.pointing(trained.head).value
    assert hits > 0.9 * after.ceiling.value > 1.2 * before.totals.pointing(first.head).value
    assert after.totals.mean_mass(trained.head).value > 0.3 > before.totals.mean_mass(first.head).value
    assert after.error.value < before.error.value / 2
    assert hits == max(state.hits for state in reports)
    assert after.error.value == next(state.error for state in reports if state.steps == trained.best_steps)


def test_the_time_ends_it(train: Frames, validation: Frames) -> None:
    reports: list[pointing.TrainProgress] = []
    job = TrainJob("query", "position")
    trained = pointing.learn(job, train, validation, seconds=0.3, report=reports.append)
    assert 0 < trained.steps < pointing.CHECK_STEPS
    assert [state.steps for state in reports] == [trained.steps] == [trained.best_steps]


def test_figures_have_units_and_are_written_as_they_are_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    options = Options(("query", "cnn"), ("map",), 0.2, 4, 2, 2, json=path)
    figures = pointing.run(options)
    assert json.loads(path.read_text()) == figures
    known, supervised = figures["references"], figures["supervised"]
    assert isinstance(known, dict) and isinstance(supervised, dict)
    assert list(supervised) == ["map"] and sorted(supervised["map"]) == ["cnn", "query"]
    assert all(row.keys() == supervised["map"]["cnn"].keys() for row in supervised["map"].values())
    query, cnn = supervised["map"]["query"], supervised["map"]["cnn"]
    assert query["hits"]["low"] <= query["hits"]["value"] <= query["hits"]["high"]
    assert query["hits"]["value"] <= query["ceiling"]["value"] <= query["ceiling_within_1_pixel"]["value"]
    assert query["hits"]["value"] <= query["hits_within_1_pixel"]["value"]
    assert 0 < query["seconds"]["value"] < 5 and query["seconds"]["unit"] == "seconds of one core"
    assert (
        query["position_error"]["unit"] == "pixels"
        and query["steps"]["value"] >= query["best_steps"]["value"]
    )
    assert cnn["uniform"] and cnn["hits"]["value"] == pytest.approx(known["uniform"]["hits"]["value"])
    out = " ".join(capsys.readouterr().out.split())
    assert "cnn: its attention is uniform, so its hits are chance" in out


def test_a_training_that_fails_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    for split, first in SPLITS.items():
        pointing._save(tmp_path, split, render_frames(2, first))
    jobs = [TrainJob("qurey", "map"), TrainJob("query", "position")]
    results: dict[TrainJob, pointing.Figure] = {}
    options = Options(seconds=0.2)
    pointing._train_all(jobs, tmp_path, options, Console(quiet=True), results.__setitem__)
    assert "did you mean 'query'" in str(results[jobs[0]]["not measured"])
    assert "hits" in results[jobs[1]]


def test_ctrl_c_leaves_the_figures_of_what_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    script = (
        "import os, signal, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        # As in a terminal: what a shell starts in the background inherits that SIGINT is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from robot_attn_scripts.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "benchmark",
        "pointing",
        "--families",
        "query",
        "keypoints",
        "--seconds",
        "3",
        "--json",
        str(path),
    ]
    child = subprocess.Popen(
        [sys.executable, "-c", script, *arguments, *TINY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not path.exists():
        assert child.poll() is None
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    out, error = child.communicate(timeout=300)
    assert child.returncode == 130, error
    figures = json.loads(path.read_text())
    assert figures["supervised"]["map"].keys() == {"query"} and figures["supervised"]["position"] == {}
    assert "supervised by map" in out
    assert error.splitlines()[-1] == "robot-attn: interrupted"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--families", "qurey"], "did you mean 'query'"),
        (["--seconds", "0"], "--seconds from 0.001 to"),
        (["--test-worlds", "0"], "from 1 to"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "pointing", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
