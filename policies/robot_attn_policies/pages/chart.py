"""Charts as SVG whose text keeps its size at any width.

Widths are percentages of the available width, heights are pixels. Colours come from classes in report.css.
Series differ in their dashes or positions too, not in colour alone.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn.stretches import stretches_of
from robot_attn_policies.evaluation.statistics import Interval

HEIGHT = 220
"""Height in pixels of the area of a line chart."""

_COLOURS, _DASHES = 8, 5  # as in report.css; 40 series before two look the same
_BAR, _ROOM = 20, 5  # pixels from one bar to the next, and above the first and below the last
_BESIDE, _SHORT, _LONG = 7, 12, 24  # most names, and characters of the longest, next to their lines
_FEW = 5  # most characters of a tick label for five ticks to fit
_DOTS = 24  # most points of a line for each to have a dot
_LINE = 16  # pixels from one line of text to the next
_ACROSS = 1000  # width of the view box of lines, which is stretched


@dataclass(frozen=True)
class Series:
    """One line of a chart, or the bars of one colour.

    Args:
        name: name in the legend.
        x: [N], finite numbers in the order of the line; for bars, their labels.
        y: float [N]; NaN leaves a gap.
        low: float [N], lower ends of the intervals; None for no intervals.
        high: float [N], upper ends of the intervals.

    Raises:
        ValueError: arrays of different lengths, `low` without `high` or the reverse, or `low` above `high`.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(
                f"expected both ends of the intervals of series {self.name!r}, got one: give both, low and "
                "high"
            )
        parts = {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        shapes = {name: list(np.shape(part)) for name, part in parts.items() if part is not None}
        if any(len(shape) != 1 or shape != shapes["y"] for shape in shapes.values()):
            raise ValueError(
                f"expected vectors of one length for series {self.name!r}, got {shapes}: give one value per x"
            )
        if (self.ends[0] > self.ends[1]).any():
            raise ValueError(
                f"expected low at most high for series {self.name!r}, got intervals with low above high: "
                "swap them"
            )

    @property
    def figures(self) -> NDArray[np.float64]:
        """float64 [N], `y` with NaN where it is not finite."""
        return _finite(self.y)

    @property
    def ends(self) -> NDArray[np.float64]:
        """float64 [2, N], `low` and `high`; NaN where there is no interval."""
        if self.low is None or self.high is None:
            return np.full((2, len(self.figures)), np.nan)
        ends = np.stack([_finite(self.low), _finite(self.high)])
        return np.where(np.isnan(ends).any(axis=0), np.nan, ends)


@dataclass(frozen=True)
class Chart:
    """Series on common axes.

    Args:
        title: its title.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        series: the series.
        kind: "lines" with a band from low to high, or horizontal "bars" with whiskers.
        limits: names and values of y of reference lines, such as ("chance", 1.0).

    Raises:
        ValueError: an unknown kind, a limit that is not finite, lines with an x that is not a finite number,
            or two bars of a series with one label.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Literal["lines", "bars"] = "lines"
    limits: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("lines", "bars"):
            raise ValueError(f"expected the kind 'lines' or 'bars', got {self.kind!r}: use one of the two")
        for name, level in self.limits:
            if not math.isfinite(level):
                raise ValueError(f"expected a finite limit {name!r}, got {level}: leave it out")
        for series in self.series:
            x = np.asarray(series.x)
            if self.kind == "bars" and len({str(name) for name in x.tolist()}) < len(x):
                raise ValueError(
                    f"expected different labels of bars, got series {series.name!r} with one of them twice: "
                    "rename one"
                )
            if self.kind == "lines" and not (np.issubdtype(x.dtype, np.number) and np.isfinite(x).all()):
                raise ValueError(
                    f"expected finite numbers as x of lines, got series {series.name!r} with others: draw "
                    "bars"
                )


def number(value: float, beside: float = 0.0) -> str:
    """Format a number with about three digits; a dash if it is not finite.

    Args:
        value: the number.
        beside: the largest absolute value shown with it, which sets the number of decimals.
    """
    if not math.isfinite(value):
        return "–"
    size = max(abs(value), abs(beside))
    if size == 0:
        return "0"
    if size >= 1e5 or size < 1e-3:
        return f"{value:.1e}"
    text = f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval_text(interval: Interval) -> str:
    """Format a value and its interval as HTML; the value alone if it has no interval."""
    beside = max((abs(each) for each in interval if math.isfinite(each)), default=0.0)
    value, low, high = (number(each, beside) for each in interval)
    if math.isnan(interval.low) or math.isnan(interval.high):
        return f"<b>{number(interval.value)}</b>"
    return f"<b>{value}</b> <small>[{low}, {high}]</small>"


def figures_of(chart: Chart) -> tuple[tuple[str, ...], list[tuple[str | float | Interval | None, ...]]]:
    """Return the data of a chart as a table: its columns, and one row per x."""
    rows = _indices_by_x(chart)
    cells = []
    for name, places in rows.items():
        row: list[str | float | Interval | None] = [name]
        for series, place in zip(chart.series, places, strict=True):
            if place is None:
                row.append(None)
                continue
            value, (low, high) = series.figures[place].item(), series.ends[:, place].tolist()
            row.append(value if series.low is None else Interval(value, low, high))
        cells.append(tuple(row))
    return (chart.x_label, *(series.name for series in chart.series)), cells


def _indices_by_x(chart: Chart) -> dict[str | float, list[int | None]]:
    """Return each x with its index in each series; numbers sorted, labels in order of appearance."""
    rows: dict[str | float, list[int | None]] = {}
    for index, series in enumerate(chart.series):
        for place, x in enumerate(np.asarray(series.x).tolist()):
            name = x if chart.kind == "lines" else str(x)
            rows.setdefault(name, [None] * len(chart.series))[index] = place
    return dict(sorted(rows.items())) if chart.kind == "lines" else rows


def draw_chart(chart: Chart) -> str:
    """Draw a chart as HTML, without its title."""
    figures = [*(part for series in chart.series for part in (series.figures, *series.ends))]
    known = np.concatenate([*figures, [level for _, level in chart.limits]])
    known = known[~np.isnan(known)]
    if not any((~np.isnan(series.figures)).any() for series in chart.series):
        return '<p class="hint">No data.</p>'
    names = ", ".join(series.name for series in chart.series)
    about = (
        f"{chart.title}. {chart.y_label} against {chart.x_label}, for {names}. The data follow as a table."
    )
    drawing = _lines(chart, known) if chart.kind == "lines" else _bars(chart, known)
    return (
        f'<div class="drawing" role="img" aria-label="{html.escape(about)}">{drawing}</div>{_legend(chart)}'
    )


def draw_interval(figure: Interval, limit: float, at_least: bool) -> str:
    """Draw a value with its interval, against the required side of a limit."""
    values = _finite([*figure, limit])
    known = values[~np.isnan(values)]
    top = float(known.max(initial=0))
    marks = ticks(float(known.min(initial=0)), 1.0 if 0.1 < top < 1 else top, 4)  # fractions end at 1
    value, low, high, at = _shares(values, marks[0], marks[-1])
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


def ticks(low: float, high: float, count: int) -> NDArray[np.float64]:
    """Choose about `count` steps of a round size that cover the range from `low` to `high`."""
    if not low < high:
        around = abs(low) / 2 or 0.5
        low, high = low - around, high + around
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(
        step for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power) if step >= 0.99 * rough
    )
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return np.asarray(step * np.arange(first, last + 1), dtype=np.float64)


def tick_texts(marks: NDArray[np.float64]) -> list[str]:
    """Format the numbers of an axis: 200000 as "200k"."""
    size = np.abs(marks).max()
    factor, unit = (1e6, "M") if 1e6 <= size < 1e10 else (1e3, "k") if 1e4 <= size < 1e6 else (1.0, "")
    return [f"{mark / factor:g}{unit if mark else ''}" for mark in marks]


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _axis(known: NDArray[np.float64], count: int) -> tuple[float, float, NDArray[np.float64]]:
    """Choose the ends of an axis and its ticks; it starts at zero unless all values are far from zero."""
    low, high = float(known.min()), float(known.max())
    low = 0.0 if 0 < low < 0.6 * high else low
    high = 0.0 if 0.6 * low < high < 0 else high
    marks = ticks(low, high, count)
    if low == high:
        low, high = float(marks[0]), float(marks[-1])
    room = 0.03 * (high - low)
    low, high = low - room * (low != 0), high + room * (high != 0)
    return low, high, marks[(marks >= low) & (marks <= high)]


def _shares(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Positions of values between `low` and `high`, in percent."""
    return np.asarray(100 * (np.asarray(values) - low) / (high - low))


def _anchor(percent: float) -> str:
    return "start" if percent < 8 else "end" if percent > 92 else "middle"


def _rect(name: str, left: float, right: float, top: float, height: float) -> str:
    width = max(right - left, 0)
    return f'<rect class="{name}" x="{left:.2f}%" width="{width:.2f}%" y="{top:g}" height="{height:g}"/>'


def _whisker(low: float, high: float, y: float) -> str:
    """Draw a horizontal interval with its two ends."""
    ends = "".join(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y - 6:g}" y2="{y + 6:g}"/>' for x in (low, high))
    return f'<g class="whisker"><line x1="{low:.2f}%" x2="{high:.2f}%" y1="{y:g}" y2="{y:g}"/>{ends}</g>'


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


def _lines(chart: Chart, known: NDArray[np.float64]) -> str:
    bottom, top, marks = _axis(known, 5)
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
    for x, text in zip(_shares(across, left, right), tick_texts(across), strict=True):
        parts.append(f'<line class="tick" x1="{x:.2f}%" x2="{x:.2f}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>')
        parts.append(f'<text x="{x:.2f}%" y="{HEIGHT + 19}" class="middle">{text}</text>')
    stretched, upright = [], []
    for index, series in enumerate(chart.series):
        x = _shares(np.asarray(series.x, dtype=np.float64), left, right)
        y, (low, high) = down(series.figures), down(series.ends)
        stretched.append(f'<g class="{_style(index)}">{_band(x, low, high)}{_line(x, y)}</g>')
        upright.append(f'<g class="{_style(index)}">{_points(x, y, low, high)}</g>')
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


def _bars(chart: Chart, known: NDArray[np.float64]) -> str:
    low, high, marks = _axis(np.append(known, 0.0), 5)
    zero = float(_shares(0.0, low, high))
    limits = [(name, float(_shares(level, low, high))) for name, level in chart.limits]
    upright = "".join(
        f'<line class="{name}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>'
        for name, x in [
            *(("grid", float(x)) for x in _shares(marks, low, high)),
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
    for name, places in _indices_by_x(chart).items():
        bars, texts = [], []
        for index, (series, place) in enumerate(zip(chart.series, places, strict=True)):
            if place is None:
                texts.append("<span></span>")
                continue
            value, ends = series.figures[place], series.ends[:, place]
            texts.append(f"<span>{interval_text(Interval(value, *ends))}</span>")
            at, y = float(_shares(value, low, high)), _ROOM + _BAR * index
            if not math.isnan(at):
                bar = _rect("bar", min(zero, at), max(zero, at), y + 3, _BAR - 6)
                bars.append(f'<g class="{_style(index)}">{bar}</g>')
            if not np.isnan(ends).any():
                left, right = _shares(ends, low, high).tolist()
                bars.append(_whisker(left, right, y + _BAR / 2))
        cells.append(
            f'<p class="name">{html.escape(str(name))}</p><svg width="100%" height="{height}">{upright}'
            f'{"".join(bars)}</svg><p class="values">{"".join(texts)}</p>'
        )
    labels = "".join(
        f'<text x="{x:.2f}%" y="14" class="middle">{text}</text>'
        for x, text in zip(_shares(marks, low, high), tick_texts(marks), strict=True)
    )
    cells.append(f'<svg class="axis" width="100%" height="18" overflow="visible">{labels}</svg>')
    cells.append(f'<p class="unit axis">{html.escape(chart.y_label)}</p>')
    return f'<div class="bars"><p class="unit">{html.escape(chart.x_label)}</p>{"".join(cells)}</div>'
