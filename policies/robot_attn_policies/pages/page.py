"""A recorded episode as a self-contained HTML page: no network, no server, no other file.

The page plays the frames on a canvas with each head's attention over them, and plots reward, return, value
and focus on one timeline. Its sources are page.html, page.css and page.js in this folder; the episode is
embedded as JSON. Names are escaped, and the page's content security policy allows that one script and forbids
loading anything.
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
from robot_attn.drawing import HEAT_LINE, HeatScale, heat_palette
from robot_attn.drawing.colors import HEADS, TARGET
from robot_attn.episode import Episode
from robot_attn.explain import Capture, captures, frame_states
from robot_attn.files import replacing
from robot_attn.things import allowed_labels
from robot_attn_policies.pages.html import css_color, fill_page, picture_uri
from robot_attn_policies.pages.moments import find_moments

LOSSLESS = 4_000_000
"""Most pixels of an episode whose frames are stored without loss: 150 steps at 160 x 160."""

_SHEET = 4096  # pixels a side; every browser decodes images of this size


class View(NamedTuple):
    """Frames of the episode from another camera than the policy's.

    Attributes:
        name: name of the camera.
        images: uint8 [T, H, W, 3], RGB, of any size.
    """

    name: str
    images: NDArray[np.uint8]


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
    """Write the page of an episode, in one piece or not at all.

    Args:
        path: file to write.
        episode: the episode.
        title: as in `build_page`.
        notes: likewise.
        links: likewise.
        view: likewise.
        action_range: likewise.

    Raises:
        ValueError: an error of `build_page`.
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: opencv is not installed.
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
    """Build the page of an episode.

    Args:
        episode: the episode.
        title: heading; the environment and the seed by default.
        notes: sentences to show above the player, before those about the episode's data.
        links: file names to link to, in the page's folder, by the text of the link.
        view: the same steps from another camera, shown next to the frames.
        action_range: ends of the action bars; an action outside widens its bar.

    Returns:
        The page as HTML.

    Raises:
        ValueError: another camera with a number of frames that differs from that of the steps.
        ModuleNotFoundError: opencv is not installed.
    """
    heading = title or f"{episode.env_args.get('env_name', 'Episode')} · seed {episode.seed}"
    content = _content(episode, notes, links or {}, view, action_range)
    # So that no string can end the script element. JSON has these characters in strings only.
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
    """Collect the data that page.js reads."""
    steps, size = len(episode), episode.image_size
    rewards, estimates, masks = episode.rewards, episode.values, episode.target_masks
    actions = episode.actions.astype(np.float64)
    if view is not None and len(view.images) != steps:
        raise ValueError(
            f"expected {steps} frames from another camera, one per step, got {len(view.images)}: render the "
            "same steps"
        )
    maps = episode.attention_maps if episode.attention.shape[1] > 0 else None
    attention, mass, things = (None, None, None) if maps is None else _attention(episode, maps)
    informative = maps is not None and not episode.uniform and episode.maps != "gradient"
    best = episode.best_head
    moments = find_moments(
        rewards,
        values=estimates,
        masks=masks,
        maps=maps.normalised()[:, best] if maps is not None and informative else None,
        mass=mass[:, best] if mass is not None and informative else None,
        captured=_captures(episode, maps[:, best]) if maps is not None and informative else (),
        name="attention" if episode.maps == "attention" else "causal mass",
    )
    names = episode.action_names or tuple(f"action {i}" for i in range(actions.shape[1]))
    low, high = action_range
    return {
        "facts": _facts(episode, rewards),
        "notes": [*notes, *_data_notes(episode, maps, view)],
        "links": [(text, quote(name, safe="")) for text, name in links.items()],
        "steps": steps,
        "size": size,
        "colors": {"heads": [css_color(color) for color in HEADS], "target": css_color(TARGET)},
        "dt": episode.dt,
        "frames": _frames(episode.images),
        "view": None if view is None else {"name": view.name, **_frames(view.images)},
        "attention": attention,
        "things": things,
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


def _captures(episode: Episode, maps: AttentionMaps) -> tuple[Capture, ...]:
    """Find what captures the attention of one head's maps [T, rows, cols]."""
    if episode.target_masks is None:
        return ()
    found = frame_states(
        maps,
        episode.target_masks,
        frames=episode.images,
        labels=episode.things,
        allowed=allowed_labels(episode.thing_names),
    )
    steps = np.arange(len(episode))
    words = [episode.thing_descriptions] if episode.things is not None else ()
    return captures(found, np.zeros_like(steps), steps, descriptions=words).captures


def half_level(levels: NDArray[np.uint8], weights: NDArray[np.floating]) -> int:
    """Find the highest heat level such that the pixels at or above it hold half of the weight.

    Args:
        levels: uint8 [H, W], heat levels; 0 is uniform attention or less.
        weights: float [H, W].

    Returns:
        The level; 0 if pixels of level 0 are needed, or there is no weight.
    """
    at_level = np.bincount(levels.reshape(-1), weights.reshape(-1), minlength=256)
    above = at_level[::-1].cumsum()[::-1]
    return int(np.flatnonzero(above >= 0.5 * above[0])[-1]) if above[0] > 0 else 0


def _attention(
    episode: Episode, maps: AttentionMaps
) -> tuple[dict[str, Any], NDArray[np.float64] | None, dict[str, Any] | None]:
    """Collect the maps' data, their mass on the target, [T, K] or None, and on each thing, in one pass."""
    scale = HeatScale(episode.grid, episode.image_size)
    shares, masks, things = maps.normalised(), episode.target_masks, episode.things
    halves, mass, by_thing = [], [], []
    for rows, pixels in shares.in_batches():
        for weights, heads in zip(shares.weights[rows], pixels, strict=True):
            pairs = zip(scale.levels(weights), heads, strict=True)
            halves.append([half_level(levels, pixel) for levels, pixel in pairs])
        if masks is not None:
            mass.append(maps[rows].mass_on(masks[rows], pixels=pixels))
        if things is not None:
            by_thing.append(focus.mass_by_label(pixels, things[rows], len(episode.thing_names)))
    data = {
        "heads": maps.weights.shape[1],
        "best": episode.best_head,
        "uniform": episode.uniform,
        "kind": episode.maps,
        "ys": episode.grid.ys.tolist(),
        "xs": episode.grid.xs.tolist(),
        "usable": _packed(maps.usable.astype(np.uint8)),
        "levels": _packed(scale.cell_levels(shares.weights)),  # page.js interpolates as `HeatScale` does
        "halves": _packed(np.array(halves, dtype=np.uint8)),
        "palette": heat_palette().tolist(),
        "line": HEAT_LINE,
    }
    return (
        data,
        np.concatenate(mass) if mass else None,
        _things(episode, np.concatenate(by_thing)) if by_thing else None,
    )


def _things(episode: Episode, mass: NDArray[np.float64]) -> dict[str, Any]:
    """Collect the names of the things that are ever in view and the mass [T, K, things] on them."""
    assert episode.things is not None
    shown = np.unique(episode.things)
    names = []
    for label in shown.tolist():
        name, words = episode.thing_names[label], episode.thing_descriptions[label]
        names.append(name if words in ("", name) else f"{name}: {words}")
    levels = np.rint(255 * np.nan_to_num(mass[..., shown])).astype(np.uint8)
    return {"names": names, "labels": shown.tolist(), "mass": _packed(levels)}


def _lossless(images: NDArray[np.uint8]) -> bool:
    return images[..., 0].size <= LOSSLESS


def _frames(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Pack frames [T, H, W, 3] row by row into large pictures, as data URIs."""
    steps, height, width, _ = images.shape
    columns = max(1, min(_SHEET // width, math.ceil(math.sqrt(steps))))
    rows = max(1, min(_SHEET // height, math.ceil(steps / columns)))
    lossless = _lossless(images)
    sheets = []
    for start in range(0, steps, rows * columns):
        chunk = images[start : start + rows * columns]
        sheet = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
        sheet[: len(chunk)] = chunk
        sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
        sheet = sheet.reshape(rows * height, columns * width, 3)
        sheets.append(picture_uri(sheet, lossless=lossless))
    return {"columns": columns, "rows": rows, "size": (height, width), "sheets": sheets, "lossless": lossless}


def _facts(episode: Episode, rewards: NDArray[np.float64]) -> list[tuple[str, str]]:
    """Names and values to list below the heading."""
    facts = [("Task", str(episode.env_args.get("env_name", "unknown")))]
    options = episode.env_args.get("env_kwargs") or {}
    if options:
        facts.append(("Scene", ", ".join(f"{name} {value}" for name, value in sorted(options.items()))))
    facts += [("Seed", str(episode.seed)), ("Policy", episode.policy or "unknown")]
    length = f"{len(rewards)} steps"
    if episode.dt:
        length += f", {len(rewards) * episode.dt:.1f} s"
    return [*facts, ("Length", length), ("Return", f"{rewards.sum():.1f}"), ("Outcome", _outcome(episode))]


def _outcome(episode: Episode) -> str:
    return {True: "success", False: "no success", None: "unknown"}[episode.success]


def _data_notes(episode: Episode, maps: AttentionMaps | None, view: View | None) -> list[str]:
    """Describe what the episode lacks, or what limits the page."""
    notes = []
    if episode.cut is not None:
        steps = len(episode.images)
        notes.append(f"The file was cut after step {steps} of {episode.cut}: what follows is lost.")
    if episode.other_cameras:
        notes.append(
            f"These are the frames of the camera {episode.camera}. The policy also sees: "
            f"{', '.join(episode.other_cameras)}."
        )
    if maps is None:
        notes.append("This episode has no attention maps: only frames, actions and rewards are shown.")
    elif episode.uniform:
        notes.append("The attention of this policy is uniform by construction.")
    elif episode.maps == "gradient":
        notes.append(
            "The maps are gradients, not attention: they show which parts of the frame would change the "
            "action most if they changed a little."
        )
    elif episode.maps == "causal":
        notes.append(
            "The maps are causal maps, not attention: they show how much the action changes when random "
            "pixels are removed. They are uniform where no pixel has a significant effect."
        )
    if maps is not None and not maps.usable.all():
        missing = [
            f"head {head} at {count} of {len(maps.usable)} steps"
            for head, count in enumerate((~maps.usable).sum(axis=0))
            if count
        ]
        notes.append(f"Maps that are zero everywhere or not finite are not drawn: {', '.join(missing)}.")
    masks = episode.target_masks
    if masks is None:
        notes.append("Target masks are not recorded: there is no outline and no focus.")
    elif not masks.any():
        notes.append("The target was never visible: there is no focus.")
    if episode.values is None:
        notes.append("The policy's value estimates are not recorded.")
    stored = {"frames": episode.images, "frames of the other camera": None if view is None else view.images}
    for name, images in stored.items():
        if images is not None and not _lossless(images):
            notes.append(f"The {name} are compressed with loss (WebP), to keep this page small.")
    return notes


def _packed(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def _numbers(array: NDArray[np.floating] | None) -> Any:
    """Nested lists of numbers with six digits, None where not finite."""
    if array is None:
        return None
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in array.tolist()]
