"""Axes of charts: their range, their ticks, and the positions of values on them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn_policies.pages.chart import Chart

_FLATTENED = 2.0  # times as long: an axis on which intervals take the room of the figures


def axis_values(chart: Chart) -> NDArray[np.float64]:
    """Select the values that an axis has to cover, float64 [N] without NaN.

    These are all figures and limits, and zero for bars. The ends of intervals are clipped if a few wide ones
    would flatten the rest: if the axis got more than twice as long by what reaches farther beyond the
    figures than the median width of an interval.
    """
    zero = [0.0] if chart.kind == "bars" else []
    figures = np.concatenate([*(series.figures for series in chart.series), zero])
    fixed = np.append(figures[~np.isnan(figures)], [level for _, level in chart.limits])
    ends = np.concatenate([series.ends for series in chart.series], axis=1)
    ends = ends[:, ~np.isnan(ends[0])]
    known = np.append(fixed, ends)
    if ends.size == 0 or fixed.size == 0:
        return known
    width = np.sort(ends[1] - ends[0])[(ends.shape[1] - 1) // 2]
    clipped = np.clip(known, fixed.min() - width, fixed.max() + width)
    return clipped if 0 < _FLATTENED * np.ptp(clipped) < np.ptp(known) else known


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


def value_axis(known: NDArray[np.float64], count: int) -> tuple[float, float, NDArray[np.float64]]:
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


def shares(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Positions of values between `low` and `high`, in percent."""
    return np.asarray(100 * (np.asarray(values) - low) / (high - low))
