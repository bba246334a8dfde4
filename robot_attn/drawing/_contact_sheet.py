"""Contact sheets: pictures in a grid with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from robot_attn.drawing._layout import Box, Image
from robot_attn.drawing._shapes import draw_text, fit_text, scale_frame
from robot_attn.drawing.colors import BACKGROUND, TEXT


def contact_sheet(
    pictures: Sequence[Image],
    captions: Sequence[str],
    *,
    columns: int = 4,
    most_width: int = 340,
    title: str = "",
) -> Image:
    """Arrange pictures in a grid with captions below and a title above.

    Args:
        pictures: uint8 [h, w, 3] RGB, at least one, all of one size.
        captions: one ASCII caption per picture, shortened to the picture's width.
        columns: largest number of pictures per row.
        most_width: largest width of a picture in pixels; wider ones are scaled down.
        title: ASCII title; "" for none.

    Returns:
        The sheet, uint8 [h, w, 3] RGB.

    Raises:
        ValueError: no pictures, pictures of several sizes, or another number of captions.
    """
    if not pictures or len(captions) != len(pictures) or len({picture.shape for picture in pictures}) != 1:
        raise ValueError(
            "expected at least one picture, all of one size, with one caption each, got shapes "
            f"{sorted({picture.shape for picture in pictures})} of {len(pictures)} pictures and "
            f"{len(captions)} captions"
        )
    height, width = pictures[0].shape[:2]
    if width > most_width:
        height, width = round(height * most_width / width), most_width
        pictures = [scale_frame(picture, (height, width)) for picture in pictures]
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    gap, line, head = 12, 30, 40 if title else 0
    sheet: Image = np.full(
        (head + rows * (height + line) + gap, columns * (width + gap) + gap, 3), BACKGROUND, dtype=np.uint8
    )
    if title:
        draw_text(sheet, fit_text(title, sheet.shape[1] - 2 * gap, 0.6), gap, 27, 0.6)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        box = Box(gap + (i % columns) * (width + gap), head + (i // columns) * (height + line), width, height)
        box.of(sheet)[:] = picture
        draw_text(sheet, fit_text(caption, width, 0.48), box.x, box.y + height + 19, 0.48, TEXT)
    return sheet


def moments(steps: int, count: int = 12) -> list[int]:
    """Select steps spread evenly over an episode, including the first and the last.

    Args:
        steps: number of steps of the episode.
        count: number of steps to select; fewer if the episode is shorter.

    Returns:
        The steps in ascending order, from 0.
    """
    return sorted({round(i) for i in np.linspace(0, steps - 1, min(count, steps))})
