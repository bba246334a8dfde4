"""Lazy imports of optional dependencies, with an error that names the line that installs them."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(module: str, *, needs: str, extra: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: name of the module, such as "captum.attr".
        needs: start of the error message: which feature needs which package, such as "Grad-CAM needs captum".
        extra: extra of robot-attn that installs it, such as "explain".

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: it is not installed; the message contains the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{needs}, not found: run pip install "robot-attn[{extra}]"', name=error.name
        ) from error


def import_cv2() -> Any:
    """Import `cv2`, which drawing, videos and regions need.

    Raises:
        ModuleNotFoundError: OpenCV is not installed; the message contains the line that installs it.
    """
    return import_optional("cv2", needs="this needs opencv", extra="video")
