"""Frames a second of the Track scene, 64 x 64, beside other renderers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from rich.console import Console

from robot_attn_scripts import _render_peers, _report
from robot_attn_scripts.options.benchmarks.render import Options

FRAME = 64
"""Height and width of the frames in pixels."""
RATIOS = (("ours", "gymnasium"), ("ours", "mujoco"), ("ours", "mujoco_masks"))
"""Who is divided by whom, where both were measured."""


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON if asked to, and return the figures.

    Raises:
        ValueError: nothing to measure, or our own camera failed.
    """
    from robot_attn.cores import usable_core_ids

    console, cores = Console(), usable_core_ids()
    works: dict[str, tuple[_render_peers.Work, tuple[Any, ...], int]] = {
        "ours": (_ours, (options.worlds, 1), options.frames),
        "gymnasium": (_gymnasium, (options.worlds,), options.worlds),
        "mujoco": (_mujoco, (options.worlds, False), 8 * options.worlds),
        "mujoco_masks": (_mujoco, (options.worlds, True), 4 * options.worlds),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    failures: dict[str, str] = {}
    scaling: dict[int, list[float]] = {threads: [] for threads in range(1, len(cores) + 1)}
    processes: list[float] = []
    with ExitStack() as stack, console.status("") as status:
        peers: dict[str, _render_peers.Peer] = {}
        for name, (work, arguments, _) in works.items():
            status.update(f"starting {name}")
            peer = stack.enter_context(_render_peers.peer(name, work, *arguments, cores=cores[:1]))
            answer = peer.answer()
            if not isinstance(answer, str):
                peers[name] = peer
            elif name == "ours":
                raise ValueError(f"ours could not be measured: {answer}")
            else:
                failures[name] = answer
        threaded = {
            threads: stack.enter_context(
                _render_peers.peer(
                    f"{threads} threads", _ours, options.worlds, threads, cores=cores[:threads]
                )
            )
            for threads in scaling
        }
        alone = [
            stack.enter_context(_render_peers.peer(f"core {core}", _ours, options.worlds, 1, cores=[core]))
            for core in cores
        ]
        for peer in (*threaded.values(), *alone):
            peer.answer()
        for number in range(1, options.rounds + 1):
            status.update(f"round {number} of {options.rounds}")
            for name, peer in peers.items():
                rates[name].append(peer.measure(works[name][2]))
            for threads, peer in threaded.items():
                scaling[threads].append(peer.measure(options.frames * threads))
            for peer in alone:
                peer.start(options.frames)
            processes.append(sum(peer.finish() for peer in alone))

    ratios = {
        f"{over} / {under}": _divided(rates[over], rates[under])
        for over, under in RATIOS
        if over in peers and under in peers
    }
    efficiency = {
        f"{threads} threads": [rate / threads for rate in _divided(values, scaling[1])]
        for threads, values in scaling.items()
    }
    efficiency[f"{len(cores)} processes"] = [rate / len(cores) for rate in _divided(processes, scaling[1])]
    by_threads = {f"{threads} threads": values for threads, values in scaling.items()}
    by_threads[f"{len(cores)} processes"] = processes
    figures: dict[str, object] = {
        "benchmark": "render",
        "machine": _report.machine("robot-attn", "mujoco", "mujoco-warp", "warp-lang", "gymnasium"),
        "scene": {"task": "track", "height": FRAME, "width": FRAME, "unit": "pixels"},
        "frames_per_second_on_one_core": {
            name: {"not measured": failures[name]}
            if name in failures
            else _report.spread(rates[name], "frames/s")
            for name in works
        },
        "ratios": {name: _report.spread(values, "x") for name, values in ratios.items()},
        "frames_per_second_by_threads": {
            name: _report.spread(values, "frames/s") for name, values in by_threads.items()
        },
        "efficiency_by_threads": {
            name: _report.spread(values, "of a core for each thread or process")
            for name, values in efficiency.items()
        },
    }
    console.print(_report.spread_table("frames a second on one core", rates, "{:,.1f}"))
    console.print(_report.spread_table("ratio within a round", ratios, "{:,.2f}"))
    console.print(_report.spread_table("frames a second of ours", by_threads, "{:,.0f}"))
    console.print(_report.spread_table("each thread's or process's worth, of a core", efficiency, "{:.2f}"))
    for name, reason in failures.items():
        console.print(f"{name} was not measured: {reason}", highlight=False, soft_wrap=True)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def _divided(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def _worlds(count: int, threads: int) -> Any:
    """Track's worlds, each somewhere on the way through its episode, with the target kept in view."""
    from robot_attn_envs.tasks.track import Track
    from robot_attn_envs.worlds import Worlds

    worlds = Worlds(Track, count, image_size=FRAME, threads=threads)
    worlds.seed(range(count))
    worlds.reset(np.arange(count))
    for _ in range(40):
        worlds.step(worlds.oracle())
    return worlds


@contextmanager
def _ours(count: int, threads: int) -> Iterator[_render_peers.Advance]:
    worlds = _worlds(count, threads)

    def advance(frames: int) -> int:
        rounds = frames // count
        for _ in range(rounds):
            worlds.render()
        return rounds * count

    try:
        advance(count)
        yield advance
    finally:
        worlds.close()


@contextmanager
def _gymnasium(count: int) -> Iterator[_render_peers.Advance]:
    with _render_peers.opengl():
        import mujoco
        from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

        worlds = _worlds(count, 1)
        model, data = worlds.model, mujoco.MjData(worlds.model)
        renderer = MujocoRenderer(model, data, width=FRAME, height=FRAME, camera_name=worlds.task.camera)
        renderer.render("rgb_array")
    try:
        yield _one_by_one(worlds, data, lambda: renderer.render("rgb_array"))
    finally:
        renderer.close()  # type: ignore[no-untyped-call]


@contextmanager
def _mujoco(count: int, masks: bool) -> Iterator[_render_peers.Advance]:
    with _render_peers.opengl():
        import mujoco

        worlds = _worlds(count, 1)
        model = worlds.model
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0
        model.vis.quality.offsamples = 0
        data = mujoco.MjData(model)
        renderer = mujoco.Renderer(model, FRAME, FRAME)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = 0

    def render() -> None:
        renderer.update_scene(data, camera=worlds.task.camera)
        renderer.render()
        if masks:
            renderer.enable_segmentation_rendering()
            renderer.render()
            renderer.disable_segmentation_rendering()

    try:
        yield _one_by_one(worlds, data, render)
    finally:
        renderer.close()


def _one_by_one(worlds: Any, data: Any, render: Callable[[], object]) -> _render_peers.Advance:
    """Draw world after world with a renderer of one `MjData`; setting the world up is a small part of it."""
    import mujoco

    model, count = worlds.model, worlds.num_worlds
    states, colours = worlds.batch.state, worlds.camera.geom_rgba

    def advance(frames: int) -> int:
        for frame in range(frames):
            world = frame % count
            mujoco.mj_setState(model, data, states[world], mujoco.mjtState.mjSTATE_INTEGRATION)
            model.geom_rgba[:] = colours[world]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            render()
        return frames

    advance(2)
    return advance
