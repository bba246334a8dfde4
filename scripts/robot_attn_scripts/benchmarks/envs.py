"""Environment steps a second of every task, with visual shifts and without, and memory an environment."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from scipy.stats import binom

from robot_attn_envs import TASKS
from robot_attn_scripts import _report
from robot_attn_scripts._tasks import env_id
from robot_attn_scripts._timing import TimedStep, peak_bytes, ratios, take_turns
from robot_attn_scripts.options.benchmarks.envs import Options

FRAME = 64
"""Height and width of the frames in pixels."""
PEER = "track"
"""The task that the others are compared with."""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "no shifts": {},
    "hard": {"suite": "hard"},
    "mujoco_warp": {"renderer": "mujoco_warp"},
}
"""Ways to make an environment: as it comes, with shifts, and with mujoco_warp's ray caster for ours."""
JUDGED_ENVS = 64
"""The batch whose rates have targets."""
TARGETS = {"share": ">= 0.5", "gain": ">= 8", "cost": "<= 25", "memory": "<= 1"}
MEMORY_STEPS = 8
"""Steps of a batch, resets among them, after which its memory has been at its peak."""

Figure = dict[str, Any]
Figures = dict[str, Figure]
"""The figures of a task by name."""


def run(options: Options) -> dict[str, object]:
    """Measure, print tables and what of the targets was met, write the JSON if asked to; return the figures.

    Raises:
        ValueError: an unknown task, or nothing to measure.
    """
    chosen = map(env_id, (PEER, *options.tasks)) if options.tasks else TASKS
    ids = {gymnasium.spec(name).name.lower(): name for name in chosen}
    sizes, console = sorted(set(options.envs)), Console()
    rates: dict[str, dict[str, Figures]] = {}
    memory: dict[str, Figures] = {}
    with console.status("") as status:
        for envs in sizes:
            status.update(f"rates of {envs} environments")
            rates[_place(envs)] = measure_rates(ids, envs, options.rounds, options.steps)
        if len(sizes) > 1:
            # After the rates, whose kernels are then on the disk: compiling one takes memory too.
            status.update("memory")
            memory = measure_memory(ids, *sizes[-2:])
    for place, by_task in rates.items():
        _show(place, by_task, console)
    _show("memory", memory, console)
    for line in verdicts({**rates, "memory": memory}):
        console.print(line, highlight=False, soft_wrap=True)
    figures: dict[str, object] = {
        "benchmark": "envs",
        "machine": _report.machine("robot-attn", "mujoco", "mujoco-warp", "warp-lang", "gymnasium"),
        "frames": {"height": FRAME, "width": FRAME, "unit": "pixels"},
        "rates": rates,
        "memory": memory,
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def measure_rates(ids: Mapping[str, str], envs: int, rounds: int, steps: int) -> dict[str, Figures]:
    """Steps a second of each task in each of the `WAYS`, and how they compare."""
    batches = math.ceil(steps / envs)
    turns: dict[str, TimedStep] = {}
    with ExitStack() as stack:
        for task, name in ids.items():
            for way, options in WAYS.items():
                batch = stack.enter_context(closing(start(name, options, envs)))
                turns[f"{task}, {way}"] = partial(advance, batch, batches)
        times = take_turns(turns, rounds)
    figures: dict[str, Figures] = {}
    for task in ids:
        plain, hard, reference = (times[f"{task}, {way}"] for way in WAYS)
        share = ratios(times[f"{PEER}, no shifts"], plain)
        cost = [100 * (1 - ratio) for ratio in ratios(plain, hard)]
        figures[task] = {
            way: median([1e3 * batches * envs / time for time in each], "steps/s")
            for way, each in zip(WAYS, (plain, hard, reference), strict=True)
        }
        if task != PEER:
            figures[task]["share"] = median(share, "x Track's")
        figures[task]["gain"] = median(ratios(reference, plain), "x mujoco_warp")
        figures[task]["cost"] = median(cost, "% for hard")
        if envs == JUDGED_ENVS:
            for name in figures[task].keys() & TARGETS.keys():
                figures[task][name]["target"] = TARGETS[name]
    return figures


def start(name: str, options: Mapping[str, Any], envs: int) -> Any:
    """A batch whose environments are each somewhere in their first episodes."""
    batch: Any = gymnasium.make_vec(name, num_envs=envs, image_size=FRAME, **options)
    batch.action_space.seed(0)
    batch.reset(seed=0)
    batch.worlds.steps[:] = np.random.default_rng(0).integers(0, batch.horizon, envs)
    return batch


def advance(batch: Any, steps: int) -> None:
    """Step the batch with random actions."""
    for _ in range(steps):
        batch.step(batch.action_space.sample())


def measure_memory(ids: Mapping[str, str], fewer: int, more: int) -> dict[str, Figures]:
    """Memory that each environment adds, of each task, without shifts and with them."""
    from robot_attn.cores import usable_cores

    with ProcessPoolExecutor(
        usable_cores(),
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,
    ) as processes:
        peaks = {
            task: {
                way: [processes.submit(batch_bytes, name, dict(WAYS[way]), envs) for envs in (fewer, more)]
                for way in ("no shifts", "hard")
            }
            for task, name in ids.items()
        }

        def grown(few: Any, many: Any) -> Figure:
            megabytes = (many.result() - few.result()) / 1e6 / (more - fewer)
            figure = _report.figure(megabytes, "MB an environment")
            return {**figure, "environments": [fewer, more], "target": TARGETS["memory"]}

        return {task: {way: grown(*both) for way, both in by_way.items()} for task, by_way in peaks.items()}


def batch_bytes(name: str, options: Mapping[str, Any], envs: int) -> int:
    """Memory that a batch takes at its peak, made and stepped. For a separate process."""

    def make_and_step() -> None:
        with closing(start(name, options, envs)) as batch:
            advance(batch, MEMORY_STEPS)

    return peak_bytes(make_and_step)


def verdicts(figures: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """A line for each figure that has a target: whether its whole interval meets it, or misses it."""
    return [
        f"{_verdict(figure):<7} {figure['target']}: {task}, {place}, {what}: "
        f"{_written(figure)} {figure['unit']}"
        for place, by_task in figures.items()
        for task, by_name in by_task.items()
        for what, figure in by_name.items()
        if "target" in figure
    ]


def _show(title: str, by_task: Mapping[str, Figures], console: Console) -> None:
    """Print a table with a row a task and a column a figure; nothing where nothing was measured."""
    columns = dict.fromkeys(what for figures in by_task.values() for what in figures)
    units = {what: figure["unit"] for figures in by_task.values() for what, figure in figures.items()}
    table = _report.figure_table(title, *(f"{what}, {units[what]}" for what in columns))
    for task, figures in by_task.items():
        table.add_row(task, *(_written(figures[what]) if what in figures else "" for what in columns))
    if by_task:
        console.print(table)


def median(values: Sequence[float], unit: str) -> Figure:
    """The median of the rounds with its 95 % interval, which asks for 6 rounds or more."""
    ordered = sorted(values)
    # As many values lie below the median as a coin shows heads.
    outside = max(0, int(binom.ppf(0.025, len(ordered), 0.5)) - 1)
    return {**_report.spread(values, unit), "low": ordered[outside], "high": ordered[-1 - outside]}


def _written(figure: Figure) -> str:
    """Median and interval, or the only value."""
    if "value" in figure:
        return f"{figure['value']:,.2f}"
    digits = 0 if figure["unit"] == "steps/s" else 2
    value, low, high = (f"{figure[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return f"{value} [{low},{high}]"


def _verdict(figure: Figure) -> str:
    relation, bound = figure["target"].split()
    ends = [figure["value"]] if "value" in figure else [figure["low"], figure["high"]]
    met = [end >= float(bound) if relation == ">=" else end <= float(bound) for end in ends]
    return "meets" if all(met) else "unclear" if any(met) else "MISSES"


def _place(envs: int) -> str:
    return f"{envs} environment{'s' if envs > 1 else ''}"
