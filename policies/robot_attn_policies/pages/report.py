"""Reports as a self-contained HTML page and as JSON: verdicts first, then the figures behind them.

The page needs no network, no server, no script and no other file.
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
from robot_attn_policies.pages.chart import Chart, Series, figures_of, interval_text, number
from robot_attn_policies.pages.chart_drawing import draw_chart, draw_interval
from robot_attn_policies.pages.html import fill_page, picture_uri
from robot_attn_policies.probing.verdicts import Check, Outcome, Verdict

__all__ = [
    "Cell", "Chart", "Picture", "Report", "Section", "Series", "Table",
    "render_report", "report_json", "write_report",
]  # fmt: skip

MAX_LOSSLESS = 3_500_000
"""Most characters of a page's pictures without loss; beyond it, they are compressed with loss."""

MAX_CHECKS = 3
"""Most checks on a card."""

MAX_ROWS = 60
"""Most rows of a chart's table on the page."""

SMALL_WIDTH = 160
"""Width in pixels below which a picture is enlarged without smoothing."""

Cell: TypeAlias = str | float | int | Interval | None


@dataclass(frozen=True)
class Table:
    """A table of numbers and text.

    Args:
        title: its title.
        columns: names of the columns, with units.
        rows: one cell per column; None where a figure is unknown.

    Raises:
        ValueError: a row with more or fewer cells than columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"expected rows of {len(self.columns)} cells in the table {self.title!r}, got one of "
                    f"{len(row)}: give one cell per column"
                )


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Args:
        image: uint8 [h, w, 3], RGB.
        caption: what it shows.

    Raises:
        ValueError: an image of another dtype or shape.
    """

    image: NDArray[np.uint8]
    caption: str

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"expected uint8 [h, w, 3] for the picture {self.caption!r}, got {image.dtype} "
                f"{list(image.shape)}: convert it to RGB"
            )


@dataclass(frozen=True)
class Section:
    """A section of a report: a question, its verdict, and the figures behind it.

    Args:
        name: anchor of the section on the page, and its key in the JSON: small letters, digits, "-" and "_".
        title: its heading.
        text: paragraphs.
        verdict: the outcome, also shown as a card at the top of the report.
        tables: shown after the charts.
        charts: shown after the verdict's checks.
        pictures: shown last.

    Raises:
        ValueError: a name with other characters.
    """

    name: str
    title: str
    text: tuple[str, ...]
    verdict: Verdict | None = None
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name):
            raise ValueError(
                f"expected a section's name of small letters, digits, - and _, got {self.name!r}: use one "
                "such as 'faithful'"
            )


@dataclass(frozen=True)
class Report:
    """The content of a report, for `write_report`.

    Args:
        title: its heading.
        facts: names and values, such as the policy and the seeds.
        summary: the answer in sentences, shown above the verdicts' cards.
        sections: the sections, each with another name.

    Raises:
        ValueError: two sections with one name.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    summary: tuple[str, ...]
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"expected different names of sections, got {name!r} more than once: rename one"
                )


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write a report as an HTML page and as JSON.

    Each file is written in one piece or not at all.

    Args:
        path: the page, such as explain.html. The JSON has the same name with the ending .json.
        report: the report.

    Raises:
        ValueError: `path` ends in .json.
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: there are pictures, and opencv is not installed.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        raise ValueError(
            f"expected the name of the page, got {path}: use {path.with_suffix('.html')}, and the JSON is "
            "written next to it"
        )
    data = json.dumps(report_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    page = render_report(report)
    for target, text in ((path.with_suffix(".json"), data), (path, page)):
        with replacing(target) as temporary:
            temporary.write_text(text, encoding="utf-8")


def report_json(report: Report) -> dict[str, Any]:
    """Convert a report to JSON values: None for numbers that are not finite, captions for pictures."""
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
            "qualifiers": list(verdict.qualifiers),
            "reason": verdict.reason,
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
        "reason": check.reason,
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
    """Render a report as one HTML page.

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
    """Encode pictures without loss if they fit into the page, else with loss."""
    uris = [picture_uri(picture.image) for picture in pictures]
    if sum(map(len, uris)) <= MAX_LOSSLESS:
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
        icon = verdict and f'{_icon(verdict.outcome)}<span class="visually-hidden">: {verdict.outcome}</span>'
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
    """The outcome, and the checks that did not say yes; if all did, the one closest to its limit."""
    outcome = verdict.outcome
    shown = [*verdict.failed] or sorted(verdict.checks, key=_margin)[:1]
    lead = "" if verdict.failed else "closest: "
    items = "".join(
        f'<li>{_icon(check.outcome)}<span>{lead}{escape(check.text)}: <span class="figure">'
        f'{interval_text(check.figure)},</span> <span class="figure">{_requirement(check)}</span></span></li>'
        for check in shown[:MAX_CHECKS]
    )
    if len(shown) > MAX_CHECKS:
        items += f'<li><span class="icon"></span>and {len(shown) - MAX_CHECKS} more</li>'
    return (
        f'<li class="card {outcome}">{_icon(outcome)}<div class="what">'
        f'<h3><a href="#{section.name}">{escape(verdict.question)}</a> <b>{outcome.capitalize()}</b></h3>'
        f'<p class="hint">{_tally(verdict)}</p>{_remarks(verdict)}'
        f"</div><ul>{items}</ul></li>"
    )


def _remarks(verdict: Verdict) -> str:
    """List what is to be said besides the outcome: why it is undecided, and the qualifiers."""
    texts = [text for text in (verdict.reason, *verdict.qualifiers) if text]
    items = "".join(f"<p>{escape(text[0].upper() + text[1:])}.</p>" for text in texts)
    return items and f'<div class="remarks">{items}</div>'


def _margin(check: Check) -> float:
    """Distance of the interval from the limit, relative to the limit."""
    end = check.figure.low if check.at_least else check.figure.high
    return abs(end - check.limit) / (abs(check.limit) or 1)


def _tally(verdict: Verdict) -> str:
    """Count the checks by outcome."""
    count = Counter(check.outcome for check in verdict.checks)
    descriptions: dict[Outcome, str] = {"no": "not met", "undecided": "undecided"}
    others = "".join(f", {count[outcome]} {word}" for outcome, word in descriptions.items() if count[outcome])
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
        f"{_remarks(verdict) if verdict else ''}"
        f'<div class="text">{_paragraphs(section.text)}</div>'
        + (checks and f'<ol class="checks">{checks}</ol>')
        + (charts and f'<div class="charts">{charts}</div>')
        + "".join(map(_table, section.tables))
        + (pictures and f'<div class="pictures">{pictures}</div>')
        + "</section>"
    )


def _check(check: Check) -> str:
    requirement = escape("; ".join(filter(None, [_requirement(check), check.reason])))
    return (
        f'<li class="{check.outcome}"><p class="what">{escape(check.text)}</p>'
        f"{draw_interval(check.figure, check.limit, check.at_least)}"
        f'<p class="figure">{interval_text(check.figure)}<span class="hint">{requirement}</span></p>'
        f'<p class="badge {check.outcome}">{_icon(check.outcome)}{check.outcome}</p></li>'
    )


def _chart(chart: Chart) -> str:
    columns, rows = figures_of(chart)
    step = -(-len(rows) // MAX_ROWS)
    note = "" if step <= 1 else f'<p class="hint">One row in {step}; all are in the JSON.</p>'
    figures = _grid(chart.title, columns, rows[:: step or 1])
    title = escape(chart.title)
    return (
        f"<figure><figcaption><h3>{title}</h3></figcaption>{draw_chart(chart)}"
        f'<details><summary>Figures<span class="visually-hidden"> of {title}</span></summary>'
        f"{note}{figures}</details></figure>"
    )


def _table(table: Table) -> str:
    grid = _grid(table.title, table.columns, table.rows) if table.rows else '<p class="hint">No rows.</p>'
    return f'<div class="table"><h3>{escape(table.title)}</h3>{grid}</div>'


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A scrollable table; numbers are aligned right."""
    has_text = [any(isinstance(row[place], str) for row in rows) for place in range(len(columns))]
    kinds = [' class="words"' if text else "" for text in has_text]
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
    small = ' class="small"' if width < SMALL_WIDTH else ""
    caption = escape(picture.caption)
    return (
        f'<figure class="picture{kind}">'
        f'<img{small} src="{uri}" width="{width}" height="{height}" alt="{caption}">'
        f'<figcaption aria-hidden="true">{caption}</figcaption></figure>'
    )
