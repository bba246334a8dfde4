"""List the perception families: what each is good for, and what it costs on one thread."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import robot_attn
from robot_attn_scripts import _report
from robot_attn_scripts._timing import TimedStep, forward_and_backward, one_thread, take_turns
from robot_attn_scripts.options.families import Options

CHANNELS = 3

Facts = dict[str, Any]


def run(options: Options) -> dict[str, object]:
    """Measure, print the table, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: a family does not accept frames of this size.
    """
    console = Console(stderr=options.markdown)  # Markdown is often piped: keep stdout for the table
    with console.status("measuring"):
        families = measure(options.image_size, options.batch, options.rounds)
    if options.markdown:
        print(markdown(families))
    else:
        console.print(_table("frames of {} x {}".format(*options.image_size), families))
        console.print()
        console.print(_purposes(families))
    figures: dict[str, object] = {
        "command": "families",
        "machine": _report.machine("robot-attn", "torch"),
        "image_size": list(options.image_size),
        "families": families,
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def measure(image_size: tuple[int, int], batch: int, rounds: int) -> dict[str, Facts]:
    """Measure each family.

    Args:
        image_size: height and width of the frames in pixels.
        batch: frames in a batch, for the forward and backward passes.
        rounds: repetitions of each measurement.

    Returns:
        For each family what it is good for, its number of heads and grid, and figures with units.
    """
    image_shape = (CHANNELS, *image_size)
    modules = {name: robot_attn.build(name, image_shape) for name in sorted(robot_attn.FAMILIES)}
    one, many = torch.rand(1, *image_shape), torch.rand(batch, *image_shape)

    def forward(module: robot_attn.Perception) -> TimedStep:
        return torch.no_grad()(lambda: module(one))

    def forward_backward(module: robot_attn.Perception) -> TimedStep:
        return forward_and_backward(lambda: module(many).features, list(module.parameters()))

    with one_thread():
        single = take_turns({name: forward(module) for name, module in modules.items()}, rounds)
        batched = take_turns({name: forward_backward(module) for name, module in modules.items()}, rounds)
    return {
        name: {
            "good_for": module.good_for,
            "heads": module.num_heads,
            "grid": list(module.grid.shape),
            "parameters": _report.figure(sum(each.numel() for each in module.parameters()), "parameters"),
            "flops": _report.figure(count_flops(module), "FLOPs"),
            "forward": {"frames": 1, **_report.spread(single[name], "ms")},
            "forward + backward": {"frames": batch, **_report.spread(batched[name], "ms")},
        }
        for name, module in modules.items()
    }


def count_flops(module: robot_attn.Perception) -> int:
    """Count the FLOPs of the matrix products and convolutions of one forward pass over one frame.

    Gradients are disabled, since families then use plain operations, and the counter counts only those.
    """
    module = copy.deepcopy(module).requires_grad_(
        False
    )  # the counter fails on views of tensors that require a gradient
    frames = torch.rand(1, *module.image_shape)
    context = torch.zeros(1, module.context_dim) if module.context_dim else None
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(frames, context)
    return int(counter.get_total_flops())


def markdown(families: Mapping[str, Facts]) -> str:
    """Format all facts as a Markdown table."""
    columns = [*_columns(families), "good for"]
    rows = [[*row, facts["good_for"]] for row, facts in zip(_rows(families), families.values(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def _table(title: str, families: Mapping[str, Facts]) -> Table:
    table = _report.figure_table(*_columns(families), title=title)
    for row in _rows(families):
        table.add_row(*row)
    return table


def _purposes(families: Mapping[str, Facts]) -> Table:
    """Make a table of what each family is good for. It is separate, to fit in a terminal."""
    table = Table.grid(padding=(0, 2))
    for name, facts in families.items():
        table.add_row(name, facts["good_for"])
    return table


def _columns(families: Mapping[str, Facts]) -> list[str]:
    batch = next(iter(families.values()))["forward + backward"]["frames"]
    times = ["1 frame, forward (ms)", f"{batch} frames, both ways (ms)"]
    return ["family", "parameters", "MFLOPs", *times, "heads", "grid"]


def _rows(families: Mapping[str, Facts]) -> list[list[str]]:
    return [
        [
            name,
            f"{facts['parameters']['value']:,}",
            f"{facts['flops']['value'] / 1e6:,.2f}",
            *(f"{facts[key]['median']:,.2f}" for key in ("forward", "forward + backward")),
            str(facts["heads"]),
            " x ".join(map(str, facts["grid"])),
        ]
        for name, facts in families.items()
    ]
