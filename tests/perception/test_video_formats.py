"""Files as ffmpeg, phones and disks make them: other codecs, pixel shapes, rates, names and damage."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")

from robot_attn.video import VideoError, VideoReader, ffmpeg_path

COUNT = 20
# 10 frames a second for a second, then 2 a second.
VARIABLE = "setpts='if(lt(N,10),N,10+5*(N-10))/10/TB'"
# A red square at the top left of a blue frame.
SQUARE = "color=blue:s={size}:r=10:d=2,drawbox=0:0:40:40:red:fill"


def make(path: Path, *options: str, source: str = SQUARE, size: str = "120x80") -> Path:
    """Encode a video with ffmpeg."""
    command = [ffmpeg_path(), "-v", "error", "-y", "-f", "lavfi", "-i", source.format(size=size)]
    subprocess.run([*command, *options, f"file:{path}"], check=True, stderr=subprocess.PIPE)
    return path


def is_red(pixel: np.ndarray) -> bool:
    return bool(pixel[0] > 150 and pixel[1] < 90 and pixel[2] < 90)


def is_blue(pixel: np.ndarray) -> bool:
    return bool(pixel[0] < 90 and pixel[1] < 90 and pixel[2] > 150)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("av1.mkv", ["-c:v", "libaom-av1", "-cpu-used", "8"]),
        ("vp9.webm", ["-c:v", "libvpx-vp9"]),
        ("animated.gif", []),
        ("animated.png", ["-f", "apng"]),
        ("ten_bits.mkv", ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"]),
        ("alpha.mov", ["-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"]),
        ("percent%q.mp4", []),
        ("pattern%03d:colon.mp4", []),
        ("-dash.mp4", []),
    ],
)
def test_every_frame_of_a_format_is_read_with_its_colours(
    tmp_path: Path, name: str, options: list[str]
) -> None:
    with VideoReader(make(tmp_path / name, *options)) as reader:
        frames = list(reader)
        assert (reader.size, reader.fps, reader.cut, reader.damaged) == ((80, 120), 10, None, ())
    assert len(frames) == COUNT
    assert all(
        is_red(frame[20, 20]) and is_blue(frame[60, 20]) and is_blue(frame[20, 60]) for frame in frames
    )


def test_an_animated_webp_keeps_its_time(tmp_path: Path) -> None:
    source = "color=blue:s=64x64:r=10:d=2,drawbox=0:0:64:64:red:fill:enable='gte(t,1)'"
    path = make(tmp_path / "a.webp", "-c:v", "libwebp_anim", source=source)
    with VideoReader(path) as reader:
        assert reader.fps == 25
        red = [is_red(frame[32, 32]) for frame in reader]
    assert red[:25] == [False] * 25
    assert len(red) > 40 and all(red[25:])


def test_grey_video_becomes_rgb(tmp_path: Path) -> None:
    with VideoReader(make(tmp_path / "a.mkv", "-c:v", "ffv1", "-pix_fmt", "gray")) as reader:
        frame = next(iter(reader))
    assert frame.shape == (80, 120, 3)
    assert (frame == frame[..., :1]).all()
    assert len(np.unique(frame)) > 1


@pytest.mark.parametrize(
    ("aspect", "size", "corner"), [("4", (80, 480), (20, 150)), ("1/2", (160, 120), (70, 20))]
)
def test_pixels_become_square(
    tmp_path: Path, aspect: str, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    with VideoReader(make(tmp_path / "a.mp4", "-vf", f"setsar={aspect}")) as reader:
        frame = next(iter(reader))
        assert reader.size == size == frame.shape[:2]
    assert is_red(frame[corner])
    assert is_blue(frame[-10, -10])


def test_a_nonsense_pixel_aspect_is_refused_before_a_frame_is_made(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="got 2400 x 80"):
        VideoReader(make(tmp_path / "a.mp4", "-vf", "setsar=20"))


def test_a_portrait_video_of_a_phone_is_upright(tmp_path: Path) -> None:
    upright, phone = make(tmp_path / "a.mp4"), tmp_path / "phone.mp4"
    rotate = [ffmpeg_path(), "-v", "error", "-display_rotation", "90", "-i", upright, "-c", "copy", phone]
    subprocess.run(rotate, check=True)
    with VideoReader(phone) as reader:
        frame = next(iter(reader))
        assert reader.size == frame.shape[:2] == (120, 80)
    assert is_red(frame[100, 20])  # a quarter turn counterclockwise
    assert is_blue(frame[20, 20])


def test_odd_sizes_and_single_frames(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", "-frames:v", "1", "-c:v", "ffv1", "-pix_fmt", "yuv444p", size="65x63")
    with VideoReader(path) as reader:
        assert [frame.shape for frame in reader] == [(63, 65, 3)]
        assert reader.cut is None


def test_a_variable_frame_rate_keeps_its_time(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", "-vf", VARIABLE, "-fps_mode", "vfr")
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.fps == 10
        assert reader.cut is None and reader.damaged == ()
    assert 10 + 5 * 9 <= len(frames) <= 10 + 5 * 10


def test_an_implausible_frame_rate_is_unknown(tmp_path: Path) -> None:
    source = "color=blue:s=64x64:r=1000:d=0.02"
    with VideoReader(make(tmp_path / "a.mkv", "-c:v", "ffv1", source=source)) as reader:
        assert len(list(reader)) == COUNT
        assert reader.fps is None


def test_damage_is_reported_with_its_frame(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", source="testsrc2=s=320x240:r=25:d=2")
    with VideoReader(path) as reader:
        clean = list(reader)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frames = list(reader)
        damaged, cut = reader.damaged, reader.cut
    assert damaged
    assert cut == 50 and len(frames) < 50
    first = damaged[0]
    assert 0 < first < 49
    assert all(np.array_equal(frames[t], clean[t]) for t in range(first - 1))
    assert not np.array_equal(frames[first], clean[first])


def test_an_unreadable_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("a text " * 99)
    (tmp_path / "folder.mp4").mkdir()
    audio = make(tmp_path / "sound.mp4", source="sine=d=0.2")
    for path in (*(tmp_path / name for name in ("zero.mp4", "text.mp4", "folder.mp4", "no%q.mp4")), audio):
        with pytest.raises(VideoError, match=r"^expected a video.*, got .*: .*$") as refusal:
            VideoReader(path)
        assert "\n" not in str(refusal.value)


def test_an_undecodable_codec_is_named_with_the_conversion(tmp_path: Path) -> None:
    path = make(tmp_path / "a.avi", "-c:v", "mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
    with pytest.raises(VideoError, match=r"ffmpeg -i .*a\.avi -c:v libx264"):
        VideoReader(path)


def test_the_reader_can_be_closed_before_the_end(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", source="testsrc2=s=640x480:r=25:d=10")
    with VideoReader(path) as reader:
        next(iter(reader))
    assert reader._process.returncode is not None
    shutil.rmtree(tmp_path)
