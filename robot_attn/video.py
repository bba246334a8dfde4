"""Frames to an H.264 file that a browser plays, through the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn._files import replacing

# Without these a player guesses, and guesses BT.601 for small pictures: the colours would shift.
_COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_INSTALL = 'pip install "robot-attn[video]"'


class VideoError(OSError):
    """A video could not be written: one sentence, with ffmpeg's own last line if it said anything."""


def ffmpeg_path() -> str:
    """Path of the ffmpeg program: the one IMAGEIO_FFMPEG_EXE names, else the one imageio-ffmpeg brings.

    Raises:
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        VideoError: it is, and finds no program.
    """
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a video needs imageio-ffmpeg, which is not installed; run {_INSTALL}", name=error.name
        ) from error
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
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints
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
