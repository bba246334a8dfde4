"""Measure the cost of each attention mechanism over the number of tokens, against torch's, on one thread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import robot_attn
from robot_attn.attention import SCORES, attend_blockwise, attend_folded, attend_local
from robot_attn_scripts import _report
from robot_attn_scripts._timing import (
    TimedStep,
    forward_and_backward,
    log_log_slope,
    one_thread,
    peak_bytes,
    ratios,
    take_turns,
)
from robot_attn_scripts.options.benchmarks.attention import Options

SIZE, HEADS = 64, 4
"""Dimension of a token, and number of heads that share it."""
WINDOW = 33
"""Keys in the window of a query of local attention."""
WEIGHTS = 1 << 22
"""The largest number of attention weights of a head over the batch, which shrinks to that."""
MOST_BYTES = 1 << 30
"""The largest size in bytes of the weights of a peer that stores them; it uses several times that memory."""
GROWTH_FROM = 1024
"""The smallest number of tokens in the growth figures: below it, fixed costs dominate."""
IMAGE_SHAPE, FRAMES = (3, 64, 64), 64
"""Shape and number of the frames in a batch of the families."""
LEANEST = ("query", "keypoints", "mask", "hierarchical")
"""Families with the target to cost no more than NatureCNN; the target of the others is three times that."""

VARIANTS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "": lambda tokens: {},
    ", masked": lambda tokens: {"mask": (torch.arange(tokens) % 5 != 1)[None, None, None]},
    ", own blocks": lambda tokens: {"score": SCORES["scaled_dot"]},
}
"""Options of `attend_blockwise` by the suffix of their figures; the mask hides every fifth key."""

Figure = dict[str, Any]
Entries = dict[str, Figure]
"""Figures by name."""
Section = dict[str, Entries]
"""Entries by number of tokens or by family."""


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON file of --json, and return the figures."""
    from robot_attn_policies.training.process_settings import keep_memory

    keep_memory()  # as in training; torch's mechanisms benefit from it as ours do
    console = Console()
    with console.status("measuring"), one_thread():
        sections = measure(sorted(set(options.tokens)), options.rounds)
    for name, section in sections.items():
        console.print(_table(f"{name}: forward + backward on one thread", section))
    figures: dict[str, object] = {
        "benchmark": "attention",
        "machine": _report.machine("robot-attn", "torch"),
        **sections,
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def measure(tokens: Sequence[int], rounds: int) -> dict[str, Section]:
    """Measure all figures, in the order in which they are printed."""
    families = sorted(set(robot_attn.FAMILIES) - {"cnn"})
    return {
        "folded": {_name(count): measure_folded(count, rounds) for count in tokens},
        "blockwise": measure_blockwise(tokens, rounds),
        "local": measure_local(tokens, rounds),
        "families": {name: measure_family(name, rounds) for name in families},
    }


def measure_folded(count: int, rounds: int) -> Entries:
    """Measure `attend_folded` against nn.MultiheadAttention, as self-attention and with a learned query.

    One learned query of MultiheadAttention is split into one for each head, which is what `attend_folded`
    has.
    """
    batch, size = _batch(count), SIZE // HEADS
    tokens = torch.randn(batch, count, SIZE, requires_grad=True)
    query = torch.randn(HEADS, size, requires_grad=True)
    to_key, to_value = (torch.randn(HEADS, size, SIZE).div_(SIZE**0.5).requires_grad_() for _ in range(2))
    peer = nn.MultiheadAttention(SIZE, HEADS, batch_first=True)
    learned = torch.randn(1, 1, SIZE, requires_grad=True)

    def attend(query: Tensor) -> Tensor:
        values: Tensor = peer(query, tokens, tokens, need_weights=True, average_attn_weights=False)[0]
        return values

    weights = list(peer.parameters())
    steps = {
        "attend_folded": forward_and_backward(
            lambda: attend_folded(tokens, query, to_key, to_value).values, [tokens, query, to_key, to_value]
        ),
        "learned queries": forward_and_backward(
            lambda: attend(learned.expand(batch, -1, -1)), [tokens, learned, *weights]
        ),
    }
    kept = batch * HEADS * count**2 * 4
    if kept <= MOST_BYTES:
        steps["self-attention"] = forward_and_backward(lambda: attend(tokens), [tokens, *weights])
    times = take_turns(steps, rounds)
    entries = {"batch": _report.figure(batch, "sequences")}
    entries |= {name: _report.spread(values, "ms") for name, values in times.items()}
    if kept > MOST_BYTES:
        entries["self-attention"] = {"skipped": f"its weights alone take {kept / 1e9:.1f} GB"}
    for name in steps:
        if name != "attend_folded":
            ratio = _report.spread(ratios(times[name], times["attend_folded"]), "x")
            entries[f"attend_folded is faster than {name} by"] = ratio
            if name == "self-attention" and count == 256:
                ratio["target"] = ">= 20"
    return entries


def measure_blockwise(tokens: Sequence[int], rounds: int) -> Section:
    """Measure `attend_blockwise` against scaled_dot_product_attention, and its memory.

    With the name of a score, it calls scaled_dot_product_attention, with a mask or without, and the ratio is
    its overhead. With a function as score, it computes block by block; the peer is the same.
    """
    section: Section = {_name(count): {} for count in tokens}
    memory: dict[str, dict[int, list[float]]] = {}
    for count in tokens:
        for variant in VARIANTS:
            what = f"memory of one sequence{variant}"
            # Each in a new process: memory left in the heap by another one would hide its own.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
                megabytes = processes.submit(blockwise_bytes, count, variant).result() / 1e6
            entries = _time_blockwise(count, variant, rounds) | {
                "memory of one sequence": _report.figure(megabytes, "MB")
            }
            section[_name(count)] |= {f"{name}{variant}": figure for name, figure in entries.items()}
            memory.setdefault(what, {})[count] = [megabytes]
    return section | _growth(memory)


def _time_blockwise(count: int, variant: str, rounds: int) -> Entries:
    batch = _batch(count)
    query, key, value = inputs = _queries_keys_values(batch, count)
    options = VARIANTS[variant](count)
    mask = options.get("mask")
    ours, peer = "attend_blockwise", "scaled_dot_product_attention"
    steps = {
        ours: forward_and_backward(lambda: attend_blockwise(query, key, value, **options).values, inputs),
        peer: forward_and_backward(lambda: F.scaled_dot_product_attention(query, key, value, mask), inputs),
    }
    times = take_turns(steps, rounds)
    ratio = _report.spread(ratios(times[ours], times[peer]), "x")
    return {
        "batch": _report.figure(batch, "sequences"),
        **{name: _report.spread(values, "ms") for name, values in times.items()},
        f"time, to that of {peer}": {**ratio, "target": "<= 1.3"},
    }


def blockwise_bytes(count: int, variant: str) -> int:
    """Measure the peak memory in bytes of a pass of `attend_blockwise`, without that of its inputs.

    This must run in a new process.
    """
    torch.set_num_threads(1)

    def measured(count: int) -> int:
        query, key, value = inputs = _queries_keys_values(1, count)
        options = VARIANTS[variant](count)
        gradient = torch.randn_like(query)
        return peak_bytes(
            lambda: torch.autograd.grad(
                attend_blockwise(query, key, value, **options).values, inputs, gradient
            )
        )

    measured(1)  # warm-up: loads code
    return measured(count)


def measure_local(tokens: Sequence[int], rounds: int) -> Section:
    """Measure `attend_local` on one sequence; all lengths take turns."""

    def step(count: int) -> TimedStep:
        query, key, value = inputs = _queries_keys_values(1, count)
        return forward_and_backward(lambda: attend_local(query, key, value, window=WINDOW).values, inputs)

    times = take_turns({_name(count): step(count) for count in tokens}, rounds)
    section = {name: {"attend_local": _report.spread(values, "ms")} for name, values in times.items()}
    return section | _growth({"attend_local": {count: times[_name(count)] for count in tokens}})


def measure_family(name: str, rounds: int) -> Entries:
    """Measure a family against "cnn", which is NatureCNN."""
    frames = torch.rand(FRAMES, *IMAGE_SHAPE)

    def step(family: str) -> TimedStep:
        module = robot_attn.build(family, IMAGE_SHAPE)
        return forward_and_backward(lambda: module(frames).features, list(module.parameters()))

    times = take_turns({family: step(family) for family in ("cnn", name)}, rounds)
    return {
        f"{FRAMES} frames": _report.spread(times[name], "ms"),
        "time, to that of cnn": {
            **_report.spread(ratios(times[name], times["cnn"]), "x"),
            "target": "<= 1.0" if name in LEANEST else "<= 3",
        },
    }


def _batch(count: int) -> int:
    """Return the number of sequences in a batch: 64, or fewer if they are long."""
    return max(1, min(64, WEIGHTS // count**2))


def _queries_keys_values(batch: int, count: int) -> list[Tensor]:
    return [torch.randn(batch, HEADS, count, SIZE // HEADS, requires_grad=True) for _ in range(3)]


def _name(count: int) -> str:
    return f"{count} tokens"


def _growth(figures: Mapping[str, Mapping[int, Sequence[float]]]) -> Section:
    """Compute the growth of each round's figures, or nothing if too few sizes were measured."""
    entries: Entries = {}
    for what, by_count in figures.items():
        counts = [count for count, values in by_count.items() if count >= GROWTH_FROM and min(values) > 0]
        if len(counts) > 1:
            by_round = zip(*(by_count[count] for count in counts), strict=True)
            slopes = [log_log_slope(counts, values) for values in by_round]
            entries[what] = {**_report.spread(slopes, "power of tokens"), "target": "<= 1.1"}
    return {f"growth from {GROWTH_FROM} tokens": entries} if entries else {}


def _table(title: str, section: Section) -> Table:
    table = _report.figure_table("", "", "median", "min .. max", "unit", "target", title=title, left=2)
    for name, entries in section.items():
        for index, (what, figure) in enumerate(entries.items()):
            table.add_row("" if index else name, what, *_written(figure))
    return table


def _written(figure: Figure) -> tuple[str, str, str, str]:
    """Format a figure: median or value, minimum and maximum, unit, target."""
    if "skipped" in figure:
        return "", f"skipped: {figure['skipped']}", "", ""
    spread = f"{figure['min']:,.4g} .. {figure['max']:,.4g}" if "min" in figure else ""
    value = figure["median"] if "median" in figure else figure["value"]
    return f"{value:,.4g}", spread, figure["unit"], figure.get("target", "")
