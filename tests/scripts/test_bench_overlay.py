"""`robot-attn benchmark overlay`: every way draws, and the figures are what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

from robot_attn_scripts.benchmarks import overlay
from robot_attn_scripts.benchmarks.overlay import PEER, Options, run


def test_figures_have_units_and_are_written_as_they_are_returned(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = run(Options(rounds=2, json=path))
    assert json.loads(path.read_text()) == figures
    rates, ratios = figures["frames_per_second_on_one_core"], figures["ratios"]
    assert isinstance(rates, dict) and isinstance(ratios, dict)
    assert len(rates) == 4 and len(ratios) == 3
    for name, ratio in ratios.items():
        own = rates[name.removesuffix(f" / {PEER}")]
        assert own["unit"] == "frames/s" and own["min"] > 0
        assert ratio["rounds"] == [a / b for a, b in zip(own["rounds"], rates[PEER]["rounds"], strict=True)]


def test_every_way_draws_the_next_frame_at_its_size() -> None:
    for name, draw in overlay.drawings(600).items():
        first, second = np.asarray(draw()), np.asarray(draw())
        assert first.shape[-3] == 600 and first.dtype == np.uint8, name
        assert not np.array_equal(first, second), name


def test_the_peer_blends_half_of_the_colour_by_hand() -> None:
    weights = np.zeros((15, 15), np.float32)
    weights[7] = 1
    drawn = overlay.draw_with_matplotlib(np.full((64, 64, 3), 100, np.uint8), weights, 600)
    # Inferno begins at (0, 0, 4) / 255 or so, and ends at (252, 255, 164).
    assert np.abs(drawn[0, 0].astype(int) - [50, 50, 52]).max() <= 1
    assert np.abs(drawn[300, 300].astype(int) - [176, 177, 132]).max() <= 2


@pytest.mark.parametrize(("wrong", "message"), [({"rounds": 0}, "from 1 to"), ({"size": 601}, "even number")])
def test_nothing_to_measure(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(Options(**wrong))  # type: ignore[arg-type]
