"""The words of an early dialect stay out of public names, help, docs and error messages.

PyTorch, Stable-Baselines3, Gymnasium and the interpretability literature have a term for each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("robot_attn", "envs", "policies", "scripts")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
# Files that contain old names on purpose: the table of changes, and the reader of old run folders.
HISTORY = {"CHANGELOG.md", "format_1.py"}
PAGES = sorted(
    file for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if file.name not in HISTORY
)

IDENTIFIERS = {
    "patch_size", "features_size", "context_size", "key_size", "value_size", "embed_size",
    "heads: int", "looks", "Eyes", "eyes_of", "Seen", "Keeper", "Cells", "imagine", "imagine_edits",
    "EDITS", "erase", "Erased", "play_erased", "silence", "Silenced", "LEFT", "KEPT", "LIKENESS",
    "NoDecision", "Interrupted", "Stopped", "Ends", "Means", "MaskMean", "Observed", "watch=",
    "told=", "finished=", "eyes", "attention_grid", "token_centers",
}  # fmt: skip
"""Old public names; one with a `=` or a type is forbidden as a parameter or keyword only."""

PHRASES = (
    r"policies that see and doubt",
    r"watched, scored and doubted",
    r"by lot",
    r"\banew\b",
    r"\balike\b",
    r"of its own",
    r"from nothing",
    r"(?<!there )\bis no (?!longer)[a-z]",
    r"Focused\?",
    r"Faithful\?",
    r"For the right reason",
    r"About the weights",
    r"Is what it looks at what decides",
    r"\bsilenced?\b",
    r"\bimagined?\b",
    r"\berased?\b",
    r"planted to fool it do not",
)
"""In help, docs, docstrings and messages; searched without regard to case."""


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The names that a module defines, uses or passes; parameters and keywords twice, then with a `=`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
            yield node.lineno, node.arg + "="
            if node.annotation is not None:
                yield node.lineno, f"{node.arg}: {ast.unparse(node.annotation)}"
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.value.lineno, node.arg
            yield node.value.lineno, node.arg + "="


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The string constants of a module: docstrings, help and messages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_old_name(file: Path) -> None:
    if file.name in HISTORY:
        pytest.skip("keeps the names of the past")
    found = sorted({(line, name) for line, name in names(ast.parse(file.read_text())) if name in IDENTIFIERS})
    assert found == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_old_phrase_in_strings(file: Path) -> None:
    found = [
        (line, match.group())
        for line, text in texts(ast.parse(file.read_text()))
        for phrase in PHRASES
        for match in re.finditer(phrase, text, re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_old_phrase_in_pages(file: Path) -> None:
    text = file.read_text()
    words = [name for name in IDENTIFIERS if not name.endswith("=") and re.search(rf"`{name}\b", text)]
    found = [match.group() for phrase in PHRASES for match in re.finditer(phrase, text, re.IGNORECASE)]
    assert (words, found) == ([], [])


def test_the_check_finds_old_names_and_phrases() -> None:
    tree = ast.parse('def f(heads: int, looks):\n    "Drawn by lot."\n    g(watch=1).Eyes\n')
    assert {name for _, name in names(tree)} & IDENTIFIERS == {"heads: int", "looks", "watch=", "Eyes"}
    assert [text for _, text in texts(tree) if re.search(PHRASES[2], text)] == ["Drawn by lot."]
