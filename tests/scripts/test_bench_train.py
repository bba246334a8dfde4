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
from robot_attn_policies.training.presets import PPOPreset
from robot_attn_scripts._versions import processor_time
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


STAND_IN = """
import sys, time
arguments = sys.argv[1:]
assert arguments[:2] == ["train", "track"]
steps = int(arguments[arguments.index("--steps") + 1])
until = time.process_time() + {seconds}
while time.process_time() < until:
    pass
{end}
"""
"""A version whose training takes a known processor time."""


def _checkout(folder: Path, seconds: str, end: str = "") -> Path:
    package = folder / "scripts" / "robot_attn_scripts"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(STAND_IN.format(seconds=seconds, end=end))
    return folder


def _processor_time(**checkouts: Path) -> dict[str, list[float]]:
    ppo = PPOPreset(n_envs=4, n_steps=10)
    return processor_time(checkouts, perception="query", ppo=ppo, rollouts=5, rounds=1, threads=1, seed=0)


def test_processor_time_is_that_of_the_frames_without_the_start(tmp_path: Path) -> None:
    slow = _checkout(tmp_path / "slow", "0.1 + 4e-3 * steps")
    fast = _checkout(tmp_path / "fast", "0.3 + 2e-3 * steps")
    times = _processor_time(slow=slow, fast=fast)
    assert times["slow"] == pytest.approx([4], rel=0.2)  # ms
    assert times["fast"] == pytest.approx([2], rel=0.2)


def test_frames_that_take_no_time_are_refused(tmp_path: Path) -> None:
    shrinking = _checkout(tmp_path / "shrinking", "0.5 - 2e-3 * steps")
    with pytest.raises(ValueError, match=r"expected 5 more rollouts to take longer, .*: raise --rollouts"):
        _processor_time(shrinking=shrinking)


def test_a_version_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    broken = _checkout(tmp_path / "broken", "0", end="sys.exit('broken on purpose')")
    with pytest.raises(ValueError, match=r"expected .*broken to train track, got: broken on purpose"):
        _processor_time(broken=broken)


@pytest.mark.slow
def test_the_versions_are_compared_for_our_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _checkout(tmp_path / "other", "1e-3 * steps")
    figures = run(Options(peers=("query",), rounds=1, rollouts=8, n_steps=32, threads=1, against=path))
    compared = figures["processor_time"]
    assert isinstance(compared, dict)
    assert compared["against"] == "other"
    this, other = compared["time"]["query, this version"], compared["time"]["query, against"]
    assert (other["unit"], other["median"]) == ("ms/frame", pytest.approx(1, rel=0.1))
    assert compared["ratios"]["query"]["median"] == pytest.approx(other["median"] / this["median"])
    assert "against / this" in capsys.readouterr().out


def test_against_needs_a_checkout_and_one_of_our_peers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected --against to name a checkout of robot-attn, got"):
        Options(against=tmp_path).check_files()
    with pytest.raises(ValueError, match=r"expected one of query, cnn among --peers with --against, got sb3"):
        Options(peers=("sb3",), against=_checkout(tmp_path / "other", "0"))


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"peers": ()}, {"n_steps": 0}])
def test_nothing_to_measure_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        run(Options(**wrong))
