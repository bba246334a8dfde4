"""Show what a trained policy attends to in a recorded video or a camera. Nothing is simulated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts.options.watch import Options

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn.drawing import Image
    from robot_attn.video import Camera, VideoReader
    from robot_attn_scripts._video_probe import VideoProbe

DEFAULT_FPS = 30.0
"""Frames a second if neither the source nor an option specifies them."""


def run(options: Options) -> dict[str, object]:
    """Draw until the source ends or the user stops, print a summary, and return the figures.

    On an interrupt, the video of the frames so far is completed.

    Raises:
        ValueError: no window can be opened, or the policy's frames are not RGB.
        OSError: the source cannot be read, or the video cannot be written.
        KeyboardInterrupt: interrupted, after the frames so far were written. Only if the source is a file: a
            camera can only be stopped in this way.
    """
    from rich.console import Console

    from robot_attn.video import VideoReader, write_video
    from robot_attn_policies.probing.probe import MAP_KINDS, probe_cameras
    from robot_attn_policies.training.run_folder import load_policy
    from robot_attn_policies.training.stop import stop_on_signal
    from robot_attn_scripts._live_window import Window
    from robot_attn_scripts._video_probe import VideoProbe

    if options.out is None:
        _check_window()
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    console, progress = Console(), Console(stderr=True)
    with ExitStack() as stack:
        source = _source(options.source)
        stack.callback(source.close)
        _loaded_run.import_modules(options.module)
        policy, config = load_policy(options.run, which=options.which, modules=options.module)
        video_probe = VideoProbe(
            _loaded_run.LoadedRun(
                probe_cameras(policy, maps=options.maps), config, str(options.run), options.which, "PPO"
            ).probe.with_fast_maps(),
            width=options.width,
            head=options.head,
            instruction=options.instruction,
            boxes=options.boxes,
            title=f"{options.run.name}: {config.perception}",
        )
        console.print(f"maps: {MAP_KINDS[video_probe.probe.kind]}", highlight=False)
        if video_probe.unknown:
            names = ", ".join(video_probe.unknown)
            warning = f"the policy also reads {names}, which a video does not have: zero in every frame"
            console.print(warning, style="yellow", highlight=False, soft_wrap=True)
        stopped = stack.enter_context(stop_on_signal())
        own = source.fps or options.fps or DEFAULT_FPS
        fps = min(options.fps or own, own)
        counts = _Counts()
        pictures = _pictures(source, video_probe, fps, stopped, counts)
        shown = _under_bar(pictures, source, fps, progress)
        if options.out is not None:
            try:
                write_video(options.out, shown, fps)
            except ValueError:
                if not stopped() or counts.frames:
                    raise
        else:
            _show(shown, stack.enter_context(Window()), fps)
        cut = source.cut if isinstance(source, VideoReader) else None
        damaged = source.damaged if isinstance(source, VideoReader) else ()
        interrupted = stopped()
    rate = counts.frames / counts.seconds if counts.seconds else 0.0
    if counts.frames:
        where = "" if options.out is None else f": {options.out}"
        console.print(
            f"{counts.frames} frames at {rate:.0f} a second{where}", highlight=False, soft_wrap=True
        )
    if cut is not None:
        warning = (
            f"frames of the video are missing: it should have {cut} frames, and {source.count} could be read"
        )
        console.print(warning, style="yellow", highlight=False)
    if damaged:
        warning = f"the video is damaged: frame {damaged[0]} and those after it may show errors"
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    figures: dict[str, object] = {
        "source": options.source,
        "run": str(options.run),
        "policy": options.which,
        "maps": video_probe.probe.kind,
        "unknown": list(video_probe.unknown),
        "frames": _report.figure(counts.frames, "frames"),
        "cut": None if cut is None else _report.figure(cut, "frames before the file was cut"),
        "damaged": list(damaged),
        "rate": _report.figure(rate, "frames/s"),
        "boxes": _report.figure(counts.boxes / max(counts.frames, 1), "boxes a frame"),
        "interrupted": interrupted,
        "file": None if options.out is None or not counts.frames else str(options.out),
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    if interrupted and isinstance(source, VideoReader):
        raise KeyboardInterrupt
    return figures


# ---- Sources and outputs ----


@dataclass
class _Counts:
    """Frames processed, boxes drawn and seconds taken so far."""

    frames: int = 0
    boxes: int = 0
    seconds: float = 0.0


def is_camera(source: str) -> bool:
    """Return whether a source is a camera and not a file."""
    return source.isdecimal() or source.startswith("/dev/video")


def _source(source: str) -> VideoReader | Camera:
    from robot_attn.video import Camera, VideoReader

    if is_camera(source):
        return Camera(int(source) if source.isdecimal() else source)
    return VideoReader(source)


def _pictures(
    source: VideoReader | Camera, probe: VideoProbe, fps: float, stopped: Callable[[], bool], counts: _Counts
) -> Iterator[Image]:
    """Draw the pictures of a source, `fps` per second of the source's time, until it ends or is stopped.

    Frames of a file with a higher rate are skipped. If a camera's frame is late, the next picture is repeated
    to fill the time.

    Args:
        source: video or camera.
        probe: draws a frame.
        fps: pictures per second.
        stopped: returns whether to stop.
        counts: updated with every picture.
    """
    from robot_attn.video import VideoReader

    started = time.perf_counter()
    yielded = 0
    for frame in source:
        if stopped():
            break
        is_file = isinstance(source, VideoReader)
        clock = (source.count - 1) / (source.fps or fps) if is_file else time.perf_counter() - started
        due = int(clock * fps + 1e-6) + 1
        if due <= yielded:
            continue
        picture, boxes = probe(frame)
        counts.frames += 1
        counts.boxes += boxes
        for _ in range(1 if is_file or yielded == 0 else due - yielded):
            yield picture
        yielded = due
        counts.seconds = time.perf_counter() - started


def _under_bar(
    pictures: Iterator[Image], source: VideoReader | Camera, fps: float, console: Console
) -> Iterator[Image]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from robot_attn.video import VideoReader

    total = source.length if isinstance(source, VideoReader) else None
    columns = (TextColumn("watching"), BarColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total, status="")
        for picture in pictures:
            yield picture
            progress.update(task, completed=source.count, status=f"{source.count} frames")


def _show(pictures: Iterator[Image], window: Any, fps: float) -> None:
    """Show pictures in a window at their frame rate."""
    from robot_attn_scripts._live_window import ESCAPE, SPACE

    until = time.monotonic()
    for picture in pictures:
        window.show(picture)
        now = time.monotonic()
        until = max(now, until + 1 / fps)
        key = window.wait(max(1, round(1000 * (until - now))))
        if key == SPACE:
            while (key := window.wait(30)) not in (SPACE, ESCAPE, ord("q")):
                pass
        if key in (ESCAPE, ord("q")):
            return


def _check_window() -> None:
    """Check that a window can be opened.

    Raises:
        ValueError: no window can be opened.
    """
    from robot_attn_scripts._live_window import check_display

    try:
        check_display()
    except ValueError:
        raise ValueError(
            "expected a display to open a window, got none: write a video instead, with --out watched.mp4"
        ) from None
