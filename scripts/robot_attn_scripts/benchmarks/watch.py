"""Measure how many video frames `robot-attn watch` processes a second on one core, by stage."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from robot_attn_scripts import _report
from robot_attn_scripts._timing import one_thread
from robot_attn_scripts.options.benchmarks.watch import Options

if TYPE_CHECKING:
    from robot_attn.drawing import Image
    from robot_attn_policies.probing.probe import PolicyProbe

HEIGHT, WIDTH, FPS = 480, 640, 30
STAGES = ("decode", "fit", "policy", "boxes", "draw", "encode")


def run(options: Options) -> dict[str, object]:
    """Measure, print the table, write the JSON file of --json, and return the figures.

    Raises:
        ValueError: the family is unknown.
    """
    from robot_attn.video import write_video

    with tempfile.TemporaryDirectory() as folder, one_core(), one_thread(), Console().status("measuring"):
        source = Path(folder) / "source.mp4"
        write_video(source, scene(options.frames), FPS)
        probe = untrained_probe(options.perception)
        watch(source, source.with_name("warm.mp4"), probe)  # warm-up: loads code and allocates memory
        rounds = [watch(source, source.with_name("watched.mp4"), probe) for _ in range(options.rounds)]
    times = {name: [1e3 * each[name] / options.frames for each in rounds] for name in STAGES}
    rates = [options.frames / sum(each.values()) for each in rounds]
    figures: dict[str, object] = {
        "benchmark": "watch",
        "machine": _report.machine("robot-attn", "opencv-python", "torch", "imageio-ffmpeg"),
        "perception": options.perception,
        "frames": _report.figure(options.frames, "frames"),
        "frames_per_second_on_one_core": _report.spread(rates, "frames/s"),
        "milliseconds_a_frame": {name: _report.spread(row, "ms") for name, row in times.items()},
    }
    title = f"{WIDTH} x {HEIGHT} frames watched on one core, ms a frame"
    console = Console()
    console.print(_report.spread_table(title, times, "{:.2f}"))
    console.print(f"{statistics.median(rates):.0f} frames/s")
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def watch(source: Path, out: Path, probe: PolicyProbe) -> dict[str, float]:
    """Process a video and return the seconds of each stage; "encode" is the time of no other stage."""
    from robot_attn.video import VideoReader, write_video
    from robot_attn_scripts._video_probe import VideoProbe

    spent = dict.fromkeys(STAGES, 0.0)
    started = time.perf_counter()

    def pictures() -> Iterator[Image]:
        video_probe = VideoProbe(probe, width=WIDTH)
        with VideoReader(source) as video:
            frames = iter(video)
            while True:
                marks = [time.perf_counter()]
                frame = next(frames, None)
                if frame is None:
                    return
                marks.append(time.perf_counter())
                fitted = video_probe.fit(frame)
                marks.append(time.perf_counter())
                weights = video_probe.attend(fitted)
                marks.append(time.perf_counter())
                tracks = video_probe.find_regions(weights, fitted)
                marks.append(time.perf_counter())
                picture = video_probe.draw(frame, weights, tracks)
                marks.append(time.perf_counter())
                for i, name in enumerate(STAGES[:-1]):
                    spent[name] += marks[i + 1] - marks[i]
                yield picture

    write_video(out, pictures(), FPS)
    spent["encode"] = time.perf_counter() - started - sum(spent.values())
    return spent


def scene(frames: int) -> Iterator[Image]:
    """Draw three discs moving over a smooth background with camera noise, each uint8 [480, 640, 3] RGB."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    ground = cv2.GaussianBlur(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 9)
    noise = generator.integers(0, 12, (8, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(frames):
        frame = cv2.add(np.roll(ground, t, axis=1), noise[t % 8])
        for i, color in enumerate(((220, 30, 30), (40, 180, 60), (60, 70, 220))):
            center = (140 + (37 * i + 3 * t) % 360, 120 + 110 * i)
            cv2.circle(frame, center, 36, color, -1, cv2.LINE_AA)
        yield np.asarray(frame)


def untrained_probe(perception: str) -> PolicyProbe:
    """Build an untrained policy for the observations of the Track task."""
    import numpy as np
    from gymnasium import spaces

    from robot_attn_policies.probing.probe import probe_policy
    from robot_attn_policies.sb3.policy import build_policy
    from robot_attn_policies.training.presets import TrainConfig

    observations = spaces.Dict(
        image=spaces.Box(0, 255, (3, 64, 64), np.uint8), state=spaces.Box(-1, 1, (4,), np.float32)
    )
    actions = spaces.Box(-1, 1, (2,), np.float32)
    return probe_policy(build_policy(TrainConfig("track", perception=perception), observations, actions))


@contextmanager
def one_core() -> Iterator[None]:
    """Bind this thread, and all that it starts, to one core; OpenCV gets one thread."""
    import cv2

    before, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {max(before)})
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        cv2.setNumThreads(threads)
