"""`robot-attn benchmark train`: the peers do the same job, and the figures are what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_scripts.benchmarks.train import GymnasiumTrack, Options, run


@pytest.fixture
def opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenGL for Gymnasium's renderer. Tried in another process: a failure leaves mujoco half imported."""
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    code = "from robot_attn_scripts.benchmarks.train import GymnasiumTrack; GymnasiumTrack().reset(seed=0)"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no OpenGL to draw with: {tried.stderr.strip().splitlines()[-1]}")


@pytest.mark.usefixtures("opengl")
def test_the_plain_environment_is_track() -> None:
    plain, track = GymnasiumTrack(shadows=False), gymnasium.make("RobotAttn/Track-v0")
    ours = track.reset(seed=7)[0]["image"]
    theirs = plain.reset(seed=7)[0]
    actions = np.random.default_rng(0)
    for _ in range(200):  # through the end of an episode
        assert theirs.shape == ours.shape
        # One scene, two renderers: the sky aside, which MuJoCo leaves black, they differ by a shade.
        room = theirs.max(axis=-1) > 0
        assert np.abs(theirs.astype(float) - ours)[room].mean() < 12
        action = actions.uniform(-1, 1, 2).astype(np.float32)
        theirs, reward, terminated, truncated, info = plain.step(action)
        frame, *expected, told = track.step(action)
        ours = frame["image"]
        assert [reward, terminated, truncated] == pytest.approx(expected, abs=1e-9)
        assert info["success"] == told["success"]
        if truncated:
            ours, theirs = track.reset()[0]["image"], plain.reset()[0]
    plain.close()
    track.close()


@pytest.mark.slow
def test_a_small_benchmark_gives_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.json"
    figures = run(Options(peers=("query", "cnn"), rounds=2, rollouts=1, n_steps=2, threads=1, json=path))
    assert json.loads(path.read_text()) == json.loads(json.dumps(figures))
    rates = figures["frames_trained_per_second"]
    assert isinstance(rates, dict)
    assert all(rates[peer]["unit"] == "frames/s" for peer in ("query", "cnn"))
    ratio = figures["ratios"]["query / cnn"]
    paired = [a / b for a, b in zip(rates["query"]["rounds"], rates["cnn"]["rounds"], strict=True)]
    assert ratio["rounds"] == pytest.approx(paired)
    assert (ratio["min"], ratio["max"]) == (min(ratio["rounds"]), max(ratio["rounds"]))
    assert "query / cnn" in capsys.readouterr().out


@pytest.mark.slow
def test_a_peer_that_cannot_run_is_said_to_be_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    figures = run(Options(peers=("sb3",), rounds=1))
    assert set(figures["frames_trained_per_second"]["sb3"]) == {"not measured"}
    assert figures["ratios"] == {}
    assert "sb3 was not measured: there is no OpenGL to draw with, MUJOCO_GL being nonsense" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"peers": ()}, {"n_steps": 0}])
def test_nothing_to_measure_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        run(Options(**wrong))
