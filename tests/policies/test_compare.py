"""Comparisons: arms, cached results, and figures against values computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from robot_attn_policies.evaluation.compare import compare, group_runs
from robot_attn_policies.evaluation.compare_plot import COLOURS, write_plot
from robot_attn_policies.evaluation.result_cache import Baselines, Question, Scores, read_cell, write_cell
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import RunError

QUESTION = Question("toy", "hard", {"suite": "hard"}, 7, 2, {"python": "3.11"}, "abc", {}, {"episodes": 3})
BASELINES = Baselines(random=(0.0, 2.0), oracle=(10.0, 12.0))


def scores(*returns: float, mass: float = 0.5) -> Scores:
    """Scores of episodes with 10 frames each, in which the target covers a tenth of the frame."""
    each = (1.0,) * len(returns)
    return Scores(
        returns=returns,
        lengths=(11,) * len(returns),
        successes=tuple(value > 5 for value in returns),
        head=1,
        mass=tuple(10 * mass * one for one in each),
        hits=tuple(8 * one for one in each),
        chance=each,
        center_bias=tuple(2 * one for one in each),
        visible=(10,) * len(returns),
        attended=(6,) * len(returns),
        distractors=(2.2,) * len(returns),
    )


CONFIG = TrainConfig("toy")


def test_runs_that_differ_in_seed_and_threads_are_an_arm() -> None:
    configs = {
        "a": replace(CONFIG, seed=3),
        "b": replace(CONFIG, perception="cnn"),
        "c": replace(CONFIG, seed=4, threads=7),
    }
    assert group_runs(configs) == {"query": ["a", "c"], "cnn": ["b"]}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"options": {"num_heads": 8}}, "query num_heads=8"),
        ({"options": {"score": "additive"}}, "query score=additive"),
        ({"env": {"distractors": 14}}, "query env.distractors=14"),
        ({"steps": 99}, "query steps=99"),
        ({"ppo": PPOPreset(gamma=0.5, net_arch=(8, 9))}, "query ppo.gamma=0.5 ppo.net_arch=[8,9]"),
    ],
)
def test_a_label_has_the_settings_in_which_arms_differ(changes: dict[str, object], label: str) -> None:
    other = replace(CONFIG, **changes)
    assert list(group_runs({"b": other})) == ["query"]
    labels = list(group_runs({"a": CONFIG, "b": other}))
    assert labels[1] == label
    assert labels[0].split()[0] == "query" and labels[0] != label


def test_family_options_are_compared_within_the_family() -> None:
    heads = replace(CONFIG, options={"num_heads": 8})
    assert list(group_runs({"a": heads, "b": replace(CONFIG, perception="cnn")})) == ["query", "cnn"]
    short = replace(CONFIG, perception="cnn", steps=9)
    assert list(group_runs({"a": heads, "b": short})) == ["query steps=250000", "cnn steps=9"]


def test_two_runs_of_one_seed_and_two_tasks_are_rejected() -> None:
    with pytest.raises(ValueError, match="differ in configuration or seed, got the same for a and b"):
        group_runs({"a": CONFIG, "b": replace(CONFIG, threads=2)})
    with pytest.raises(ValueError, match="runs of one task, got a of toy and b of other"):
        group_runs({"a": CONFIG, "b": replace(CONFIG, task="other")})


def test_a_cell_answers_its_question_only(tmp_path: Path) -> None:
    path, answer = tmp_path / "new" / "cell.json", scores(1.5, 8.0)
    assert read_cell(path, QUESTION, Scores) is None
    write_cell(path, QUESTION, answer)
    assert read_cell(path, QUESTION, Scores) == answer
    for changes in (
        {"policy": "abd"},
        {"first_seed": 8},
        {"env": {"suite": "easy"}},
        {"versions": {"python": "3.12"}},
        {"calibration": {"episodes": 4}},
    ):
        assert read_cell(path, replace(QUESTION, **changes), Scores) is None
    unknown = replace(answer, successes=None)
    write_cell(path, QUESTION, unknown)
    assert read_cell(path, QUESTION, Scores) == unknown
    assert [each.name for each in path.parent.iterdir()] == ["cell.json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("}", ""),
        ("8.0]", "NaN]"),
        ("8.0]", "8.0, 9.0]"),
        ('"head": 1', '"head": "1"'),
        ('"head": 1,', ""),
        ('"answer"', '"anwser"'),
    ],
)
def test_a_damaged_cell_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "cell.json"
    write_cell(path, QUESTION, scores(1.5, 8.0))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=r"cell\.json is (truncated or )?damaged"):
        read_cell(path, QUESTION, Scores)


def test_figures_by_hand() -> None:
    cells = {
        "trained": {
            "good": [(scores(9.0, 11.0, mass=0.6), BASELINES), (scores(5.0, 7.0, mass=0.2), BASELINES)],
            "bad": [(scores(0.0, 2.0), BASELINES)],
        }
    }
    compared = compare(cells, {"good": [0, 1], "bad": [0]})
    good, bad = (
        {name: measured.interval.value for name, measured in compared.figures["trained"][arm].items()}
        for arm in ("good", "bad")
    )
    assert good == pytest.approx({
        "normalised_score": (0.9 + 0.5) / 2,
        "normalised_score_iqm": (7 + 9) / 2 / 10 - 0.1,  # of 5, 7, 9, 11, between 1 and 11
        "return": 8.0,
        "random_return": 1.0,
        "oracle_return": 11.0,
        "success": 0.75,
        "mass": 0.4,
        "mass_over_chance": 4.0,
        "mass_over_center_bias": 2.0,
        "pointing_game": 0.8,
        "attended": 6 / 11,
        "mass_on_distractors": 0.2,
    })  # fmt: skip
    assert bad["normalised_score"] == pytest.approx(0.0)
    assert compared.figures["trained"]["good"]["normalised_score"].runs == pytest.approx((0.9, 0.5))
    assert compared.figures["trained"]["good"]["mass_over_chance"].runs == pytest.approx((6.0, 2.0))
    # The runs differ by the same amount in every episode: the interval covers the choice of runs alone.
    (difference,) = compared.differences["trained"].values()
    assert difference == pytest.approx((0.7, 0.5, 0.9))
    assert list(compared.differences["trained"]) == [("good", "bad")]


def test_a_task_that_does_not_report_success_has_no_success_rate() -> None:
    known, unknown = scores(1.0, 2.0), replace(scores(3.0, 4.0), successes=None)
    compared = compare(
        {"trained": {"a": [(known, BASELINES)], "b": [(unknown, BASELINES)]}}, {"a": [0], "b": [0]}
    )
    assert "success" not in compared.figures["trained"]["a"]


def test_a_cell_of_an_earlier_version_is_read_without_the_figures_that_it_lacks(tmp_path: Path) -> None:
    path, answer = tmp_path / "cell.json", scores(1.5, 8.0)
    write_cell(path, QUESTION, answer)
    data = json.loads(path.read_text())
    del data["answer"]["attended"], data["answer"]["distractors"]
    path.write_text(json.dumps(data))
    old = read_cell(path, QUESTION, Scores)
    assert old == replace(answer, attended=None, distractors=None)
    figures = compare({"trained": {"a": [(old, BASELINES)]}}, {"a": [0]}).figures["trained"]["a"]
    assert not {"attended", "mass_on_distractors"} & figures.keys()
    assert "pointing_game" in figures


def test_a_target_that_was_never_visible_has_no_focus(tmp_path: Path) -> None:
    zeros = (0.0, 0.0)
    hidden = replace(
        scores(1.0, 2.0), mass=zeros, hits=zeros, chance=zeros, center_bias=zeros, visible=(0, 0)
    )
    compared = compare({"trained": {"a": [(hidden, BASELINES)]}}, {"a": [0]})
    assert np.isnan(compared.figures["trained"]["a"]["mass_over_chance"].interval).all()
    write_plot(tmp_path / "plot.png", compared, "hidden")


def test_the_plot_has_a_marker_per_arm(tmp_path: Path) -> None:
    arms = ("a", "b", "c")
    cells = {
        scene: {arm: [(scores(5.0 + i, 7.0, mass=0.3 + i / 10), BASELINES)] for i, arm in enumerate(arms)}
        for scene in ("trained", "hard")
    }
    path = tmp_path / "new" / "plot.png"
    write_plot(path, compare(cells, {arm: [0] for arm in arms}), "three arms")
    first = path.read_bytes()
    picture = (imread(path)[..., :3] * 255).round().astype(int)
    height, width = picture.shape[:2]
    assert 1200 <= width <= 2000 and height < width
    for colour in COLOURS[:3]:
        spots = (picture == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1)
        columns = np.flatnonzero(spots[: height * 5 // 6].any(axis=0))  # above the legend
        assert columns.min() < width / 2 < columns.max()  # in both panels
    write_plot(path, compare(cells, {arm: [0] for arm in arms}), "three arms")
    assert path.read_bytes() == first
    assert [each.name for each in path.parent.iterdir()] == ["plot.png"]


def test_a_cell_is_plain_json_with_one_field_per_line(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    write_cell(path, QUESTION, BASELINES)
    data = json.loads(path.read_text())
    assert data["answer"] == {"random": [0.0, 2.0], "oracle": [10.0, 12.0]}
    assert len(path.read_text().splitlines()) < 20
