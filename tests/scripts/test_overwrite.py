"""No command replaces a file of an earlier run, unless it is told to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))

from robot_attn_scripts import _choices, benchmark, cli
from robot_attn_scripts._command import options_type
from robot_attn_scripts.compare import check_same_runs
from robot_attn_scripts.options.gallery import Options as GalleryOptions
from robot_attn_scripts.options.replay import Options as ReplayOptions


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_replay_leaves_the_first_as_it_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["replay", str(folder), "--size", "600", "--png", "--out", str(tmp_path / "replay.mp4")]
    assert cli.main([*line, "--seed", "1"]) == 0
    first = contents(tmp_path)
    assert sorted(first) == ["replay.hdf5", "replay.html", "replay.mp4", "replay.png"]
    capsys.readouterr()
    assert cli.main([*line, "--seed", "2"]) == 2
    assert "replay.mp4, which exists: name another place, or add --force" in capsys.readouterr().err
    assert contents(tmp_path) == first
    (tmp_path / "replay.mp4").unlink()  # the others would be lost all the same
    assert cli.main([*line, "--seed", "2"]) == 2
    assert cli.main([*line, "--seed", "2", "--force"]) == 0
    second = contents(tmp_path)
    assert all(second[name] != first[name] for name in first) and sorted(second) == sorted(first)


def test_the_files_of_a_replay_are_those_that_it_writes(folder: Path, tmp_path: Path) -> None:
    options = ReplayOptions(
        folder, out=tmp_path / "a.mp4", episodes=2, seed=3, explain=True, png=True, size=600, compare=folder
    )
    line = ["replay", str(folder), "--compare", str(folder), "--out", str(options.out), "--episodes", "2"]
    line += ["--seed", "3", "--explain", "--png", "--size", "600", "--calibration-episodes", "1"]
    assert cli.main(line) == 0
    assert sorted(options.files()) == sorted(tmp_path.iterdir()) and len(options.files()) == 20


@pytest.mark.parametrize("command", [name for name, command in cli.COMMANDS.items() if not command.group])
def test_every_command_that_writes_can_be_told_to_replace(command: str) -> None:
    options = options_type(cli.COMMANDS[command])
    assert hasattr(options, "force") and options.files.__qualname__.endswith(".files")


@pytest.mark.parametrize(
    "line",
    [
        ["evaluate", "RUN", "--json", "FILE"],
        ["explain", "RUN", "--out", "FILE"],
        ["record", "RUN", "--json", "FILE"],
        ["curves", "RUN", "--out", "FILE"],
        ["watch", "RUN", "video.mp4", "--out", "FILE"],
        ["train", "track", "--json", "FILE"],
        ["demo", "--json", "FILE"],
        ["families", "--json", "FILE"],
        ["compare", "RUN", "--json", "FILE"],
        ["gallery", "--sheet", "FILE"],
        *(["benchmark", name, "--json", "FILE"] for name in benchmark.COMMANDS if name != "maps"),
        ["benchmark", "maps", "RUN", "--json", "FILE"],
    ],
    ids=lambda line: " ".join(line[:2]),
)
def test_a_file_that_exists_is_refused_before_anything_is_run(
    line: list[str],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    endings = {"explain": "html", "watch": "mp4", "gallery": "png", "curves": "png"}
    file = tmp_path / f"kept.{endings.get(line[0], 'json')}"
    file.write_text("kept")
    filled = [{"RUN": str(folder), "FILE": str(file)}.get(word, word) for word in line]
    assert cli.main(filled) == 2
    assert "which exists: name another place, or add --force to replace it" in capsys.readouterr().err
    assert contents(tmp_path) == {file.name: b"kept"}


def test_a_gallery_names_a_sheet_for_each_task_and_the_index(tmp_path: Path) -> None:
    all_of_them = GalleryOptions(out=tmp_path).files()
    assert all_of_them == [tmp_path / f"{name}.png" for name in (*_choices.tasks(), "index")]
    some = GalleryOptions(tasks=("push", "RobotAttn/Track-v0"), out=tmp_path).files()
    assert [path.name for path in some] == ["push.png", "track.png", "index.png"]


def test_a_comparison_of_other_runs_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    check_same_runs(path, ["a", "b"])  # there is none
    path.write_text(
        json.dumps({"arms": {"x": {"runs": [{"folder": "a"}]}, "y": {"runs": [{"folder": "b"}]}}})
    )
    check_same_runs(path, ["b", "a"])
    with pytest.raises(FileExistsError, match=r"comparison\.json, which is of others.*--force"):
        check_same_runs(path, ["a", "c"])
    path.write_text("{")
    with pytest.raises(FileExistsError):
        check_same_runs(path, ["a", "b"])
