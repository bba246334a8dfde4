"""Charts as SVG whose text keeps its size at any width.

Widths are percentages of the available width, heights are pixels. Colours come from classes in report.css.
Series differ in their dashes or positions too, not in colour alone.
"""

from __future__ import annotations

import html
import math

import numpy as np
from numpy.typing import NDArray

from robot_attn.stretches import stretches_of
from robot_attn_policies.evaluation.statistics import Interval
from robot_attn_policies.pages.chart import Chart, finite, indices_by_x, interval_text, number
from robot_attn_policies.pages.chart_axes import axis_values, shares, tick_texts, ticks, value_axis

HEIGHT = 220
"""Height in pixels of the area of a line chart."""

_COLOURS, _DASHES = 8, 5  # as in report.css; 40 series before two look the same
_BAR, _ROOM = 20, 5  # pixels from one bar to the next, and above the first and below the last
_BESIDE, _SHORT, _LONG = 7, 12, 24  # most names, and characters of the longest, next to their lines
_FEW = 5  # most characters of a tick label for five ticks to fit
_DOTS = 24  # most points of a line for each to have a dot
_LINE = 16  # pixels from one line of text to the next
_ACROSS = 1000  # width of the view box of lines, which is stretched


def draw_chart(chart: Chart) -> str:
    """Draw a chart as HTML, without its title."""
    if not any((~np.isnan(series.figures)).any() for series in chart.series):
        return '<p class="hint">No data.</p>'
    names = ", ".join(series.name for series in chart.series)
    about = (
        f"{chart.title}. {chart.y_label} against {chart.x_label}, for {names}. The data follow as a table."
    )
    drawing = _lines(chart) if chart.kind == "lines" else _bars(chart)
    return (
        f'<div class="drawing" role="img" aria-label="{html.escape(about)}">{drawing}</div>{_legend(chart)}'
    )


def draw_interval(figure: Interval, limit: float, at_least: bool) -> str:
    """Draw a value with its interval, against the required side of a limit."""
    values = finite([*figure, limit])
    known = values[~np.isnan(values)]
    top = float(known.max(initial=0))
    marks = ticks(float(known.min(initial=0)), 1.0 if 0.1 < top < 1 else top, 4)  # fractions end at 1
    value, low, high, at = shares(values, marks[0], marks[-1])
    parts = [_rect("track", 0, 100, 7, 12)]
    if not math.isnan(at):
        parts += [
            _rect("required", at if at_least else 0, 100 if at_least else at, 7, 12),
            f'<line class="limit" x1="{at:.2f}%" x2="{at:.2f}%" y1="2" y2="24"/>',
            f'<text x="{at:.2f}%" y="37" class="{_anchor(at)}">{limit:g}</text>',
        ]
    if not math.isnan(low):
        parts.append(_whisker(low, high, 13))
    if not math.isnan(value):
        parts.append(f'<circle cx="{value:.2f}%" cy="13" r="3.5"/>')
    parts += [
        f'<text x="{place}%" y="37" class="{_anchor(place)} scale">{mark:g}</text>'
        for place, mark in ((0, marks[0]), (100, marks[-1]))
        if not abs(place - at) < 16
    ]
    return f'<svg class="against" width="100%" height="42" aria-hidden="true">{"".join(parts)}</svg>'


def _anchor(percent: float) -> str:
    return "start" if percent < 8 else "end" if percent > 92 else "middle"


def _rect(name: str, left: float, right: float, top: float, height: float) -> str:
    width = max(right - left, 0)
    return f'<rect class="{name}" x="{left:.2f}%" width="{width:.2f}%" y="{top:g}" height="{height:g}"/>'


def _whisker(low: float, high: float, y: float) -> str:
    """Draw a horizontal interval with its two ends, or an arrow for an end beyond the axis."""
    parts = []
    for end, x in ((-1, low), (1, high)):
        if 0 <= x <= 100:
            parts.append(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y - 6:g}" y2="{y + 6:g}"/>')
        else:
            arrow = f"M0 {y:g}L{-9 * end} {y - 5:g}V{y + 5:g}Z"
            edge = "100%" if end == 1 else "0"
            parts.append(f'<svg x="{edge}" overflow="visible"><path class="cut" d="{arrow}"/></svg>')
    low, high = np.clip([low, high], 0, 100)
    line = f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="{y:g}" y2="{y:g}"/>'
    return f'<g class="whisker">{line}{"".join(parts)}</g>'


def _style(index: int) -> str:
    return f"c{index % _COLOURS} d{index % _DASHES}"


def _entries(chart: Chart) -> list[tuple[str, str]]:
    """Names in the legend, with the classes of their lines."""
    limits = chart.limits if chart.kind == "lines" else ()
    return [
        *((series.name, _style(index)) for index, series in enumerate(chart.series)),
        *((name, "reference") for name, _ in limits),
    ]


def _room(chart: Chart) -> str:
    """Class of a chart by the width of the names next to its lines; empty if they do not fit."""
    names = [name for name, _ in _entries(chart)]
    longest = max(map(len, names))
    if chart.kind == "bars" or not 1 < len(names) <= _BESIDE or longest > _LONG:
        return ""
    last = [max(np.asarray(series.x), default=-math.inf) for series in chart.series]
    for series in chart.series:
        if len(series.figures) == 0 or np.asarray(series.x)[-1] < max(last) or np.isnan(series.figures[-1]):
            return ""
    return "short" if longest <= _SHORT else "long"


def _legend(chart: Chart) -> str:
    entries = _entries(chart)
    if len(entries) < 2:
        return ""
    swatch = (
        '<line x1="0" x2="26" y1="7" y2="7"/>'
        if chart.kind == "lines"
        else '<rect x="6" width="14" y="1" height="12"/>'
    )
    items = "".join(
        f'<li><svg class="{style}" width="26" height="14">{swatch}</svg><span>{html.escape(name)}</span></li>'
        for name, style in entries
    )
    return f'<ul class="legend {_room(chart)}" aria-hidden="true">{items}</ul>'


def _lines(chart: Chart) -> str:
    bottom, top, marks = value_axis(axis_values(chart), 5)
    every_x = np.concatenate([np.asarray(series.x, dtype=np.float64) for series in chart.series])
    left, right = float(every_x.min()), float(every_x.max())
    across = ticks(left, right, 5)
    if max(map(len, tick_texts(across))) > _FEW:
        across = ticks(left, right, 3)
    if left == right:
        left, right = float(across[0]), float(across[-1])
    across = across[(across >= left - 1e-9 * abs(left)) & (across <= right + 1e-9 * abs(right))]

    def down(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(HEIGHT * (top - values) / (top - bottom))

    parts = []
    for y, text in zip(down(marks), tick_texts(marks), strict=True):
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="-8" y="{y + 4:.1f}" class="end">{text}</text>')
    for x, text in zip(shares(across, left, right), tick_texts(across), strict=True):
        parts.append(f'<line class="tick" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>')
        parts.append(f'<text x="{x:.2f}%" y="{HEIGHT + 19}" class="middle">{text}</text>')
    stretched, upright = [], []
    for index, series in enumerate(chart.series):
        x = shares(np.asarray(series.x, dtype=np.float64), left, right)
        y, (low, high) = down(series.figures), down(np.clip(series.ends, bottom, top))
        stretched.append(f'<g class="{_style(index)}">{_band(x, low, high)}{_line(x, y)}</g>')
        cut = _cut_ends(x, series.ends, bottom, top)
        upright.append(f'<g class="{_style(index)}">{_points(x, y, low, high)}{cut}</g>')
    parts.append(
        f'<svg viewBox="0 0 {_ACROSS} {HEIGHT}" width="100%" height="{HEIGHT}" preserveAspectRatio="none"'
        f' overflow="visible">{"".join(stretched)}</svg>'
    )
    parts += upright
    levels = [float(down(np.array(level))) for _, level in chart.limits]
    parts += [f'<line class="limit" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>' for y in levels]
    room = _room(chart)
    deep = " deep" if max(map(len, tick_texts(marks))) > _FEW else ""
    if room:
        parts.append(_names(chart, [*(float(down(series.figures)[-1]) for series in chart.series), *levels]))
    return (
        f'<p class="unit">{html.escape(chart.y_label)}</p><div class="lines {room}{deep}">'
        f'<svg width="100%" height="{HEIGHT + 24}" overflow="visible">{"".join(parts)}</svg>'
        f'<p class="unit">{html.escape(chart.x_label)}</p></div>'
    )


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x * _ACROSS / 100, y, strict=True))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    runs = [_path(x[slice(*run)], y[slice(*run)]) for run in stretches_of(~np.isnan(y)) if run.rows > 1]
    return f'<path class="line" d="M{"M".join(runs)}"/>' if runs else ""


def _band(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    runs = [
        f"{_path(x[run], high[run])}L{_path(x[run][::-1], low[run][::-1])}Z"
        for run in (slice(*run) for run in stretches_of(~np.isnan(low)) if run.rows > 1)
    ]
    return f'<path class="band" d="M{"M".join(runs)}"/>' if runs else ""


def _points(
    x: NDArray[np.float64], y: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> str:
    """Draw dots where points are few; a point between gaps gets a dot and its interval as a whisker."""
    alone = np.zeros(len(y), np.bool_)
    alone[[run.first for run in stretches_of(~np.isnan(y)) if run.rows == 1]] = True
    whiskers = "".join(
        f'<line x1="{x[i]:.2f}%" x2="{x[i]:.2f}%" y1="{low[i]:.1f}" y2="{high[i]:.1f}"/>'
        for i in np.flatnonzero(alone & ~np.isnan(low))
    )
    dots = "".join(
        f'<circle cx="{x[i]:.2f}%" cy="{y[i]:.1f}" r="3"/>'
        for i in np.flatnonzero(~np.isnan(y) & (alone | (len(y) <= _DOTS)))
    )
    return whiskers + dots


def _cut_ends(x: NDArray[np.float64], ends: NDArray[np.float64], bottom: float, top: float) -> str:
    """Draw an arrow with its value where intervals [2, N] leave the axis, one for adjacent points."""
    parts = []
    for end, beyond, extreme in ((0, ends[0] < bottom, np.argmin), (1, ends[1] > top, np.argmax)):
        for first, stop in stretches_of(beyond):
            at = first + int(extreme(ends[end, first:stop]))
            text = f"to {number(ends[end, at])}"
            arrow = "M0 0L-5 9H5Z" if end else f"M0 {HEIGHT}L-5 {HEIGHT - 9}H5Z"
            height = 20 if end else HEIGHT - 12
            parts.append(
                f'<svg x="{x[at]:.2f}%" overflow="visible"><path class="cut" d="{arrow}"/>'
                f'<text class="cut {_anchor(x[at])}" y="{height}">{text}</text></svg>'
            )
    return "".join(parts)


def _names(chart: Chart, ends: list[float]) -> str:
    """Draw the series' names at the ends of their lines, moved apart to be readable."""
    order = np.argsort(ends)
    steps = _LINE * np.arange(len(ends))
    # Each name at least one line of text below the one before; then moved up where the last leaves the area.
    places = np.maximum.accumulate(np.array(ends)[order] - steps) + steps
    places = np.minimum(places, HEIGHT - steps[::-1])
    entries = _entries(chart)
    parts = []
    for index, y in zip(order, places, strict=True):
        name, style = entries[index]
        parts.append(
            f'<g class="{style}"><path class="line" d="M5 {ends[index]:.1f}L13 {y:.1f}"/></g>'
            f'<text x="18" y="{y + 4:.1f}">{html.escape(name)}</text>'
        )
    return f'<svg class="names" x="100%" overflow="visible">{"".join(parts)}</svg>'


def _bars(chart: Chart) -> str:
    low, high, marks = value_axis(axis_values(chart), 5)
    zero = float(shares(0.0, low, high))
    limits = [(name, float(shares(level, low, high))) for name, level in chart.limits]
    upright = "".join(
        f'<line class="{name}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>'
        for name, x in [
            *(("grid", float(x)) for x in shares(marks, low, high)),
            ("zero", zero),
            *(("limit", x) for _, x in limits),
        ]
    )
    cells = []
    if limits:
        names = "".join(
            f'<text x="{x:.2f}%" y="12" class="{_anchor(x)}">{html.escape(name)}</text>' for name, x in limits
        )
        cells.append(f'<svg class="axis" width="100%" height="18">{names}</svg>')
    height = 2 * _ROOM + _BAR * len(chart.series)
    for name, places in indices_by_x(chart).items():
        bars, texts = [], []
        for index, (series, place) in enumerate(zip(chart.series, places, strict=True)):
            if place is None:
                texts.append("<span></span>")
                continue
            value, ends = series.figures[place], series.ends[:, place]
            texts.append(f"<span>{interval_text(Interval(value, *ends))}</span>")
            at, y = float(shares(value, low, high)), _ROOM + _BAR * index
            if not math.isnan(at):
                bar = _rect("bar", min(zero, at), max(zero, at), y + 3, _BAR - 6)
                bars.append(f'<g class="{_style(index)}">{bar}</g>')
            if not np.isnan(ends).any():
                left, right = shares(ends, low, high).tolist()
                bars.append(_whisker(left, right, y + _BAR / 2))
        cells.append(
            f'<p class="name">{html.escape(str(name))}</p><svg width="100%" height="{height}">{upright}'
            f'{"".join(bars)}</svg><p class="values">{"".join(texts)}</p>'
        )
    labels = "".join(
        f'<text x="{x:.2f}%" y="14" class="middle">{text}</text>'
        for x, text in zip(shares(marks, low, high), tick_texts(marks), strict=True)
    )
    cells.append(f'<svg class="axis" width="100%" height="18" overflow="visible">{labels}</svg>')
    cells.append(f'<p class="unit axis">{html.escape(chart.y_label)}</p>')
    return f'<div class="bars"><p class="unit">{html.escape(chart.x_label)}</p>{"".join(cells)}</div>'
