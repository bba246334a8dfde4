"""Measure how many attention overlays are drawn a second on one core, against a Matplotlib baseline."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robot_attn_scripts import _report
from robot_attn_scripts._timing import TimedStep, one_thread, ratios, take_turns
from robot_attn_scripts.options.benchmarks.overlay import Options

FRAME, HEADS, CELLS, STEPS = 64, 8, 15, 60
PEER = "matplotlib and floats, one head"


def run(options: Options) -> dict[str, object]:
    """Measure, print the table, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: a replay cannot be drawn at this size.
    """
    import cv2

    ways = drawings(options.size)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with one_thread(), Console().status("measuring"):
            times = take_turns(ways, options.rounds)
    finally:
        cv2.setNumThreads(threads)
    rates = {name: [1e3 / milliseconds for milliseconds in row] for name, row in times.items()}
    figures: dict[str, object] = {
        "benchmark": "overlay",
        "machine": _report.machine("robot-attn", "opencv-python", "numpy", "matplotlib"),
        "size": _report.figure(options.size, "pixels"),
        "frames_per_second_on_one_core": {
            name: _report.spread(rate, "frames/s") for name, rate in rates.items()
        },
        "ratios": {
            f"{name} / {PEER}": _report.spread(ratios(rate, rates[PEER]), "x")
            for name, rate in rates.items()
            if name != PEER
        },
    }
    title = f"{FRAME} x {FRAME} frames with {HEADS} heads at {options.size} pixels: frames/s on one core"
    Console().print(_report.spread_table(title, rates, "{:,.0f}"))
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def drawings(size: int) -> dict[str, TimedStep]:
    """Make a step for each way to draw, by name. Each call draws the next frame.

    Raises:
        ValueError: a replay cannot be drawn at this size.
    """
    from robot_attn import AttentionGrid
    from robot_attn.drawing import HeatScale, Replay, blend_heat, overlay, scale_frame
    from robot_attn.episode import Episode

    frames, attention, masks = _episode()
    grid = AttentionGrid.even((CELLS, CELLS), (FRAME, FRAME))
    episode = Episode(
        images=frames,
        actions=np.zeros((STEPS, 2), dtype=np.float32),
        rewards=np.linspace(0, 1, STEPS),
        dones=np.arange(STEPS) == STEPS - 1,
        attention=attention,
        grid=grid,
        env_args={},
        seed=0,
        target_masks=masks,
    )
    replay = Replay(episode, size=size)
    scale = HeatScale(grid, (size, size))

    def every_head(step: int) -> list[NDArray[np.uint8]]:
        frame = scale_frame(frames[step], (size, size))
        return [blend_heat(frame, levels) for levels in scale.levels(attention[step])]

    ways = {
        "replay: large, 8 heads, curves, bars": replay.draw,
        "overlay: one picture, mean of 8 heads": lambda step: overlay(
            frames[step], attention[step], mask=masks[step], size=size
        ),
        "8 pictures, one a head": every_head,
        PEER: lambda step: draw_with_matplotlib(frames[step], attention[step, 0], size),
    }
    return {name: _next_step(draw) for name, draw in ways.items()}


def draw_with_matplotlib(
    frame: NDArray[np.uint8], weights: NDArray[np.float32], size: int, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Draw one head over its frame as tutorials do.

    Args:
        frame: uint8 [H, W, 3] RGB.
        weights: attention weights, float32 [rows, cols].
        size: side of the picture in pixels.
        opacity: weight of the colours, in [0, 1].

    Returns:
        uint8 [size, size, 3] RGB.
    """
    import cv2
    import matplotlib

    large = cv2.resize(frame, (size, size), interpolation=cv2.INTER_NEAREST)
    heat = cv2.resize(weights / weights.max(), (size, size), interpolation=cv2.INTER_CUBIC)
    colors = matplotlib.colormaps["inferno"](heat)[..., :3]
    blended = (1 - opacity) * large.astype(np.float64) / 255 + opacity * colors
    return np.asarray(255 * np.clip(blended, 0, 1), dtype=np.uint8)


def _next_step(draw: Any) -> TimedStep:
    steps = cycle(range(STEPS))
    return lambda: draw(next(steps))


def _episode() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Make frames of noise, maps with a few spots as those of trained heads, and masks of 9 x 9 pixels.

    Returns:
        Frames uint8 [T, H, W, 3], attention float32 [T, heads, rows, cols] and masks bool [T, H, W].
    """
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (STEPS, FRAME, FRAME, 3), dtype=np.uint8)
    attention = generator.dirichlet(np.full(CELLS**2, 0.05), (STEPS, HEADS)).astype(np.float32)
    masks = np.zeros((STEPS, FRAME, FRAME), dtype=bool)
    for mask, (y, x) in zip(masks, generator.integers(0, FRAME - 9, (STEPS, 2)), strict=True):
        mask[y : y + 9, x : x + 9] = True
    return frames, attention.reshape(STEPS, HEADS, CELLS, CELLS), masks
