"""`robot-attn explain`, and `replay --explain`, on run folders of a small task."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("captum")
pytest.importorskip("sklearn")
pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))

from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED
from robot_attn_scripts import cli


@pytest.fixture(scope="module")
def explained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "report.html"
    arguments = ["--episodes", "3", "--calibration-episodes", "2", "--no-curves", "--envs", "3"]
    assert cli.main(["explain", str(folder), "--out", str(out), *arguments]) == 0
    return out


def test_the_report_is_a_page_and_its_figures(explained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in explained.parent.iterdir()) == ["report.html", "report.json"]
    told = json.loads(explained.with_suffix(".json").read_text())
    assert set(told["sections"]) >= {
        "focus",
        "faithful",
        "interventions",
        "heads",
        "failures",
        "weights",
        "clusters",
    }
    assert told["facts"]["Episodes"] == f"3, seeds {EVALUATION_SEED} to {EVALUATION_SEED + 2}"
    assert told["sections"]["focus"]["verdict"]["outcome"] in ("yes", "no", "undecided")
    page = explained.read_text()
    assert "Localised: is attention on the target?" in page and "default-src 'none'" in page


def test_verdicts_are_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    arguments = ["--episodes", "2", "--calibration-episodes", "0", "--no-curves", "--which", "last"]
    assert cli.main(["explain", str(folder), "--out", str(out), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "ttention is" in printed and "Where it fails" in printed
    assert printed.splitlines()[-2:] == [f"  {out}", f"  {out.with_suffix('.json')}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "report.txt"], "expected --out with a name that ends in .html, got report.txt"),
        (["--episodes", "1"], "expected --episodes from 2 to 1,000,000, got 1"),
        (["--envs", "0"], "expected --envs from 1 to 4,096, got 0"),
        (["--calibration-episodes", "-1"], "expected --calibration-episodes from 0 to 1,000,000, got -1"),
        (["--seed", "1"], "expected explanation seeds that training and calibration have not used, got 1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_played(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_replay_is_explained_beside_its_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay.mp4"
    arguments = ["--calibration-episodes", "2", "--size", "600", "--explain"]
    assert cli.main(["replay", str(folder), "--out", str(out), *arguments]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "replay.mp4",
        "replay.html",
        "replay.hdf5",
        "replay-explained.html",
        "replay-explained.json",
    }
    assert "replay-explained.html" in (tmp_path / "replay.html").read_text()
    told = json.loads((tmp_path / "replay-explained.json").read_text())
    assert all(section.get("verdict") is None for section in told["sections"].values())


def test_what_was_recorded_cannot_be_explained_without_its_policy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episode = tmp_path / "replay.hdf5"
    episode.write_bytes(b"")
    assert cli.main(["replay", str(episode), "--out", str(tmp_path / "again.mp4"), "--explain"]) == 2
    assert "expected a policy with --explain, got" in capsys.readouterr().err
