"""The shift "background" with a user's folder of images and videos."""

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from robot_attn_envs.shifts._pictures import read_clips
from robot_attn_envs.tasks.track import Track
from robot_attn_envs.worlds import Worlds

ORANGE = (250, 130, 20)  # RGB


def write_image(path: Path, rgb: tuple[int, int, int], size: tuple[int, int] = (30, 50)) -> None:
    assert cv2.imwrite(str(path), np.full((*size, 3), rgb[::-1], np.uint8))


def write_video(path: Path, greys: list[int]) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    assert video.isOpened()
    for grey in greys:
        video.write(np.full((48, 64, 3), grey, np.uint8))
    video.release()


def test_images_and_videos_become_clips(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png", ORANGE)
    write_video(tmp_path / "a.avi", [10, 90, 170])
    (tmp_path / "notes.txt").write_text("passed over")
    clips = read_clips(tmp_path)
    assert clips.starts.tolist() == [0, 3] and clips.lengths.tolist() == [3, 1]
    assert clips.pictures.shape == (4, 128, 128) and clips.pictures.dtype == np.uint32
    assert (clips.pictures[3] == (250 << 16 | 130 << 8 | 20)).all()
    greys = clips.pictures[:3, 64, 64] & 255
    np.testing.assert_allclose(greys.astype(int), [10, 90, 170], atol=4)  # MJPG is lossy


def test_animated_images_and_names_with_a_percent_sign_become_clips(tmp_path: Path) -> None:
    images = [Image.new("RGB", (64, 48), (grey, grey, grey)) for grey in (10, 90, 170)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True)
    write_video(tmp_path / "b%03d:q%q.avi", [30, 60])
    clips = read_clips(tmp_path)
    assert clips.lengths.tolist() == [3, 2]
    greys = clips.pictures[:, 64, 64] & 255
    np.testing.assert_allclose(greys.astype(int), [10, 90, 170, 30, 60], atol=4)


def test_a_codec_without_a_decoder_is_named_with_the_conversion(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=0.5")
    video = tmp_path / "a.mkv"
    subprocess.run(
        [ffmpeg, "-v", "error", *source, "-c:v", "libaom-av1", "-cpu-used", "8", video], check=True
    )
    with pytest.raises(ValueError, match="decoder of its codec AV01") as refusal:
        read_clips(tmp_path)
    assert f"ffmpeg -i {video} -c:v libx264 -pix_fmt yuv420p {tmp_path / 'a.h264.mp4'}" in str(refusal.value)


def test_an_image_is_painted_over_the_scenery(tmp_path: Path) -> None:
    write_image(tmp_path / "wall.png", ORANGE)
    worlds = Worlds(Track, 2, image_size=48, shift="background", intensity=1.0, backgrounds=tmp_path)
    worlds.seed([0, 1])
    worlds.reset(np.arange(2))
    scenery = [worlds.model.geom(name).id for name in Track.backdrop]
    painted = np.isin(worlds.camera.geom_id, [-1, *scenery])
    assert 0.3 < painted.mean() < 1.0
    # At intensity 1, 95 % of it and 5 % of the scene.
    np.testing.assert_allclose(
        worlds.camera.rgb[painted], np.broadcast_to(ORANGE, (painted.sum(), 3)), atol=14
    )
    worlds.close()


def test_a_video_advances_with_the_steps(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", [20, 200])
    worlds = Worlds(Track, 1, image_size=32, shift="background", intensity=1.0, backgrounds=tmp_path)
    worlds.seed([3])
    worlds.reset(np.arange(1))
    brightness = []
    for steps in range(5):  # of 0.05 s, and of 20 frames a second
        worlds.steps[:] = steps
        worlds.render()
        brightness.append(worlds.camera.rgb.mean())
    high = np.array(brightness) > 100
    assert (high[1:] != high[:-1]).all()
    worlds.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", r"expected backgrounds to be a folder of images and videos, got '.*nowhere'"),
        ("notes.txt", b"x", r"expected images or videos in .*, got none: add files that end in one of \.avi"),
        (
            "broken.png",
            b"no image",
            r"expected an image or a video, got '.*broken\.png', which cannot be read",
        ),
        ("empty.jpg", b"", r"expected an image or a video, got '.*empty\.jpg', which cannot be read"),
        (
            "broken.mp4",
            b"no video",
            r"expected an image or a video, got '.*broken\.mp4', which cannot be read",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_raises(
    tmp_path: Path, name: str | None, content: bytes, message: str
) -> None:
    folder = tmp_path if name else tmp_path / "nowhere"
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Worlds(Track, 1, shift="background", backgrounds=folder)


def test_backgrounds_need_their_shift(tmp_path: Path) -> None:
    write_image(tmp_path / "wall.png", ORANGE)
    with pytest.raises(
        ValueError, match="the shift 'background' to be active, got backgrounds without it: choose it"
    ):
        Worlds(Track, 1, shift="noise", backgrounds=tmp_path)
