"""Runner for the code of a page: its blocks in order, in one folder and one process, as for a reader.

Python blocks are executed; a block with a title, ```python title="ring.py", is saved as a file instead. In
shell blocks, lines of `robot-attn` are run with the options of `BUDGETS`, so that they take seconds;
`test_docs.py` checks all other lines.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)
TITLE = re.compile(r'title="([^"]+)"')

# Options by command that are added to a line, or replace its own of the same name.
BUDGETS = {
    "train": "--steps 64 --eval-episodes 2 --ppo n_envs=2 n_steps=32 batch_size=32 n_epochs=1",
    "evaluate": "--episodes 2 --calibration-episodes 1 --envs 2",
    "compare": "--episodes 2 --jobs 1 --envs 2 --calibration-episodes 1",
    "explain": "--episodes 2 --calibration-episodes 0 --no-curves --envs 2",
    "replay": "--size 600 --calibration-episodes 1",
    "record": "--episodes 2 --at-once 2 --calibration-episodes 1",
    "export": "",
    "cameras": "",
    "families": "--rounds 1 --batch 4",
    "watch": "",
}
# Options with NAME=VALUE pairs: those of a budget are added to those of the line.
PAIRS = ("--ppo",)
IF_GIVEN = {"--episodes": "2", "--image-size": "64"}
"""Values of options of a replay that are replaced only if the line has the option."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: language, number of its first line, file name if it is one, and text."""

    language: str
    line: int
    title: str | None
    body: str


@dataclass(frozen=True)
class Outcome:
    """Result of a page: the failure with all output, or None, and the blocks and commands that ran."""

    failure: str | None
    ran: tuple[str, ...]


def blocks(page: str) -> list[Block]:
    """Find the fenced blocks of a page that name a language, those inside tabs and notes too."""
    found = []
    for match in FENCE.finditer(page):
        indent = match["indent"]
        body = "".join(line.removeprefix(indent) for line in match["body"].splitlines(keepends=True))
        title = TITLE.search(match["rest"])
        line = page.count("\n", 0, match.start()) + 2
        found.append(Block(match["language"], line, title[1] if title else None, body))
    return found


def shell_lines(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined, without comments."""
    lines = block.body.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def within_budget(words: Sequence[str]) -> list[str]:
    """Replace the options of a `robot-attn` line, COMMAND and its arguments, by those of `BUDGETS`."""
    name, *rest = words
    options = _options(shlex.split(BUDGETS[name]))
    if name == "train" and "--resume" in rest:
        options = {}  # the run folder has the settings
    if name == "replay":
        options |= {option: [value] for option, value in IF_GIVEN.items() if option in rest}
    for option, values in options.items():
        if option in rest:
            start = rest.index(option)
            stop = next((i for i in range(start + 1, len(rest)) if rest[i].startswith("--")), len(rest))
            if option in PAIRS:
                own = {pair.split("=")[0] for pair in rest[start + 1 : stop]}
                values = rest[start + 1 : stop] + [pair for pair in values if pair.split("=")[0] not in own]
            rest = rest[:start] + rest[stop:]
        rest = [*rest, option, *values]
    return [name, *rest]


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            options[last := word] = []
        else:
            options[last].append(word)
    return options


def run_page(page: Path, folder: Path, explained: Path) -> Outcome:
    """Run a page's code in `folder`.

    Args:
        page: the Markdown file.
        folder: working folder of its commands and its Python.
        explained: folder shared by all pages, a cache of `explain` commands by policy and arguments.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    ran: list[str] = []
    output = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    place = ""
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            for block in blocks(page.read_text()):
                place = f"{page}:{block.line}"
                if block.language == "python" and block.title is not None:
                    Path(block.title).write_text(block.body)
                elif block.language == "python":
                    padded = "\n" * (block.line - 1) + block.body
                    with _importable(folder):
                        exec(compile(padded, str(page), "exec"), names)
                    ran.append(f"python:{block.line}")
                elif block.language == "bash":
                    for line in shell_lines(block):
                        words = shlex.split(line, comments=True)
                        if "robot-attn" in words[:2]:
                            place = f"{page}:{block.line}: {line}"
                            _run_command(line, folder, explained)
                            ran.append(line)
    except BaseException as error:
        return Outcome(
            f"{place}\n{output.getvalue()}\n{''.join(traceback.format_exception(error))}", tuple(ran)
        )
    finally:
        os.chdir(before)
    return Outcome(None, tuple(ran))


def _run_command(line: str, folder: Path, explained: Path) -> None:
    from robot_attn_scripts import cli

    # The shell expands {0,1} and removes the comment.
    expanded = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True, cwd=folder
    ).stdout.split("\0")[:-1]
    settings = [word for word in expanded if re.match(r"[A-Z]+=", word)]
    words = within_budget([word for word in expanded if word not in settings][1:])
    here = "PYTHONPATH=." in settings
    assert settings in ([], ["PYTHONPATH=."]), (
        f"expected PYTHONPATH=. or nothing before robot-attn, got {settings}"
    )
    if words[0] == "explain":
        source = Path(words[1])
        policy = (source if source.is_file() else source / "best" / "policy.safetensors").read_bytes()
        kept = explained / hashlib.sha256(repr(words[2:]).encode() + policy).hexdigest()
        if kept.is_dir():
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            return
    older = {path.name for path in folder.iterdir()}
    with _importable(folder) if here else _not_importable(folder):
        code = cli.main(words)
    assert code == 0, f"robot-attn {' '.join(words)} ended with {code}"
    if words[0] == "explain":
        kept.mkdir(parents=True)
        for path in folder.iterdir():
            if path.name not in older:
                shutil.copy(path, kept)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make files in the folder importable, as for a script in it or with PYTHONPATH=. ."""
    inherited = os.environ.get("PYTHONPATH", "")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{inherited}"
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        os.environ["PYTHONPATH"] = inherited


@contextlib.contextmanager
def _not_importable(folder: Path) -> Iterator[None]:
    """Hide modules that Python blocks imported from the folder, as for the installed command."""
    own = {
        name: module
        for name, module in sys.modules.items()
        if Path(getattr(module, "__file__", None) or "/").parent == folder
    }
    for name in own:
        del sys.modules[name]
    yield
    sys.modules.update(own)


def serve(connection: Connection) -> None:
    """Run the pages received through `connection`, until None is received."""
    while (job := connection.recv()) is not None:
        page, folder, explained = job
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
        known = set(sys.modules)
        connection.send(run_page(page, folder, explained))
        for name in set(sys.modules) - known:  # another page may have a file of the same name
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
                del sys.modules[name]
