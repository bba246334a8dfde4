"""Figures with units: the JSON that commands write for `--json PATH`, and tables for the terminal."""

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


def check_new(path: Path) -> None:
    """Check that a file does not exist yet, so that no result of an earlier run is lost.

    Raises:
        FileExistsError: it exists.
    """
    if os.path.lexists(path):
        raise FileExistsError(
            f"expected new files, got {path}, which exists: name another place, or add --force to replace it"
        )


def check_writable(path: Path) -> None:
    """Check that a file can be written, before hours of work rely on it. Nothing is written.

    Raises:
        OSError: the file cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {path}: name a file in it")
    check_folder(path.parent, path)


def check_folder(folder: Path, path: Path | None = None) -> None:
    """Check that files can be written in a folder, or that the folder can be created.

    Args:
        folder: the folder, which need not exist.
        path: file to name in the error. Default: the folder.

    Raises:
        OSError: files cannot be written there.
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
    """Write figures to a JSON file. Missing folders are created.

    Args:
        path: the file. An existing one is replaced only once the new one is complete.
        figures: plain JSON values; NaN and infinity are not allowed.

    Raises:
        ValueError: a figure is not a plain, finite JSON value.
        OSError: the folder cannot be written, or the disk is full.
    """
    # Not at the top: it imports torch, which the overview and option errors do not need.
    from robot_attn.files import replacing

    try:
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected plain, finite JSON values for {path}, got one that is not: {error}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def figure(value: float, unit: str) -> dict[str, object]:
    """Make the JSON of a single figure."""
    return {"value": value, "unit": unit}


def interval(found: Interval, unit: str) -> Figure:
    """Make the JSON of a figure with its interval. NaN, from a division by nothing, becomes null."""
    values = {name: value if value == value else None for name, value in found._asdict().items()}
    return {"value": values["value"], "unit": unit, "low": values["low"], "high": values["high"]}


def interval_text(figure: Mapping[str, Any], digits: int, *, factor: float = 1, sign: str = "") -> str:
    """Format a figure of `interval`: `52.1 [50.3,53.9]`, or with `sign` "+" `+0.2 [-0.1,+0.5]`."""
    if figure["value"] is None:
        return "-"
    value, low, high = (
        "-" if figure[name] is None else f"{figure[name] * factor:{sign}.{digits}f}"
        for name in ("value", "low", "high")
    )
    return f"{value} [{low},{high}]"


def figure_table(*columns: str, title: str | None = None, left: int = 1) -> Table:
    """Make an empty table in the style of all commands.

    Args:
        *columns: headings. To be readable in a pipe, a table should fit in 80 columns of text.
        title: title of the table.
        left: number of columns to align to the left; they hold names.
    """
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold"
    )
    for index, column in enumerate(columns):
        # Fold rather than truncate: a truncated name or figure would be wrong.
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    return table


def spread(values: Sequence[float], unit: str) -> dict[str, object]:
    """Make the JSON of a figure measured in several rounds: median, minimum, maximum and all values."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": list(values),
        "unit": unit,
    }


def spread_table(title: str, rows: Mapping[Any, Sequence[float]], form: str) -> RenderableType:
    """Make a table of the median, minimum and maximum of each row. Rows without values are left out.

    Args:
        title: title of the table.
        rows: values by name of the row.
        form: format of a value, such as "{:,.1f}".

    Returns:
        The table, or something that prints nothing if no row has values.
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
    """Describe this machine: processor, usable cores, and the versions of Python and of `packages`."""
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
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
