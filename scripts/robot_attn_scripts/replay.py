"""Draw an episode: camera frame, each head's heat over it, target's outline, action, reward and return.

From a run folder it plays one episode and writes the video, the recorded episode (.hdf5) beside it, and with
--png a contact sheet. From a recorded episode it draws again, at another size if you like, with no simulator
and no policy.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from robot_attn_scripts import _policy, _report

if TYPE_CHECKING:
    from robot_attn_policies.episodes import Episode

DEFAULT_FPS = 20.0
"""Frames a second for an episode that does not say how long its steps are."""


@dataclass(frozen=True)
class Options:
    """What to draw, and where to."""

    source: tyro.conf.Positional[Path]
    """Run folder that `robot-attn train` made, or an .hdf5 that an earlier replay wrote."""
    out: Path = Path("replay.mp4")
    """Where the video goes; the episode goes beside it, with the ending .hdf5."""
    png: bool = False
    """Also write a contact sheet of 12 moments beside the video, with the ending .png."""
    seed: int | None = None
    """The episode's seed; by default the first evaluation seed. The same seed gives the same episode."""
    size: int = 720
    """Height of the video in pixels, an even number; the width follows from what is shown."""
    which: Literal["best", "last"] = "best"
    """The best policy of the run, or its last."""
    calibration_episodes: int = 32
    """Episodes, of other seeds, on which the head that is shown large is chosen; it is the first where the
    target is not known."""
    suite: str | None = None
    """Suite of visual shifts to play under, such as hard. Without it: the scene of training."""
    env: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the environment that differ from training's, such as distractors=14."""
    module: str | None = None
    """The module whose import registers the run's environment, where the run names one: its code runs."""
    json: Path | None = None
    """Write the figures here, with their units."""


def run(options: Options) -> dict[str, object]:
    """Write the files, print their paths, write the JSON if asked to, and return what was drawn."""
    from rich.console import Console

    from robot_attn.overlay import Replay, contact_sheet, moments, write_png
    from robot_attn.video import write_video
    from robot_attn_policies.episodes import load_episode, save_episode

    if options.out.suffix.lower() != ".mp4":
        raise ValueError(f"--out is a video whose name ends in .mp4, got {options.out}")
    recorded = options.source.is_file()
    if not recorded and not options.source.is_dir():
        raise ValueError(f"{options.source} is neither a run folder nor a recorded episode")
    _check_size(options.size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = [options.out]
    if recorded:
        episode = load_episode(options.source)
    else:
        episode = record(options)
        beside = options.out.with_suffix(".hdf5")
        save_episode(beside, episode, _versions())
        written.append(beside)

    title = f"{_task_title(episode)}   seed {episode.seed}   {episode.policy}"
    replay = Replay(
        episode.images,
        episode.attention,
        episode.actions,
        episode.rewards,
        ys=episode.ys,
        xs=episode.xs,
        masks=episode.target_masks,
        best_head=episode.best_head,
        uniform=episode.uniform,
        size=options.size,
        title=title,
        action_names=episode.action_names or None,
        dt=episode.dt,
    )
    fps = 1 / episode.dt if episode.dt else DEFAULT_FPS
    write_video(options.out, _drawn(replay, Console(stderr=True)), fps)
    if options.png:
        sheet = options.out.with_suffix(".png")
        steps = moments(len(episode))
        pictures, captions = [replay.large(step) for step in steps], [replay.caption(step) for step in steps]
        write_png(sheet, contact_sheet(pictures, captions, title=title))
        written.append(sheet)

    total = float(episode.rewards.sum())
    figures: dict[str, object] = {
        "source": str(options.source),
        "environment": _task_title(episode),
        "seed": episode.seed,
        "steps": _report.figure(len(episode), "steps"),
        "return": _report.figure(total, "reward an episode"),
        "success": episode.success,
        "files": [str(path) for path in written],
    }
    console = Console()
    outcome = {True: "success", False: "no success", None: "success not known"}[episode.success]
    console.print(
        f"{_task_title(episode)}, seed {episode.seed}: {len(episode)} steps, return {total:.1f}, {outcome}",
        highlight=False,
    )
    for path in written:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def record(options: Options) -> Episode:
    """Play one episode of the run with its policy; calibration episodes choose the head to show."""
    from rich.console import Console

    from robot_attn_policies.episodes import record_episode
    from robot_attn_policies.evaluate import CALIBRATION_SEED, EVALUATION_SEED
    from robot_attn_scripts._tasks import env_id

    policy = _policy.load(options.source, options.which, options.module)
    seed = EVALUATION_SEED if options.seed is None else options.seed
    scene = _policy.scene(policy.config.env, options.env, options.suite)
    best_head = 0
    with (
        closing(_policy.make_env(policy.config.task, scene, 1)) as env,
        _policy.step_bar(Console(stderr=True)) as watch,
    ):
        if policy.eyes.heads > 1 and _policy.has_masks(env):
            count = max(1, options.calibration_episodes)
            seeds = [s for s in range(CALIBRATION_SEED, CALIBRATION_SEED + count + 1) if s != seed][:count]
            best_head = _policy.calibrated(policy, seeds, 32, watch).best_head
        return record_episode(
            policy.eyes.act,
            env,
            seed,
            policy.eyes.cells,
            env_args={"env_name": env_id(policy.config.task), "env_kwargs": scene},
            image=policy.eyes.image or "image",
            best_head=best_head,
            uniform=policy.eyes.uniform,
            policy=policy.name,
            watch=watch("recording the episode", int(env.horizon)),
        )


def _check_size(size: int) -> None:
    from robot_attn.overlay import MIN_SIZE

    if size < MIN_SIZE or size % 2:
        raise ValueError(
            f"--size is the video's height, an even number of pixels from {MIN_SIZE}, got {size}"
        )


def _task_title(episode: Episode) -> str:
    return str(episode.env_args.get("env_name", "episode"))


def _versions() -> dict[str, str]:
    import importlib.metadata

    names = ("robot-attn", "mujoco", "mujoco-warp", "gymnasium", "torch", "stable-baselines3")
    return {name: importlib.metadata.version(name) for name in names}


def _drawn(replay: Any, console: Any) -> Any:
    """The pictures of a replay, one at a time, under a progress bar."""
    from rich.progress import track

    steps = range(len(replay))
    for step in track(steps, description="drawing and encoding", console=console, transient=True):
        yield replay.draw(step)
