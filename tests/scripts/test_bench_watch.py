"""`robot-attn benchmark watch` at its smallest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")

from robot_attn_scripts.benchmarks.watch import STAGES, Options, run  # noqa: E402


def test_the_stages_add_up_to_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cores, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    figures = run(Options(frames=6, rounds=1, json=tmp_path / "figures.json"))
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    stages: Any = figures["milliseconds_a_frame"]
    rate: Any = figures["frames_per_second_on_one_core"]
    assert tuple(stages) == STAGES
    total = sum(stage["median"] for stage in stages.values())
    assert rate["median"] == pytest.approx(1e3 / total)
    assert "frames/s" in capsys.readouterr().out
    assert (os.sched_getaffinity(0), cv2.getNumThreads()) == (cores, threads)  # as they were


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ (from 1 to|with at least one value)"):
        run(Options(frames=0))
