"""What our pages share: each is one file that loads nothing, and by its own policy may not."""

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

_QUALITY = 90  # of pictures that are packed with loss, from 0 to 100


def fill_page(
    template: str, title: str, *, style: str, script: str = "", parts: Mapping[str, str] | None = None
) -> str:
    """A page from a template beside this file, with `{{title}}`, `{{policy}}`, `{{style}}` and what it names.

    Args:
        template: the file's name.
        title: as it is; it is escaped here.
        style: the file with the page's style, which follows base.css.
        script: the file with the page's script, for `{{script}}`; without one, none may run.
        parts: what else the template names, escaped where that is needed.
    """
    # On a dark ground a head has its colour of pictures; for a light one base.css has darker ones.
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
    """A colour as style sheets have it, such as #ffc454."""
    return "#" + bytes(color).hex()


def picture_uri(image: NDArray[np.uint8], *, lossless: bool = True) -> str:
    """An image uint8 [h, w, 3] as a data URI: PNG, or WebP, which is smaller.

    Raises:
        ValueError: opencv cannot encode it: WebP ends at 16383 pixels a side.
        ModuleNotFoundError: opencv is not installed.
    """
    cv2 = import_cv2()
    kind, option, level = (
        ("png", cv2.IMWRITE_PNG_COMPRESSION, 9) if lossless else ("webp", cv2.IMWRITE_WEBP_QUALITY, _QUALITY)
    )
    done, data = cv2.imencode(f".{kind}", image[..., ::-1], [option, level])
    if not done:
        raise ValueError(f"opencv could not encode {image.shape[0]} x {image.shape[1]} pixels as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def _source(name: str) -> str:
    return files("robot_attn_policies.pages").joinpath(name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
