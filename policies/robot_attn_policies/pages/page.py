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
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from robot_attn import focus
from robot_attn.files import replacing
from robot_attn.overlay import HeatScale, blend_heat, usable_maps
from robot_attn_policies.pages.html import fill_page, picture_uri
from robot_attn_policies.pages.moments import find_moments

LOSSLESS = 4_000_000
"""Pixels of an episode up to which its frames are kept bit for bit: 150 steps at 160 x 160."""

_SHEET = 4096  # pixels a side: what every browser decodes


class Recorded(Protocol):
    """What a page shows: the fields of `robot_attn_policies.recording.episode_file.Episode`, with its shapes.

    `attention` may also be None, or hold maps that are no distribution: those are left out, and counted.
    """

    @property
    def images(self) -> NDArray[np.uint8]: ...
    @property
    def actions(self) -> NDArray[np.float32]: ...
    @property
    def rewards(self) -> NDArray[np.float64]: ...
    @property
    def attention(self) -> NDArray[np.float32] | None: ...
    @property
    def ys(self) -> NDArray[np.float32]: ...
    @property
    def xs(self) -> NDArray[np.float32]: ...
    @property
    def env_args(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def target_masks(self) -> NDArray[np.bool_] | None: ...
    @property
    def success(self) -> bool | None: ...
    @property
    def dt(self) -> float | None: ...
    @property
    def best_head(self) -> int: ...
    @property
    def uniform(self) -> bool: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def policy(self) -> str: ...
    @property
    def values(self) -> NDArray[np.float64] | None: ...
    @property
    def maps(self) -> str: ...
    @property
    def cut(self) -> int | None: ...


class Maps(NamedTuple):
    """Attention made ready: what can be drawn, and what cannot."""

    weights: NDArray[np.float32]
    """[T, K, rows, cols], each map with sum 1, or all zero where it was no distribution."""
    usable: NDArray[np.bool_]
    """[T, K]."""


class View(NamedTuple):
    """The episode from a camera that the policy does not see through."""

    name: str
    images: NDArray[np.uint8]
    """[T, H, W, 3], of any size."""


def write_page(
    path: str | os.PathLike[str],
    episode: Recorded,
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
    episode: Recorded,
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
        ValueError: an episode without a step, or arrays that do not belong to its steps.
        ModuleNotFoundError: opencv is not installed.
    """
    steps = len(episode.images)
    if steps == 0:
        raise ValueError("expected an episode of at least one step, got none; record it again")
    heading = title or f"{episode.env_args.get('env_name', 'Episode')} · seed {episode.seed}"
    content = _content(episode, notes, links or {}, view, action_range)
    # None of these three characters has a meaning in JSON outside of strings, where an escape is the same.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", data)
    return fill_page("page.html", heading, style="page.css", script="page.js", parts={"data": data})


def _content(
    episode: Recorded,
    notes: Sequence[str],
    links: Mapping[str, str],
    view: View | None,
    action_range: tuple[float, float],
) -> dict[str, Any]:
    """Everything that page.js reads."""
    steps, height, width, _ = episode.images.shape
    size = (height, width)
    rewards = np.asarray(episode.rewards, dtype=np.float64)
    actions = np.asarray(episode.actions, dtype=np.float64).reshape(steps, -1)
    estimates = episode.values
    masks = episode.target_masks
    series: dict[str, NDArray[Any] | None] = {
        "actions": actions,
        "rewards": rewards,
        "values": estimates,
        "masks": masks,
        "attention maps": episode.attention,
        "frames from another camera": None if view is None else view.images,
    }
    for name, array in series.items():
        if array is not None and len(array) != steps:
            raise ValueError(f"expected {steps} {name}, one for each frame, got {len(array)}")

    maps = _maps(episode)
    mass = None if maps is None or masks is None else _mass(maps, masks, size, episode)
    telling = maps is not None and not episode.uniform and episode.maps == "attention"
    best = episode.best_head
    moments = find_moments(
        rewards,
        values=estimates,
        masks=masks,
        maps=maps.weights[:, best] if maps is not None and telling else None,
        mass=mass[:, best] if mass is not None and telling else None,
        ys=episode.ys,
        xs=episode.xs,
    )
    names = episode.action_names or tuple(f"action {i}" for i in range(actions.shape[1]))
    low, high = action_range
    return {
        "facts": _facts(episode, rewards),
        "notes": [*notes, *_findings(episode, maps, view)],
        "links": [(text, quote(name, safe="")) for text, name in links.items()],
        "steps": steps,
        "size": size,
        "dt": episode.dt,
        "frames": _frames(episode.images),
        "view": None if view is None else {"name": view.name, **_frames(view.images)},
        "attention": None if maps is None else _attention(episode, maps),
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


def _maps(episode: Recorded) -> Maps | None:
    attention = episode.attention
    if attention is None or attention.shape[1] == 0:
        return None
    if not 0 <= episode.best_head < attention.shape[1]:
        raise ValueError(f"expected a best head from 0 to {attention.shape[1] - 1}, got {episode.best_head}")
    usable = usable_maps(attention)
    weights = np.where(usable[..., None, None], attention, 0)
    total = np.where(usable, weights.sum(axis=(2, 3)), 1)
    return Maps((weights / total[..., None, None]).astype(np.float32), usable)


def _mass(
    maps: Maps, masks: NDArray[np.bool_], size: tuple[int, int], episode: Recorded
) -> NDArray[np.float64]:
    """[T, K] the share of each map on the target; NaN where there is no target or no map."""
    pixels = focus.upsample(maps.weights, size, episode.ys, episode.xs)
    known = maps.usable & np.asarray(masks.any(axis=(1, 2)))[:, None]
    return np.where(known, focus.mass_on_target(pixels, masks), np.nan)


def half_level(levels: NDArray[np.uint8], weights: NDArray[np.floating]) -> int:
    """The highest level such that the pixels at or above it hold half of the weight; both [H, W].

    0 where it takes pixels that get no more than uniform attention would give them, or there is no weight.
    """
    at_level = np.bincount(levels.reshape(-1), weights.reshape(-1), minlength=256)
    above = at_level[::-1].cumsum()[::-1]
    return int(np.flatnonzero(above >= 0.5 * above[0])[-1]) if above[0] > 0 else 0


def _attention(episode: Recorded, maps: Maps) -> dict[str, Any]:
    size = (episode.images.shape[1], episode.images.shape[2])
    scale = HeatScale(episode.ys, episode.xs, size, size)
    halves = [
        [
            half_level(levels, pixels)
            for levels, pixels in zip(
                scale.levels(weights),
                focus.upsample(weights[None], size, episode.ys, episode.xs)[0],
                strict=True,
            )
        ]
        for weights in maps.weights
    ]
    return {
        "heads": maps.weights.shape[1],
        "best": episode.best_head,
        "uniform": episode.uniform,
        "gradient": episode.maps == "gradient",
        "ys": episode.ys.tolist(),
        "xs": episode.xs.tolist(),
        "usable": _packed(maps.usable.astype(np.uint8)),
        "levels": _packed(scale.cell_levels(maps.weights)),  # between the cells page.js does as `HeatScale`
        "halves": _packed(np.array(halves, dtype=np.uint8)),
        "palette": _palette().tolist(),
    }


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


def _facts(episode: Recorded, rewards: NDArray[np.float64]) -> list[tuple[str, str]]:
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


def _outcome(episode: Recorded) -> str:
    return {True: "success", False: "no success", None: "not known"}[episode.success]


def _findings(episode: Recorded, maps: Maps | None, view: View | None) -> list[str]:
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
    if not np.isfinite(episode.rewards).all():
        found.append("Some rewards are not finite: the return is not known from there on.")
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
