"""Pictures for the shift "background": procedural textures, or images and videos of a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.render.lens_kernels import PICTURE_SIDE
from robot_attn_envs.tasks.objects import hsv_to_rgb

TEXTURES = 16
WAVES = 5
IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})
MAX_FILES, MAX_FRAMES = 256, 200


class Clips(NamedTuple):
    """Looping clips: clip i is pictures `starts[i]` to `starts[i] + lengths[i] - 1`."""

    pictures: NDArray[np.uint32]
    """0xRRGGBB, [pictures, 128, 128]."""
    starts: NDArray[np.int64]
    """[clips]."""
    lengths: NDArray[np.int64]
    """[clips]."""


def procedural_clips() -> Clips:
    """16 textures that tile without seams: three muted colours each, mixed by sums of waves."""
    rng = np.random.default_rng(0)
    textures = [_texture(rng) for _ in range(TEXTURES)]
    return _clips([[texture] for texture in textures])


def read_clips(folder: str | Path) -> Clips:
    """Read the images and videos of a folder, each as one clip of 128 x 128 pixels.

    The first 256 files by name and the first 200 frames of a video are read; files with other suffixes are
    ignored. An animated image is a video.

    Raises:
        ValueError: there is no such folder, no image or video in it, or a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"expected backgrounds to be a folder of images and videos, got {str(folder)!r}: check its path"
        )
    files = sorted(
        file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in IMAGES | VIDEOS
    )
    if not files:
        known = " ".join(sorted(IMAGES | VIDEOS))
        raise ValueError(
            f"expected images or videos in {str(folder)!r}, got none: add files that end in one of {known}"
        )
    return _clips([_read(file) for file in files[:MAX_FILES]])


def _read(file: Path) -> list[NDArray[np.uint8]]:
    import cv2

    advice = "remove it from the folder"
    frames: list[Any] = []
    if file.suffix.lower() in IMAGES:
        data = np.fromfile(file, np.uint8)
        if data.size:
            frames = list(cv2.imdecodemulti(data, cv2.IMREAD_COLOR)[1][:MAX_FRAMES])
    else:
        # As a URL for FFmpeg: OpenCV takes a name with a % for the pattern of an image sequence.
        video = cv2.VideoCapture(f"file:{file}", cv2.CAP_FFMPEG)
        while len(frames) < MAX_FRAMES and (frame := video.read()[1]) is not None:
            frames.append(frame)
        if video.isOpened() and not frames:
            codec = int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1").strip("\0 ")
            converted = shlex.quote(str(file.with_suffix(".h264.mp4")))
            advice = (
                f"OpenCV may lack a decoder of its codec {codec}. Convert it and remove it from the folder: "
                f"ffmpeg -i {shlex.quote(str(file))} -c:v libx264 -pix_fmt yuv420p {converted}"
            )
        video.release()
    if not frames:
        raise ValueError(f"expected an image or a video, got {str(file)!r}, which cannot be read: {advice}")
    side = (PICTURE_SIDE, PICTURE_SIDE)
    small = [cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in frames]
    return [np.asarray(frame[..., ::-1], np.uint8) for frame in small]  # OpenCV has BGR


def _clips(clips: list[list[NDArray[np.uint8]]]) -> Clips:
    lengths = np.array([len(clip) for clip in clips])
    rgb = np.stack([frame for clip in clips for frame in clip]).astype(np.uint32)
    pictures = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    return Clips(pictures.astype(np.uint32), lengths.cumsum() - lengths, lengths)


def _texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One texture, uint8 [128, 128, 3]."""
    # Hues away from red, less saturated than any object; a dark, a light and an arbitrary value.
    values = rng.uniform((0.15, 0.65, 0.15), (0.4, 0.95, 0.95))
    colors = hsv_to_rgb(rng.uniform(60.0, 290.0, 3), rng.uniform(0.1, 0.45, 3), values)
    first, second = (_waves(rng) for _ in range(2))
    if rng.random() < 0.5:  # with edges
        first = np.sign(first) * np.minimum(np.abs(first) * 6.0, 1.0)
    blend = 0.5 + 0.5 * np.stack([first, second])[..., None]
    rgb = colors[0] + blend[0] * (colors[1] - colors[0])
    rgb += 0.6 * blend[1] * (colors[2] - rgb)
    return np.asarray(np.round(255.0 * rgb), np.uint8)


def _waves(rng: np.random.Generator) -> NDArray[np.float64]:
    """A sum of plane waves with whole periods per side, [128, 128], in [-1, 1]."""
    at = np.arange(PICTURE_SIDE) * 2.0 * np.pi / PICTURE_SIDE
    total = np.zeros((PICTURE_SIDE, PICTURE_SIDE))
    for _ in range(WAVES):
        across, down = rng.integers(-7, 8, 2)
        total += np.sin(across * at + down * at[:, None] + rng.uniform(0.0, 2.0 * np.pi))
    return total / max(float(np.abs(total).max()), 1.0)
