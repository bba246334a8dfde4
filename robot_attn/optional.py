"""Dependencies that a plain install lacks: imported where they are used, with the line that installs them."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(module: str, *, needs: str, extra: str) -> Any:
    """The module of an optional dependency.

    Args:
        module: its name, such as "captum.attr".
        needs: what needs which package, such as "Grad-CAM needs captum".
        extra: what brings it, such as "explain".

    Raises:
        ModuleNotFoundError: it is not installed; the message holds the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{needs}, not installed here; run pip install "robot-attn[{extra}]"', name=error.name
        ) from error


def import_cv2() -> Any:
    """The module `cv2`, which drawing, videos and regions need.

    Raises:
        ModuleNotFoundError: OpenCV is not installed; the message holds the line that installs it.
    """
    return import_optional("cv2", needs="this needs opencv", extra="video")
