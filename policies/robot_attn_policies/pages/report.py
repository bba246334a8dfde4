"""A report that people read as one HTML page and programs as JSON: verdicts, then what they rest on.

The page needs nothing else: no network, no server, no script, no other file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_attn.files import replacing
from robot_attn_policies.evaluation.statistics import Interval
from robot_attn_policies.pages.chart import (
    Chart,
    Series,
    draw_chart,
    draw_interval,
    figures_of,
    interval_text,
    number,
)
from robot_attn_policies.pages.html import fill_page, picture_uri
from robot_attn_policies.probing.faithfulness import Check, Outcome, Verdict

__all__ = [
    "Cell", "Chart", "Picture", "Report", "Section", "Series", "Table",
    "render_report", "report_json", "write_report",
]  # fmt: skip

ROOM = 3_500_000
"""Letters that a page's pictures take at most bit for bit; those that take more are packed with some loss."""

SHOWN = 3
"""Checks on a card at most."""

ROWS = 60
"""Of a chart's figures on the page at most."""

SMALL = 160
"""Pixels of width, under which a picture is enlarged pixel by pixel."""

Cell: TypeAlias = str | float | int | Interval | None


@dataclass(frozen=True)
class Table:
    """Rows of figures and words under named columns.

    Raises:
        ValueError: a row with more or fewer cells than there are columns.
    """

    title: str
    columns: tuple[str, ...]
    """Their names, with units."""
    rows: tuple[tuple[Cell, ...], ...]
    """None where a figure is not known."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r} has {len(self.columns)} columns, got a row of {len(row)} cells"
                )


@dataclass(frozen=True)
class Picture:
    """A picture and what it shows.

    Raises:
        ValueError: an image that is not uint8 [h, w, 3].
    """

    image: NDArray[np.uint8]
    """[h, w, 3]."""
    caption: str

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"expected uint8 [h, w, 3] for the picture {self.caption!r}, got {image.dtype} "
                f"{list(image.shape)}"
            )


@dataclass(frozen=True)
class Section:
    """A part of a report: a question, its verdict, and what that rests on.

    Raises:
        ValueError: a name that is not a plain word.
    """

    name: str
    """Where a link to it leads, and its key in JSON: small letters, digits, "-" and "_"."""
    title: str
    text: tuple[str, ...]
    """Paragraphs."""
    verdict: Verdict | None = None
    """Shown as a card at the top of the report too."""
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name):
            raise ValueError(
                "a section's name is made of small letters, digits, - and _, such as 'faithful', "
                f"got {self.name!r}"
            )


@dataclass(frozen=True)
class Report:
    """All that `write_report` writes.

    Raises:
        ValueError: two sections of one name.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    """What was examined: names and their values."""
    summary: tuple[str, ...]
    """The answer in sentences; the cards with the sections' verdicts follow them."""
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"sections need names of their own, got {name!r} more than once")


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page to `path`, such as explain.html, and the JSON beside it, with the ending .json.

    Each is written whole or not at all.

    Raises:
        ValueError: `path` itself ends in .json.
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: there are pictures, and opencv is not installed.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        raise ValueError(
            f"{path} names the page, and the JSON goes beside it: use {path.with_suffix('.html')}"
        )
    data = json.dumps(report_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = render_report(report)
    for target, text in ((path.with_suffix(".json"), data), (path, page)):
        with replacing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values: null for what is not finite, captions for pictures."""
    return {
        "title": report.title,
        "facts": dict(report.facts),
        "summary": list(report.summary),
        "sections": {section.name: _section_json(section) for section in report.sections},
    }


def _section_json(section: Section) -> dict[str, Any]:
    verdict = section.verdict
    return {
        "title": section.title,
        "text": list(section.text),
        "verdict": None
        if verdict is None
        else {
            "question": verdict.question,
            "outcome": verdict.outcome,
            "checks": [_check_json(check) for check in verdict.checks],
        },
        "tables": [
            {
                "title": table.title,
                "columns": list(table.columns),
                "rows": [[_plain(cell) for cell in row] for row in table.rows],
            }
            for table in section.tables
        ],
        "charts": [_chart_json(chart) for chart in section.charts],
        "pictures": [picture.caption for picture in section.pictures],
    }


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "text": check.text,
        **_plain(check.figure),
        "limit": _plain(check.limit),
        "at_least": check.at_least,
        "outcome": check.outcome,
    }


def _chart_json(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "kind": chart.kind,
        "x_label": chart.x_label,
        "y_label": chart.y_label,
        "limits": {name: _plain(level) for name, level in chart.limits},
        "series": [
            {
                "name": series.name,
                "x": np.asarray(series.x).tolist(),
                "y": [_plain(value) for value in np.asarray(series.y).tolist()],
                **(
                    {}
                    if series.low is None or series.high is None
                    else {
                        "low": [_plain(value) for value in np.asarray(series.low).tolist()],
                        "high": [_plain(value) for value in np.asarray(series.high).tolist()],
                    }
                ),
            }
            for series in chart.series
        ],
    }


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return {name: _plain(value) for name, value in cell._asdict().items()}
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, Integral):
        return int(cell)
    return float(cell) if math.isfinite(cell) else None


def render_report(report: Report) -> str:
    """The report as one HTML page.

    Raises:
        ModuleNotFoundError: there are pictures, and opencv is not installed.
    """
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts
    )
    uris = iter(_uris([picture for section in report.sections for picture in section.pictures]))
    parts = {
        "facts": facts and f'<dl class="facts">{facts}</dl>',
        "contents": _contents(report),
        "answer": _answer(report),
        "sections": "".join(_section(section, uris) for section in report.sections),
    }
    return fill_page("report.html", report.title, style="report.css", parts=parts)


def _uris(pictures: Sequence[Picture]) -> list[str]:
    """Bit for bit where they fit into the page, else with some loss."""
    uris = [picture_uri(picture.image) for picture in pictures]
    if sum(map(len, uris)) <= ROOM:
        return uris
    return [picture_uri(picture.image, lossless=False) for picture in pictures]


def _icon(outcome: Outcome) -> str:
    return f'<svg class="icon {outcome}" aria-hidden="true"><use href="#{outcome.capitalize()}"/></svg>'


def _paragraphs(text: Sequence[str]) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text)


def _contents(report: Report) -> str:
    if len(report.sections) < 2:
        return ""
    items = []
    for section in report.sections:
        verdict = section.verdict
        icon = verdict and f'{_icon(verdict.outcome)}<span class="spoken">: {verdict.outcome}</span>'
        items.append(
            f'<li><a href="#{section.name}"><span>{escape(section.title)}</span>{icon or ""}</a></li>'
        )
    return f'<nav aria-labelledby="Contents"><h2 id="Contents">Contents</h2><ol>{"".join(items)}</ol></nav>'


def _answer(report: Report) -> str:
    cards = "".join(_card(section, section.verdict) for section in report.sections if section.verdict)
    if not cards and not report.summary:
        return "" if report.sections else '<p class="hint">There is nothing in this report.</p>'
    return (
        '<section aria-labelledby="Answer"><h2 id="Answer">The answer</h2>'
        f'<div class="summary">{_paragraphs(report.summary)}</div>'
        + (cards and f'<ul class="cards">{cards}</ul>')
        + "</section>"
    )


def _card(section: Section, verdict: Verdict) -> str:
    """The answer, and the checks to know of: those that did not say yes, else the one that came closest."""
    outcome = verdict.outcome
    telling = [*verdict.failed] or sorted(verdict.checks, key=_margin)[:1]
    lead = "" if verdict.failed else "closest: "
    items = "".join(
        f'<li>{_icon(check.outcome)}<span>{lead}{escape(check.text)}: <span class="figure">'
        f'{interval_text(check.figure)},</span> <span class="figure">{_requirement(check)}</span></span></li>'
        for check in telling[:SHOWN]
    )
    if len(telling) > SHOWN:
        items += f'<li><span class="icon"></span>and {len(telling) - SHOWN} more</li>'
    return (
        f'<li class="card {outcome}">{_icon(outcome)}<div class="what">'
        f'<h3><a href="#{section.name}">{escape(verdict.question)}</a> <b>{outcome.capitalize()}</b></h3>'
        f'<p class="hint">{_tally(verdict)}</p>'
        f"</div><ul>{items}</ul></li>"
    )


def _margin(check: Check) -> float:
    """How far the whole interval is on the right side of the limit, in parts of that."""
    end = check.figure.low if check.at_least else check.figure.high
    return abs(end - check.limit) / (abs(check.limit) or 1)


def _tally(verdict: Verdict) -> str:
    """How many checks there are, and what they say."""
    count = Counter(check.outcome for check in verdict.checks)
    words: dict[Outcome, str] = {"no": "not met", "undecided": "undecided"}
    others = "".join(f", {count[outcome]} {word}" for outcome, word in words.items() if count[outcome])
    return f"{count['yes']} of {len(verdict.checks)} check{'s' * (len(verdict.checks) != 1)} met{others}"


def _requirement(check: Check) -> str:
    return f"at {'least' if check.at_least else 'most'} {check.limit:g} required"


def _section(section: Section, uris: Iterator[str]) -> str:
    verdict = section.verdict
    badge, checks = "", ""
    if verdict is not None:
        question = "" if verdict.question == section.title else f"{escape(verdict.question)} "
        badge = (
            f'<p class="badge {verdict.outcome}">{_icon(verdict.outcome)}'
            f"<span>{question}<b>{verdict.outcome}</b></span></p>"
        )
        checks = "".join(map(_check, verdict.checks))
    charts = "".join(map(_chart, section.charts))
    pictures = "".join(_picture(picture, next(uris)) for picture in section.pictures)
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}.title"><div class="heading">'
        f'<h2 id="{section.name}.title">{escape(section.title)}</h2>{badge}</div>'
        f'<div class="text">{_paragraphs(section.text)}</div>'
        + (checks and f'<ol class="checks">{checks}</ol>')
        + (charts and f'<div class="charts">{charts}</div>')
        + "".join(map(_table, section.tables))
        + (pictures and f'<div class="pictures">{pictures}</div>')
        + "</section>"
    )


def _check(check: Check) -> str:
    return (
        f'<li class="{check.outcome}"><p class="what">{escape(check.text)}</p>'
        f"{draw_interval(check.figure, check.limit, check.at_least)}"
        f'<p class="figure">{interval_text(check.figure)}<span class="hint">{_requirement(check)}</span></p>'
        f'<p class="badge {check.outcome}">{_icon(check.outcome)}{check.outcome}</p></li>'
    )


def _chart(chart: Chart) -> str:
    columns, rows = figures_of(chart)
    step = -(-len(rows) // ROWS)
    some = "" if step <= 1 else f'<p class="hint">One row in {step}; all are in the JSON.</p>'
    figures = _grid(chart.title, columns, rows[:: step or 1])
    title = escape(chart.title)
    return (
        f"<figure><figcaption><h3>{title}</h3></figcaption>{draw_chart(chart)}"
        f'<details><summary>Figures<span class="spoken"> of {title}</span></summary>{some}{figures}</details>'
        "</figure>"
    )


def _table(table: Table) -> str:
    grid = _grid(table.title, table.columns, table.rows) if table.rows else '<p class="hint">No rows.</p>'
    return f'<div class="table"><h3>{escape(table.title)}</h3>{grid}</div>'


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table that scrolls in its own frame; figures stand right, under each other."""
    words = [any(isinstance(row[place], str) for row in rows) for place in range(len(columns))]
    kinds = [' class="words"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True)
    )
    lines = (zip(row, kinds, strict=True) for row in rows)
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{_cell(cell)}</td>' for cell, kind in line)}</tr>" for line in lines
    )
    return (
        f'<div class="scroll" role="group" aria-label="{escape(title)}" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return escape(cell)
    if isinstance(cell, Interval):
        return interval_text(cell)
    return f"{cell:,}" if isinstance(cell, Integral) else number(cell)


def _picture(picture: Picture, uri: str) -> str:
    height, width = picture.image.shape[:2]
    kind = " wide" if width > 2 * height else ""
    small = ' class="small"' if width < SMALL else ""
    caption = escape(picture.caption)
    return (
        f'<figure class="picture{kind}">'
        f'<img{small} src="{uri}" width="{width}" height="{height}" alt="{caption}">'
        f'<figcaption aria-hidden="true">{caption}</figcaption></figure>'
    )
