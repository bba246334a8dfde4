"""Learning curves: read as they were trained, drawn, and refused where there is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run

from robot_attn_policies.evaluation.curves import read_curve
from robot_attn_scripts import cli

ROWS = """steps,seconds,eval_score
300,30,
600,60,0.25
900,120,0.85
1200,180,0.8
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "toy" / "a")
    (folder / "progress.csv").write_text(ROWS)
    return folder


def test_a_curve_has_the_rows_with_an_evaluation(run: Path) -> None:
    curve = read_curve(run)
    assert curve.steps.tolist() == [600, 900, 1200]
    assert curve.minutes.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(curve.scores, [0.25, 0.85, 0.8])


def test_attention_is_drawn_where_it_was_logged(run: Path, tmp_path: Path) -> None:
    plain, both, figures = tmp_path / "plain.png", tmp_path / "both.png", tmp_path / "both.json"
    assert cli.main(["curves", str(run), "--out", str(plain)]) == 0
    logged = make_run(tmp_path / "toy" / "b")
    lines = ["steps,seconds,eval_score,attention/best_head", "300,30,,", "600,60,0.25,0.1", "900,120,0.9,0.7"]
    (logged / "progress.csv").write_text("\n".join(lines))
    on_target = read_curve(logged).on_target
    assert on_target is not None and on_target.tolist() == [0.1, 0.7]
    assert read_curve(run).on_target is None
    assert cli.main(["curves", str(run), str(logged), "--out", str(both), "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert found["toy/b"]["attention_on_target"]["value"] == 0.7
    assert "attention_on_target" not in found["toy/a"]
    # One more panel beside the two.
    width, wide = (int.from_bytes(path.read_bytes()[16:20], "big") for path in (plain, both))
    assert wide == pytest.approx(1.5 * width, rel=0.01)


def test_the_command_draws_them_and_says_how_soon(run: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "new" / "curves.png", tmp_path / "curves.json"
    assert cli.main(["curves", str(run), "--out", str(out), "--json", str(figures)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())["toy/a"]
    values = {name: figure["value"] for name, figure in found.items()}
    assert values == {
        "best_score": 0.85,
        "steps_to_reach": 900,
        "minutes_to_reach": 2.0,
        "steps": 1200,
        "minutes": 3.0,
    }
    assert (
        cli.main(["curves", str(run), "--out", str(out), "--reach", "0.9", "--json", str(figures), "--force"])
        == 0
    )
    assert json.loads(figures.read_text())["toy/a"]["steps_to_reach"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps,seconds,eval_score\n300,30,\n", "expected evaluations in"),
        ("steps,seconds\n300,30\n", "is damaged"),
        ("steps,seconds,eval_score\n300,x,0.5\n", "is damaged"),
    ],
)
def test_what_is_no_curve_is_refused(
    run: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "progress.csv").write_text(text)
    assert cli.main(["curves", str(run)]) == 2
    assert message in capsys.readouterr().err


def test_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["curves", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
