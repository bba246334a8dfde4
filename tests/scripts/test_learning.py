"""The main job on real input, in short: train on frames, score, and see whether it looked at the target."""

import json
from pathlib import Path

import pytest

from robot_attn_scripts.cli import main


@pytest.mark.slow
def test_a_short_training_learns_to_track_by_looking_at_the_target(tmp_path: Path) -> None:
    folder, scores, video = tmp_path / "run", tmp_path / "scores.json", tmp_path / "replay.mp4"
    train = ["train", "track", "--steps", "18_432", "--eval-episodes", "12", "--threads", "2"]
    assert main([*train, "--out", str(folder)]) == 0
    evaluate = ["evaluate", str(folder), "--episodes", "16", "--calibration-episodes", "12"]
    assert main([*evaluate, "--json", str(scores)]) == 0
    figures = json.loads(scores.read_text())
    # 0 is a random policy and what an untrained one gets; 1 is the oracle.
    assert figures["normalised_score"]["mean"]["value"] > 0.6
    assert figures["focus"]["best_head"]["mass_over_chance"]["value"] > 15
    replay = ["replay", str(folder), "--calibration-episodes", "2", "--out", str(video), "--png"]
    assert main(replay) == 0
    assert {path.suffix for path in tmp_path.glob("replay.*")} == {".mp4", ".html", ".hdf5", ".png"}
