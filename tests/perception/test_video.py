import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
cv2 = pytest.importorskip("cv2")

from robot_attn.video import VideoError, ffmpeg_path, write_video  # noqa: E402

RED, BLUE = (210, 40, 30), (20, 60, 200)


def frames(count: int = 7, height: int = 64, width: int = 96) -> Iterator[np.ndarray]:
    """Red above blue, and a white bar that moves right by eight pixels a frame."""
    for t in range(count):
        frame = np.empty((height, width, 3), dtype=np.uint8)
        frame[: height // 2], frame[height // 2 :] = RED, BLUE
        frame[:, 8 * t : 8 * t + 8] = 255
        yield frame


def describe(path: Path) -> str:
    return subprocess.run([ffmpeg_path(), "-hide_banner", "-i", path], capture_output=True, text=True).stderr


def decode(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return found
        found.append(frame[..., ::-1])


def test_the_format_plays_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert write_video(path, frames(), 12.5) == 7
    output = describe(path)
    assert re.search(r"Video: h264 \(High\)", output)
    assert "yuv420p(tv, bt709" in output
    assert "12.50 fps" in output
    assert "96x64" in output
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it starts before it is loaded
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_frames_round_trip(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(), 10)
    decoded = decode(tmp_path / "a.mp4")
    assert len(decoded) == 7
    for t, frame in enumerate(decoded):
        assert frame[10, 8 * t + 4].min() > 235
        assert frame[10, 80] == pytest.approx(np.array(RED), abs=12)
        assert frame[50, 80] == pytest.approx(np.array(BLUE), abs=12)


def test_odd_sides_are_padded_with_the_last_pixels(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", (np.full((63, 81, 3), RED, dtype=np.uint8) for _ in range(2)), 10)
    frame = decode(tmp_path / "a.mp4")[0]
    assert frame.shape == (64, 82, 3)
    assert frame[63, 81] == pytest.approx(np.array(RED), abs=12)


def test_invalid_input_leaves_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    wide = [np.zeros((64, 96, 3), np.uint8), np.zeros((64, 98, 3), np.uint8)]
    for bad, message in (
        ([], "got no frames"),
        (wide, "expected frames of one size"),
        ([np.zeros((64, 96, 3), np.float32)], "uint8"),
        ([np.zeros((64, 96), np.uint8)], r"\[64, 96\]"),
    ):
        with pytest.raises(ValueError, match=message):
            write_video(path, bad, 10)
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            write_video(path, frames(), fps)
    with pytest.raises(ValueError, match=r"ends in \.mp4"):
        write_video(tmp_path / "a.avi", frames(), 10)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield from frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", interrupted(), 10)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing or not writable"):
        write_video(tmp_path / "none" / "a.mp4", frames(), 10)


def test_a_failing_ffmpeg_reports_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho first >&2\necho 'No space left on device' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    (tmp_path / "out").mkdir()
    with pytest.raises(VideoError, match=r"ffmpeg to write .*a\.mp4, got: No space left on device"):
        write_video(tmp_path / "out" / "a.mp4", frames(60), 10)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_ffmpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    with pytest.raises(VideoError, match="nothing"):
        write_video(tmp_path / "a.mp4", frames(), 10)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    # The largest file a process may write stands in for a full disk: the write fails in the same way.
    code = f"""
import resource, signal, numpy as np
from robot_attn.video import VideoError, write_video
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
try:
    write_video({str(tmp_path / "a.mp4")!r}, noise, 10)
except VideoError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "expected ffmpeg to write" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_imageio_ffmpeg_the_error_names_the_install_line() -> None:
    code = """
import sys
sys.modules["imageio_ffmpeg"] = None
from robot_attn.video import ffmpeg_path
try:
    ffmpeg_path()
except ModuleNotFoundError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert 'pip install "robot-attn[video]"' in output
