"""Encode frames as an H.264 video that browsers play, and read frames from a video file or a camera.

The ffmpeg program of imageio-ffmpeg encodes and decodes files; OpenCV reads cameras. All frames are uint8
[H, W, 3] RGB.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.files import replacing
from robot_attn.optional import import_cv2, import_optional

# Without this metadata players assume BT.601 for small frames, which shifts the colours.
_COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_INSTALL = 'pip install "robot-attn[video]"'

MIN_VIDEO_SIDE = 16
MAX_VIDEO_SIDE = 8192
"""Accepted height and width of frames to read, in pixels."""
MAX_FPS = 240.0
"""Largest plausible frame rate; some files report the ticks of their clock instead."""
_MAX_ASPECT_RATIO = 8
_WEBP_FPS = 25.0
_MIN_MISSING_SHARE = 0.01  # the length in a file's metadata is its duration times its rate, rounded


class VideoError(OSError):
    """A video cannot be written or read; the message contains ffmpeg's last line of output, if any."""


def ffmpeg_path() -> str:
    """Return the path of the ffmpeg program: of IMAGEIO_FFMPEG_EXE if set, else of imageio-ffmpeg.

    Raises:
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        VideoError: imageio-ffmpeg finds no program.
    """
    imageio_ffmpeg = import_optional("imageio_ffmpeg", needs="a video needs imageio-ffmpeg", extra="video")
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise VideoError(
            f"expected an ffmpeg program, got none: run {_INSTALL}, or set IMAGEIO_FFMPEG_EXE"
        ) from error


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[Any]],
    fps: float,
    *,
    crf: int = 18,
    keyframe_interval: int | None = None,
) -> int:
    """Encode frames as an H.264 video (yuv420p, BT.709, index at the start).

    An odd height or width is padded with a copy of the last row or column, since yuv420p halves both. The
    file is written under a temporary name and replaces `path` only when it is complete.

    Args:
        path: output file, ending in .mp4.
        frames: uint8 [H, W, 3] RGB, all of the same size; consumed one at a time.
        fps: frame rate in frames per second.
        crf: constant rate factor, from 0 (lossless) to 51; 18 is visually lossless.
        keyframe_interval: frames from one keyframe to the next at most: a small number makes the file larger
            and reading single frames faster. None for the encoder's default, 250.

    Returns:
        The number of frames written.

    Raises:
        ValueError: no frames, a frame of another shape or dtype, a frame rate that is not positive, or
            another file ending.
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        VideoError: ffmpeg is missing or failed, for example because the disk is full.
        OSError: the folder is missing or not writable.
    """
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"expected a file name that ends in .mp4, got {target.name}")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"expected a positive frame rate in frames per second, got {fps}")
    program = ffmpeg_path()
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"expected at least one frame to write to {target}, got no frames")
    _check(first, first.shape)
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise VideoError(
            f"expected {target} in a writable folder, got {target.parent}, which is missing or not writable: "
            "name another folder"
        )
    with replacing(target) as temporary, tempfile.TemporaryFile() as stderr:
        height, width = first.shape[:2]
        command = [
            *(program, "-y", "-hide_banner", "-loglevel", "error", "-nostdin"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}"),
            *("-i", "pipe:0", "-vf", _even(height, width) + _COLOURS),
            *("-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf)),
            *(() if keyframe_interval is None else ("-g", str(keyframe_interval))),
            *("-movflags", "+faststart", "-an", "-f", "mp4", str(temporary)),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                process_group=0,  # Ctrl-C must not reach ffmpeg: the video may still have to be finished
            )
        except OSError as error:
            raise VideoError(
                f"expected an ffmpeg program that can be run, got {program} ({error.strerror}): run "
                f"{_INSTALL}, or set IMAGEIO_FFMPEG_EXE"
            ) from error
        with process:
            assert process.stdin is not None
            count = 0
            try:
                for frame in chain([first], iterator):
                    _check(frame, first.shape)
                    process.stdin.write(np.ascontiguousarray(frame).data)
                    count += 1
                process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg stopped reading: its exit status and last line of output say why
            except BaseException:
                process.kill()
                raise
            finally:
                _close_quietly(process.stdin)
            status = process.wait()
        if status != 0 or not temporary.is_file():
            stderr.seek(0)
            raise VideoError(f"expected ffmpeg to write {target}, got: {_last_line(stderr.read(), status)}")
    return count


def _even(height: int, width: int) -> str:
    if height % 2 == 0 and width % 2 == 0:
        return ""
    pad = f"pad={width + width % 2}:{height + height % 2}"
    fill = f"fillborders=right={width % 2}:bottom={height % 2}:mode=smear"
    return f"{pad},{fill},"


def _check(frame: NDArray[Any], shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(
            f"expected frames uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}: convert them to RGB"
        )
    if frame.shape != shape:
        raise ValueError(
            f"expected frames of one size, got {shape[:2]} first and {frame.shape[:2]} later: resize them"
        )


def _close_quietly(pipe: Any) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _last_line(stderr: bytes, status: int) -> str:
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return lines[-1]
    return f"signal {-status}" if status < 0 else f"exit status {status}"


class VideoReader:
    """Iterator over the frames of a video file, uint8 [H, W, 3] RGB.

        with VideoReader("drive.mp4") as video:
            for frame in video:
                ...

    Reads every container and codec of the ffmpeg program, AV1 and animated WebP, GIF and PNG among them; a
    pattern such as frames/%04d.png reads an image sequence. Frames are rotated upright and scaled to square
    pixels according to the file's metadata; transparency is dropped. A video whose frame rate varies is read
    at the rate of its clock, so that frames are repeated, if that rate is plausible. A truncated file, for
    example from an interrupted download, yields the frames before the cut, after which `cut` is set. It can
    be iterated once.

    Args:
        path: video file, or pattern of an image sequence.

    Raises:
        VideoError: the file is missing, cannot be decoded, contains no frame, or has frames of an unsupported
            size.
        ModuleNotFoundError: imageio-ffmpeg is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fspath(path)
        self._source = _input(path)
        size, self.fps, self.length, resample = _probe(self._source, self._name)
        _check_size(self._name, size)  # before a frame of that size is allocated
        self.count = 0
        """Number of frames yielded so far."""
        self._log = _DecoderLog(self.fps)
        self._process = self._start(resample)
        try:
            self._next = self._decode()
            if self._next is None:
                self._reader.join()
                raise VideoError(
                    f"expected at least one frame in {path}, got none that can be decoded "
                    f"({self._log.last or 'it is empty'}): check the file, or convert it: "
                    f"ffmpeg -i {shlex.quote(self._name)} -c:v libx264 -pix_fmt yuv420p converted.mp4"
                )
            self.size: tuple[int, int] = self._next.shape[0], self._next.shape[1]
            """(H, W) of the frames, in pixels."""
            _check_size(self._name, self.size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        while self._next is not None:
            frame = self._next
            self.count += 1
            yield frame
            self._next = self._decode()

    @property
    def cut(self) -> int | None:
        """Number of frames that the file states, if it ended with fewer; else None."""
        if self._next is not None or self.length is None:
            return None
        missing = self.length - self.count
        expected = 0.0 if self._log.damaged else max(1, _MIN_MISSING_SHARE * self.length)
        return self.length if missing > expected else None

    @property
    def damaged(self) -> tuple[int, ...]:
        """Indices, from 0, of frames that are decoded from damaged data or follow frames that are lost.

        Complete once all frames are read. Errors may persist until the next key frame.
        """
        if self._next is None:
            self._reader.join()
        gaps = self._log.gaps if self.cut is not None else set()  # else its rate may have varied on purpose
        return tuple(sorted(self._log.damaged | gaps))

    def close(self) -> None:
        """Close the file."""
        self._process.kill()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            _close_quietly(pipe)
        self._process.wait()

    def _start(self, resample: float | None) -> subprocess.Popen[bytes]:
        """Start decoding to a stream of PPM images, whose headers state their sizes."""
        square = "scale=w='max(1,trunc(iw*max(sar,1)+0.5))':h='max(1,trunc(ih/min(sar,1)+0.5))',setsar=1"
        process = subprocess.Popen(
            [
                *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-debug_ts", "-i", self._source),
                *("-map", "0:v:0", "-vf", square if resample is None else f"fps={resample:g},{square}"),
                *(
                    "-fps_mode",
                    "passthrough",
                    "-c:v",
                    "ppm",
                    "-pix_fmt",
                    "rgb24",
                    "-f",
                    "image2pipe",
                    "pipe:1",
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=1 << 20,
            process_group=0,  # Ctrl-C must not reach ffmpeg: the caller decides when to stop
        )
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._log.read, args=(process.stderr,), daemon=True)
        self._reader.start()
        return process

    def _decode(self) -> NDArray[np.uint8] | None:
        pipe = self._process.stdout
        assert isinstance(pipe, io.BufferedReader)
        if pipe.readline() != b"P6\n":
            return None
        width, height = map(int, pipe.readline().split())
        pipe.readline()  # the largest value, 255
        frame = np.empty((height, width, 3), np.uint8)
        return frame if pipe.readinto(frame.data.cast("B")) == frame.size else None


class _DecoderLog:
    """What ffmpeg writes while it decodes: the damaged frames, those after a gap, and its last error."""

    def __init__(self, fps: float | None) -> None:
        self._longest = 1.5 / fps if fps is not None else float("inf")
        self.damaged: set[int] = set()
        self.gaps: set[int] = set()
        self.last = ""

    def read(self, stderr: IO[bytes]) -> None:
        """Read until the end. With -debug_ts, the decoder writes a line for each frame, in their order."""
        decoded, before = 0, float("inf")
        for raw in stderr:
            line = raw.decode("utf-8", "replace").strip()
            if "decoder -> pts" in line:
                time = re.search(r" pts_time:(-?[\d.]+)", line)
                now = float(time[1]) if time else float("inf")
                if now - before > self._longest:
                    self.gaps.add(decoded)
                decoded, before = decoded + 1, now
            elif "corrupt decoded frame" in line or "Error submitting packet to decoder" in line:
                self.damaged.add(decoded)
            elif re.search("error|invalid|not found", line, re.IGNORECASE):
                self.last = re.sub(r"\[[^]]*@ 0x[^]]*\] *", "", line)


def _input(path: str | os.PathLike[str]) -> str:
    """Return how ffmpeg is told to read exactly this file, or this pattern of an image sequence.

    Raises:
        VideoError: it is a folder, empty, or does not exist.
    """
    source = Path(path)
    if source.is_dir():
        raise VideoError(
            f"expected a video file, got the folder {source}: name a video in it, or an image sequence "
            "such as %04d.png"
        )
    if source.exists():
        if source.is_file() and source.stat().st_size == 0:
            raise VideoError(
                f"expected a video, got {source}, which cannot be decoded since it is empty: copy it again"
            )
        return f"file:{source}"  # a plain name with a colon or a % would mean something else
    if not re.search(r"%0?\d*d", source.name):
        raise VideoError(f"expected a video file, got {source}, which does not exist: check its name")
    return str(source if source.is_absolute() else Path.cwd() / source)


def _probe(source: str, name: str) -> tuple[tuple[int, int], float | None, int | None, float | None]:
    """Return the size (H, W) with square pixels, frame rate, number of frames, and rate to resample to."""
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-i", source]
    text = subprocess.run(command, capture_output=True, check=False).stderr.decode("utf-8", "replace")
    stream = re.search(r"^ +Stream #.*: Video: (.*)$", text, re.MULTILINE)
    if stream is None:
        raise VideoError(
            f"expected a video, got {name}, which cannot be decoded ({_last_line(text.encode(), 1)}): "
            "convert it to another format, or copy it again, since a truncated file may lack the index at "
            "its end"
        )
    found = re.search(r", (\d+)x(\d+)(?: \[SAR (\d+):(\d+))?", stream[1])
    width, height, over, under = (int(part or 1) for part in found.groups()) if found else (0, 0, 1, 1)
    aspect = over / under if over and under else 1.0
    size = round(height / min(aspect, 1)), round(width * max(aspect, 1))
    rates = {
        unit: float(value) * (1000 if kilo else 1)
        for value, kilo, unit in re.findall(r"([\d.]+)(k?) (fps|tbr)", stream[1])
    }
    mean, clock = rates.get("fps"), rates.get("tbr")
    if stream[1].startswith("webp_anim"):  # its frames have durations in ms, and the rate stated is a guess
        mean, clock = 0.0, _WEBP_FPS
    varies = mean is not None and clock is not None and abs(clock - mean) > 0.01 * mean
    rate = clock if varies and clock is not None and clock <= MAX_FPS else mean
    fps = rate if rate is not None and 0 < rate <= MAX_FPS else None
    time = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    seconds = 3600 * int(time[1]) + 60 * int(time[2]) + float(time[3]) if time else 0.0
    length = round(seconds * fps) if fps is not None else 0
    return size, fps, length or None, fps if varies else None


class Camera:
    """Iterator over the newest frames of a camera, uint8 [H, W, 3] RGB.

    A background thread captures frames; those that arrive while a frame is being processed are dropped, so
    that each frame returned is current. The iteration ends when the camera does.

    Args:
        source: index of the camera, or its device, such as /dev/video0.
        timeout: seconds to wait for a frame.

    Raises:
        VideoError: the camera cannot be opened, or delivers no frame within the timeout.
        ModuleNotFoundError: opencv is not installed.
    """

    def __init__(self, source: int | str, *, timeout: float = 5.0) -> None:
        self._name = f"camera {source}"
        self._timeout = timeout
        self._capture = _open(source)
        if not self._capture.isOpened():
            raise VideoError(
                f"expected a camera, got {self._name}, which cannot be opened: check that it is connected, "
                "not in use, and readable by you"
            )
        cv2 = import_cv2()
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps <= MAX_FPS else None
        """Frame rate in frames per second; None if the camera does not state it."""
        self.captured = 0
        """Number of frames captured so far."""
        self.count = 0
        """Number of frames yielded so far."""
        self._newest: Any = None
        self._ended = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._capture_frames, daemon=True)
        self._thread.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        while True:
            with self._condition:
                arrived = self._condition.wait_for(
                    lambda: self._newest is not None or self._ended, self._timeout
                )
                frame, self._newest = self._newest, None
            if not arrived:
                raise VideoError(
                    f"expected a frame of {self._name} within {self._timeout:g} s, got none: check that it "
                    "is still connected"
                )
            if frame is None:
                return
            self.count += 1
            yield _rgb(frame)

    def close(self) -> None:
        """Release the camera."""
        self._ended = True
        self._thread.join(self._timeout)
        self._capture.release()

    def _capture_frames(self) -> None:
        while not self._ended:
            done, frame = self._capture.read()
            with self._condition:
                self._ended |= not done
                self._newest = frame if done else self._newest
                self.captured += done
                self._condition.notify()


def _open(source: int | str) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # report errors once, as VideoError
    return import_cv2().VideoCapture(source)


def _rgb(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a frame of OpenCV, 8-bit BGR whatever the source, to RGB."""
    cv2 = import_cv2()
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def _check_size(name: str, size: tuple[int, int]) -> None:
    shorter, longer = min(size), max(size)
    if not (shorter >= MIN_VIDEO_SIDE and longer <= MAX_VIDEO_SIDE and longer <= _MAX_ASPECT_RATIO * shorter):
        raise VideoError(
            f"expected frames with sides from {MIN_VIDEO_SIDE} to {MAX_VIDEO_SIDE} pixels and an "
            f"aspect ratio of at most {_MAX_ASPECT_RATIO}, got {size[1]} x {size[0]} in {name}: "
            "crop or resize them"
        )
