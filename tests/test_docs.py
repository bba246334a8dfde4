"""The pages of docs/ and the README: their code runs, all they name exists, the site builds strictly."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from page_runner import Block, Outcome, blocks, serve, shell_lines, within_budget

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md"]
    + [page for page in (ROOT / "docs").rglob("*.md") if not page.is_relative_to(ROOT / "docs" / "data")]
)
RUN = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]
SHELL = [
    (page, line)
    for page in PAGES
    for block in blocks(page.read_text())
    if block.language == "bash"
    for line in shell_lines(block)
]
PACKAGES = ("robot_attn", "robot_attn_envs", "robot_attn_policies", "robot_attn_scripts")
TIMEOUT = 600
"""Timeout per page in seconds, on a busy machine."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, Path], Outcome]]:
    """One process for all pages, so that registrations stay in it and torch is imported once."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    explained = tmp_path_factory.mktemp("explained")

    def run_page(page: Path, folder: Path) -> Outcome:
        ours.send((page, folder, explained))
        assert ours.poll(TIMEOUT), f"{name_of(page)} took more than {TIMEOUT} s"
        outcome = ours.recv()
        assert isinstance(outcome, Outcome)
        return outcome

    yield run_page
    ours.send(None)
    process.join(10)
    process.kill()


@pytest.fixture(scope="module")
def demo(run: Callable[[Path, Path], Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after `make demo`, with a briefly trained run and a video, clip.mp4.

    The run has two heads instead of eight, since an explanation ablates each.
    """
    folder = tmp_path_factory.mktemp("demo")
    page = folder / "demo.md"
    page.write_text(
        "```bash\nrobot-attn train track --option num_heads=2 --out runs/track/demo\n"
        "robot-attn replay runs/track/demo --out clip.mp4\n```\n"
    )
    outcome = run(page, folder)
    assert outcome.failure is None, outcome.failure
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_everything_on_the_page_runs(
    page: Path, run: Callable[[Path, Path], Outcome], demo: Path, tmp_path: Path
) -> None:
    text = page.read_text()
    shown = [block for block in blocks(text) if block.language in ("python", "bash")]
    if "runs/track/demo" in text:
        shutil.copytree(demo / "runs", tmp_path / "runs")
    if "clip.mp4" in text:
        shutil.copy(demo / "clip.mp4", tmp_path)
    outcome = run(page, tmp_path)
    assert outcome.failure is None, outcome.failure
    expected = sum(1 for block in shown if block.language == "python" and block.title is None)
    expected += sum("robot-attn" in line.split()[:2] for place, line in SHELL if place == page)
    assert len(outcome.ran) == expected


def test_a_failing_page_is_reported_with_its_line(
    run: Callable[[Path, Path], Outcome], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    outcome = run(page, tmp_path)
    assert outcome.ran == ("python:4",)
    assert outcome.failure is not None and f'"{page}", line 8' in outcome.failure
    page.write_text("```bash\nrobot-attn evaluate no/such/run\n```\n")
    assert "no/such/run" in (run(page, tmp_path).failure or "")


def test_python_imports_a_file_of_the_page_and_the_command_does_not(
    run: Callable[[Path, Path], Outcome], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    line = "robot-attn train track --perception ring:Ring"
    page.write_text(
        '```python title="ring.py"\nRing = 7\n```\n'
        "```python\nimport ring\nassert ring.Ring == 7\n```\n"
        f"```bash\n{line}\n```\n"
    )
    outcome = run(page, tmp_path)
    assert outcome.ran == ("python:5",)
    assert outcome.failure is not None and "ring" in outcome.failure


def test_blocks_in_tabs_are_found_and_continued_lines_joined() -> None:
    shell = ["robot-attn train track \\", "  --seed 1  # why", "# all comment"]
    page = '# A\n\n=== "Tab"\n\n' + "".join(f"    {line}\n" for line in ["```bash", *shell, "```"])
    (block,) = blocks(page)
    assert block == Block("bash", 6, None, "robot-attn train track \\\n  --seed 1  # why\n# all comment\n")
    assert [line.split("#")[0].split() for line in shell_lines(block)] == [
        ["robot-attn", "train", "track", "--seed", "1"]
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "evaluate r --suite hard --episodes 64",
            "evaluate r --suite hard --episodes 2 --calibration-episodes 1 --envs 2",
        ),
        ("replay r --png", "replay r --png --size 600 --calibration-episodes 1"),
        (
            "replay r --image-size 256 --camera c",
            "replay r --camera c --size 600 --calibration-episodes 1 --image-size 64",
        ),
        ("replay r --episodes 4 --png", "replay r --png --size 600 --calibration-episodes 1 --episodes 2"),
        ("train t --resume", "train t --resume"),
        (
            "train t --ppo n_envs=8 gamma=0.9 --steps 9",
            "train t --steps 64 --eval-episodes 2"
            " --ppo n_envs=8 gamma=0.9 n_steps=32 batch_size=32 n_epochs=1",
        ),
    ],
)
def test_a_budget_replaces_options_and_keeps_the_others(line: str, expected: str) -> None:
    assert within_budget(line.split()) == expected.split()


@pytest.mark.parametrize(
    ("page", "line"), SHELL, ids=[f"{name_of(page)}: {line[:60]}" for page, line in SHELL]
)
def test_every_shell_line_names_existing_targets(page: Path, line: str) -> None:
    words = [word for word in line.split("#")[0].split() if not re.match(r"[A-Z]+=", word)]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match words:
        case ["robot-attn", *_]:
            pass  # it runs in the test above
        case ["make", target, *_]:
            assert target in targets
        case ["pip", "install", *what]:
            named = re.fullmatch(r'"?robot-attn(?:\[([\w,]+)\])?"?|-e|\.', what[-1])
            assert named is not None, f"{line!r} installs something else"
            assert set((named[1] or "").split(",")) - {""} <= set(project["optional-dependencies"])
        case [".ci/run"] | ["tensorboard", "--logdir", _]:
            pass
        case _:
            pytest.fail(f"{name_of(page)}: nothing checks {line!r}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = _build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_entry(package: str, site: Path) -> None:
    anchors = {
        anchor
        for page in (site / "reference").glob("*.html")
        for anchor in re.findall(r'<h\d id="([\w.]+)"', page.read_text())
    }
    surface = (ROOT / "tests" / "api_surface.txt").read_text().splitlines()
    public = [line for line in surface if line.startswith(f"{package}.")]
    public += [f"{package}.{name}" for name in importlib.import_module(package).__all__]
    # What two modules export has one entry, under either's name.
    documented = {value_of(anchor) for anchor in anchors & set(surface)}
    assert [line for line in public if value_of(line) not in documented] == []
    assert public


def value_of(path: str) -> tuple[str, int]:
    module, name = path.rsplit(".", 1)
    return name, id(getattr(importlib.import_module(module), name))


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="(https?:)?//|<link[^>]+(?:stylesheet|preconnect)[^>]+href="https?:'
    )
    found = {page.name for page in site.rglob("*.html") if loads.search(page.read_text())}
    assert found == set()


@pytest.mark.slow
def test_dead_links_fail_the_build(tmp_path: Path) -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = re.sub(r"^(nav|hooks|not_in_nav|extra_css):.*?(?=^\w|\Z)", "", settings, flags=re.M | re.S)
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(settings)
    page = tmp_path / "docs" / "index.md"
    page.write_text("# Home\n\n[a](#home)\n")
    good = _build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert good.returncode == 0, good.stderr
    page.write_text("# Home\n\n[a](nowhere.md), [b](#no-such-place), [`C`][robot_attn.Nobody]\n")
    bad = _build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert bad.returncode != 0
    for named in ("nowhere.md", "#no-such-place", "robot_attn.Nobody"):
        assert named in bad.stderr
