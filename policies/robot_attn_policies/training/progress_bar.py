"""The progress bar of a training run, and its throughput."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from robot_attn_policies.training.presets import TrainConfig


def pace(per_second: float, left: int, unit: str = "steps") -> str:
    """Format a throughput and the remaining time: `1,204 steps/s · 3:20 left`.

    Args:
        per_second: throughput.
        left: remaining steps.
        unit: what is counted, if not steps.
    """
    seconds = left / per_second
    return f"{per_second:,.0f} {unit}/s · {seconds // 60:.0f}:{seconds % 60:02.0f} left"


class ProgressBar:
    """A bar with steps, steps per second, time left, mean return and last evaluation score.

    Args:
        console: where to draw it; None draws nothing.
        config: the training's configuration.
        steps: environment steps already done.
    """

    def __init__(self, console: Console | None, config: TrainConfig, steps: int) -> None:
        self._total, self._evaluation = config.steps, ""
        self._rest: list[str] = []  # what follows the number of steps, once an update has measured it
        self._shown = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=8),  # so that the whole line fits in 80 columns
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=console is None,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            config.task, total=config.steps, completed=steps, figures="first rollout ..."
        )

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def collect(self, steps: int, steps_per_second: float) -> None:
        """Show that a rollout is being collected, at most twice a second; the first rollout with its rate.

        Args:
            steps: environment steps done.
            steps_per_second: throughput of this rollout.
        """
        if time.monotonic() - self._shown < 0.5:
            return
        self._shown = time.monotonic()
        rest = self._rest or [f"{steps_per_second:,.0f} steps/s", "first rollout ..."]
        figures = " · ".join([f"{steps:,}", *rest])
        self._progress.update(self._task, completed=min(steps, self._total), figures=figures)

    def show(self, steps: int, row: Mapping[str, float]) -> None:
        """Show the state after an update.

        Args:
            steps: environment steps done.
            row: the update's row of progress.csv.
        """
        parts = [pace(row["steps_per_second"], max(self._total - steps, 0))]
        if "episode_return" in row:
            parts.append(f"return {row['episode_return']:.1f}")
        if "eval_score" in row:
            self._evaluation = f"score {row['eval_score']:.3g}"
        if self._evaluation:
            parts.append(self._evaluation)
        self._rest = parts
        figures = " · ".join([f"{steps:,}", *parts])
        self._progress.update(self._task, completed=min(steps, self._total), figures=figures)
