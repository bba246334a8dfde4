"""A missing optional dependency is reported with the line that installs it."""

import sys

import numpy
import pytest

from robot_attn.optional import import_cv2, import_optional


def test_an_installed_module_is_imported() -> None:
    assert import_optional("numpy.linalg", needs="this needs numpy", extra="none") is numpy.linalg


def test_a_missing_module_raises_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)  # as where it is not installed
    expected = r'^Grad-CAM needs captum, not found: run pip install "robot-attn\[explain\]"$'
    with pytest.raises(ModuleNotFoundError, match=expected) as caught:
        import_optional("captum.attr", needs="Grad-CAM needs captum", extra="explain")
    assert caught.value.name == "captum.attr"


def test_opencv_is_installed_by_the_extra_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ModuleNotFoundError, match=r'opencv.* pip install "robot-attn\[video\]"$'):
        import_cv2()
