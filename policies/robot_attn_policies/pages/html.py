"""Shared parts of the self-contained HTML pages, whose content security policy forbids loading anything."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing.colors import HEADS, Color
from robot_attn.optional import import_cv2

_QUALITY = 90  # of WebP pictures, from 0 to 100


def fill_page(
    template: str, title: str, *, style: str, script: str = "", parts: Mapping[str, str] | None = None
) -> str:
    """Fill a template of this folder.

    The template's `{{title}}`, `{{policy}}`, `{{style}}`, `{{script}}` and the names of `parts` are replaced.

    Args:
        template: file name of the template.
        title: title of the page; it is escaped here.
        style: file name of the page's style sheet, which follows base.css.
        script: file name of the page's script. Without one, the page's policy allows no script.
        parts: other parts of the template, by name; they are not escaped.

    Returns:
        The page as HTML.
    """
    # In dark mode the heads have the colours of pictures; base.css has darker ones for light mode.
    heads = " ".join(f"--head-{i}: {css_color(color)};" for i, color in enumerate(HEADS))
    styles = _source("base.css").replace("{{heads}}", heads) + _source(style)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_digest(styles)}'"
    )
    all_parts = {"title": html.escape(title), "style": styles, **(parts or {})}
    if script:
        all_parts["script"] = _source(script)
        policy += f"; script-src '{_digest(all_parts['script'])}'"
    all_parts["policy"] = policy
    return re.sub(r"\{\{(\w+)\}\}", lambda found: all_parts[found[1]], _source(template))


def css_color(color: Color) -> str:
    """Format a colour for style sheets, such as #ffc454."""
    return "#" + bytes(color).hex()


def picture_uri(image: NDArray[np.uint8], *, lossless: bool = True) -> str:
    """Encode an image as a data URI.

    Args:
        image: uint8 [h, w, 3], RGB.
        lossless: PNG if True, else WebP, which is smaller.

    Returns:
        The data URI.

    Raises:
        ValueError: opencv cannot encode it: WebP is limited to 16383 pixels a side.
        ModuleNotFoundError: opencv is not installed.
    """
    cv2 = import_cv2()
    kind, option, level = (
        ("png", cv2.IMWRITE_PNG_COMPRESSION, 9) if lossless else ("webp", cv2.IMWRITE_WEBP_QUALITY, _QUALITY)
    )
    done, data = cv2.imencode(f".{kind}", image[..., ::-1], [option, level])
    if not done:
        raise ValueError(
            f"expected an image that opencv encodes as {kind}, got {image.shape[0]} x {image.shape[1]} "
            "pixels: use a smaller one"
        )
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def _source(name: str) -> str:
    return files("robot_attn_policies.pages").joinpath(name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
