"""`robot-attn benchmark render`: the figures are what was measured, on the same worlds for all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from robot_attn_scripts.benchmarks.render import FRAME, Options, _worlds, run


def test_all_peers_draw_worlds_on_their_way_with_the_target_in_view() -> None:
    worlds = _worlds(3, 1)
    assert worlds.steps.tolist() == [40, 40, 40]
    assert worlds.target_mask().shape == (3, FRAME, FRAME)
    assert worlds.target_mask().any(axis=(1, 2)).sum() >= 2
    before = worlds.camera.rgb.copy()
    worlds.render()
    np.testing.assert_array_equal(worlds.camera.rgb, before)
    worlds.close()


@pytest.fixture
def two_cores() -> Iterator[list[int]]:
    """Two of the cores, or one where there are no more: each takes two more processes."""
    all_of_them = os.sched_getaffinity(0)
    some = sorted(all_of_them)[:2]
    os.sched_setaffinity(0, some)
    yield some
    os.sched_setaffinity(0, all_of_them)


@pytest.mark.slow
def test_a_small_benchmark_gives_its_figures(tmp_path: Path, two_cores: list[int]) -> None:
    path = tmp_path / "render.json"
    figures = run(Options(rounds=1, worlds=2, frames=6, json=path))
    assert json.loads(path.read_text()) == json.loads(json.dumps(figures))
    rates = figures["frames_per_second_on_one_core"]
    assert isinstance(rates, dict)
    assert rates["ours"]["median"] > 0
    assert rates["ours"]["unit"] == "frames/s"
    for name, figure in figures["ratios"].items():
        assert figure["rounds"] == [rates["ours"]["rounds"][0] / rates[name.split(" / ")[1]]["rounds"][0]]
    cores = len(two_cores)
    expected = [f"{threads} threads" for threads in range(1, cores + 1)] + [f"{cores} processes"]
    assert list(figures["efficiency_by_threads"]) == expected
    assert figures["efficiency_by_threads"]["1 threads"]["rounds"] == [1.0]


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="--frames of 8 or more, one a world, got 7"):
        run(Options(worlds=8, frames=7))
