"""`robot-attn evaluate` on run folders of a small task."""

import copy
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run

from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED, EVALUATION_SEED
from robot_attn_scripts import cli, evaluate
from robot_attn_scripts._loaded_run import scene


def run(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


def figures_in(tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, dict):
        if "value" in tree:
            return [tree]
        return [figure for part in tree.values() for figure in figures_in(part)]
    return [figure for part in tree for figure in figures_in(part)] if isinstance(tree, list) else []


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> dict[str, Any]:
    options = evaluate.Options(folder, episodes=6, calibration_episodes=5, envs=4)
    return dict(evaluate.evaluate(options))


def test_every_figure_has_a_unit_and_an_interval_around_it(evaluated: dict[str, Any]) -> None:
    figures = figures_in(evaluated)
    assert len(figures) > 30
    for figure in figures:
        assert figure["unit"]
        if "low" in figure:
            assert figure["low"] <= figure["value"] + 1e-9
            assert figure["value"] <= figure["high"] + 1e-9


def test_the_mass_of_every_head_on_all_things_sums_to_1(evaluated: dict[str, Any]) -> None:
    things = evaluated["focus"]["things"]
    best, heads = things["best_head"], things["heads"]
    kinds = list(heads[0]["mass"])
    assert kinds[:2] == ["backdrop", "target"]
    for row in (*heads, {"mass": things["area"]}):
        assert sum(row["mass"][kind]["value"] for kind in kinds) == pytest.approx(1, abs=1e-5)
    assert {kind: best["mass"][kind] for kind in kinds} == heads[best["head"]]["mass"]
    focus = evaluated["focus"]
    frames = focus["frames_scored"]["value"] + focus["frames_target_not_visible"]["value"]
    assert things["frames"]["value"] == frames
    # Frames without the target count, as 0.
    scored = focus["best_head"]["mass"]["value"] * focus["frames_scored"]["value"]
    assert best["mass"]["target"]["value"] == pytest.approx(scored / frames, abs=1e-5)


def test_heads_and_references_are_scored_on_the_same_frames(evaluated: dict[str, Any]) -> None:
    focus = evaluated["focus"]
    assert [head["head"] for head in focus["heads"]] == [0, 1, 2]
    assert list(focus["references"]) == ["center_bias", "prior", "uniform"]
    best = focus["best_head"]
    assert {key: best[key] for key in ("mass", "pointing_game")} == {
        key: focus["heads"][best["head"]][key] for key in ("mass", "pointing_game")
    }
    uniform, chance = focus["references"]["uniform"], focus["chance"]["value"]
    assert uniform["mass"]["value"] == pytest.approx(chance, rel=1e-5)
    assert uniform["mass_over_chance"]["value"] == pytest.approx(1.0, rel=1e-5)
    assert uniform["pointing_game"]["value"] == pytest.approx(chance, rel=1e-5)
    assert chance == pytest.approx(25 / (36 * 44), rel=0.2)  # a target of 5 x 5, at times cut by the edge
    ratio = best["mass"]["value"] / focus["references"]["center_bias"]["mass"]["value"]
    assert best["mass_over_center_bias"]["value"] == pytest.approx(ratio)


def test_seeds_are_apart(evaluated: dict[str, Any]) -> None:
    assert evaluated["seeds"] == {"first": EVALUATION_SEED, "last": EVALUATION_SEED + 5}
    calibration = evaluated["focus"]["calibration"]
    assert (calibration["first_seed"], calibration["last_seed"]) == (CALIBRATION_SEED, CALIBRATION_SEED + 4)


def test_the_number_of_environments_changes_rounding_alone(folder: Path, evaluated: dict[str, Any]) -> None:
    again: Any = evaluate.evaluate(evaluate.Options(folder, episodes=6, calibration_episodes=5, envs=6))
    for key in ("return", "length", "oracle_return"):
        assert again[key]["mean"]["value"] == pytest.approx(evaluated[key]["mean"]["value"], rel=1e-4)
    mass = [f["focus"]["heads"][0]["mass"]["value"] for f in (again, evaluated)]
    assert mass[0] == pytest.approx(mass[1], rel=1e-3)


def test_the_states_of_all_frames_sum_to_one(evaluated: dict[str, Any]) -> None:
    focus = evaluated["focus"]
    visible, hidden = (focus[name]["value"] for name in ("frames_scored", "frames_target_not_visible"))
    for row in (*focus["heads"], *focus["references"].values()):
        shares = row["all_frames"]
        states = [shares[name]["value"] for name in ("attended", "in_view_not_attended", "out_of_view")]
        assert sum(states) == pytest.approx(1.0)
        assert states[2] == pytest.approx(hidden / (visible + hidden))
        assert shares["mass"]["value"] == pytest.approx(row["mass"]["value"] * visible / (visible + hidden))
    assert focus["references"]["uniform"]["all_frames"]["attended"]["value"] == 0
    assert focus["captures"]["text"].startswith("Attention was captured in ")


def test_a_suite_is_an_option_of_the_environment_and_changes_no_choice_of_head(
    folder: Path, evaluated: dict[str, Any]
) -> None:
    options = evaluate.Options(folder, episodes=6, calibration_episodes=5, envs=4, suite="hard")
    shifted: Any = evaluate.evaluate(options)
    assert (evaluated["env"], shifted["env"]) == ({}, {"suite": "hard"})
    for key in ("random_return", "oracle_return"):  # they see nothing
        assert shifted[key] == evaluated[key]
    heads = [[head["mass"]["value"] for head in each["focus"]["heads"]] for each in (evaluated, shifted)]
    # The head that is best where the policy was trained, though another is under the suite.
    assert [each["focus"]["best_head"]["head"] for each in (evaluated, shifted)] == [2, 2]
    assert [max(range(3), key=each.__getitem__) for each in heads] == [2, 0]
    named = evaluate.evaluate(replace(options, suite=None, env=("suite=hard",)))
    assert named == shifted


def test_a_suite_takes_the_place_of_the_shifts_of_training() -> None:
    trained = {"shift": "colours", "intensity": 0.5, "distractors": 3}
    assert scene(trained) == trained
    assert scene(trained, ["distractors=4"]) == {**trained, "distractors": 4}
    assert scene(trained, ["distractors=4"], "hard") == {"distractors": 4, "suite": "hard"}


def test_the_tables_fit_in_80_columns_and_the_json_holds_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "deep" / "scores.json"
    assert run(folder, "--episodes", 4, "--calibration-episodes", 4, "--json", out) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    figures = json.loads(out.read_text())
    best = figures["focus"]["best_head"]
    line = next(line for line in told.splitlines() if line.startswith(f"head {best['head']} (best)"))
    assert f"{100 * best['mass']['value']:.1f} [" in line
    assert f"{best['mass_over_chance']['value']:.1f} [" in line
    assert f"{figures['normalised_score']['mean']['value']:.3f} [" in told
    for name in ("centre bias", "average place", "uniform", "interquartile mean"):
        assert name in told
    assert [path.name for path in out.parent.iterdir()] == ["scores.json"]


def shown(figures: dict[str, Any], width: int) -> str:
    file = io.StringIO()
    evaluate.show(figures, Console(file=file, width=width))
    return file.getvalue()


def test_no_figure_is_cut_however_long(evaluated: dict[str, Any]) -> None:
    figures = copy.deepcopy(evaluated)
    for figure in figures_in(figures):
        longest = {"fraction": 1.0, "times": 1234.56, "reward": -1234.56, "0": -12.3456}
        value = longest.get(figure["unit"].split()[0])
        if value is not None:
            figure |= {name: value for name in ("value", "low", "high") if name in figure}
    rows = {
        "return": ["-1234.6 [-1234.6,-1234.6]"] * 2,
        "normalised score": ["-12.346 [-12.346,-12.346]"] * 2,
        "success, %": ["100.0 [100.0,100.0]"] * 2,
        **{
            name: ["100.0 [100.0,100.0]", "1234.6 [1234.6,1234.6]", "100.0 [100.0,100.0]"]
            for name in (f"head {figures['focus']['best_head']['head']} (best)", "average place", "uniform")
        },
    }
    told = shown(figures, 80)
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert [row for row in rows if " ".join([row, *rows[row]]) not in lines] == []
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    narrow = shown(figures, 64)  # a row takes two lines, each figure is in one
    assert [narrow.count(figure) for figure in ("1234.6", "100.0", "12.346")] == [
        told.count(figure) for figure in ("1234.6", "100.0", "12.346")
    ]
    assert "…" not in shown(figures, 20)


def test_a_policy_without_attention_says_so_and_claims_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "cnn", "cnn")
    assert run(folder, "--episodes", 3, "--calibration-episodes", 2, "--json", tmp_path / "f.json") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "has no attention (perception 'cnn'), so there is no head to score" in told
    assert "head 0" not in told
    focus = json.loads((tmp_path / "f.json").read_text())["focus"]
    assert (focus["uniform_attention"], focus["best_head"], focus["heads"]) == (True, None, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", 0], "from 1 to"),
        (["--suite", "hrad"], "got 'hrad': did you mean 'hard'?"),
        (["--env", "distractors"], "expected NAME=VALUE, got 'distractors'"),
        (["--seed", 1_000_001], "have not used, got 1000001"),  # training's evaluation seeds
        (["--seed", CALIBRATION_SEED - 1], f"have not used, got {CALIBRATION_SEED}"),
    ],
)
def test_bad_options_are_refused(
    folder: Path, arguments: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_task_that_is_gone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run", task="toi")
    assert run(folder) == 2
    told = capsys.readouterr().err
    assert "toi" in told
    assert "toy" in told
