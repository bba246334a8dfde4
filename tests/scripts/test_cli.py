"""`robot-attn`: the overview, picking a command, and errors as one line and an exit code."""

import importlib.metadata
import io
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

import robot_attn_scripts
from robot_attn_scripts import _command, benchmark, cli, options
from robot_attn_scripts._report import check_writable, spread_table, write_json

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on an interpreter without any installed package: less still than the base install."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from robot_attn_scripts.cli import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_overview_needs_nothing_installed(flag: str) -> None:
    done = bare(flag)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "evaluate", "compare", "replay", "benchmark", "demo"):
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


def test_no_command_shows_the_overview_as_an_error() -> None:
    done = bare()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: robot-attn COMMAND")


@pytest.mark.parametrize("command", ["evaluate", "record", "replay"])
def test_a_seed_promises_frames_and_not_actions(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The policy's rounding depends on the batch size: one seed can be played in two ways."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    told = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    assert "last bits" in told and "batch" in told
    assert "gives the same episode" not in told and "episodes do not depend on it" not in told


def test_the_benchmarks_have_an_overview_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: robot-attn benchmark COMMAND")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == [
        "render",
        "envs",
        "train",
        "extractor",
        "attention",
        "pointing",
        "maps",
        "watch",
        "overlay",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"robot-attn {PROJECT['version']}\n"


COMMANDS = (
    "train, evaluate, compare, curves, replay, explain, record, export, watch, cameras, gallery, benchmark, "
    "families, demo"
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["trian"],
            f"expected a command of robot-attn among {COMMANDS}, got 'trian': did you mean 'train'?",
        ),
        (
            ["benchmark", "rendr"],
            "expected a command of robot-attn benchmark among render, envs, train, extractor, attention, "
            "pointing, maps, watch, overlay, got 'rendr': did you mean 'render'?",
        ),
        (["zzz"], f"expected a command of robot-attn among {COMMANDS}, got 'zzz'"),
    ],
)
def test_an_unknown_command_names_the_nearest(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"robot-attn: error: {expected}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "track"], 'pip install "robot-attn[train]"'),
        (["train", "--help"], 'pip install "robot-attn[train]"'),
        (["evaluate", "runs/track/a"], 'pip install "robot-attn[train]"'),
        (["replay", "runs/track/a"], 'pip install "robot-attn[train,video]"'),
        (["demo"], 'pip install "robot-attn[train,video]"'),
        (["benchmark", "train"], 'pip install "robot-attn[train]"'),
    ],
)
def test_a_missing_extra_names_the_one_line_that_brings_it(arguments: list[str], line: str) -> None:
    done = bare(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("robot-attn: error: robot-attn ")
    assert "mujoco" in done.stderr
    assert done.stderr.endswith(f"; install with: {line}\n")


def test_the_modules_of_each_extra_are_those_that_its_requirements_install() -> None:
    modules: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower().replace("_", "-"), set()).add(module)
    for extra, named in _command.EXTRAS.items():
        requirements = [Requirement(line).name for line in PROJECT["optional-dependencies"][extra]]
        own = [name for name in requirements if name != "robot-attn"]
        assert len(named) == len(own)
        assert all(modules[name] & set(named) for name in own)
    assert _command.missing_modules(["train", "video"]) == []


@pytest.mark.parametrize("table", [cli.COMMANDS, benchmark.COMMANDS], ids=["commands", "benchmarks"])
def test_every_command_has_its_file(table: dict[str, _command.Command]) -> None:
    folder = Path(robot_attn_scripts.__file__).parent
    files = {command.module: command.module.replace(".", "/") + ".py" for command in table.values()}
    taken = {module: f"options/{file}" for module, file in files.items() if module != "benchmark"}
    assert [file for file in (*files.values(), *taken.values()) if not (folder / file).is_file()] == []


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a command `faulty` that ends as its option says."""
    (tmp_path / "options").mkdir()
    (tmp_path / "options/faulty.py").write_text(
        textwrap.dedent('''
            from dataclasses import dataclass
            from robot_attn_scripts.options._groups import Checked, Output

            @dataclass(frozen=True)
            class End:
                """The end."""

                end: str
                """How."""

            @dataclass(frozen=True)
            class Options(End, Output, Checked):
                """End in the way that is asked for."""
        ''')
    )
    (tmp_path / "faulty.py").write_text(
        textwrap.dedent("""
            def run(options):
                match options.end:
                    case "value":
                        raise ValueError("expected 3 channels,\\n  got 4")
                    case "file":
                        open("/nowhere/at all")
                    case "plain":
                        raise PermissionError("cannot write there")
                    case "module":
                        import a_module_that_nobody_has
                    case "memory":
                        raise MemoryError("Unable to allocate 36 GiB")
                    case "interrupt":
                        raise KeyboardInterrupt
                    case "bug":
                        raise TypeError("a bug shows its traceback")
        """)
    )
    for package, folder in ((robot_attn_scripts, tmp_path), (options, tmp_path / "options")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.faulty", raising=False)
    monkeypatch.setattr(cli, "COMMANDS", {"faulty": _command.Command("faulty", "ends")})
    monkeypatch.delenv("ROBOT_ATTN_TRACEBACK", raising=False)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        ("well", 0, ""),
        ("value", 2, "robot-attn: error: expected 3 channels, got 4\n"),
        ("file", 2, "robot-attn: error: /nowhere/at all: No such file or directory\n"),
        ("plain", 2, "robot-attn: error: cannot write there\n"),
        ("module", 2, "robot-attn: error: No module named 'a_module_that_nobody_has'\n"),
        ("memory", 2, "robot-attn: error: not enough memory: Unable to allocate 36 GiB\n"),
        ("interrupt", 130, "robot-attn: interrupted\n"),
    ],
)
def test_a_command_ends_in_one_line_and_an_exit_code(
    end: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["faulty", "--end", end]) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.usefixtures("faulty")
def test_a_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOT_ATTN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="expected 3 channels"):
        cli.main(["faulty", "--end", "value"])


@pytest.mark.usefixtures("faulty")
def test_a_bug_is_not_dressed_up_as_an_input_error() -> None:
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["faulty", "--end", "bug"])


@pytest.mark.usefixtures("faulty")
def test_a_wrong_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["faulty", "--edn", "well"])
    assert stop.value.code == 2
    assert "--end" in capsys.readouterr().err


@pytest.mark.usefixtures("faulty")
def test_an_unwritable_json_path_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "faulty.py" / "figures.json"
    assert cli.main(["faulty", "--end", "bug", "--json", str(blocked)]) == 2
    assert capsys.readouterr().err.startswith("robot-attn: error: ")
    assert cli.main(["faulty", "--end", "bug", "--json", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"robot-attn: error: expected a file to write, got the folder {tmp_path}: name a file in it\n"
    )


def test_figures_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "made" / "figures.json"
    figures = {"frames": {"value": 1.5, "unit": "frames/s"}, "seeds": [3, 4]}
    write_json(path, figures)
    assert json.loads(path.read_text()) == figures
    assert [file.name for file in path.parent.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), Path(), {1, 2}])
def test_what_json_cannot_hold_is_refused_and_the_old_file_kept(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"figure": 1})
    with pytest.raises(ValueError, match=r"expected plain, finite JSON values for .*figures\.json, got"):
        write_json(path, {"figure": bad})
    assert json.loads(path.read_text()) == {"figure": 1}


def test_checking_that_a_path_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "figures.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, []),
        ({"ours": [], "theirs": []}, []),
        ({"ours": [2.0, 1.0, 4.0], "theirs": []}, [["ours", "2.0", "1.0", "4.0"]]),
    ],
)
def test_a_table_without_a_row_is_left_out(rows: dict[str, list[float]], expected: list[str]) -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(spread_table("frames a second", rows, "{:.1f}"))
    told = file.getvalue()
    assert bool(told) is bool(expected)
    assert [line.split() for line in told.splitlines()[2:]] == expected
