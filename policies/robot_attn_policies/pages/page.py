"""A recorded episode as one HTML page that needs nothing else: no network, no server, no other file.

The page plays the frames on a canvas with each head's attention over them, and draws reward, return, value
and focus on one timeline. Its three sources lie beside this file: page.html, page.css and page.js; the
episode goes in as JSON. Names are escaped, and the page's own policy lets it run that one script and load
nothing.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionMaps, focus
from robot_attn.drawing import HeatScale, blend_heat
from robot_attn.drawing.colors import HEADS, TARGET
from robot_attn.episode import Episode
from robot_attn.files import replacing
from robot_attn_policies.pages.html import css_color, fill_page, picture_uri
from robot_attn_policies.pages.moments import find_moments

LOSSLESS = 4_000_000
"""Pixels of an episode up to which its frames are kept bit for bit: 150 steps at 160 x 160."""

_SHEET = 4096  # pixels a side: what every browser decodes


class View(NamedTuple):
    """The episode from a camera that the policy does not see through."""

    name: str
    images: NDArray[np.uint8]
    """[T, H, W, 3], of any size."""


def write_page(
    path: str | os.PathLike[str],
    episode: Episode,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    view: View | None = None,
    action_range: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """Write the page of an episode, whole or not at all. Arguments and errors: `build_page`.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    content = build_page(episode, title=title, notes=notes, links=links, view=view, action_range=action_range)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def build_page(
    episode: Episode,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    view: View | None = None,
    action_range: tuple[float, float] = (-1.0, 1.0),
) -> str:
    """The page of an episode, as HTML.

    Args:
        episode: what to show.
        title: the heading; by default the environment and the seed.
        notes: sentences to show above the player, before those that the episode itself asks for.
        links: names of files beside the page, by the words that lead to them.
        view: the same steps from another camera, to show beside.
        action_range: the ends of the action bars; wider where an action went beyond them.

    Raises:
        ValueError: frames from another camera that are not one a step.
        ModuleNotFoundError: opencv is not installed.
    """
    heading = title or f"{episode.env_args.get('env_name', 'Episode')} · seed {episode.seed}"
    content = _content(episode, notes, links or {}, view, action_range)
    # None of these three characters has a meaning in JSON outside of strings, where an escape is the same.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", data)
    return fill_page("page.html", heading, style="page.css", script="page.js", parts={"data": data})


def _content(
    episode: Episode,
    notes: Sequence[str],
    links: Mapping[str, str],
    view: View | None,
    action_range: tuple[float, float],
) -> dict[str, Any]:
    """Everything that page.js reads."""
    steps, size = len(episode), episode.image_size
    rewards, estimates, masks = episode.rewards, episode.values, episode.target_masks
    actions = episode.actions.astype(np.float64)
    if view is not None and len(view.images) != steps:
        raise ValueError(
            f"expected {steps} frames from another camera, one for each frame, got {len(view.images)}"
        )
    maps = episode.attention_maps if episode.attention.shape[1] > 0 else None
    attention, mass = (None, None) if maps is None else _attention(episode, maps)
    telling = maps is not None and not episode.uniform and episode.maps == "attention"
    best = episode.best_head
    moments = find_moments(
        rewards,
        values=estimates,
        masks=masks,
        maps=maps.normalised()[:, best] if maps is not None and telling else None,
        mass=mass[:, best] if mass is not None and telling else None,
    )
    names = episode.action_names or tuple(f"action {i}" for i in range(actions.shape[1]))
    low, high = action_range
    return {
        "facts": _facts(episode, rewards),
        "notes": [*notes, *_findings(episode, maps, view)],
        "links": [(text, quote(name, safe="")) for text, name in links.items()],
        "steps": steps,
        "size": size,
        "colors": {"heads": [css_color(color) for color in HEADS], "target": css_color(TARGET)},
        "dt": episode.dt,
        "frames": _frames(episode.images),
        "view": None if view is None else {"name": view.name, **_frames(view.images)},
        "attention": attention,
        "masks": None if masks is None else _packed(np.packbits(masks.reshape(-1))),
        "focus": _numbers(mass),
        "chance": None if masks is None else _numbers(focus.chance(masks)),
        "visible": None if masks is None else masks.any(axis=(1, 2)).tolist(),
        "rewards": _numbers(rewards),
        "returns": _numbers(np.cumsum(rewards)),
        "values": _numbers(estimates),
        "actions": [
            {
                "name": name,
                "low": min(low, float(column.min())),
                "high": max(high, float(column.max())),
                "values": _numbers(column),
            }
            for name, column in zip(names, actions.T, strict=True)
        ],
        "moments": [moment._asdict() for moment in moments],
    }


def half_level(levels: NDArray[np.uint8], weights: NDArray[np.floating]) -> int:
    """The highest level such that the pixels at or above it hold half of the weight; both [H, W].

    0 where it takes pixels that get no more than uniform attention would give them, or there is no weight.
    """
    at_level = np.bincount(levels.reshape(-1), weights.reshape(-1), minlength=256)
    above = at_level[::-1].cumsum()[::-1]
    return int(np.flatnonzero(above >= 0.5 * above[0])[-1]) if above[0] > 0 else 0


def _attention(episode: Episode, maps: AttentionMaps) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
    """What page.js reads of the maps, and their mass on the target [T, K]; both from one pass over pixels."""
    scale = HeatScale(episode.grid, episode.image_size)
    shares, masks = maps.normalised(), episode.target_masks
    halves, mass = [], []
    for rows, pixels in shares.in_batches():
        for weights, heads in zip(shares.weights[rows], pixels, strict=True):
            pairs = zip(scale.levels(weights), heads, strict=True)
            halves.append([half_level(levels, pixel) for levels, pixel in pairs])
        if masks is not None:
            mass.append(maps[rows].mass_on(masks[rows], pixels=pixels))
    told = {
        "heads": maps.weights.shape[1],
        "best": episode.best_head,
        "uniform": episode.uniform,
        "gradient": episode.maps == "gradient",
        "ys": episode.grid.ys.tolist(),
        "xs": episode.grid.xs.tolist(),
        "usable": _packed(maps.usable.astype(np.uint8)),
        "levels": _packed(scale.cell_levels(shares.weights)),  # between cells page.js does as `HeatScale`
        "halves": _packed(np.array(halves, dtype=np.uint8)),
        "palette": _palette().tolist(),
    }
    return told, np.concatenate(mass) if mass else None


def _palette() -> NDArray[np.uint8]:
    """[256, 4] the colour and opacity of each heat level, as `blend_heat` lays them over black and white."""
    levels = np.arange(256, dtype=np.uint8)[None]
    black, white = (
        blend_heat(np.full((1, 256, 3), ground, dtype=np.uint8), levels).astype(np.float64)
        for ground in (0, 255)
    )
    alpha = 255 - (white - black)[..., :1]
    color = black * 255 / np.maximum(alpha, 1)
    return np.asarray(np.rint(np.concatenate([color, alpha], axis=2)[0]).clip(0, 255), dtype=np.uint8)


def _lossless(images: NDArray[np.uint8]) -> bool:
    return images[..., 0].size <= LOSSLESS


def _frames(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Frames on sheets, filled row by row, as pictures that a browser reads."""
    steps, height, width, _ = images.shape
    columns = max(1, min(_SHEET // width, math.ceil(math.sqrt(steps))))
    rows = max(1, min(_SHEET // height, math.ceil(steps / columns)))
    lossless = _lossless(images)
    sheets = []
    for start in range(0, steps, rows * columns):
        some = images[start : start + rows * columns]
        sheet = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
        sheet[: len(some)] = some
        sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
        sheet = sheet.reshape(rows * height, columns * width, 3)
        sheets.append(picture_uri(sheet, lossless=lossless))
    return {"columns": columns, "rows": rows, "size": (height, width), "sheets": sheets, "lossless": lossless}


def _facts(episode: Episode, rewards: NDArray[np.float64]) -> list[tuple[str, str]]:
    """What stands under the heading: names and their values."""
    facts = [("Task", str(episode.env_args.get("env_name", "not known")))]
    options = episode.env_args.get("env_kwargs") or {}
    if options:
        facts.append(("Scene", ", ".join(f"{name} {value}" for name, value in sorted(options.items()))))
    facts += [("Seed", str(episode.seed)), ("Policy", episode.policy or "not known")]
    length = f"{len(rewards)} steps"
    if episode.dt:
        length += f", {len(rewards) * episode.dt:.1f} s"
    return [*facts, ("Length", length), ("Return", f"{rewards.sum():.1f}"), ("Outcome", _outcome(episode))]


def _outcome(episode: Episode) -> str:
    return {True: "success", False: "no success", None: "not known"}[episode.success]


def _findings(episode: Episode, maps: AttentionMaps | None, view: View | None) -> list[str]:
    """What the reader should know before believing the page."""
    found = []
    if episode.cut is not None:
        steps = len(episode.images)
        found.append(f"The file was cut after step {steps} of {episode.cut}: what follows is lost.")
    if maps is None:
        found.append("This episode has no attention maps: only what the policy saw and did is shown.")
    elif episode.uniform:
        found.append(
            "The attention of this policy is uniform by construction: it does not say where it looked."
        )
    elif episode.maps == "gradient":
        found.append(
            "This policy has no attention. The maps are gradients: they show which parts of the frame would "
            "change the action most, not where it looked."
        )
    if maps is not None and not maps.usable.all():
        missing = [
            f"head {head} at {count} of {len(maps.usable)} steps"
            for head, count in enumerate((~maps.usable).sum(axis=0))
            if count
        ]
        found.append(f"Maps that are all zero or not finite are not drawn: {', '.join(missing)}.")
    masks = episode.target_masks
    if masks is None:
        found.append("Where the target was is not recorded: there is no outline and no focus.")
    elif not masks.any():
        found.append("The target was never in view: there is no focus.")
    if episode.values is None:
        found.append("The policy's value estimates are not recorded.")
    packed = {"frames": episode.images, "frames of the other camera": None if view is None else view.images}
    for name, images in packed.items():
        if images is not None and not _lossless(images):
            found.append(f"The {name} are packed with some loss (WebP), to keep this page small.")
    return found


def _packed(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _numbers(array: NDArray[np.floating] | None) -> Any:
    """Nested lists of numbers with six digits, null where one is not finite."""
    if array is None:
        return None
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in array.tolist()]
