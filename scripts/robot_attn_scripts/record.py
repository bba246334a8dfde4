"""Play episodes of a trained policy and keep all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robot_attn_scripts import _loaded_run, _pool, _report
from robot_attn_scripts.options.record import Options

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn_policies.training.presets import Json
    from robot_attn_scripts._player import Player

FEWEST = 4
"""Episodes for which another process, which takes seconds to start, is worth it."""
BATCH = 16
"""Environments side by side; what they have seen is in memory until all of their episodes have ended."""


def run(options: Options) -> dict[str, object]:
    """Record, say what there is, write the JSON if asked to, and return the figures.

    Raises:
        ValueError: options out of range, a name that Minari does not take, or files that are there already.
        ModuleNotFoundError: Minari is not installed.
        KeyboardInterrupt: interrupted, after what is there was printed.
    """
    from rich.console import Console

    seeds = range(options.seed, options.seed + options.episodes)
    console, progress = Console(), Console(stderr=True)
    write = _write_files if options.minari is None else _write_dataset
    figures = write(options, seeds, console, progress)
    if options.json is not None:
        _report.write_json(options.json, {"run": str(options.run), "policy": options.which, **figures})
    return figures


def _scene(options: Options, policy: _loaded_run.LoadedPolicy) -> dict[str, Json]:
    return _loaded_run.scene(policy.config.env, options.env, options.suite)


# ---- A file an episode ----


class RecordJob(NamedTuple):
    """Episodes for one process."""

    options: Options
    out: Path
    seeds: Sequence[int]
    best_head: int


def _write_files(
    options: Options, seeds: Sequence[int], console: Console, progress: Console
) -> dict[str, object]:
    from robot_attn.cores import usable_cores
    from robot_attn_scripts._player import player_of

    out = options.out or Path("episodes")
    present = [path for path in (_path(out, seed) for seed in seeds) if path.exists()]
    if present:
        raise ValueError(f"{present[0]} is there already: name another folder with --out, or other seeds")
    policy = _loaded_run.load(options.run, options.which, options.module, gradients=True)
    scene = _scene(options, policy)
    processes = min(options.at_once or usable_cores(), math.ceil(len(seeds) / FEWEST))
    out.mkdir(parents=True, exist_ok=True)
    told: dict[int, dict[str, object]] = {}
    try:
        with (
            player_of(
                policy,
                policy.config.task,
                scene,
                seeds=seeds,
                calibration_episodes=options.calibration_episodes,
                progress=progress,
            ) as player,
            _bar(progress, int(player.env.horizon) * len(seeds)) as advance,
        ):
            jobs = [RecordJob(options, out, seeds[i::processes], player.best_head) for i in range(processes)]
            if processes == 1:
                told |= _play(player, jobs[0], advance)
            else:
                _pool.run_jobs(
                    record_job,
                    jobs,
                    processes,
                    on_progress=lambda place, steps: advance(steps),
                    on_result=lambda place, episodes: told.update(episodes),
                )
    finally:
        paths = [_path(out, seed) for seed in seeds]
        for path in paths:
            for half in out.glob(f".{path.stem}.*.tmp{path.suffix}"):
                half.unlink(missing_ok=True)  # of a process that was ended while it wrote
        _tell(console, sum(path.exists() for path in paths), len(seeds), out)
    return {
        "scene": scene,
        "episodes": [told[seed] for seed in seeds],
        "files": [str(path) for path in paths],
    }


def record_job(job: RecordJob, tell: _pool.Tell) -> dict[int, dict[str, object]]:
    """Record the job's episodes, in a separate process, and return a summary by seed."""
    from robot_attn_scripts._player import Player
    from robot_attn_scripts._tasks import env_id

    options = job.options
    policy = _loaded_run.load(options.run, options.which, options.module, gradients=True)
    scene = _scene(options, policy)
    with closing(_loaded_run.make_env(policy.config.task, scene, 1)) as env:
        env_args = {"env_name": env_id(policy.config.task), "env_kwargs": scene}
        return _play(Player(policy, env, env_args, job.best_head), job, tell)


def _play(player: Player, job: RecordJob, tell: _pool.Tell) -> dict[int, dict[str, object]]:
    from robot_attn_policies.recording.episode_file import save_episode
    from robot_attn_policies.training.run_folder import library_versions

    told: dict[int, dict[str, object]] = {}
    for seed in job.seeds:
        episode = player.play(seed, lambda step: tell(1))
        save_episode(_path(job.out, seed), episode, library_versions())
        told[seed] = _figures(seed, len(episode), float(episode.rewards.sum()), episode.success)
    return told


def _path(out: Path, seed: int) -> Path:
    return out / f"episode-{seed}.hdf5"


# ---- A Minari dataset ----


def _write_dataset(
    options: Options, seeds: Sequence[int], console: Console, progress: Console
) -> dict[str, object]:
    from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
    from robot_attn_policies.training.stop import stop_on_signal
    from robot_attn_scripts import _minari
    from robot_attn_scripts._tasks import env_id, with_masks

    assert options.minari is not None
    name = options.minari
    _minari.minari_module()
    place = _minari.place_of(name)
    policy = _loaded_run.load(options.run, options.which, options.module)
    config, probe, scene = policy.config, policy.probe, _scene(options, policy)
    task, policy_name = env_id(config.task), f"{options.run.name} ({options.which})"
    kept: list[dict[str, object]] = []
    try:
        with ExitStack() as stack:
            env = stack.enter_context(
                closing(_loaded_run.make_env(config.task, scene, min(options.at_once or BATCH, len(seeds))))
            )
            single = _minari.recoverable(env, with_masks(config.task, scene))
            if single is None:
                told = "the environment cannot be described in JSON: the dataset is without it"
                console.print(told, style="yellow", highlight=False)
            else:
                stack.enter_context(closing(single))
            about = _minari.About(
                env=single,
                observation_space=env.single_observation_space,
                action_space=env.single_action_space,
                algorithm=f"PPO, perception {config.perception}",
                description=f"{policy_name} in {task}, without exploration noise.",
                more={"token_centers": {"ys": probe.grid.ys.tolist(), "xs": probe.grid.xs.tolist()}},
            )
            take = stack.enter_context(_minari.new_dataset(name, about))

            def keep(episodes: Sequence[Any]) -> None:
                take(episodes)
                kept.extend(
                    _figures(each.seed, len(each), float(each.rewards.sum()), _success(each.infos))
                    for each in episodes
                )

            collector = _minari.Collector(env, probe, seeds, keep)
            stack.callback(collector.flush)
            stopped = stack.enter_context(stop_on_signal())
            advance = stack.enter_context(_bar(progress, int(env.horizon) * len(seeds)))

            def see(step: Step) -> None:
                collector.watch(step)
                advance(int(step.running.sum()))
                if stopped():
                    raise KeyboardInterrupt

            rollout_episodes(probe.act, collector, seeds, on_step=see)
    finally:
        _tell(
            console, len(kept) if place.exists() else 0, len(seeds), f"the Minari dataset {name}, at {place}"
        )
    return {"scene": scene, "episodes": kept, "dataset": name, "files": [str(place)]}


def _success(infos: Mapping[str, Any]) -> bool | None:
    for name in ("success", "is_success"):
        if name in infos:
            return bool(infos[name][-1])
    return None


# ---- Words and bars ----


def _tell(console: Console, count: int, wanted: int, where: object) -> None:
    part = f"{count} of {wanted} episodes"
    console.print(f"{part} in {where}" if count else "no episode has ended", highlight=False, soft_wrap=True)


def _figures(seed: int, steps: int, total: float, success: bool | None) -> dict[str, object]:
    return {
        "seed": seed,
        "steps": _report.figure(steps, "steps"),
        "return": _report.figure(total, "reward an episode"),
        "success": success,
    }


@contextmanager
def _bar(console: Console, steps: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of so many steps at most: call it with the steps more that were done."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("recording"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps)
        yield lambda more: progress.advance(task, more)
