"""Sizes of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_SIZE, MAX_SIZE = 32, 2048
"""Smallest and largest side of a frame in pixels."""


def check_image_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Check an image size.

    Args:
        image_size: side of a square, or (height, width), in pixels.

    Returns:
        (height, width).

    Raises:
        ValueError: not one or two integers from 32 to 2048.
    """
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size, image_size]
    whole = all(isinstance(side, int | np.integer) for side in sides)
    if len(sides) != 2 or not whole or not all(MIN_SIZE <= side <= MAX_SIZE for side in sides):
        raise ValueError(
            f"expected image_size to be one side or (height, width), integers from {MIN_SIZE} to {MAX_SIZE}, "
            f"got {image_size!r}"
        )
    return int(sides[0]), int(sides[1])
