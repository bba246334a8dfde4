"""Frames a second of our renderer, beside other renderers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robot_attn_scripts import _render_peers, _report
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts.options.benchmarks.render import Options


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables, write the JSON if asked to, and return the figures.

    Raises:
        ValueError: nothing to measure, or our own camera failed.
    """
    from robot_attn.cores import usable_core_ids

    console, cores = Console(), usable_core_ids()
    rates, ratios, failures = {}, {}, {}
    with console.status("") as status:
        for scene in options.scenes:
            for size in options.size:
                name = f"{scene.rpartition('/')[2]}, {size} x {size}"
                measured, failures[name] = _on_one_core(scene, size, options, cores[0], status)
                rates[name] = measured
                ratios[name] = {
                    f"ours / {peer}": _divided(measured["ours"], values)
                    for peer, values in measured.items()
                    if peer != "ours"
                }
        scaling, processes = _on_all_cores(options, cores, status)
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
        "sizes": {"height and width": list(options.size), "unit": "pixels"},
        "worlds": options.worlds,
        "frames": {"in a round of ours": options.frames},
        "frames_per_second_on_one_core": {
            scene: {peer: _report.spread(values, "frames/s") for peer, values in measured.items()}
            | {peer: {"not measured": reason} for peer, reason in failures[scene].items()}
            for scene, measured in rates.items()
        },
        "ratios": {
            scene: {name: _report.spread(values, "x") for name, values in divided.items()}
            for scene, divided in ratios.items()
        },
        "frames_per_second_by_threads": {
            name: _report.spread(values, "frames/s") for name, values in by_threads.items()
        },
        "efficiency_by_threads": {
            name: _report.spread(values, "of a core for each thread or process")
            for name, values in efficiency.items()
        },
    }
    for scene, measured in rates.items():
        console.print(_report.spread_table(f"{scene}: frames/s on one core", measured, "{:,.1f}"))
        console.print(_report.spread_table("ratio within a round", ratios[scene], "{:,.2f}"))
        for peer, reason in failures[scene].items():
            console.print(f"{peer} was not measured: {reason}", highlight=False, soft_wrap=True)
    console.print(_report.spread_table("frames a second of ours", by_threads, "{:,.0f}"))
    console.print(_report.spread_table("each thread's or process's worth, of a core", efficiency, "{:.2f}"))
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def _on_one_core(
    scene: str, size: int, options: Options, core: int, status: Any
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Frames a second by peer, a figure for each round; and why a peer has none."""
    worlds = options.worlds
    works: dict[str, tuple[_render_peers.Work, tuple[Any, ...], int]] = {
        "ours": (_camera, (1, "tiled"), options.frames),
        "mujoco_warp": (_camera, (1, "mujoco_warp"), 8 * worlds),
        "mujoco": (_mujoco, (False,), 8 * worlds),
        "mujoco_masks": (_mujoco, (True,), 4 * worlds),
        "gymnasium": (_gymnasium, (), worlds),
    }
    if options.suite is not None:
        works[f"ours, {options.suite}"] = (_camera, (1, "tiled", options.suite), options.frames)
    failures: dict[str, str] = {}
    peers: dict[str, _render_peers.Peer] = {}
    with ExitStack() as stack:
        for name, (work, arguments, _) in works.items():
            status.update(f"{scene}, {size} x {size}: starting {name}")
            what = (scene, parse_pairs(options.env), size, worlds, *arguments)
            peer = stack.enter_context(_render_peers.peer(name, work, *what, cores=[core]))
            answer = peer.answer()
            if not isinstance(answer, str):
                peers[name] = peer
            elif work is _camera and "tiled" in arguments:
                raise ValueError(f"{name} could not be measured: {answer}")
            else:
                failures[name] = answer
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for number in range(1, options.rounds + 1):
            status.update(f"{scene}, {size} x {size}: round {number} of {options.rounds}")
            for name, peer in peers.items():
                rates[name].append(peer.measure(works[name][2]))
    return rates, failures


def _on_all_cores(
    options: Options, cores: list[int], status: Any
) -> tuple[dict[int, list[float]], list[float]]:
    """Frames a second of the first scene by number of threads, and of a process on each core together."""
    what = (options.scenes[0], parse_pairs(options.env), options.size[0], options.worlds)
    scaling: dict[int, list[float]] = {threads: [] for threads in range(1, len(cores) + 1)}
    processes: list[float] = []
    with ExitStack() as stack:
        threaded = {
            threads: stack.enter_context(
                _render_peers.peer(
                    f"{threads} threads", _camera, *what, threads, "tiled", cores=cores[:threads]
                )
            )
            for threads in scaling
        }
        alone = [
            stack.enter_context(_render_peers.peer(f"core {core}", _camera, *what, 1, "tiled", cores=[core]))
            for core in cores
        ]
        for peer in (*threaded.values(), *alone):
            peer.answer()
        for number in range(1, options.rounds + 1):
            status.update(f"threads: round {number} of {options.rounds}")
            for threads, peer in threaded.items():
                scaling[threads].append(peer.measure(options.frames * threads))
            for peer in alone:
                peer.start(options.frames)
            processes.append(sum(peer.finish() for peer in alone))
    return scaling, processes


@dataclass(frozen=True)
class Scene:
    """Worlds of a scene, each somewhere on the way through an episode."""

    model: Any
    camera: Any
    """As `BatchCamera` takes it."""
    kinematics: dict[str, NDArray[Any]]
    """What a camera draws from, [worlds, ...]."""
    states: NDArray[np.float64]
    """MuJoCo's integration states, [worlds, size]."""
    colors: NDArray[np.float32]
    """Colours of the geoms, [worlds, ngeom, 4]."""
    lens: Any = None
    """Image effects of a suite of shifts; None without."""
    view: Any = None
    """The free camera of an environment, an `MjvCamera`; None with a camera of the model."""

    @property
    def drawn_whole(self) -> dict[str, Any]:
        """Options of `BatchCamera`: sky and sites are drawn in environments that are not ours."""
        return {"sky": None, "sites": True} if "site_xpos" in self.kinematics else {}

    def peers_camera(self) -> Any:
        """The camera as `mujoco.Renderer` takes it."""
        return self.camera if self.view is None else self.view

    def gymnasiums_camera(self) -> dict[str, Any]:
        """The camera as options of Gymnasium's `MujocoRenderer`."""
        if self.view is None:
            which = "camera_name" if isinstance(self.camera, str) else "camera_id"
            return {which: self.camera}
        numbers = {name: getattr(self.view, name) for name in ("distance", "azimuth", "elevation")}
        return {"camera_id": -1, "default_cam_config": {**numbers, "lookat": np.array(self.view.lookat)}}


def load_scene(
    scene: str, worlds: int, suite: str | None = None, env: Mapping[str, Any] = MappingProxyType({})
) -> Scene:
    """The worlds of a task, or of an environment or an MJCF file after random actions.

    Args:
        scene: the task; the id of an environment with a MuJoCo model, or module:id; or PATH:CAMERA of the
            file.
        worlds: number of worlds.
        suite: the suite of visual shifts that the task's worlds have; None for none.
        env: options of the environment, and its `camera`.

    Raises:
        ValueError: neither a task nor an environment with a MuJoCo model, nor PATH:CAMERA of a file that
            MuJoCo loads.
    """
    from robot_attn_envs.registry import TASKS
    from robot_attn_scripts._tasks import env_id

    path, _, camera = scene.rpartition(":")
    if Path(path).suffix:  # the name of a module has none
        return _from_file(Path(path), camera, worlds)
    name = env_id(scene)
    if name in TASKS:
        if env:
            raise ValueError(f"expected --env with environments only, got {dict(env)} for the task {scene!r}")
        return _from_task(name, worlds, suite)
    if suite is not None:
        raise ValueError(f"expected only tasks with --suite, got {name}: measure it without")
    return _from_environment(name, dict(env), worlds)


def _from_task(name: str, count: int, suite: str | None) -> Scene:
    from robot_attn_envs.make import load_task
    from robot_attn_envs.registry import TASKS
    from robot_attn_envs.render.camera import KINEMATICS
    from robot_attn_envs.worlds import Worlds

    worlds = Worlds(load_task(TASKS[name]), count, threads=1, suite=suite)
    worlds.seed(range(count))
    worlds.reset(np.arange(count))
    for _ in range(40):
        worlds.step(worlds.oracle())
    kinematics = {field: worlds.batch.bind(field).copy() for field in KINEMATICS}
    kinematics = worlds.shifts.apply(kinematics, worlds.steps)
    states, colors = worlds.batch.state.copy(), worlds.camera.geom_rgba.copy()
    return Scene(worlds.model, worlds.task.camera, kinematics, states, colors, worlds.shifts.lens)


def _from_file(path: Path, camera: str, count: int) -> Scene:
    import mujoco

    from robot_attn_envs.render.camera import KINEMATICS

    if not path.is_file():
        raise ValueError(f"expected a task or PATH:CAMERA of an MJCF file, got no file at {path}")
    model = mujoco.MjModel.from_xml_path(str(path))
    model.opt.solver = int(
        mujoco.mjtSolver.mjSOL_NEWTON
    )  # mujoco_warp refuses others, though nothing is stepped
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    kinematics: dict[str, list[Any]] = {field: [] for field in KINEMATICS}
    states = []
    for _ in range(count):
        data.ctrl[:] = random.uniform(-0.3, 0.3, model.nu)
        mujoco.mj_step(model, data, nstep=20)
        mujoco.mj_forward(model, data)
        for field, kept in kinematics.items():
            kept.append(getattr(data, field).copy())
        state = np.zeros(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        states.append(state)
    colors = np.tile(model.geom_rgba, (count, 1, 1))
    arrays = {field: np.stack(kept) for field, kept in kinematics.items()}
    return Scene(model, camera, arrays, np.stack(states), colors)


def _from_environment(name: str, options: dict[str, Any], count: int) -> Scene:
    import gymnasium
    import mujoco

    from robot_attn_envs.anymujoco.cameras import find_cameras, free_view
    from robot_attn_envs.anymujoco.simulation import simulation
    from robot_attn_envs.render.camera import KINEMATICS
    from robot_attn_scripts._tasks import creation_errors

    chosen = options.pop("camera", None)
    with creation_errors(name, options):
        env: gymnasium.Env[Any, Any] = gymnasium.make(name, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    model, data = simulation(env)
    placed = mujoco.MjData(model)
    (camera,), view = find_cameras(env, chosen), free_view(env)
    kinematics: dict[str, list[Any]] = {field: [] for field in (*KINEMATICS, "site_xpos", "site_xmat")}
    states = []
    for _ in range(count):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        state = np.zeros(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        states.append(state)
        # After a step the environment's own positions are those at the start of its last substep.
        mujoco.mj_setState(model, placed, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_kinematics(model, placed)
        mujoco.mj_camlight(model, placed)
        for field, kept in kinematics.items():
            kept.append(getattr(placed, field).copy())
    arrays = {field: np.stack(kept) for field, kept in kinematics.items()}
    if camera.xpos is not None and camera.xmat is not None:
        arrays["free_xpos"] = np.tile(camera.xpos, (count, 1, 1))
        arrays["free_xmat"] = np.tile(camera.xmat, (count, 1, 1))
    colors = np.tile(model.geom_rgba, (count, 1, 1))
    free = None if camera.xpos is None else view
    return Scene(model, camera.camera, arrays, np.stack(states), colors, view=free)


def _divided(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


@contextmanager
def _camera(
    scene: str,
    env: Mapping[str, Any],
    size: int,
    worlds: int,
    threads: int,
    renderer: str,
    suite: str | None = None,
) -> Iterator[_render_peers.Advance]:
    from robot_attn_envs import BatchCamera

    drawn = load_scene(scene, worlds, suite, env)
    frame = (size, size)
    camera = BatchCamera(
        drawn.model,
        worlds,
        drawn.camera,
        frame,
        threads=threads,
        renderer=renderer,
        lens=drawn.lens,
        **drawn.drawn_whole,
    )
    camera.geom_rgba[:, : drawn.model.ngeom] = drawn.colors
    camera.render(drawn.kinematics, recolor=True)

    def advance(frames: int) -> int:
        rounds = frames // worlds
        for _ in range(rounds):
            camera.render(drawn.kinematics)
        return rounds * worlds

    try:
        advance(worlds)
        yield advance
    finally:
        camera.close()


@contextmanager
def _gymnasium(scene: str, env: Mapping[str, Any], size: int, worlds: int) -> Iterator[_render_peers.Advance]:
    with _render_peers.opengl():
        import mujoco
        from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

        drawn = load_scene(scene, worlds, env=env)
        data = mujoco.MjData(drawn.model)
        renderer = MujocoRenderer(drawn.model, data, width=size, height=size, **drawn.gymnasiums_camera())
        renderer.render("rgb_array")
    try:
        yield _one_by_one(drawn, data, lambda: renderer.render("rgb_array"))
    finally:
        renderer.close()  # type: ignore[no-untyped-call]


@contextmanager
def _mujoco(
    scene: str, env: Mapping[str, Any], size: int, worlds: int, masks: bool
) -> Iterator[_render_peers.Advance]:
    with _render_peers.opengl():
        import mujoco

        drawn = load_scene(scene, worlds, env=env)
        model = drawn.model
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0
        model.vis.quality.offsamples = 0
        data = mujoco.MjData(model)
        renderer = mujoco.Renderer(model, size, size)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = 0

    def render() -> None:
        renderer.update_scene(data, camera=drawn.peers_camera())
        renderer.render()
        if masks:
            renderer.enable_segmentation_rendering()
            renderer.render()
            renderer.disable_segmentation_rendering()

    try:
        yield _one_by_one(drawn, data, render)
    finally:
        renderer.close()


def _one_by_one(drawn: Scene, data: Any, render: Callable[[], object]) -> _render_peers.Advance:
    """Draw world after world with a renderer of one `MjData`; setting the world up is a small part of it."""
    import mujoco

    model, count = drawn.model, len(drawn.states)

    def advance(frames: int) -> int:
        for frame in range(frames):
            world = frame % count
            mujoco.mj_setState(model, data, drawn.states[world], mujoco.mjtState.mjSTATE_INTEGRATION)
            model.geom_rgba[:] = drawn.colors[world]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            render()
        return frames

    advance(2)
    return advance
