"""Draw an episode: camera frame, attention map of each head, target outline, action, reward and return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts.options.replay import Options, explanation

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn.drawing import Image
    from robot_attn.episode import Episode
    from robot_attn_policies.pages.page import View
    from robot_attn_policies.pages.report import Report
    from robot_attn_policies.rollouts.rollout import Step
    from robot_attn_policies.training.presets import Json
    from robot_attn_scripts._live_window import Window
    from robot_attn_scripts._loaded_run import Setting
    from robot_attn_scripts._player import Player
    from robot_attn_scripts._side_by_side import Pictures

DEFAULT_FPS = 20.0
"""Frames a second for an episode with an unknown length of step."""

VIEW_HEIGHT = 256
"""Height in pixels of another camera's frames without --image-size."""

FRAMES = ("image_size", "depth")
"""Options of an environment that determine the policy's frames; they are kept in another task."""


def run(options: Options) -> dict[str, object]:
    """Draw the episodes, print the paths, write the JSON file of --json, and return the figures.

    On an interrupt, finished episodes are kept.

    Raises:
        ValueError: an episode or a policy cannot be loaded, drawn or compared.
        ModuleNotFoundError: an optional dependency is not installed.
    """
    from rich.console import Console

    from robot_attn_scripts._live_window import WindowClosed

    _check(options)
    sources, recorded = options.sources, options.recorded
    if recorded:
        _loaded_run.import_modules(options.module)
    seeds = options.seeds()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    console, progress = Console(), Console(stderr=True)
    files: list[Path] = []
    figures: dict[str, object] = {"source": str(options.source)}
    if options.compare is not None:
        figures["compare"] = str(options.compare)
    summaries: list[dict[str, object]] = []
    try:
        with ExitStack() as stack:
            if not recorded:
                players, window = _players(options, sources, seeds, progress, stack)
            for seed in seeds:
                if recorded:
                    episodes, reports, written = _load(sources), [], []
                else:
                    try:
                        played = [_play(player, progress, window, options.size, seed) for player in players]
                    except WindowClosed as stop:
                        console.print(f"seed {seed}: {stop}, nothing of it is written", highlight=False)
                        break
                    episodes = [episode for of_policy in played for episode in of_policy]
                    if options.explain:
                        reports = [_explain(player, seed, progress) for player in players]
                    else:
                        reports = []
                    written = _save(_paths(options.recordings(seed), episodes), episodes)
                written += _draw(options, seed, episodes, reports, progress)
                shown = episodes[:1] if _are_cameras(episodes) else episodes  # cameras share the rest
                summaries += [_summarise(episode, console) for episode in shown]
                for path in written:
                    console.print(f"  {path}", highlight=False, soft_wrap=True)
                files += written
    finally:
        figures |= {"episodes": summaries, "files": [str(path) for path in files]}
        if options.json is not None and summaries:
            _report.write_json(options.json, figures)
    return figures


# ---- Running the policy ----


def _players(
    options: Options, sources: list[Path], seeds: Sequence[int], progress: Console, stack: ExitStack
) -> tuple[list[Player], Window | None]:
    """Create a player for each policy, all in the scene of the first, and the window of --live."""
    from robot_attn_scripts._live_window import Window
    from robot_attn_scripts._player import make_player

    policies = [_loaded_run.open_policy(source, options, maps=options.maps) for source in sources]
    if len(policies) > 1 or options.live:
        for policy in policies:
            policy.check_one_camera()
    if not options.force:
        for path in _camera_files(options, list(policies[0].probes)):
            _report.check_new(path)
    base = policies[0].config
    players = [
        stack.enter_context(
            make_player(
                policy,
                options.task_name or base.task,
                _scene(options, base, policy.config),
                seeds=seeds,
                calibration_episodes=options.calibration_episodes,
                progress=progress,
            )
        )
        for policy in policies
    ]
    window = stack.enter_context(Window()) if options.live else None
    return players, window


def _play(player: Player, progress: Console, window: Window | None, size: int, seed: int) -> list[Episode]:
    """Run and record an episode at every camera, with a progress bar and in the window if there is one."""
    from robot_attn_policies.recording.record import RGBConverter
    from robot_attn_scripts._live_window import LiveView

    live = None
    if window is not None:
        probe, title = player.policy.probe, f"{player.policy.name}   seed {seed}"
        live = LiveView(
            probe,
            player.best_heads[probe.image],
            window.show,
            window.wait,
            to_rgb=RGBConverter(player.env, probe),
            dt=player.env.dt,
            size=size,
            title=title,
        )
    with _loaded_run.step_bar(progress) as start_progress:
        advance = start_progress(f"recording seed {seed}", int(player.env.horizon))

        def on_step(step: Step) -> None:
            advance(step)
            if live is not None:
                live(step)

        return player.play(seed, on_step)


def _explain(player: Player, seed: int, progress: Console) -> Report:
    """Explain an episode, with a progress bar."""
    from robot_attn_policies.probing.explain import explain_episode

    title = f"{player.env_args['env_name']}   seed {seed}"
    with _loaded_run.step_bar(progress) as start_progress:
        return explain_episode(
            player.policy.probes,
            player.env,
            seed,
            title=title,
            facts=[("Policy", player.policy.name)],
            start_progress=start_progress,
        )


def _scene(options: Options, base: Setting, own: Setting) -> dict[str, Json]:
    """Make the options of the environment.

    Args:
        options: options of the command.
        base: configuration whose environment options are the default; not used for another task.
        own: configuration of the policy, which determines its frames.
    """
    from robot_attn_scripts._tasks import env_id

    same = options.task_name is None or env_id(options.task_name) == env_id(base.task)
    kept = {name: value for name, value in base.env.items() if same and name not in FRAMES}
    frames = {name: own.env[name] for name in FRAMES if name in own.env}
    scene = _loaded_run.scene(kept | frames, options.pairs, options.suite)
    if options.shift:
        scene = {name: scene[name] for name in scene if name not in ("suite", "intensity")}
        scene["shift"] = options.shifts()
    return scene


def _load(sources: list[Path]) -> list[Episode]:
    from robot_attn_policies.recording.episode_file import load_episode

    episodes = [load_episode(source) for source in sources]
    starts = [(_task_title(episode), episode.seed) for episode in episodes]
    if len(set(starts)) > 1:
        both = " and ".join(f"{task} with seed {seed}" for task, seed in starts)
        raise ValueError(f"expected two episodes of one task and seed to compare, got {both}: record another")
    return episodes


def _save(paths: list[Path], episodes: list[Episode]) -> list[Path]:
    from robot_attn_policies.recording.episode_file import save_episode
    from robot_attn_policies.training.run_folder import library_versions

    for path, episode in zip(paths, episodes, strict=True):
        save_episode(path, episode, library_versions())
    return paths


# ---- Drawing ----


class Shown(NamedTuple):
    """An episode to draw, whose frames may be rendered again.

    Attributes:
        episode: the episode, perhaps with larger frames than the policy's.
        view: the same steps from another camera, if any.
        notes: notes for the page.
    """

    episode: Episode
    view: View | None
    notes: list[str]


def _draw(
    options: Options, seed: int, episodes: list[Episode], reports: list[Report], progress: Console
) -> list[Path]:
    """Write the video, the pages and the optional files, and return their paths."""
    from robot_attn.drawing import Replay, contact_sheet, moments, write_png
    from robot_attn.video import write_video
    from robot_attn_policies.pages.page import write_page
    from robot_attn_policies.pages.report import write_report
    from robot_attn_scripts._rerun import write_rerun
    from robot_attn_scripts._side_by_side import Cameras, SideBySide, WithCamera

    shown = [_shown(options, episode, progress) for episode in episodes]
    replays = [Replay(one.episode, size=options.size, title=_title(one.episode)) for one in shown]
    first = shown[0].episode
    pictures: Pictures
    cameras = _are_cameras(episodes)
    if cameras:
        pictures = Cameras(replays)
    elif len(replays) == 2:
        title = f"{_task_title(first)}   seed {first.seed}"
        pictures = SideBySide(replays, [_name(one.episode) for one in shown], title)
    elif (view := shown[0].view) is not None:
        pictures = WithCamera(replays[0], view.name, view.images)
    else:
        pictures = replays[0]

    out = options.output(seed)
    written = [out]
    write_video(out, _drawn(pictures, progress), 1 / first.dt if first.dt else DEFAULT_FPS)
    pages = _paths(options.pages(seed), episodes)
    for i, (page, one) in enumerate(zip(pages, shown, strict=True)):
        links = {
            f"Camera {other.episode.camera}"
            if cameras
            else f"Compare with {_name(other.episode)}": beside.name
            for beside, other in zip(pages, shown, strict=True)
            if other is not one
        }
        if reports:
            report = explanation(options.pages(seed)[min(i, len(reports) - 1)])
            if report not in written:  # that of several cameras is one
                write_report(report, reports[i])
                written += [report, report.with_suffix(".json")]
            links["Explanation of this episode"] = report.name
        write_page(page, one.episode, title=_title(one.episode), notes=one.notes, links=links, view=one.view)
        written.append(page)
    if options.png:
        sheet = out.with_suffix(".png")
        steps = moments(len(pictures))
        large, captions = [pictures.large(step) for step in steps], [pictures.caption(step) for step in steps]
        title = _title(replace(first, camera="") if cameras else first)
        write_png(sheet, contact_sheet(large, captions, title=title))
        written.append(sheet)
    if options.rerun is not None:
        for path, one, replay in zip(_paths(options.reruns(seed), episodes), shown, replays, strict=True):
            write_rerun(path, one.episode, replay.mass, title=_title(one.episode), view=one.view)
            written.append(path)
    return written


def _shown(options: Options, episode: Episode, progress: Console) -> Shown:
    """Prepare an episode for drawing; render its frames again for --image-size or --camera."""
    if options.image_size is None and options.camera is None:
        return Shown(episode, None, [])
    from robot_attn_policies.pages.page import View
    from robot_attn_scripts._redraw import redraw  # needs the simulator, unlike the stored frames

    height, width = episode.image_size
    high = max(height, VIEW_HEIGHT) if options.image_size is None else options.image_size
    size = high, round(high * width / height)
    view, shown, notes = None, episode, []
    with progress.status("rendering the frames again"):
        if options.camera is not None:
            view = View(options.camera, redraw(episode, image_size=size, camera=options.camera).images)
        if options.image_size is not None:
            again = redraw(episode, image_size=size)
            shown = replace(
                episode,
                images=again.images,
                target_masks=None if episode.target_masks is None else again.target_masks,
                grid=episode.grid.resized(size),
                things=None,  # they label the pixels of the policy's frames
                thing_names=(),
                thing_descriptions=(),
            )
            notes = [
                f"The policy's frames have {height} × {width} pixels; they are rendered again here at "
                f"{size[0]} × {size[1]}."
            ]
    return Shown(shown, view, notes)


def _drawn(pictures: Pictures, console: Console) -> Iterator[Image]:
    """Draw the pictures one by one, with a progress bar."""
    from rich.progress import track

    for step in track(range(len(pictures)), "drawing and encoding", console=console, transient=True):
        yield pictures.draw(step)


# ---- Names and summaries ----


def _paths(paths: list[Path], episodes: Sequence[Episode]) -> list[Path]:
    """Return a path for each episode: `paths`, or replay-<camera> for each camera of the only rollout."""
    if len(episodes) <= len(paths):
        return paths
    return [_loaded_run.camera_path(paths[0], episode.camera, True) for episode in episodes]


def _camera_files(options: Options, cameras: Sequence[str | None]) -> Iterator[Path]:
    """Yield the files of a policy with several cameras, whose names are known once it is loaded."""
    for seed in options.seeds() if len(cameras) > 1 else ():
        for path in (*options.recordings(seed), *options.pages(seed), *options.reruns(seed)):
            yield from (_loaded_run.camera_path(path, camera, True) for camera in cameras)


def _are_cameras(episodes: Sequence[Episode]) -> bool:
    """Return whether the episodes are one rollout at several cameras."""
    import numpy as np

    different = len({episode.camera for episode in episodes}) == len(episodes) > 1
    return different and all(np.array_equal(each.actions, episodes[0].actions) for each in episodes)


def _task_title(episode: Episode) -> str:
    return str(episode.env_args.get("env_name", "episode"))


def _name(episode: Episode) -> str:
    return ", ".join([episode.policy or "unknown policy", *_cut(episode)])


def _title(episode: Episode) -> str:
    camera = [f"camera {episode.camera}"] if episode.camera else []
    return "   ".join([_task_title(episode), f"seed {episode.seed}", *camera, *_cut(episode), episode.policy])


def _cut(episode: Episode) -> list[str]:
    return [] if episode.cut is None else [f"cut after step {len(episode)} of {episode.cut}"]


def _summarise(episode: Episode, console: Console) -> dict[str, object]:
    """Print a summary of an episode and return it as JSON."""
    total = float(episode.rewards.sum())
    outcome = {True: "success", False: "no success", None: "success unknown"}[episode.success]
    console.print(
        f"{_task_title(episode)}, seed {episode.seed}: {len(episode)} steps, return {total:.1f}, {outcome}",
        highlight=False,
    )
    for cut in _cut(episode):
        console.print(f"  the file was {cut}: what follows is lost", style="yellow", highlight=False)
    return {
        "environment": _task_title(episode),
        "policy": episode.policy,
        "seed": episode.seed,
        "steps": _report.figure(len(episode), "steps"),
        "cut": None if episode.cut is None else _report.figure(episode.cut, "steps before the file was cut"),
        "return": _report.figure(total, "reward an episode"),
        "success": episode.success,
    }


# ---- Checks ----


def _check(options: Options) -> None:
    """Check the requirements of the options before any work.

    Raises:
        ValueError: --live cannot open a window.
        ModuleNotFoundError: the Rerun SDK is not installed.
    """
    from robot_attn_scripts._live_window import check_display
    from robot_attn_scripts._rerun import rerun_module

    if options.rerun is not None:
        rerun_module()
    if options.live:
        check_display()
