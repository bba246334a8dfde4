"""Run episodes of a trained policy and save them in full."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from robot_attn_scripts import _loaded_run, _pool, _report
from robot_attn_scripts.options.record import Options

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn_policies.training.presets import Json
    from robot_attn_scripts._episodes import RecordedEpisode
    from robot_attn_scripts._player import Player

    AddEpisodes: TypeAlias = Callable[[Sequence[RecordedEpisode]], None]

FEWEST = 4
"""The smallest number of episodes for which another process, which takes seconds to start, pays off."""
BATCH = 16
"""Parallel environments for a dataset. Their episodes stay in memory until all of them have ended."""


def run(options: Options) -> dict[str, object]:
    """Record the episodes, print what was written, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: Minari does not accept the name, LeRobot's format does not have a place for an entry of
            the observations, or files or dataset exist.
        ModuleNotFoundError: Minari or pyarrow is not installed.
        OSError: the dataset cannot be written, for example because the disk is full.
        KeyboardInterrupt: interrupted, after a message that says what was written.
    """
    from rich.console import Console

    seeds = range(options.seed, options.seed + options.episodes)
    console, progress = Console(), Console(stderr=True)
    to_files = options.minari is None and options.lerobot is None
    write = _write_files if to_files else _write_dataset
    figures = write(options, seeds, console, progress)
    if options.json is not None:
        _report.write_json(options.json, {"run": str(options.run), **figures})
    return figures


def _scene(options: Options, policy: _loaded_run.LoadedPolicy) -> dict[str, Json]:
    return _loaded_run.scene(policy.config.env, options.pairs, options.suite)


# ---- One file per episode ----


class RecordJob(NamedTuple):
    """Episodes for one process to record."""

    options: Options
    out: Path
    seeds: Sequence[int]
    best_heads: Mapping[str | None, int]


def _write_files(
    options: Options, seeds: Sequence[int], console: Console, progress: Console
) -> dict[str, object]:
    from robot_attn.cores import usable_cores
    from robot_attn_scripts._player import make_player

    out = options.out or Path("episodes")
    policy = _loaded_run.open_policy(options.run, options, maps=options.maps)
    cameras = list(policy.probes)
    present = [path for path in _paths(out, seeds, cameras) if path.exists()]
    if present:
        raise ValueError(
            f"expected new episode files, got {present[0]}, which exists: name another folder with --out, or "
            "choose other seeds"
        )
    scene = _scene(options, policy)
    processes = min(options.at_once or usable_cores(), math.ceil(len(seeds) / FEWEST))
    out.mkdir(parents=True, exist_ok=True)
    summaries: dict[int, dict[str, object]] = {}
    try:
        with (
            make_player(
                policy,
                policy.config.task,
                scene,
                seeds=seeds,
                calibration_episodes=options.calibration_episodes,
                progress=progress,
            ) as player,
            _bar(progress, int(player.env.horizon) * len(seeds)) as advance,
        ):
            jobs = [RecordJob(options, out, seeds[i::processes], player.best_heads) for i in range(processes)]
            if processes == 1:
                summaries |= _play(player, jobs[0], advance)
            else:
                _pool.run_jobs(
                    record_job,
                    jobs,
                    processes,
                    on_progress=lambda index, steps: advance(steps),
                    on_result=lambda index, episodes: summaries.update(episodes),
                )
    finally:
        paths = _paths(out, seeds, cameras)
        for path in paths:
            for half in out.glob(f".{path.stem}.*.tmp{path.suffix}"):
                half.unlink(missing_ok=True)  # left by a process that was killed while writing
        _print_count(console, sum(path.exists() for path in paths) // len(cameras), len(seeds), out)
    return {
        "policy": policy.which,
        "scene": scene,
        "episodes": [summaries[seed] for seed in seeds],
        "files": [str(path) for path in paths],
    }


def record_job(job: RecordJob, report_progress: _pool.ReportProgress) -> dict[int, dict[str, object]]:
    """Record the episodes of a job in a worker process, and return their summaries by seed."""
    from robot_attn_scripts._player import Player
    from robot_attn_scripts._tasks import env_id

    options = job.options
    policy = _loaded_run.open_policy(options.run, options, maps=options.maps)
    scene = _scene(options, policy)
    with closing(policy.make_env(policy.config.task, scene, 1)) as env:
        env_args = {"env_name": env_id(policy.config.task), "env_kwargs": scene}
        return _play(Player(policy, env, env_args, job.best_heads), job, report_progress)


def _play(
    player: Player, job: RecordJob, report_progress: _pool.ReportProgress
) -> dict[int, dict[str, object]]:
    from robot_attn_policies.recording.episode_file import save_episode
    from robot_attn_policies.training.run_folder import library_versions

    summaries: dict[int, dict[str, object]] = {}
    for seed in job.seeds:
        episodes = player.play(seed, lambda step: report_progress(1))
        for path, episode in zip(_paths(job.out, [seed], list(player.policy.probes)), episodes, strict=True):
            save_episode(path, episode, library_versions())
        summaries[seed] = _figures(seed, len(episode), float(episode.rewards.sum()), episode.success)
    return summaries


def _paths(out: Path, seeds: Sequence[int], cameras: Sequence[str | None]) -> list[Path]:
    """Return the files of episodes: one for each seed and camera."""
    return [
        _loaded_run.camera_path(out / f"episode-{seed}.hdf5", camera, len(cameras) > 1)
        for seed in seeds
        for camera in cameras
    ]


# ---- One dataset of all episodes ----


def _write_dataset(
    options: Options, seeds: Sequence[int], console: Console, progress: Console
) -> dict[str, object]:
    from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
    from robot_attn_policies.training.stop import stop_on_signal
    from robot_attn_scripts import _lerobot, _minari
    from robot_attn_scripts._episodes import EpisodeCollector

    if options.minari is not None:
        _minari.import_minari()
        folder, open_dataset = _minari.new_dataset_folder(options.minari), _open_minari
        what = f"the Minari dataset {options.minari}"
    else:
        assert options.lerobot is not None
        _lerobot.import_pyarrow()
        folder, open_dataset = options.lerobot, _open_lerobot
        what = "the LeRobot dataset"
    policy = _loaded_run.open_policy(options.run, options, maps=options.maps or "attention")
    scene = _scene(options, policy)
    summaries: list[dict[str, object]] = []
    try:
        with ExitStack() as stack:
            num_envs = min(options.at_once or BATCH, len(seeds))
            env = stack.enter_context(closing(policy.make_env(policy.config.task, scene, num_envs)))
            add = stack.enter_context(open_dataset(options, policy, scene, env, console))

            def on_episodes(episodes: Sequence[RecordedEpisode]) -> None:
                add(episodes)
                summaries.extend(
                    _figures(each.seed, len(each), float(each.rewards.sum()), each.success)
                    for each in episodes
                )

            collector = EpisodeCollector(env, policy.probes, seeds, on_episodes)
            stack.callback(collector.flush)
            stopped = stack.enter_context(stop_on_signal())
            advance = stack.enter_context(_bar(progress, int(env.horizon) * len(seeds)))

            def on_step(step: Step) -> None:
                collector.on_step(step)
                advance(int(step.running.sum()))
                if stopped():
                    raise KeyboardInterrupt

            actor = next(iter(policy.probes.values())).act
            rollout_episodes(actor, collector, seeds, on_step=on_step)
    finally:
        count = len(summaries) if folder.exists() else 0
        _print_count(console, count, len(seeds), f"{what}, at {folder}")
    dataset = {} if options.minari is None else {"dataset": options.minari}
    return {"policy": policy.which, "scene": scene, "episodes": summaries, **dataset, "files": [str(folder)]}


def _policy_name(options: Options, policy: _loaded_run.LoadedPolicy) -> str:
    return f"{options.run.name} ({policy.which})"


@contextmanager
def _open_minari(
    options: Options,
    policy: _loaded_run.LoadedPolicy,
    scene: Mapping[str, Json],
    env: Any,
    console: Console,
) -> Iterator[AddEpisodes]:
    from robot_attn_scripts import _minari
    from robot_attn_scripts._tasks import env_id, with_masks

    assert options.minari is not None
    task, several = policy.config.task, len(policy.probes) > 1
    with ExitStack() as stack:
        single = _minari.recoverable_env(env, with_masks(task, scene))
        if single is None:
            warning = "the environment cannot be described in JSON: the dataset is without it"
            console.print(warning, style="yellow", highlight=False)
        else:
            stack.enter_context(closing(single))
        info = _minari.DatasetInfo(
            env=single,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            algorithm=f"{policy.algorithm}, perception {policy.config.perception}",
            description=f"{_policy_name(options, policy)} in {env_id(task)}, without exploration noise.",
            more={
                f"token_centers.{key}" if several else "token_centers": {
                    "ys": probe.grid.ys.tolist(),
                    "xs": probe.grid.xs.tolist(),
                }
                for key, probe in policy.probes.items()
            },
        )
        yield stack.enter_context(_minari.new_dataset(options.minari, info))


@contextmanager
def _open_lerobot(
    options: Options,
    policy: _loaded_run.LoadedPolicy,
    scene: Mapping[str, Json],
    env: Any,
    console: Console,
) -> Iterator[AddEpisodes]:
    from robot_attn_scripts import _lerobot
    from robot_attn_scripts._episodes import map_names
    from robot_attn_scripts._tasks import action_names, env_id

    assert options.lerobot is not None
    task = policy.config.task
    about = {
        "environment": {"id": env_id(task), "options": dict(scene)},
        "policy": _policy_name(options, policy),
        "perception": policy.config.perception,
    }
    maps = map_names(policy.probes)
    for name, probe in maps.items():
        about[name] = {
            "shape": [probe.num_heads, *probe.grid.shape],
            "ys": probe.grid.ys.tolist(),
            "xs": probe.grid.xs.tolist(),
            "image_size": list(probe.grid.image_size),
        }
    info = _lerobot.DatasetInfo(
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        action_names=action_names(task),
        seconds_per_step=env.dt,
        task=env_id(task),
        maps=list(maps),
        video=options.lerobot_video,
        more=about,
    )
    with _lerobot.new_dataset(options.lerobot, info) as add:
        yield add


# ---- Messages and progress ----


def _print_count(console: Console, count: int, total: int, where: object) -> None:
    message = f"{count} of {total} episodes in {where}" if count else "no episode was written"
    console.print(message, highlight=False, soft_wrap=True)


def _figures(seed: int, steps: int, total: float, success: bool | None) -> dict[str, object]:
    return {
        "seed": seed,
        "steps": _report.figure(steps, "steps"),
        "return": _report.figure(total, "reward an episode"),
        "success": success,
    }


@contextmanager
def _bar(console: Console, steps: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for at most `steps` steps; yields a function that adds finished steps."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("recording"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps)
        yield lambda more: progress.advance(task, more)
