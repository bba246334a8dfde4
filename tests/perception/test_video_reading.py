import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
cv2 = pytest.importorskip("cv2")

from robot_attn.video import Camera, VideoError, VideoReader, ffmpeg_path, write_video  # noqa: E402

COUNT = 60


def picture(t: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Noise, so that the file has bytes to truncate, and a grey level that encodes the frame number."""
    frame = np.random.default_rng(t).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame[: height // 2] = 4 * t
    return frame


def number(frame: np.ndarray) -> int:
    return round(float(frame[2:20, 4:-4].mean()) / 4)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, (picture(t) for t in range(COUNT)), 12.5)
    return path


def cut(video: Path, to: Path, share: float) -> Path:
    data = video.read_bytes()
    to.write_bytes(data[: round(share * len(data))])
    return to


def write_pictures(folder: Path, count: int) -> str:
    for t in range(count):
        cv2.imwrite(str(folder / f"{t:03}.png"), picture(t)[..., ::-1])
    return str(folder / "%03d.png")


def test_all_frames_are_read_in_order_with_the_metadata(video: Path) -> None:
    with VideoReader(video) as reader:
        assert (reader.size, reader.fps, reader.length) == ((48, 80), 12.5, COUNT)
        numbers = []
        for frame in reader:
            assert frame.dtype == np.uint8 and frame.shape == (48, 80, 3)
            numbers.append(number(frame))
            assert reader.count == len(numbers)
        assert numbers == list(range(COUNT))
        assert reader.cut is None


def test_red_is_red(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), (210, 40, 30), np.uint8)] * 3, 10)
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert next(iter(reader))[16, 16] == pytest.approx(np.array([210, 40, 30]), abs=6)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_file_gives_the_frames_before_the_cut(video: Path, tmp_path: Path, share: float) -> None:
    with VideoReader(cut(video, tmp_path / "a.mp4", share)) as reader:
        assert reader.cut is None  # not known yet
        numbers = [number(frame) for frame in reader]
        assert reader.cut == COUNT
    damaged = reader.damaged
    # A B frame is stored after the later frame that it refers to, so frames may be missing before the last.
    assert numbers == sorted(set(numbers))
    assert [t for t in range(1, len(numbers)) if numbers[t] != numbers[t - 1] + 1] == list(damaged)
    assert numbers[:-2] == list(range(len(numbers) - 2))
    # Encoded frames have about equal sizes, within a group of pictures.
    assert abs(len(numbers) - share * COUNT) < 8


def test_a_file_truncated_before_its_index_is_refused(video: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"  # with its index at the end
    subprocess.run([ffmpeg_path(), "-loglevel", "error", "-i", video, "-c", "copy", late], check=True)
    with VideoReader(late) as reader:
        assert [number(frame) for frame in reader] == list(range(COUNT))
    with pytest.raises(VideoError, match="a truncated file may lack the index at its end"):
        VideoReader(cut(late, tmp_path / "cut.mp4", 0.6))


def test_files_that_are_not_videos_are_refused(video: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 40)
    (tmp_path / "empty.mp4").touch()
    for name, message in (
        ("none.mp4", "expected a video file, got .* which does not exist"),
        ("text.mp4", "which cannot be decoded"),
        ("empty.mp4", "which cannot be decoded"),
        (".", "got the folder"),
    ):
        with pytest.raises(VideoError, match=message):
            VideoReader(tmp_path / name)
    # A complete index without any frame.
    head = video.read_bytes().index(b"mdat") + 4
    (tmp_path / "none_whole.mp4").write_bytes(video.read_bytes()[:head])
    with pytest.raises(VideoError, match=r"which cannot be decoded|none that can be decoded"):
        VideoReader(tmp_path / "none_whole.mp4")


@pytest.mark.parametrize("size", [(8, 64), (16, 160)])
def test_frames_of_extreme_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((*size, 3), np.uint8)] * 2, 10)
    with pytest.raises(VideoError, match=f"sides from 16 to 8192 .*, got {size[1]} x {size[0]}"):
        VideoReader(tmp_path / "a.mp4")


def test_an_image_sequence_is_read_as_a_video(tmp_path: Path) -> None:
    with VideoReader(write_pictures(tmp_path, 5)) as reader:
        frames = list(reader)
    assert [np.array_equal(frame, picture(t)) for t, frame in enumerate(frames)] == [True] * 5


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    cv2.imwrite(str(tmp_path / "grey_0.png"), (grey // 4).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "clear_0.png"), np.full((32, 32, 4), (10, 20, 30, 77), np.uint8))
    cv2.imwrite(str(tmp_path / "deep_0.png"), grey)
    with VideoReader(tmp_path / "grey_%d.png") as reader:
        assert np.array_equal(next(iter(reader)), np.repeat((grey // 4).astype(np.uint8)[..., None], 3, 2))
    with VideoReader(tmp_path / "clear_%d.png") as reader:
        assert next(iter(reader))[5, 5].tolist() == [30, 20, 10]
    with VideoReader(tmp_path / "deep_%d.png") as reader:  # 16 bits per channel
        assert next(iter(reader))[..., 1] == pytest.approx(grey / 257, abs=1)


def test_the_camera_returns_the_newest_frame(tmp_path: Path) -> None:
    # OpenCV reads an image sequence like a camera, as fast as frames are taken.
    with Camera(write_pictures(tmp_path, 12)) as camera:
        while camera.captured < 12:
            time.sleep(0.001)
        assert [np.array_equal(frame, picture(11)) for frame in camera] == [True]
        assert (camera.count, camera.captured) == (1, 12)


def test_frames_that_arrive_during_processing_are_dropped(tmp_path: Path) -> None:
    numbers = []
    with Camera(write_pictures(tmp_path, 40)) as camera:
        for frame in camera:
            numbers.append(number(frame))
            before = camera.captured
            while camera.captured < min(before + 3, 40):
                time.sleep(0.0005)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 39
    assert len(numbers) <= 15  # frames that arrive during processing are dropped
    assert camera.count == len(numbers)


def test_a_missing_camera_is_named() -> None:
    with pytest.raises(VideoError, match="camera 63, which cannot be opened"):
        Camera(63)
