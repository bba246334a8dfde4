"""The content of charts: series with intervals, and their figures as a table and as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn_policies.evaluation.statistics import Interval


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
        return finite(self.y)

    @property
    def ends(self) -> NDArray[np.float64]:
        """float64 [2, N], `low` and `high`; NaN where there is no interval."""
        if self.low is None or self.high is None:
            return np.full((2, len(self.figures)), np.nan)
        ends = np.stack([finite(self.low), finite(self.high)])
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
    rows = indices_by_x(chart)
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


def indices_by_x(chart: Chart) -> dict[str | float, list[int | None]]:
    """Return each x with its index in each series; numbers sorted, labels in order of appearance."""
    rows: dict[str | float, list[int | None]] = {}
    for index, series in enumerate(chart.series):
        for place, x in enumerate(np.asarray(series.x).tolist()):
            name = x if chart.kind == "lines" else str(x)
            rows.setdefault(name, [None] * len(chart.series))[index] = place
    return dict(sorted(rows.items())) if chart.kind == "lines" else rows


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """Convert values to float64, with NaN where they are not finite."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)
