"""Figures as JSON: what every command that prints figures writes for `--json PATH`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from robot_attn_policies.evaluation.statistics import Interval

Figure = dict[str, "float | str | None"]


def check_writable(path: Path) -> None:
    """Check that a file can be written, before hours of work rely on it; nothing is left behind.

    Raises:
        OSError: it cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    check_folder(path.parent, path)


def check_folder(folder: Path, path: Path | None = None) -> None:
    """Check that files can be written in a folder, or in the one that it would be made in.

    Raises:
        OSError: they cannot; it names `path`, or else the folder.
    """
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path or folder}: {error.strerror}: name another place") from error


def write_json(path: Path, figures: Mapping[str, object]) -> None:
    """Write `figures` to `path`, whole or not at all. Missing folders are made.

    Raises:
        ValueError: a figure is not a plain JSON value (NaN and infinity are none).
        OSError: the folder cannot be written, or the disk is full. What was at `path` is then still there.
    """
    # Here, because it brings torch, which the overview and a wrong option can do without.
    from robot_attn.files import replacing

    try:
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the figures for {path} must be plain, finite JSON values: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def figure(value: float, unit: str) -> dict[str, object]:
    """A single figure as JSON."""
    return {"value": value, "unit": unit}


def interval(found: Interval, unit: str) -> Figure:
    """A figure and its interval as JSON; one that does not exist (nothing to divide by) is null."""
    values = {name: value if value == value else None for name, value in found._asdict().items()}
    return {"value": values["value"], "unit": unit, "low": values["low"], "high": values["high"]}


def interval_text(figure: Mapping[str, Any], digits: int, *, factor: float = 1, sign: str = "") -> str:
    """What `interval` gave, for a table: `52.1 [50.3,53.9]`; with `sign` "+", `+0.2 [-0.1,+0.5]`."""
    if figure["value"] is None:
        return "-"
    value, low, high = (
        "-" if figure[name] is None else f"{figure[name] * factor:{sign}.{digits}f}"
        for name in ("value", "low", "high")
    )
    return f"{value} [{low},{high}]"


def figure_table(*columns: str, title: str | None = None, left: int = 1) -> Table:
    """A table of figures that fits in 80 columns, which is what a pipe has.

    Args:
        columns: their headings.
        title: what the table is of.
        left: how many columns, of names, are aligned to the left.
    """
    from rich.table import Table

    made = Table(
        title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
    )
    for index, column in enumerate(columns):
        # Folded where there is no room at all: a name or a figure that was cut is none.
        made.add_column(column, justify="left" if index < left else "right", overflow="fold")
    return made


def spread(values: Sequence[float], unit: str) -> dict[str, object]:
    """Median, least and greatest of the figures of a benchmark's rounds, and those figures."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": list(values),
        "unit": unit,
    }


def spread_table(title: str, rows: Mapping[Any, Sequence[float]], form: str) -> RenderableType:
    """A table of median, least and greatest of each row that has values, written with `form`.

    Prints nothing where no row has any.
    """
    from rich.console import Group

    if not any(rows.values()):
        return Group()
    table = figure_table("", "median", "min", "max", title=title)
    for name, values in rows.items():
        if values:
            table.add_row(name, *map(form.format, (statistics.median(values), min(values), max(values))))
    return table


def machine(*packages: str) -> dict[str, object]:
    """What a measurement was taken on: processor, cores that we may use, and the versions of `packages`."""
    from robot_attn.cores import usable_cores

    cpu = platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "processor": cpu,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
