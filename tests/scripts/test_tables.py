"""Tables in a terminal or pipe of 80 columns: every name and figure whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robot_attn_scripts import families
from robot_attn_scripts._report import figure_table
from robot_attn_scripts.benchmarks import attention, envs, extractor, pointing

ROOT = Path(__file__).parents[2]


def printed(show: Callable[[Console], object]) -> str:
    file = io.StringIO()
    show(Console(file=file, width=80))
    return file.getvalue()


def show_families(figures: Any, console: Console) -> None:
    console.print(families._table("frames", figures["families"]))


def show_attention(figures: Any, console: Console) -> None:
    for name in ("folded", "blockwise", "local", "families"):
        console.print(attention._table(name, figures[name]))


def show_envs(figures: Any, console: Console) -> None:
    for place, by_task in figures["rates"].items():
        envs._show(place, by_task, console)
    envs._show("memory", figures["memory"], console)


def names_in(figures: Any) -> set[str]:
    """The names of the rows, as the figures have them."""
    found: set[str] = set()
    for key in ("families", "extractors", "decisions", "memory", "references"):
        found |= set(figures.get(key, {}))
    for by_name in (*figures.get("supervised", {}).values(), *figures.get("rates", {}).values()):
        found |= set(by_name)
    return found


@pytest.mark.parametrize(
    ("name", "show"),
    [
        ("families", show_families),
        ("extractor", extractor._show),
        ("pointing", pointing._show),
        ("envs", show_envs),
        ("attention", show_attention),
    ],
)
def test_the_published_figures_fit_in_80_columns(name: str, show: Callable[[Any, Console], None]) -> None:
    (path,) = (ROOT / "docs").rglob(f"{name}.json")
    figures = json.loads(path.read_text())
    told = printed(lambda console: show(figures, console))
    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    words = {word.strip("()") for word in told.split()}
    if name != "attention":  # whose names are of several words
        assert names_in(figures) <= words


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (
            ("run", "best score", "steps", "minutes"),
            ("long/" * 25, "0.912", "1,234,567", "12.3"),
        ),
        (("arm (runs)", *"abcd"), ("hierarchical (12)", *["-12,345.678 [-12,345.678,+12,345.678]"] * 4)),
        (("a", "b", "c"), ("x" * 100, "1" * 100, "2" * 100)),
    ],
)
def test_what_has_no_room_is_folded_and_nothing_lost(columns: Sequence[str], row: Sequence[str]) -> None:
    table = figure_table(*columns, title="what it is of")
    table.add_row(*row)
    told = printed(lambda console: console.print(table))
    assert max(map(len, told.splitlines())) <= 80
    expected = "".join(("what it is of", *columns, *row)).replace(" ", "")
    assert sorted(told.replace(" ", "").replace("\n", "")) == sorted(expected)
