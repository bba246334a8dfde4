"""What every picture is made of: frames at another size, outlines, text and curves; and pictures as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing._layout import Box, Image
from robot_attn.drawing.colors import BLACK, TARGET, TEXT, Color
from robot_attn.files import replacing
from robot_attn.optional import import_cv2
from robot_attn.stretches import stretches_of


def find_outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> Sequence[NDArray[np.int32]]:
    """Trace the outline of a mask in a picture, along the edges of the mask's pixels.

    Args:
        mask: bool [H, W].
        size: (h, w) of the picture in pixels.

    Returns:
        Closed polygons, each int32 [N, 1, 2] of (x, y).
    """
    cv2 = import_cv2()
    if not mask.any():
        return ()
    big = cv2.resize(mask.view(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    found = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    return tuple(np.asarray(polygon, dtype=np.int32) for polygon in found)


def draw_outline(image: Image, polygons: Sequence[NDArray[np.int32]], width: int) -> None:
    """Draw closed polygons, bright on a dark halo, so that they show on any ground.

    Args:
        image: uint8 [h, w, 3] RGB; it is drawn into.
        polygons: as `find_outline` gives them.
        width: of the bright line in pixels.
    """
    if polygons:
        cv2 = import_cv2()
        cv2.polylines(image, polygons, True, BLACK, width + 2, cv2.LINE_AA)
        cv2.polylines(image, polygons, True, TARGET, width, cv2.LINE_AA)


def scale_frame(frame: Image, size: tuple[int, int]) -> Image:
    """A frame at another size: pixels stay squares where it grows, and are averaged where it shrinks.

    Args:
        frame: uint8 [H, W, 3].
        size: (h, w) in pixels.

    Returns:
        uint8 [h, w, 3].
    """
    cv2 = import_cv2()
    grows = size[0] >= frame.shape[0]
    mode = cv2.INTER_NEAREST_EXACT if grows else cv2.INTER_AREA
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=mode))


def draw_text(
    image: Image, text: str, x: float, y: float, scale: float, color: Color = TEXT, anchor: str = "left"
) -> None:
    """Write a line of text into a picture.

    Args:
        image: uint8 [h, w, 3] RGB; it is drawn into.
        text: ASCII.
        x: of the anchor in pixels.
        y: of the baseline in pixels.
        scale: of OpenCV's font.
        color: RGB.
        anchor: which end of the baseline lies at x: "left", "right" or "middle".
    """
    cv2 = import_cv2()
    if anchor != "left":
        width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        x -= width if anchor == "right" else width / 2
    cv2.putText(image, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def fit_text(text: str, width: float, scale: float) -> str:
    """A text, cut with an ellipsis where it is wider than there is room.

    Args:
        text: ASCII.
        width: in pixels.
        scale: of the letters, as `draw_text` takes it.
    """
    cv2 = import_cv2()
    shown = text
    while shown and cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > width:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    return shown


def place_curve(
    values: NDArray[np.floating],
    inside: Box,
    low: float,
    high: float,
    *,
    steps: int | None = None,
    bits: int = 0,
) -> NDArray[np.int32]:
    """The corners [T, 2] of a curve in a picture, in pixels times 2 ** bits.

    Args:
        values: [T]; where one is NaN the corner means nothing.
        inside: the plot's inside.
        low: the value at its bottom.
        high: the value at its top.
        steps: that share the width of the plot; by default T.
        bits: below the pixel, for smooth lines.
    """
    x = inside.x + (np.arange(len(values)) + 0.5) / (len(values) if steps is None else steps) * inside.w
    y = inside.y + inside.h - (values - low) / (high - low) * inside.h
    corners = np.stack([x, np.nan_to_num(y)], axis=1) * (1 << bits)
    return np.asarray(np.rint(corners), dtype=np.int32)


def draw_curve(
    image: Image,
    corners: NDArray[np.int32],
    color: Color,
    width: int,
    *,
    known: NDArray[np.bool_] | None = None,
    bits: int = 0,
) -> None:
    """Draw a curve into a picture.

    Args:
        image: uint8 [h, w, 3] RGB; it is drawn into.
        corners: int32 [T, 2], as `place_curve` gives them.
        color: RGB.
        width: of the line in pixels.
        known: bool [T], False where the curve has a gap; None for no gap.
        bits: below the pixel, as `place_curve` took them.
    """
    cv2 = import_cv2()
    for first, stop in stretches_of(np.ones(len(corners), np.bool_) if known is None else known):
        cv2.polylines(image, [corners[first:stop]], False, color, width, cv2.LINE_AA, bits)


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write an RGB picture uint8 [h, w, 3] as PNG, whole or not at all.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    cv2 = import_cv2()
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise OSError(f"opencv could not encode a picture of shape {list(image.shape)} for {os.fspath(path)}")
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data.tobytes())
