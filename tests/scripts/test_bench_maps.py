"""`robot-attn benchmark maps` at its smallest, and what it computes from maps that are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("captum")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import run_of

from robot_attn_scripts.benchmarks.maps import blurred, run
from robot_attn_scripts.options.benchmarks.maps import Options

METHODS = [
    "causal",
    "attention",
    "random place",
    "average place",
    "saliency",
    "saliency, not blurred",
    "integrated gradients",
    "integrated gradients, not blurred",
    "Grad-CAM",
    "occlusion",
]


def test_every_method_is_measured_and_an_interrupted_measurement_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(tmp_path / "track" / "query-0", "track", image_size=32)
    out = tmp_path / "maps.json"
    small: dict[str, Any] = {"episodes": 2, "steps": 2, "frames": 2, "json": out}
    figures: Any = run(Options((folder,), **small))
    assert json.loads(out.read_text()) == figures
    found = figures["runs"]["track/query-0"]
    assert list(found["methods"]) == METHODS
    assert found["perception"] == "query" and found["cost"]["causal_map"]["median"] > 0
    assert 96 <= found["cost"]["masks"]["min"] <= found["cost"]["masks"]["max"] <= 480
    for name, method in found["methods"].items():
        assert method["action_deletion"]["value"] >= 0 and method["action_insertion"]["value"] >= 0
        above = method["return_above_random"]
        assert [len(above[key]) for key in ("deletion_0.1", "insertion_0.1")] == [2, 2]
        if name == "causal":
            assert "causal_better_by" not in method
            continue
        # The fewer remain with its pixels deleted, the better is a map; the more with them kept.
        causal = found["methods"]["causal"]
        for key, sign in (("deletion_0.1", -1), ("insertion_0.1", 1)):
            difference = sign * (causal[key]["value"] - method[key]["value"])
            assert method["causal_better_by"][key]["value"] == pytest.approx(difference)
    assert "ms of one core" in capsys.readouterr().out

    # Nothing is measured again; what was lost is.
    del figures["runs"]["track/query-0"]["methods"]["average place"]
    figures["runs"]["track/query-0"]["methods"]["causal"]["mark"] = {}
    out.write_text(json.dumps(figures))
    again: Any = run(Options((folder,), resume=True, **small))
    assert again["runs"]["track/query-0"]["methods"].keys() == set(METHODS)
    assert again["runs"]["track/query-0"]["methods"]["causal"]["mark"] == {}


def test_the_blur_ignores_what_is_negative_and_keeps_the_maximum() -> None:
    maps = np.full((1, 32, 32), -1.0)
    maps[0, 20, 8] = 2.0
    spread = blurred(maps)
    assert spread.sum() == pytest.approx(1) and (spread >= 0).all()
    assert spread.argmax() == 20 * 32 + 8


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="expected --runs with at least one value, got none"):
        Options(())
    with pytest.raises(ValueError, match=r"expected --shares from 0 to 1, got 1\.5"):
        Options((Path("run"),), shares=(1.5,))
