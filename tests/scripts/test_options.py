"""Help and option errors of every command: quick, without importing any heavy library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from robot_attn_scripts import _choices, benchmark, cli
from robot_attn_scripts._command import Command, options_type

ROOT = Path(__file__).parents[2]

PROGRAM = (sys.executable, "-c", "import sys; from robot_attn_scripts.cli import main; sys.exit(main())")

COMMANDS: dict[str, Command] = {
    **{name: command for name, command in cli.COMMANDS.items() if not command.group},
    **{f"benchmark {name}": command for name, command in benchmark.COMMANDS.items()},
}

POSITIONAL = (
    "benchmark maps",
    "train",
    "evaluate",
    "compare",
    "curves",
    "replay",
    "explain",
    "record",
    "export",
    "watch",
    "cameras",
)
"""Commands that require a task or a run."""

HEAVY = (
    "torch",
    "mujoco",
    "mujoco_warp",
    "warp",
    "stable_baselines3",
    "gymnasium",
    "matplotlib",
    "cv2",
    "scipy",
    "numpy",
    "pandas",
    "robot_attn",
    "robot_attn_envs",
)


def imported(tmp_path: Path, lines: list[list[str]]) -> list[dict[str, Any]]:
    """The output and exit code of each command line, and the heavy modules that are loaded after it."""
    code = f"""
import contextlib, io, json, sys
from robot_attn_scripts.cli import main
done = []
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line)
        except SystemExit as stop:
            code = stop.code or 0
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    done.append(dict(line=line, code=code, out=out.getvalue(), err=err.getvalue(), loaded=loaded))
print(json.dumps(done))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def test_help_imports_no_heavy_library(tmp_path: Path) -> None:
    for result in imported(tmp_path, [[*name.split(), "--help"] for name in COMMANDS]):
        name = " ".join(result["line"][:-1])
        assert (result["code"], result["err"], result["loaded"]) == (0, "", []), name
        assert f"usage: robot-attn {name} " in result["out"]


def test_parsing_imports_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code = f"""
import sys
from robot_attn_scripts import benchmark, cli
from robot_attn_scripts._command import parse
for name, command in {{**cli.COMMANDS, **benchmark.COMMANDS}}.items():
    if not command.group:
        first = {{"train": ["track"], "cameras": ["Ant-v5"], "watch": ["0", "run"]}}
        needed = first.get(command.module, ["run"])
        of_runs = command.module == "benchmarks.maps"
        plain = command.module in ("gallery", "families", "demo") or (
            command.module.startswith("benchmarks.") and not of_runs
        )
        parse(name, command, [] if plain else needed)
        assert not [m for m in {HEAVY!r} if m in sys.modules], name
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


COMPLETE = [
    [*name.split(), *(["a.mp4", "run"] if name == "watch" else ["run"] if name in POSITIONAL else [])]
    for name in COMMANDS
]
"""For each command, a line with all of its required arguments."""

RUN_COMMANDS = ("evaluate", "explain", "record", "replay")

REFUSED = [
    *[([*line, "--no-such-option"], "Unrecognized options: --no-such-option") for line in COMPLETE],
    (["train"], "TASK"),
    (["train", "track", "--perception", "qurey"], "got 'qurey': did you mean 'query'?"),
    (["train", "track", "--seed", "None"], "Error parsing --seed"),
    (["train", "track", "--seed", "-1"], "expected --seed from 0 to 4,294,967,295, got -1"),
    (["train", "track", "--seed", "99999999999999999999"], "expected --seed from 0 to 4,294,967,295, got"),
    (["train", "track", "--steps", "0"], "expected steps from 1 to"),
    (["train", "track", "--threads", "99999"], "expected threads from 0 to 1024"),
    (["train", "track", "--ppo", "gama=1"], "got 'gama': did you mean 'gamma'?"),
    (["train", "track", "--ppo", "n_steps=1", "--ppo", "n_envs=1"], "expected a rollout"),
    (["train", "track", "--ppo", "n_steps=1", "--ppo", "n_steps=2"], "got it 2 times: n_steps=1, n_steps=2"),
    (["evaluate", "run", "--seed", "1", "--seed", "2"], "expected --seed once, got it 2 times: 1, 2"),
    (["train", "track", "--ppo", "n_envs=0"], "expected n_envs from 1 to 4096, got 0"),
    (["train", "track", "--env", "masks"], "expected NAME=VALUE, got 'masks'"),
    (["train", "track", "--option", "heads"], "expected NAME=VALUE, got 'heads'"),
    (["train", "track", "--out", "typo", "--resume"], "expected a run to resume in typo, got no config.json"),
    (["train", "track", "--out", "file/run"], "cannot write file/run: Not a directory"),
    (["train", "track", "--json", "file/figures.json"], "cannot write file/figures.json: Not a directory"),
    (["demo", "--seed", "-1"], "expected seed from 0 to"),
    (["demo", "--episodes", "0"], "expected --episodes from 1 to"),
    (["demo", "--out", "file/run"], "cannot write file/run"),
    *[([name, "nowhere"], "nowhere") for name in RUN_COMMANDS],
    *[([name, "run", "--seed", "9" * 20], "expected --seed from 0 to") for name in RUN_COMMANDS],
    *[([name, "run", "--episodes", "1000000000000"], "expected --episodes from") for name in RUN_COMMANDS],
    *[([name, "run", "--suite", "hrad"], "got 'hrad': did you mean 'hard'?") for name in RUN_COMMANDS],
    *[([name, "run", "--env", "x"], "expected NAME=VALUE, got 'x'") for name in RUN_COMMANDS],
    (["evaluate", "run", "--envs", "100000"], "expected --envs from 1 to 4,096, got 100,000"),
    (["evaluate", "run", "--which", "bset"], "'bset'"),
    (["compare"], "expected run folders to compare, got none"),
    (
        ["compare", "run", "--suite", "esay"],
        "got 'esay': did you mean 'easy'?",
    ),
    (["compare", "run", "--jobs", "-1"], "expected --jobs from 0 to"),
    (["curves"], "expected run folders, got none"),
    (["curves", "nowhere"], "expected a run folder with a config.json, got nowhere, which has none"),
    (["curves", "run", "--out", "file/a.png"], "cannot write file/a.png"),
    (["replay", "run", "--size", "100000"], "expected --size, an even number of pixels, from 600 to 4320"),
    (["replay", "run", "--image-size", "100000"], "expected --image-size from 32 to 2,048, got 100,000"),
    (["replay", "run", "--shift", "nosie"], "got 'nosie': did you mean 'noise'?"),
    (["replay", "run", "--shift", "noise=2"], "expected the intensity of shift noise from 0 to 1, got 2"),
    (
        ["replay", "run", "--task", "puhs"],
        "got 'puhs': did you mean 'push'?",
    ),
    (["replay", "run", "--out", "file/a.mp4"], "cannot write file/a.mp4"),
    (["explain", "run", "--out", "file/a.html"], "cannot write file/a.html"),
    (["record", "run", "--out", "file/episodes"], "cannot write file/episodes"),
    (["export", "nowhere"], "expected a run folder with a config.json, got nowhere, which has none"),
    (["export", "run", "--onnx", "a.pt"], "expected --onnx with a name that ends in .onnx, got a.pt"),
    (["export", "run", "--onnx", "file/a.onnx"], "cannot write file/a.onnx"),
    (["watch", "a.mp4", "nowhere"], "expected a run folder with a config.json, got nowhere, which has none"),
    (["watch", "a.mp4", "run", "--width", "100000"], "from 320 to 3840, got 100000"),
    (["watch", "a.mp4", "run", "--fps", "nan"], "expected --fps above 0 and at most 240, got nan"),
    (["gallery", "--size", "100000"], "expected --size from 32 to 2,048, got 100,000"),
    (["gallery", "--tasks", "trak"], "'trak': did you mean 'track'?"),
    (["families", "--image-size", "100000", "100000"], "expected --image-size from 32 to 512, got 100,000"),
    (["families", "--batch", "16384", "--image-size", "512", "512"], "expected a batch of frames of"),
    (["benchmark", "envs", "--envs", "100000"], "expected --envs from 1 to 4,096"),
    (["benchmark", "pointing", "--families", "qurey"], "did you mean 'query'?"),
    (["benchmark", "watch", "--perception", "qurey"], "did you mean 'query'?"),
    (["benchmark", "render", "--worlds", "1000000"], "expected --worlds from 1 to"),
]


def test_option_errors_import_no_heavy_library_and_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    results = imported(tmp_path, [line for line, _ in REFUSED])
    for result, (line, message) in zip(results, REFUSED, strict=True):
        assert (result["code"], result["out"], result["loaded"]) == (2, "", []), line
        assert message in " ".join(result["err"].replace("│", " ").split()), (line, result["err"])
        if result["err"].startswith("robot-attn: error"):
            assert result["err"].count("\n") == 1, line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_gymnasium_task_is_looked_up_without_torch(tmp_path: Path) -> None:
    near = {"trak": "track", "Reachr-v5": "Reacher-v5"}
    for result, (typed, meant) in zip(
        imported(tmp_path, [["train", typed] for typed in near]), near.items(), strict=True
    ):
        assert result["code"] == 2
        assert f"{typed!r}: did you mean {meant!r}?" in result["err"]
        assert not {"torch", "mujoco", "robot_attn"} & set(result["loaded"])


# ---- Help texts ----


def text_of(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_states_each_default_once_and_groups_the_options(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(name, capsys, monkeypatch)
    assert max(len(line) for line in text.splitlines() if not line.startswith("usage: ")) <= 80
    words = " ".join(text.replace("│", " ").split())
    assert not re.search(r"None|[Ww]ithout it|[Bb]y default|\(default: \)", words), words
    headings = re.findall(r"^(?:╭─)? ([a-z]+) options ", text, re.MULTILINE)
    assert headings == [group.__name__.lower() for group in options_type(COMMANDS[name]).groups()]


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("train", (_choices.FAMILIES, _choices.TASKS)),
        ("evaluate", (_choices.SUITES,)),
        ("compare", (_choices.SUITES,)),
        ("explain", (_choices.SUITES,)),
        ("record", (_choices.SUITES,)),
        ("replay", (_choices.SUITES, _choices.SHIFTS, _choices.TASKS)),
        ("gallery", (_choices.TASKS,)),
        ("benchmark envs", (_choices.TASKS,)),
        ("benchmark pointing", (_choices.FAMILIES,)),
    ],
)
def test_help_lists_the_choices(
    name: str,
    choices: tuple[tuple[str, ...], ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = " ".join(text_of(name, capsys, monkeypatch).replace("│", " ").split())
    for names in choices:
        assert ", ".join(names) in words


def test_help_shows_the_effective_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of("train", capsys, monkeypatch)
    assert re.search(r"--seed INT +Random seed of .*\n.*\(default: 0\)", text)
    assert "(default: query)" in text and "(default: 250,000)" in text
    assert "(default: 1000000000)" in text_of("evaluate", capsys, monkeypatch)


def test_names_from_entry_points_are_listed_without_importing_their_packages(tmp_path: Path) -> None:
    info = tmp_path / "stranger-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[robot_attn.families]\nspotlight = stranger:Spotlight\n"
        "[robot_attn.tasks]\nCircus/Juggle-v0 = stranger:Juggle\n"
        "[robot_attn.shifts]\nfog = stranger:Fog\n"
    )
    (tmp_path / "stranger.py").write_text("raise RuntimeError('imported')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for command, names in (("train", ("slots, spotlight", "push, juggle")), ("replay", ("occlusion, fog",))):
        done = subprocess.run(
            [*PROGRAM, command, "--help"],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        words = " ".join(done.stdout.replace("│", " ").split())
        assert [name for name in names if name not in words] == []


# ---- The lists of names, kept equal to the real ones ----


def test_the_listed_names_equal_those_of_the_packages() -> None:
    import gymnasium

    import robot_attn
    from robot_attn.drawing import MIN_SIZE
    from robot_attn_envs import TASKS
    from robot_attn_envs.image_size import MAX_SIZE
    from robot_attn_envs.image_size import MIN_SIZE as MIN_FRAME
    from robot_attn_envs.shifts import SHIFTS, SUITES
    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED, EVALUATION_SEED
    from robot_attn_policies.evaluation.nuisance import FRAMES

    assert tuple(robot_attn.FAMILIES) == _choices.FAMILIES
    assert tuple(gymnasium.spec(name).name.lower() for name in TASKS) == _choices.TASKS
    assert tuple(SHIFTS) == _choices.SHIFTS
    assert tuple(SUITES) == _choices.SUITE_VERSIONS
    assert tuple(dict.fromkeys(name.rpartition("-v")[0] for name in SUITES)) == _choices.SUITES
    assert (_choices.EVALUATION_SEED, _choices.CALIBRATION_SEED) == (EVALUATION_SEED, CALIBRATION_SEED)
    assert _choices.NUISANCE_FRAMES == FRAMES
    assert (_choices.MIN_FRAME, _choices.MAX_FRAME) == (MIN_FRAME, MAX_SIZE)
    assert _choices.MIN_REPLAY == MIN_SIZE


def test_a_run_folder_is_recognised_by_its_configuration() -> None:
    from robot_attn_policies.training.run_folder import CONFIG
    from robot_attn_scripts.options._groups import CONFIG as KNOWN_BY

    assert KNOWN_BY == CONFIG


def test_the_version_is_the_same_everywhere() -> None:
    import robot_attn

    assert (
        robot_attn.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )


# ---- Completion ----


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        assert cli.main(["--print-completion", "bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "robot-attn.bash"
    path.write_text(written.getvalue())
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    code = (
        'source "$0"; words=("$@"); function=$(complete -p robot-attn | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        'COMP_WORDS=(robot-attn "${words[@]}"); COMP_CWORD=$#; COMP_LINE="${COMP_WORDS[*]}"\n'
        "COMP_POINT=${#COMP_LINE}; $function; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", code, str(script), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("tr",), ["train"]),
        (("benchmark", "re"), ["render"]),
        (("train", "--eval"), ["--eval-every", "--eval-episodes"]),
        (("evaluate", "runs/a", "--which", ""), ["best", "last"]),
        (("benchmark", "train", "--peers", "sb"), ["sb3", "sb3_no_shadows"]),
    ],
)
def test_bash_completes_commands_options_and_choices(
    bash: Path, words: tuple[str, ...], offered: list[str]
) -> None:
    assert completed(bash, *words) == offered


def test_bash_offers_commands_options_and_nothing_else(bash: Path) -> None:
    assert set(completed(bash, "")) == {"-h", "--help", *cli.COMMANDS}
    assert all(re.fullmatch(r"--[a-z-]+", flag) for flag in completed(bash, "replay", "--"))
    assert "-o default" in bash.read_text()  # paths, where there is nothing to offer


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_with_every_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--print-completion", shell]) == 0
    written = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if name not in written] == []


@pytest.mark.parametrize("arguments", [[], ["ksh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_a_one_line_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--print-completion", *arguments]) == 2
    error = capsys.readouterr().err
    assert "expected --print-completion with one of bash, zsh, fish, got" in error and error.count("\n") == 1


# ---- Streams that are closed ----


def with_streams(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [*PROGRAM, *arguments]
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "-", *line], capture_output=True, text=True, check=False
    )


def test_closed_streams_are_not_an_error() -> None:
    for redirection in ("2>&-", "<&- 2>&-", "<&- >&- 2>&-", ">&-"):
        assert with_streams(redirection, "families", "--help").returncode == 0, redirection
    done = with_streams("2>&-", "benchmark", "--help")
    assert done.stdout.startswith("usage: robot-attn benchmark")
    assert with_streams("2>&-", "trian").returncode == 2


def test_a_closed_pipe_ends_the_command_silently() -> None:
    done = with_streams("| true; exit ${PIPESTATUS[0]}", "--help")
    assert done.stderr == "" and done.returncode in (0, 141)  # 0 where all was written before it was closed


def test_a_full_disk_is_a_one_line_error() -> None:
    done = with_streams("> /dev/full", "--version")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in done.stderr


def test_worlds_are_rendered_with_every_stream_closed(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    line = ("gallery", "--tasks", "track", "--size", "32", "--steps", "0", "--intensities", "1")
    assert with_streams("<&- >&- 2>&-", *line, "--sheet", str(path)).returncode == 0
    assert path.read_bytes().startswith(b"\x89PNG")
