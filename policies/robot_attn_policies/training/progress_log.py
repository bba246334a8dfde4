"""Log of a training run: progress.csv and TensorBoard events."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from robot_attn_policies.training.attention_log import ATTENTION_COLUMNS
from robot_attn_policies.training.run_folder import PROGRESS, TENSORBOARD, RunError, as_run_error

COLUMNS = (
    "steps",
    "seconds",
    "steps_per_second",
    "episode_return",
    "episode_length",
    "episode_success",
    "eval_return",
    "eval_success",
    "eval_score",
    "learning_rate",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "std",
    *ATTENTION_COLUMNS,
)
"""Columns of a new progress.csv; a file that an earlier version began keeps its own. A cell is empty if the
row has no such figure."""


class ProgressLog:
    """progress.csv and the TensorBoard events: a row per update, and one for a final evaluation.

    On resuming, rows written after the checkpoint are dropped: those steps are trained again.

    Args:
        folder: the run folder.

    Attributes:
        size: bytes of progress.csv.
        row: the last row.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._events_folder = folder / PROGRESS, folder / TENSORBOARD
        self._file: BinaryIO | None = None
        self._events: Any = None
        self._columns = COLUMNS
        self.size = 0
        self.row: dict[str, float] = {}

    def open(self, size: int, steps: int) -> None:
        """Open the files for appending.

        Args:
            size: bytes of progress.csv to keep; 0 starts a new file.
            steps: environment steps that those bytes cover.

        Raises:
            RunError: progress.csv is shorter, or cannot be written.
        """
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        with as_run_error(self._path):
            found = self._path.stat().st_size if self._path.exists() else 0
            if found < size:
                raise RunError(
                    f"{self._path} was truncated: expected at least {size} bytes, got {found}: restore the "
                    "original"
                )
            file = self._file = self._path.open("r+b" if found else "wb")
            if size:
                self._columns = tuple(file.readline().decode().rstrip("\n").split(","))
            file.truncate(size)
            file.seek(size)
            if size == 0:
                file.write(",".join(COLUMNS).encode() + b"\n")
                for stale in self._events_folder.glob("events.*"):
                    stale.unlink()
            self.size = file.tell()
            # TensorBoard drops earlier events of these steps: they are trained again.
            purge_step = steps + 1 if size else None
            self._events = SummaryWriter(str(self._events_folder), purge_step=purge_step)

    def add(self, steps: int, figures: Mapping[str, float]) -> None:
        """Append a row.

        Args:
            steps: environment steps trained.
            figures: values by the names of `COLUMNS`; names that are not columns of the file are logged to
                TensorBoard only.

        Raises:
            RunError: a file cannot be written.
        """
        assert self._file is not None
        self.row = {"steps": steps, **figures}
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writerow(
            {name: value if isinstance(value, int) else f"{value:.8g}" for name, value in self.row.items()}
        )
        with as_run_error(self._path):
            self._file.write(text.getvalue().encode())
        self.size = self._file.tell()
        with as_run_error(self._events_folder):
            for name, value in figures.items():
                self._events.add_scalar(name, value, steps)

    def flush(self) -> None:
        """Write all rows to disk."""
        assert self._file is not None
        with as_run_error(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        with as_run_error(self._events_folder):
            self._events.flush()

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._events):
            if file is not None:
                # Everything up to the last checkpoint was flushed, and a full disk was reported then.
                with contextlib.suppress(OSError):
                    file.close()
