"""Dependencies that a plain install lacks: imported where they are used, with the line that installs them."""

from __future__ import annotations

from typing import Any


def import_cv2() -> Any:
    """The module `cv2`, which drawing, videos and regions need.

    Raises:
        ModuleNotFoundError: OpenCV is not installed; the message holds the line that installs it.
    """
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'this needs opencv, which is not installed; run pip install "robot-attn[video]"', name=error.name
        ) from error
    return cv2
