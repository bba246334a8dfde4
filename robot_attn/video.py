"""Frames to an H.264 file that a browser plays, and frames from a video file or a camera.

Writing goes through the ffmpeg that imageio-ffmpeg brings, reading through OpenCV. All frames are uint8
[H, W, 3] RGB.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.files import replacing
from robot_attn.optional import import_cv2, import_optional

# Without these a player guesses, and guesses BT.601 for small pictures: the colours would shift.
_COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_INSTALL = 'pip install "robot-attn[video]"'

SIDES = (16, 8192)
"""The fewest and most pixels that a side of a frame may have to be read."""
MOST_FPS = 240.0
"""A frame rate above this is not believed: some files give the ticks of their clock."""
_MOST_ASPECT = 8
_LEAST_MISSING = 0.01  # what a file says of its length is its duration times its rate, rounded


class VideoError(OSError):
    """A video could not be written or read: one sentence, with ffmpeg's own last line if it said anything."""


def ffmpeg_path() -> str:
    """Path of the ffmpeg program: the one IMAGEIO_FFMPEG_EXE names, else the one imageio-ffmpeg brings.

    Raises:
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        VideoError: it is, and finds no program.
    """
    imageio_ffmpeg = import_optional("imageio_ffmpeg", needs="a video needs imageio-ffmpeg", extra="video")
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise VideoError(
            f"no ffmpeg program was found; run {_INSTALL}, or name one in IMAGEIO_FFMPEG_EXE"
        ) from error


def write_video(
    path: str | os.PathLike[str], frames: Iterable[NDArray[Any]], fps: float, *, crf: int = 18
) -> int:
    """Encode `frames` to `path` as H.264 (yuv420p, BT.709, index at the start); return how many there were.

    An odd side gets one more row or column, a copy of the last, since yuv420p halves both. The file appears
    whole, under its name, once everything went well; else whatever was there stays.

    Args:
        path: where to; ends in .mp4.
        frames: uint8 [H, W, 3] RGB, all of one size; taken one at a time.
        fps: frames a second, so that the video runs at the pace of the episode.
        crf: quality, from 0 (lossless) to 51; 18 looks lossless.

    Raises:
        ValueError: no frames, or a frame of another shape or dtype, or a frame rate that is not positive.
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        VideoError: ffmpeg is missing or failed, for example for lack of disk space.
        OSError: the folder is missing or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"a video's name ends in .mp4, got {target.name}")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"a frame rate is a positive number of frames a second, got {fps}")
    program = ffmpeg_path()
    supply = iter(frames)
    first = next(supply, None)
    if first is None:
        raise ValueError(f"no frames to write to {target}")
    _check(first, first.shape)
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise VideoError(f"cannot write {target}: its folder is missing or not writable")
    with replacing(target) as temporary, tempfile.TemporaryFile() as complaints:
        height, width = first.shape[:2]
        command = [
            *(program, "-y", "-hide_banner", "-loglevel", "error", "-nostdin"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}"),
            *("-i", "pipe:0", "-vf", _even(height, width) + _COLOURS),
            *("-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf)),
            *("-movflags", "+faststart", "-an", "-f", "mp4", str(temporary)),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                process_group=0,  # Ctrl-C is for us: we may have a video to finish
            )
        except OSError as error:
            raise VideoError(f"the ffmpeg program {program} cannot be run: {error.strerror}") from error
        with process:
            assert process.stdin is not None
            count = 0
            try:
                for frame in chain([first], supply):
                    _check(frame, first.shape)
                    process.stdin.write(np.ascontiguousarray(frame).data)
                    count += 1
                process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg has stopped reading: its exit status and last words say why
            except BaseException:
                process.kill()
                raise
            finally:
                _close_quietly(process.stdin)
            status = process.wait()
        if status != 0 or not temporary.is_file():
            complaints.seek(0)
            raise VideoError(f"ffmpeg could not write {target}: {_last_words(complaints.read(), status)}")
    return count


def _even(height: int, width: int) -> str:
    if height % 2 == 0 and width % 2 == 0:
        return ""
    pad = f"pad={width + width % 2}:{height + height % 2}"
    fill = f"fillborders=right={width % 2}:bottom={height % 2}:mode=smear"
    return f"{pad},{fill},"


def _check(frame: NDArray[Any], shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"a video frame is uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    if frame.shape != shape:
        raise ValueError(
            f"all frames of a video have one size: the first is {shape[:2]}, one is {frame.shape[:2]}"
        )


def _close_quietly(pipe: Any) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _last_words(complaints: bytes, status: int) -> str:
    lines = [line.strip() for line in complaints.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return lines[-1]
    return f"it was stopped by signal {-status}" if status < 0 else f"it ended with status {status}"


class VideoReader:
    """The frames of a video file, uint8 [H, W, 3] RGB, one after the other: iterate over it once.

        with VideoReader("drive.mp4") as video:
            for frame in video:
                ...

    Any file that OpenCV reads, by its FFmpeg; a pattern such as frames/%04d.png names pictures in a row. The
    frame is turned upright where the file says how it was held. A file that was cut, by a broken download
    say, gives the frames before the cut, and `cut` then says so.

    Raises:
        VideoError: no such file, or none that can be read; no frame in it; or frames of a size that no
            camera has.
        ModuleNotFoundError: opencv is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fspath(path)
        source = Path(path)
        if source.is_dir():
            raise VideoError(f"{source} is a folder: name a video in it, or its pictures, such as %04d.png")
        if not source.exists() and "%" not in source.name:
            raise VideoError(f"there is no video {source}")
        self._capture = _open(self._name)
        if not self._capture.isOpened():
            raise VideoError(
                f"{source} cannot be read as a video: it is none, or it was cut before the index at its end"
            )
        cv2 = import_cv2()
        width, height, fps, length = (
            self._capture.get(which)
            for which in (
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        self.fps: float | None = fps if 0 < fps <= MOST_FPS else None
        """Frames a second; None where the file does not say."""
        self.length: int | None = int(length) if 0 < length < 1e9 else None
        """How many frames the file says it has; None where it does not say."""
        self.count = 0
        """How many frames were given so far."""
        try:
            _check_size(self._name, (int(height), int(width)))  # before anything of that size is made
            self._next = self._decode()
            if self._next is None:
                raise VideoError(f"{source} holds no frame that can be read")
            self.size: tuple[int, int] = self._next.shape[0], self._next.shape[1]
            """(H, W) of the frames."""
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
        """How many frames the file should have had, once fewer could be read of it; else None."""
        if self._next is not None or self.length is None:
            return None
        missing = self.length - self.count
        return self.length if missing > max(1, _LEAST_MISSING * self.length) else None

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()

    def _decode(self) -> NDArray[np.uint8] | None:
        done, frame = self._capture.read()
        return _rgb(frame) if done else None


class Camera:
    """The newest frame of a camera, uint8 [H, W, 3] RGB, whenever one is asked for: iterate over it.

    Frames that come while the last one is being worked on are let go, so that what is seen is now. A thread
    of its own takes them from the camera. The iteration ends when the camera does.

    Args:
        source: the camera's number, or its device, such as /dev/video0.
        patience: seconds to wait for a frame.

    Raises:
        VideoError: it cannot be opened, or gives no frame in that time.
        ModuleNotFoundError: opencv is not installed.
    """

    def __init__(self, source: int | str, *, patience: float = 5.0) -> None:
        self._name = f"camera {source}"
        self._patience = patience
        self._capture = _open(source)
        if not self._capture.isOpened():
            raise VideoError(
                f"{self._name} cannot be opened: it is not there, it is in use, or you may not read it"
            )
        cv2 = import_cv2()
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps <= MOST_FPS else None
        """Frames a second; None where the camera does not say."""
        self.taken = 0
        """Frames that the camera gave so far."""
        self.count = 0
        """How many of them were given on."""
        self._newest: Any = None
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        while True:
            with self._news:
                there = self._news.wait_for(lambda: self._newest is not None or self._ended, self._patience)
                frame, self._newest = self._newest, None
            if not there:
                raise VideoError(
                    f"{self._name} gave no frame for {self._patience:g} s: is it still plugged in?"
                )
            if frame is None:
                return
            self.count += 1
            yield _rgb(frame)

    def close(self) -> None:
        """Let go of the camera."""
        self._ended = True
        self._thread.join(self._patience)
        self._capture.release()

    def _take(self) -> None:
        while not self._ended:
            done, frame = self._capture.read()
            with self._news:
                self._ended |= not done
                self._newest = frame if done else self._newest
                self.taken += done
                self._news.notify()


def _open(source: int | str) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what a file lacks is said once, by us
    return import_cv2().VideoCapture(source)


def _rgb(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """What OpenCV gives, 8 bits of blue, green and red whatever the source has, as RGB."""
    cv2 = import_cv2()
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def _check_size(name: str, size: tuple[int, int]) -> None:
    least, most = min(size), max(size)
    if not (SIDES[0] <= least and most <= SIDES[1] and most <= _MOST_ASPECT * least):
        raise VideoError(
            f"{name} has frames of {size[1]} x {size[0]}: expected sides from {SIDES[0]} to {SIDES[1]} "
            f"pixels, and none longer than {_MOST_ASPECT} times the other"
        )
