"""Measure the cost of each perception family against Stable-Baselines3's NatureCNN, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from torch import Tensor, nn

import robot_attn
from robot_attn_scripts import _report
from robot_attn_scripts._timing import one_thread, seconds
from robot_attn_scripts.options.benchmarks.extractor import Options

IMAGE_SHAPE = (3, 64, 64)
PEER = "NatureCNN"
FRAMES_A_ROUND = 512
"""Frames per round. Small batches run several times in a round, so that it is long enough to time."""

Figure = dict[str, object]


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON file of --json, and return the figures."""
    from robot_attn_policies.training.process_settings import keep_memory

    keep_memory()  # as in training; NatureCNN and the families benefit from it
    console = Console()
    with console.status("measuring"):
        figures: dict[str, object] = {
            "benchmark": "extractor",
            "machine": _report.machine("robot-attn", "torch", "stable-baselines3"),
            "extractors": measure(options.batches, options.rounds),
            "decisions": measure_decisions(options.decisions),
        }
    _show(figures, console)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def measure(batches: Sequence[int] = (64, 512), rounds: int = 15) -> dict[str, dict[str, Figure]]:
    """Time forward and backward passes of each family and of NatureCNN on one thread.

    Args:
        batches: numbers of frames in a batch.
        rounds: repetitions of each measurement.

    Returns:
        Figures {"value", "unit", ...} of NatureCNN and each family: "parameters", and for each batch size B
        "batch B" (ms, with "min" and "max") and "batch B, ratio" (to the time of NatureCNN just before).
    """
    from stable_baselines3.common.torch_layers import NatureCNN

    modules: dict[str, nn.Module] = {
        PEER: NatureCNN(spaces.Box(0, 255, IMAGE_SHAPE, np.uint8)),
        **{name: robot_attn.build(name, IMAGE_SHAPE) for name in sorted(robot_attn.FAMILIES)},
    }
    table: dict[str, dict[str, Figure]] = {
        name: {
            "parameters": {
                "value": sum(parameter.numel() for parameter in module.parameters()),
                "unit": "parameters",
            }
        }
        for name, module in modules.items()
    }
    with one_thread():
        for batch in batches:
            frames = torch.rand(batch, *IMAGE_SHAPE)
            steps = {name: _step(module, frames) for name, module in modules.items()}
            for step in steps.values():
                seconds(step, 2)
            repeats = max(1, FRAMES_A_ROUND // batch)
            pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in steps if name != PEER}
            for _ in range(rounds):
                for name, times in pairs.items():
                    times.append((seconds(steps[PEER], repeats), seconds(steps[name], repeats)))
            peer_times = [1e3 * peer for times in pairs.values() for peer, _ in times]
            table[PEER][f"batch {batch}"] = _spread(peer_times, "ms")
            for name, times in pairs.items():
                table[name][f"batch {batch}"] = _spread([1e3 * own for _, own in times], "ms")
                table[name][f"batch {batch}, ratio"] = _spread([own / peer for peer, own in times], "x")
    return table


def measure_decisions(decisions: int = 500) -> dict[str, Figure]:
    """Time `predict` of a policy with each family on single observations, on one thread.

    The policy is the one that `robot-attn train track` builds.

    Args:
        decisions: number of observations.

    Returns:
        A figure in ms for each family.
    """
    from robot_attn_policies.sb3.policy import build_policy
    from robot_attn_policies.training.presets import TrainConfig

    observations = spaces.Dict(
        image=spaces.Box(0, 255, IMAGE_SHAPE, np.uint8), state=spaces.Box(-np.inf, np.inf, (4,), np.float32)
    )
    actions = spaces.Box(-1, 1, (2,), np.float32)
    observations.seed(0)
    observation = observations.sample()
    figures: dict[str, Figure] = {}
    with one_thread():
        for name in sorted(robot_attn.FAMILIES):
            policy = build_policy(TrainConfig("track", perception=name), observations, actions)
            policy.set_training_mode(False)
            predict = policy.predict
            for _ in range(20):
                predict(observation, deterministic=True)
            milliseconds = []
            for _ in range(decisions):
                started = time.perf_counter()
                predict(observation, deterministic=True)
                milliseconds.append(1e3 * (time.perf_counter() - started))
            figures[name] = _spread(milliseconds, "ms")
    return figures


def _step(module: nn.Module, frames: Tensor) -> Callable[[], None]:
    """Make a step: one forward and backward pass, to the gradients of all parameters."""

    def features() -> Tensor:
        output: Tensor | robot_attn.Percept = module(frames)
        return output.features if isinstance(output, robot_attn.Percept) else output

    with torch.no_grad():
        gradient = torch.randn_like(features())

    def step() -> None:
        module.zero_grad(set_to_none=True)
        features().backward(gradient)  # type: ignore[no-untyped-call]

    return step


def _spread(values: Sequence[float], unit: str) -> Figure:
    return {"value": statistics.median(values), "min": min(values), "max": max(values), "unit": unit}


def _show(figures: dict[str, object], console: Console) -> None:
    extractors, decisions = figures["extractors"], figures["decisions"]
    assert isinstance(extractors, dict) and isinstance(decisions, dict)
    columns = list(dict.fromkeys(column for row in extractors.values() for column in row))
    title = "forward + backward on one thread: ms, and ratio to NatureCNN (medians)"
    table = _report.figure_table("", *columns, title=title)
    for name, row in extractors.items():
        values = [row[column]["value"] if column in row else None for column in columns]
        table.add_row(name, *(_written(value) for value in values))
    console.print(table)
    title = "one decision of a whole policy, on one thread (ms)"
    table = _report.figure_table("", "median", "min", "max", title=title)
    for name, figure in decisions.items():
        table.add_row(name, *(f"{figure[column]:.3f}" for column in ("value", "min", "max")))
    console.print(table)


def _written(value: int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
