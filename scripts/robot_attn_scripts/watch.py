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
    from robot_attn_scripts._video_probe import Watcher

DEFAULT_FPS = 30.0
"""Frames a second where neither the source nor a person says."""


def run(options: Options) -> dict[str, object]:
    """Draw until the source ends or a person stops, say what there was, and return the figures.

    Interrupted, it finishes the video of the frames so far.

    Raises:
        ValueError: an option out of range, no display for a window, or a policy that cannot watch.
        OSError: the source cannot be read, or the video not written.
        KeyboardInterrupt: interrupted in a file, after the frames so far were written. A camera has no other
            end.
    """
    from rich.console import Console

    from robot_attn.video import VideoReader, write_video
    from robot_attn_policies.probing.probe import MAP_KINDS, probe_policy
    from robot_attn_policies.training.run_folder import load_policy
    from robot_attn_policies.training.stop import stop_on_signal
    from robot_attn_scripts._live_window import Window
    from robot_attn_scripts._video_probe import Watcher

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
        watcher = Watcher(
            probe_policy(policy),
            width=options.width,
            head=options.head,
            instruction=options.instruction,
            boxes=options.boxes,
            title=f"{options.run.name}: {config.perception}",
        )
        console.print(f"maps: {MAP_KINDS[watcher.probe.kind]}", highlight=False)
        if watcher.unknown:
            names = ", ".join(watcher.unknown)
            told = f"the policy also reads {names}, which a video does not tell: zero in every frame"
            console.print(told, style="yellow", highlight=False, soft_wrap=True)
        stopped = stack.enter_context(stop_on_signal())
        own = source.fps or options.fps or DEFAULT_FPS
        fps = min(options.fps or own, own)
        seen = _Seen()
        pictures = _pictures(source, watcher, fps, stopped, seen)
        shown = _under_bar(pictures, source, fps, progress)
        if options.out is not None:
            try:
                write_video(options.out, shown, fps)
            except ValueError:
                if not stopped() or seen.frames:
                    raise
        else:
            _show(shown, stack.enter_context(Window()), fps)
        cut = source.cut if isinstance(source, VideoReader) else None
        interrupted = stopped()
    rate = seen.frames / seen.seconds if seen.seconds else 0.0
    if seen.frames:
        where = "" if options.out is None else f": {options.out}"
        console.print(f"{seen.frames} frames at {rate:.0f} a second{where}", highlight=False, soft_wrap=True)
    if cut is not None:
        told = f"the video was cut: it should have {cut} frames, and {source.count} could be read"
        console.print(told, style="yellow", highlight=False)
    figures: dict[str, object] = {
        "source": options.source,
        "run": str(options.run),
        "policy": options.which,
        "maps": watcher.probe.kind,
        "unknown": list(watcher.unknown),
        "frames": _report.figure(seen.frames, "frames"),
        "cut": None if cut is None else _report.figure(cut, "frames before the file was cut"),
        "rate": _report.figure(rate, "frames/s"),
        "boxes": _report.figure(seen.boxes / max(seen.frames, 1), "boxes a frame"),
        "interrupted": interrupted,
        "file": None if options.out is None or not seen.frames else str(options.out),
    }
    if options.json is not None:
        _report.write_json(options.json, figures)
    if interrupted and isinstance(source, VideoReader):
        raise KeyboardInterrupt
    return figures


# ---- Sources, and where the pictures go ----


@dataclass
class _Seen:
    """What was done so far."""

    frames: int = 0
    boxes: int = 0
    seconds: float = 0.0


def is_camera(source: str) -> bool:
    """Whether a source is a camera, and no file."""
    return source.isdecimal() or source.startswith("/dev/video")


def _source(source: str) -> VideoReader | Camera:
    from robot_attn.video import Camera, VideoReader

    if is_camera(source):
        return Camera(int(source) if source.isdecimal() else source)
    return VideoReader(source)


def _pictures(
    source: VideoReader | Camera, watcher: Watcher, fps: float, stopped: Callable[[], bool], seen: _Seen
) -> Iterator[Image]:
    """The pictures of the source, `fps` a second of the source's time, until it ends or someone stops.

    Of a file whose frames are more than that some are left out. A camera's come when they do: where one is
    late, the last picture fills its time.
    """
    from robot_attn.video import VideoReader

    started = time.perf_counter()
    given = 0
    for frame in source:
        if stopped():
            break
        own = isinstance(source, VideoReader)
        clock = (source.count - 1) / (source.fps or fps) if own else time.perf_counter() - started
        due = int(clock * fps + 1e-6) + 1
        if due <= given:
            continue
        picture, boxes = watcher(frame)
        seen.frames += 1
        seen.boxes += boxes
        for _ in range(1 if own or given == 0 else due - given):
            yield picture
        given = due
        seen.seconds = time.perf_counter() - started


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
    """Show pictures in a window, at their pace."""
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
    """Raises ValueError where no window can be opened, before any work."""
    from robot_attn_scripts._live_window import check_display

    try:
        check_display()
    except ValueError:
        raise ValueError(
            "no window can be opened here, for want of a display: write the pictures to a video instead, "
            "with --out watched.mp4"
        ) from None
