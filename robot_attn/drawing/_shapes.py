"""Elements of pictures: scaled frames, outlines, text and curves; and PNG files."""

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
    """Draw closed polygons as bright lines with a dark halo, visible on any background.

    Args:
        image: uint8 [h, w, 3] RGB, modified in place.
        polygons: as returned by `find_outline`.
        width: width of the bright line in pixels.
    """
    if polygons:
        cv2 = import_cv2()
        cv2.polylines(image, polygons, True, BLACK, width + 2, cv2.LINE_AA)
        cv2.polylines(image, polygons, True, TARGET, width, cv2.LINE_AA)


def scale_frame(frame: Image, size: tuple[int, int]) -> Image:
    """Resize a frame: nearest neighbour to enlarge it, area average to shrink it.

    Args:
        frame: uint8 [H, W, 3].
        size: (h, w) in pixels.

    Returns:
        uint8 [h, w, 3].
    """
    cv2 = import_cv2()
    enlarged = size[0] >= frame.shape[0]
    mode = cv2.INTER_NEAREST_EXACT if enlarged else cv2.INTER_AREA
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=mode))


def draw_text(
    image: Image, text: str, x: float, y: float, scale: float, color: Color = TEXT, anchor: str = "left"
) -> None:
    """Draw a line of text.

    Args:
        image: uint8 [h, w, 3] RGB, modified in place.
        text: ASCII text.
        x: column of the anchor in pixels.
        y: row of the baseline in pixels.
        scale: scale of OpenCV's font.
        color: RGB.
        anchor: part of the text at x: "left", "right" or "middle".
    """
    cv2 = import_cv2()
    if anchor != "left":
        width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        x -= width if anchor == "right" else width / 2
    cv2.putText(image, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def fit_text(text: str, width: float, scale: float) -> str:
    """Shorten a text with an ellipsis to fit a width.

    Args:
        text: ASCII text.
        width: largest width in pixels.
        scale: scale of the font, as in `draw_text`.
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
    """Compute the points of a curve in a picture.

    Args:
        values: float [T]; the point of a NaN is arbitrary.
        inside: area of the plot.
        low: value at its bottom.
        high: value at its top.
        steps: number of steps across the width of the plot; by default T.
        bits: number of fractional bits, for smooth lines.

    Returns:
        int32 [T, 2], (x, y) in pixels times 2 ** bits.
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
    """Draw a curve.

    Args:
        image: uint8 [h, w, 3] RGB, modified in place.
        corners: int32 [T, 2], points as returned by `place_curve`.
        color: RGB.
        width: width of the line in pixels.
        known: bool [T], False in the curve's gaps; None for a curve without gaps.
        bits: number of fractional bits, as given to `place_curve`.
    """
    cv2 = import_cv2()
    for first, stop in stretches_of(np.ones(len(corners), np.bool_) if known is None else known):
        cv2.polylines(image, [corners[first:stop]], False, color, width, cv2.LINE_AA, bits)


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write a picture as a PNG file, completely or not at all.

    Args:
        path: output file.
        image: uint8 [h, w, 3] RGB.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    cv2 = import_cv2()
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise OSError(
            f"expected a picture that opencv can encode for {os.fspath(path)}, got shape {list(image.shape)}"
        )
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data.tobytes())
