"""Draw what a policy looked at: heat over the camera frame, the target's outline, actions, reward and return.

Needs opencv (`pip install "robot-attn[video]"`), imported only when something is drawn. All pictures are RGB.

The heat has one scale for every frame, head and family: how many times more weight a place got than it would
get from uniform attention, on a logarithm from 1 (clear) to the number of cells (hottest: all weight in one
cell). So uniform attention draws nothing, and a warm colour means the same in every picture.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from robot_attn import focus
from robot_attn.files import replacing

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

MIN_SIZE = 600
"""The smallest height of a replay in pixels: below it the text cannot be read."""

_BACKGROUND: Color = (18, 20, 26)
_PANEL: Color = (29, 32, 41)
_TEXT: Color = (226, 230, 238)
_DIM: Color = (142, 149, 164)
_ACCENT: Color = (255, 196, 84)
_BLUE: Color = (96, 172, 255)
_GREEN: Color = (106, 214, 150)
_RED: Color = (246, 108, 100)
_OUTLINE: Color = (64, 255, 214)
_HALO: Color = (0, 0, 0)
_HIDDEN: Color = (66, 40, 46)

_LEAST_HUE, _MOST_ALPHA = 0.3, 0.82
_BIT = 4  # sub-pixel bits of opencv's `shift`, for smooth lines


def _cv2() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'drawing needs opencv, which is not installed; run pip install "robot-attn[video]"',
            name=error.name,
        ) from error
    return cv2


@cache
def _palette() -> tuple[Image, Image]:
    """Heat level 0 to 255 -> colour times its opacity [256, 1, 3], and 255 times what the frame keeps [256].

    The colours are inferno's without its black end, which would read as shadow on a frame.
    """
    cv2 = _cv2()
    level = np.linspace(0.0, 1.0, 256)
    hue = np.rint(255 * (_LEAST_HUE + (1 - _LEAST_HUE) * level)).astype(np.uint8)
    color = cv2.applyColorMap(hue[:, None], cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float64)
    alpha = _MOST_ALPHA * np.minimum(1.0, 1.6 * level)
    return (
        np.ascontiguousarray(np.rint(color * alpha[:, None, None]).astype(np.uint8)),
        np.rint(255 * (1 - alpha)).astype(np.uint8),
    )


class HeatScale:
    """Attention cells -> heat levels uint8 at a picture's pixels, for one grid, frame size and picture size.

    Args:
        ys, xs: token centres in pixels of the frame, [rows] and [cols].
        image_size: (H, W) of the frame.
        size: (h, w) of the picture.
    """

    def __init__(
        self, ys: ArrayLike, xs: ArrayLike, image_size: tuple[int, int], size: tuple[int, int]
    ) -> None:
        ys, xs = np.ascontiguousarray(ys, dtype=np.float64), np.ascontiguousarray(xs, dtype=np.float64)
        # A cell's share of the frame is what uniform attention would put there: the inverse of its density.
        cells = _extents(ys, image_size[0])[:, None] * _extents(xs, image_size[1])
        self._share = (cells / cells.sum()).astype(np.float32)
        self._log_cells = math.log(max(cells.size, 2))
        self._size = size
        self._down = _between(ys, image_size[0], size[0])
        self._across = np.ascontiguousarray(_between(xs, image_size[1], size[1]).T)

    def cell_levels(self, attention: NDArray[np.floating]) -> Image:
        """Attention [..., rows, cols] -> levels uint8 of its cells: 0 at or below uniform, 255 for all."""
        return np.asarray(np.rint(self._cell_levels(attention)), dtype=np.uint8)

    def levels(self, attention: NDArray[np.floating]) -> Image:
        """Attention [K, rows, cols] -> uint8 [K, h, w]: 0 at or below uniform, 255 where a cell has all.

        Between the cells' centres the level runs smoothly, without rising above either.
        """
        cv2 = _cv2()
        levels = np.empty((len(attention), *self._size), dtype=np.uint8)
        for cells, level in zip(self._cell_levels(attention), levels, strict=True):
            cv2.convertScaleAbs(self._down @ cells @ self._across, dst=level)
        return levels

    def _cell_levels(self, attention: NDArray[np.floating]) -> NDArray[np.float32]:
        if attention.shape[-2:] != self._share.shape:
            raise ValueError(
                f"expected attention [..., {', '.join(map(str, self._share.shape))}], a weight for each of "
                f"the centres, got {list(attention.shape)}"
            )
        with np.errstate(divide="ignore"):
            level = np.log(attention / self._share) / self._log_cells
        return np.asarray(255 * np.clip(level, 0.0, 1.0).astype(np.float32))


def _extents(centers: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """[n] the share of an axis of `pixels` that each of n cells covers, up to a factor."""
    eye = np.eye(len(centers))[None, :, :, None]
    spread = focus.upsample(eye, (pixels, 1), centers, [0.0])
    return np.asarray(1 / spread.max(axis=(2, 3))[0])


def _between(centers: NDArray[np.float64], pixels: int, size: int) -> NDArray[np.float32]:
    """Smooth interpolation as a matrix [size, n]: from `centers` in a frame of `pixels` to `size` places."""
    at = (np.arange(size) + 0.5) * pixels / size - 0.5
    straight = np.stack([np.interp(at, centers, row) for row in np.eye(len(centers))], axis=1)
    return (straight**2 * (3 - 2 * straight)).astype(
        np.float32
    )  # keeps rows at sum 1, since s(w) + s(1 - w) = 1


def usable_maps(attention: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which maps [..., rows, cols] can be drawn: finite, with no weight below zero and some above it."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = attention.sum(axis=(-2, -1))
    return np.asarray((attention >= 0).all(axis=(-2, -1)) & np.isfinite(total) & (total > 0))


def blend_heat(image: Image, levels: Image) -> Image:
    """Lay heat levels uint8 [h, w] over a picture uint8 [h, w, 3]: a new picture."""
    cv2 = _cv2()
    added, kept = _palette()
    blended = image.copy()
    x, y, width, height = cv2.boundingRect(levels)  # beyond it there is no heat
    if width > 0:
        hot = Box(x, y, width, height)
        part, level = hot.of(blended), hot.of(levels)
        faded = cv2.multiply(part, cv2.cvtColor(cv2.LUT(level, kept), cv2.COLOR_GRAY2RGB), scale=1 / 255)
        part[:] = cv2.add(faded, cv2.applyColorMap(level, added))
    return blended


def find_outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> Sequence[NDArray[np.int32]]:
    """The outline of a mask bool [H, W] in a picture of `size` (h, w): polygons along its pixels' edges."""
    cv2 = _cv2()
    if not mask.any():
        return ()
    big = cv2.resize(mask.view(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    found = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    return tuple(np.asarray(polygon, dtype=np.int32) for polygon in found)


def draw_outline(image: Image, polygons: Sequence[NDArray[np.int32]], width: int) -> None:
    """Draw closed polygons into `image`, bright on a dark halo, so that they show on any ground."""
    if polygons:
        cv2 = _cv2()
        cv2.polylines(image, polygons, True, _HALO, width + 2, cv2.LINE_AA)
        cv2.polylines(image, polygons, True, _OUTLINE, width, cv2.LINE_AA)


def scale_frame(frame: Image, size: tuple[int, int]) -> Image:
    """A frame uint8 [H, W, 3] at `size` (h, w): pixels stay squares when it grows, and are averaged else."""
    cv2 = _cv2()
    grows = size[0] >= frame.shape[0]
    mode = cv2.INTER_NEAREST_EXACT if grows else cv2.INTER_AREA
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=mode))


def overlay(
    frame: ArrayLike | Tensor,
    attention: ArrayLike | Tensor,
    *,
    ys: ArrayLike | Tensor | None = None,
    xs: ArrayLike | Tensor | None = None,
    head: int | None = None,
    mask: ArrayLike | Tensor | None = None,
    size: int | tuple[int, int] | None = None,
) -> Image:
    """Lay the heat of an attention map over a camera frame: a picture uint8 [h, w, 3] RGB.

        picture = overlay(frame, module(frames).attention[0])

    Arrays or tensors, of any library's policy: nothing is asked of what made them.

    Args:
        frame: uint8 [H, W, 3] RGB, or grey [H, W] or [H, W, 1].
        attention: [rows, cols] or [heads, rows, cols], 0 or more; a map of the frame's own size, too. What
            is drawn is scaled to sum 1.
        ys, xs: the cells' centres in pixels of the frame, [rows] and [cols], as a module's `token_centers()`
            gives them. By default the cells share the frame evenly.
        head: the head to draw; by default the mean of all.
        mask: bool [H, W], True on the target, whose outline is then drawn.
        size: height of the picture in pixels, or (h, w). By default the largest whole multiple of the frame
            within 640 x 640, and no smaller than the frame.

    Raises:
        ValueError: another shape or dtype, a head that is not there, or a map that is all zero, or holds
            weights that are negative, NaN or infinite.
        ModuleNotFoundError: opencv is not installed.
    """
    shown = _as_rgb(_as_array(frame))
    height, width = image_size = shown.shape[0], shown.shape[1]
    weights = _one_map(_as_array(attention), head)
    down = _evenly(weights.shape[0], height) if ys is None else _as_array(ys)
    across = _evenly(weights.shape[1], width) if xs is None else _as_array(xs)
    picture_size = _picture_size(image_size, size)
    scale = _scale(tuple(down.tolist()), tuple(across.tolist()), image_size, picture_size)
    levels = scale.levels(weights[None])[0]
    picture = blend_heat(scale_frame(shown, picture_size), levels)
    if mask is not None:
        target = _as_array(mask)
        if target.dtype != np.bool_ or target.shape != image_size:
            raise ValueError(
                f"expected a mask bool [{height}, {width}], as the frame, got {target.dtype} "
                f"{list(target.shape)}"
            )
        draw_outline(picture, find_outline(target, picture_size), max(2, round(picture_size[0] / 360)))
    return picture


@lru_cache(maxsize=8)
def _scale(
    ys: tuple[float, ...], xs: tuple[float, ...], image_size: tuple[int, int], size: tuple[int, int]
) -> HeatScale:
    """A scale kept for the next frames of the same episode: it takes longer to make than to use."""
    return HeatScale(ys, xs, image_size, size)


def _as_array(value: ArrayLike | Tensor) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value  # NumPy has no bfloat16
    return np.asarray(value)


def _as_rgb(frame: NDArray[Any]) -> Image:
    grey = frame.ndim == 2 or frame.shape[2:] == (1,)
    if frame.dtype != np.uint8 or not (grey or (frame.ndim == 3 and frame.shape[2] == 3)) or frame.size == 0:
        raise ValueError(
            "expected a frame uint8 [H, W, 3] in RGB, [H, W] or [H, W, 1], with the channels last, got "
            f"{frame.dtype} {list(frame.shape)}"
        )
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2) if grey else frame


def _one_map(attention: NDArray[Any], head: int | None) -> NDArray[np.float64]:
    """The map to draw [rows, cols], with sum 1."""
    if attention.ndim not in (2, 3) or attention.size == 0 or attention.dtype.kind not in "fiub":
        raise ValueError(
            f"expected attention [rows, cols] or [heads, rows, cols], got {attention.dtype} "
            f"{list(attention.shape)}; of a batch, give one row"
        )
    heads = attention.reshape(-1, *attention.shape[-2:]).astype(np.float64)
    if head is not None:
        if not 0 <= head < len(heads):
            raise ValueError(f"there is no head {head}: the heads are 0 to {len(heads) - 1}")
        heads = heads[head : head + 1]
    if not np.isfinite(heads).all() or heads.min() < 0:
        raise ValueError(
            f"expected attention of finite weights, 0 or more, got {heads.min():g} to {heads.max():g}"
        )
    if heads.max() == 0:
        raise ValueError("this attention is all zero: there is nothing to draw")
    weights = (heads / heads.max()).mean(axis=0)
    return np.asarray(weights / weights.sum())


def _evenly(cells: int, pixels: int) -> NDArray[np.float64]:
    """The centres of `cells` that share an axis of `pixels` evenly."""
    return (np.arange(cells) + 0.5) * pixels / cells - 0.5


def _picture_size(image_size: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
    height, width = image_size
    if size is None:
        times = max(1, min(640 // height, 640 // width))
        return times * height, times * width
    wanted = size if isinstance(size, tuple) else (size, max(1, round(width * size / height)))
    if len(wanted) != 2 or min(wanted) < 1:
        raise ValueError(f"expected the size of a picture as its height, or (h, w), 1 or more, got {size}")
    return wanted


def _text(
    image: Image, text: str, x: float, y: float, scale: float, color: Color = _TEXT, anchor: str = "left"
) -> None:
    """Write `text` with its baseline's left (or right, or middle) end at (x, y)."""
    cv2 = _cv2()
    if anchor != "left":
        width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        x -= width if anchor == "right" else width / 2
    cv2.putText(image, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def _fitting(text: str, width: float, scale: float) -> str:
    """`text`, cut with an ellipsis to fit `width` pixels."""
    cv2 = _cv2()
    shown = text
    while shown and cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > width:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    return shown


@dataclass(frozen=True)
class Box:
    """A rectangle in the picture: left, top, width and height in pixels."""

    x: int
    y: int
    w: int
    h: int

    def of(self, image: Image) -> Image:
        """The part of `image` in this rectangle, as a view."""
        return image[self.y : self.y + self.h, self.x : self.x + self.w]


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a replay picture."""

    height: int
    width: int
    unit: float
    """One pixel of a picture 720 pixels high."""
    main: Box
    tiles: tuple[Box, ...]
    """The clean camera frame, then one tile a head."""
    plots: tuple[Box, ...]
    """Return, reward, and mass on the target."""
    actions: Box
    footer: int
    """The footer's baseline."""


def plan(image_size: tuple[int, int], num_heads: int, size: int) -> Layout:
    """Lay out a picture `size` pixels high for frames of `image_size` (H, W).

    The width follows from the content. The tiles get the number of rows that brings the picture nearest to
    4:3.
    """
    unit = size / 720

    def px(value: float) -> int:
        return round(value * unit)

    margin, gap, caption, header, strip, footer = px(16), px(10), px(22), px(42), px(148), px(30)
    room = size - header - caption - gap - strip - footer
    main_h, main_w = _fit(image_size, room, px(760))
    best: tuple[float, int, tuple[int, int]] | None = None
    count = num_heads + 1
    for rows in range(1, count + 1):
        columns = math.ceil(count / rows)
        tile_h = (main_h + caption - (rows - 1) * gap) // rows - caption
        if tile_h < px(40) or (rows - 1) * columns >= count:
            continue
        tile = _fit(image_size, tile_h, px(600))
        width = 3 * margin + main_w + columns * tile[1] + (columns - 1) * gap
        misfit = abs(math.log(width / size * 3 / 4))
        if best is None or misfit < best[0]:
            best = (misfit, columns, tile)
    if best is None:
        raise ValueError(f"{num_heads} heads do not fit in a picture {size} pixels high; draw it larger")
    _, columns, (tile_h, tile_w) = best
    rows = math.ceil(count / columns)
    width = 3 * margin + main_w + columns * tile_w + (columns - 1) * gap
    width = max(width, px(760))
    width += width % 2
    top = header + caption
    # The grid is spread over the height of the large frame, and keeps to the right edge.
    left = width - margin - columns * tile_w - (columns - 1) * gap
    pitch = (main_h - tile_h) / (rows - 1) if rows > 1 else 0
    tiles = tuple(
        Box(left + (i % columns) * (tile_w + gap), top + round((i // columns) * pitch), tile_w, tile_h)
        for i in range(count)
    )
    spare = left - 2 * margin - main_w
    main = Box(margin + spare // 2, top, main_w, main_h)
    strip_top = top + main_h + gap + px(4)
    strip_h = size - strip_top - footer
    inner = width - 2 * margin - 3 * gap
    plot_w, action_w = round(inner * 0.235), inner - 3 * round(inner * 0.235)
    plots = tuple(Box(margin + i * (plot_w + gap), strip_top, plot_w, strip_h) for i in range(3))
    actions = Box(margin + 3 * (plot_w + gap), strip_top, action_w, strip_h)
    return Layout(size, width, unit, main, tiles, plots, actions, size - px(10))


def _fit(image_size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The largest (h, w) in `height` and `width` of the frame's shape, a whole multiple of it if it grows."""
    scale = min(height / image_size[0], width / image_size[1])
    if scale >= 2:
        scale = math.floor(scale)
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))


class Replay:
    """An episode, drawn step by step.

    Args:
        frames: uint8 [T, H, W, 3], what the policy saw.
        attention: float [T, heads, rows, cols].
        actions: float [T, A] in `action_range`.
        rewards: float [T].
        ys, xs: token centres in pixels of the frame, [rows] and [cols].
        masks: bool [T, H, W], True on the target; None if not known.
        best_head: the head shown large.
        uniform: the attention says nothing (the control "cnn"); it is said in place of a score.
        maps: what `attention` holds, to say so: "attention", or "gradient" of the action, for a policy that
            has no attention.
        size: height of the pictures in pixels, even; the width follows.
        title: what is shown.
        action_names: A names.
        action_range: the ends of the action bars.
        dt: seconds a step, to show the time; None to leave it out.

    A map that is no distribution (`usable_maps`) is not drawn: "no map" is said in its place.

    Raises:
        ValueError: arrays that do not belong together, a size that is odd or too small, or unknown `maps`.
    """

    def __init__(
        self,
        frames: Image,
        attention: NDArray[np.floating],
        actions: NDArray[np.floating],
        rewards: NDArray[np.floating],
        *,
        ys: ArrayLike,
        xs: ArrayLike,
        masks: NDArray[np.bool_] | None = None,
        best_head: int = 0,
        uniform: bool = False,
        maps: str = "attention",
        size: int = 720,
        title: str = "",
        action_names: Sequence[str] | None = None,
        action_range: tuple[float, float] = (-1.0, 1.0),
        dt: float | None = None,
    ) -> None:
        steps = len(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or steps == 0:
            raise ValueError(f"expected frames uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        image_size = (frames.shape[1], frames.shape[2])
        if attention.ndim != 4 or not (len(attention) == len(actions) == len(rewards) == steps):
            raise ValueError(
                f"expected attention [T, heads, rows, cols], actions [T, A], rewards [T], T = {steps}, got "
                f"{list(attention.shape)}, {list(actions.shape)} and {list(rewards.shape)}"
            )
        if masks is not None and (masks.shape != frames.shape[:3] or masks.dtype != np.bool_):
            expected = list(frames.shape[:3])
            raise ValueError(f"expected masks bool {expected}, got {masks.dtype} {list(masks.shape)}")
        if size < MIN_SIZE or size % 2:
            raise ValueError(
                f"the height of a replay is an even number of pixels from {MIN_SIZE}, got {size}"
            )
        if not 0 <= best_head < attention.shape[1]:
            raise ValueError(f"there is no head {best_head}: the heads are 0 to {attention.shape[1] - 1}")
        if maps not in ("attention", "gradient"):
            raise ValueError(f'expected maps "attention" or "gradient", got {maps!r}')
        self.frames, self.masks, self.maps = frames, masks, maps
        self.usable = usable_maps(attention)  # [T, heads]
        self.attention = np.where(self.usable[..., None, None], attention, 0).astype(np.float32)
        self.actions = np.asarray(actions, dtype=np.float64)
        self.rewards = np.asarray(rewards, dtype=np.float64)
        self.returns = np.cumsum(self.rewards)
        self.best_head, self.uniform, self.dt = best_head, uniform, dt
        self.action_range = action_range
        self.action_names = list(action_names or (f"action {i}" for i in range(self.actions.shape[1])))
        if len(self.action_names) != self.actions.shape[1]:
            raise ValueError(f"{self.actions.shape[1]} action dimensions, but names {self.action_names}")
        # [T, heads]; NaN where the target is not visible or not known, or there is no map.
        self.mass = self._mass_on_target(ys, xs)
        self.layout = plan(image_size, attention.shape[1], size)
        self._main_heat = HeatScale(ys, xs, image_size, (self.layout.main.h, self.layout.main.w))
        tile = self.layout.tiles[0]
        self._tile_heat = HeatScale(ys, xs, image_size, (tile.h, tile.w))
        self._curves = (
            self.returns,
            self.rewards,
            self.mass[:, self.best_head],
        )  # NaN where there is no value
        self._points = [self._place(i) for i in range(3)]
        self._still = self._draw_still(title)

    def __len__(self) -> int:
        return len(self.frames)

    def draw(self, step: int) -> Image:
        """The picture of step `step` (from 0): uint8 [layout.height, layout.width, 3]."""
        if not 0 <= step < len(self):
            raise ValueError(f"there is no step {step}: the episode has steps 0 to {len(self) - 1}")
        layout, u = self.layout, self.layout.unit
        image = self._still.copy()
        clock = f"step {step + 1} / {len(self)}"
        if self.dt is not None:
            clock = f"{step * self.dt:.2f} s    {clock}"
        _text(image, clock, layout.width - 16 * u, 26 * u, 0.52 * u, _TEXT, "right")
        layout.main.of(image)[:] = self.large(step)
        self._draw_captions(image, step)
        self._draw_tiles(image, step)
        self._draw_plots(image, step)
        self._draw_actions(image, step)
        return image

    def large(self, step: int) -> Image:
        """The large panel alone: frame, best head's heat and the target's outline, [main.h, main.w, 3]."""
        size = (self.layout.main.h, self.layout.main.w)
        image = scale_frame(self.frames[step], size)
        if not self.uniform:
            image = blend_heat(image, self._main_heat.levels(self.attention[step, self.best_head][None])[0])
        if self.masks is not None:
            draw_outline(image, find_outline(self.masks[step], size), max(2, round(2 * self.layout.unit)))
        return image

    def caption(self, step: int) -> str:
        """What the contact sheet says below a moment."""
        parts = [f"step {step + 1}" if self.dt is None else f"{step * self.dt:.1f} s"]
        parts.append(f"reward {self.rewards[step]:.2f}")
        if self.masks is not None and not self.masks[step].any():
            parts.append("target not visible")
        elif self.masks is not None and not self.uniform and self.usable[step, self.best_head]:
            name = "on target" if self.maps == "attention" else "gradient on target"
            parts.append(f"{name} {self.mass[step, self.best_head]:.0%}")
        if not self.uniform and not self.usable[step, self.best_head]:
            parts.append("no map")
        return "   ".join(parts)

    def _mass_on_target(self, ys: ArrayLike, xs: ArrayLike) -> NDArray[np.float64]:
        mass = np.full(self.attention.shape[:2], np.nan)
        if self.masks is not None and not self.uniform:
            for start in range(
                0, len(self), 16
            ):  # a few frames at a time: maps of the frame's size are large
                part = slice(start, start + 16)
                maps = focus.upsample(self.attention[part], self.masks.shape[1:], ys, xs)
                mass[part] = focus.mass_on_target(maps, self.masks[part])
            visible = np.asarray(self.masks.any(axis=(1, 2)))
            mass[~(self.usable & visible[:, None])] = np.nan
        return mass

    # The parts that never change.

    def _draw_still(self, title: str) -> Image:
        layout, u = self.layout, self.layout.unit
        image: Image = np.full((layout.height, layout.width, 3), _BACKGROUND, dtype=np.uint8)
        _text(image, _fitting(title, layout.width - 330 * u, 0.56 * u), 16 * u, 26 * u, 0.56 * u)
        for box in (*layout.plots, layout.actions):
            box.of(image)[:] = _PANEL
        _text(image, "camera", layout.tiles[0].x, layout.tiles[0].y - 7 * u, 0.44 * u, _DIM)
        if not self.uniform:
            cv2 = _cv2()
            tile = layout.tiles[1 + self.best_head]
            edge = max(2, round(2 * u))
            corner = (tile.x - edge, tile.y - edge), (tile.x + tile.w + edge - 1, tile.y + tile.h + edge - 1)
            cv2.rectangle(image, *corner, _ACCENT, edge)
        for i, name in enumerate(("return", "reward", f"{self.maps} on target")):
            self._draw_plot_still(image, i, name)
        self._draw_action_still(image)
        self._draw_footer(image)
        return image

    def _draw_footer(self, image: Image) -> None:
        cv2 = _cv2()
        layout, u = self.layout, self.layout.unit
        x, y, scale = 16 * u, layout.footer, 0.4 * u
        if not self.uniform:
            heat = (
                "heat: weight relative to uniform attention"
                if self.maps == "attention"
                else "heat: gradient, since this policy has no attention"
            )
            _text(image, heat, x, y, scale, _DIM)
            x += cv2.getTextSize(heat, 0, scale, 1)[0][0] + 14 * u
            cells = self.attention.shape[2] * self.attention.shape[3]
            _text(image, "1x", x, y, scale, _DIM)
            x += 22 * u
            bar = Box(round(x), round(y - 10 * u), round(150 * u), round(11 * u))
            levels = np.linspace(0, 255, bar.w).astype(np.uint8)[None].repeat(bar.h, axis=0)
            bar.of(image)[:] = blend_heat(np.full((bar.h, bar.w, 3), 96, dtype=np.uint8), levels)
            x += bar.w + 8 * u
            _text(image, f"{cells}x (one cell)", x, y, scale, _DIM)
            x += 130 * u
        if self.masks is not None:
            middle = round(y - 4.5 * u)
            ends = np.array([[[round(x + 8 * u), middle], [round(x + 32 * u), middle]]], dtype=np.int32)
            draw_outline(image, tuple(ends), max(2, round(2 * u)))
            _text(image, "target", x + 40 * u, y, scale, _DIM)
            x += 110 * u
            if not self.masks.any(axis=(1, 2)).all():
                Box(round(x), round(y - 10 * u), round(16 * u), round(11 * u)).of(image)[:] = _HIDDEN
                _text(image, "target not visible", x + 24 * u, y, scale, _DIM)

    # Captions and tiles.

    def _draw_captions(self, image: Image, step: int) -> None:
        layout, u = self.layout, self.layout.unit
        main, scale = layout.main, 0.48 * u
        if self.uniform:
            _text(
                image, "no attention: this policy weighs the whole frame alike", main.x, main.y - 7 * u, scale
            )
            return
        name = self._name(self.best_head)
        if self.maps == "gradient":
            name += " of the action"
        elif self.masks is not None:
            name += " (best)"
        _text(image, f"{name}: {self._share(step, self.best_head)}", main.x, main.y - 7 * u, scale, _ACCENT)

    def _name(self, head: int) -> str:
        return f"head {head}" if self.maps == "attention" else "gradient"

    def _share(self, step: int, head: int) -> str:
        if not self.usable[step, head]:
            return "no map"
        if self.masks is None:
            return "target not known"
        mass = self.mass[step, head]
        return "target not visible" if np.isnan(mass) else f"{mass:.0%} on the target"

    def _draw_tiles(self, image: Image, step: int) -> None:
        cv2 = _cv2()
        layout, u = self.layout, self.layout.unit
        camera, *tiles = layout.tiles
        small = scale_frame(self.frames[step], (camera.h, camera.w))
        camera.of(image)[:] = small
        levels = self._tile_heat.levels(self.attention[step])
        # All heads at once, one above the other: one call of each kind instead of one a head.
        heads = len(tiles)
        stacked = cv2.repeat(small, heads, 1)
        if not self.uniform:
            stacked = blend_heat(stacked, levels.reshape(heads * camera.h, camera.w))
        polygons = find_outline(self.masks[step], (camera.h, camera.w)) if self.masks is not None else ()
        for head, tile in enumerate(tiles):
            picture = stacked[head * tile.h : (head + 1) * tile.h]
            draw_outline(picture, polygons, max(1, round(u)))
            tile.of(image)[:] = picture
            best = head == self.best_head and not self.uniform
            color = _ACCENT if best else _TEXT
            above = tile.y - 7 * u
            name = "uniform" if self.uniform else self._name(head)
            _text(image, name, tile.x, above, 0.44 * u, color)
            if self.uniform:
                continue
            if not self.usable[step, head]:
                _text(image, "no map", tile.x + tile.w, above, 0.44 * u, _DIM, "right")
            elif not np.isnan(self.mass[step, head]):
                mass = f"{self.mass[step, head]:.0%}"
                _text(image, mass, tile.x + tile.w, above, 0.44 * u, color, "right")

    # The strip.

    def _plot_area(self, index: int) -> tuple[Box, float, float]:
        """The plot's inside, and the values at its bottom and top."""
        box, u = self.layout.plots[index], self.layout.unit
        pad = round(12 * u)
        inside = Box(box.x + pad, box.y + round(34 * u), box.w - 2 * pad, box.h - round(48 * u))
        values = self._curves[index]
        known = values[~np.isnan(values)]
        low, high = (0.0, 1.0) if index == 2 else (min(0.0, float(known.min())), max(0.0, float(known.max())))
        if index == 1 and low >= 0 and high <= 1:
            high = 1.0
        return inside, low, high if high > low else low + 1.0

    def _place(self, index: int) -> NDArray[np.int32]:
        """The curve's corners [T, 2] in the picture, with `_BIT` bits below the pixel."""
        inside, low, high = self._plot_area(index)
        x = inside.x + (np.arange(len(self)) + 0.5) / len(self) * inside.w
        y = inside.y + inside.h - (self._curves[index] - low) / (high - low) * inside.h
        return np.rint(np.stack([x, np.nan_to_num(y)], axis=1) * (1 << _BIT)).astype(np.int32)

    def _draw_plot_still(self, image: Image, index: int, name: str) -> None:
        cv2 = _cv2()
        u, box = self.layout.unit, self.layout.plots[index]
        inside, low, high = self._plot_area(index)
        _text(image, name, box.x + 12 * u, box.y + 21 * u, 0.44 * u, _DIM)
        if self.masks is not None:
            for start, stop in _runs(~self.masks.any(axis=(1, 2))):  # where there was nothing to look at
                left = round(inside.x + start / len(self) * inside.w)
                right = max(left + 1, round(inside.x + stop / len(self) * inside.w))
                image[inside.y : inside.y + inside.h, left:right] = _HIDDEN
        for value in (low, high):
            y = round(inside.y + inside.h - (value - low) / (high - low) * inside.h)
            cv2.line(image, (inside.x, y), (inside.x + inside.w, y), (58, 63, 76), 1)
        self._draw_curve(image, index, len(self), (84, 91, 108))

    def _draw_curve(self, image: Image, index: int, stop: int, color: Color) -> None:
        cv2 = _cv2()
        width = max(1, round(1.6 * self.layout.unit))
        for first, last in _runs(~np.isnan(self._curves[index][:stop])):
            cv2.polylines(image, [self._points[index][first:last]], False, color, width, cv2.LINE_AA, _BIT)

    def _draw_plots(self, image: Image, step: int) -> None:
        cv2 = _cv2()
        u = self.layout.unit
        for index, (color, form) in enumerate(((_BLUE, ".1f"), (_GREEN, ".2f"), (_ACCENT, ".0%"))):
            box, value = self.layout.plots[index], self._curves[index][step]
            self._draw_curve(image, index, step + 1, color)
            known = not np.isnan(value)
            if known:
                x, y = self._points[index][step]
                cv2.circle(
                    image, (int(x), int(y)), round(3.2 * u * (1 << _BIT)), color, -1, cv2.LINE_AA, _BIT
                )
            text = format(value, form) if known else "-"
            shade = color if known else _DIM
            _text(image, text, box.x + box.w - 12 * u, box.y + 22 * u, 0.52 * u, shade, "right")

    def _action_rows(self) -> tuple[int, float]:
        """How many actions are shown, and the height of a row."""
        box, u = self.layout.actions, self.layout.unit
        room = box.h - 38 * u
        count = min(len(self.action_names), max(1, int(room // (16 * u))))
        return count, min(34 * u, room / count)

    def _draw_action_still(self, image: Image) -> None:
        cv2 = _cv2()
        box, u = self.layout.actions, self.layout.unit
        count, pitch = self._action_rows()
        hidden = len(self.action_names) - count
        title = "action" if hidden == 0 else f"action (first {count} of {len(self.action_names)})"
        _text(image, title, box.x + 12 * u, box.y + 21 * u, 0.44 * u, _DIM)
        left, right = self._bar_span()
        for i in range(count):
            y = box.y + 34 * u + (i + 0.5) * pitch
            label = _fitting(self.action_names[i], left - box.x - 20 * u, 0.42 * u)
            _text(image, label, box.x + 12 * u, y + 5 * u, 0.42 * u)
            half = max(2, round(min(7 * u, pitch * 0.36)))
            cv2.rectangle(image, (left, round(y) - half), (right, round(y) + half), (46, 50, 61), -1)

    def _bar_span(self) -> tuple[int, int]:
        box, u = self.layout.actions, self.layout.unit
        return round(box.x + box.w * 0.36), round(box.x + box.w - 62 * u)

    def _draw_actions(self, image: Image, step: int) -> None:
        cv2 = _cv2()
        box, u = self.layout.actions, self.layout.unit
        count, pitch = self._action_rows()
        left, right = self._bar_span()
        low, high = self.action_range
        zero = left + (min(max(0.0, low), high) - low) / (high - low) * (right - left)
        for i in range(count):
            value = float(self.actions[step, i])
            y = round(box.y + 34 * u + (i + 0.5) * pitch)
            half = max(2, round(min(7 * u, pitch * 0.36)))
            end = left + (min(max(value, low), high) - low) / (high - low) * (right - left)
            color = _BLUE if value >= 0 else _RED
            corner = round(min(zero, end)), y - half
            cv2.rectangle(image, corner, (round(max(zero, end)), y + half), color, -1)
            cv2.line(image, (round(zero), y - half), (round(zero), y + half), _DIM, 1)
            text = f"{round(value, 2) + 0.0:+.2f}"  # no -0.00
            _text(image, text, box.x + box.w - 12 * u, y + 5 * u, 0.42 * u, _TEXT, "right")


def _runs(flags: ArrayLike) -> list[tuple[int, int]]:
    """The stretches of True in `flags` as (first, one past the last)."""
    edges = np.flatnonzero(
        np.diff(np.concatenate([[False], np.asarray(flags, dtype=bool), [False]]).astype(np.int8))
    )
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def contact_sheet(
    pictures: Sequence[Image],
    captions: Sequence[str],
    *,
    columns: int = 4,
    most_width: int = 340,
    title: str = "",
) -> Image:
    """Pictures uint8 [h, w, 3] of one size in a grid, each over its caption, under a title: one RGB picture.

    Pictures wider than `most_width` pixels are made smaller.

    Raises:
        ValueError: no pictures, pictures of several sizes, or not one caption each.
    """
    if not pictures or len(captions) != len(pictures) or len({picture.shape for picture in pictures}) != 1:
        raise ValueError("a contact sheet takes pictures of one size, at least one, with one caption each")
    height, width = pictures[0].shape[:2]
    if width > most_width:
        height, width = round(height * most_width / width), most_width
        pictures = [scale_frame(picture, (height, width)) for picture in pictures]
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    gap, line, head = 12, 30, 40 if title else 0
    sheet: Image = np.full(
        (head + rows * (height + line) + gap, columns * (width + gap) + gap, 3), _BACKGROUND, dtype=np.uint8
    )
    if title:
        _text(sheet, _fitting(title, sheet.shape[1] - 2 * gap, 0.6), gap, 27, 0.6)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        box = Box(gap + (i % columns) * (width + gap), head + (i // columns) * (height + line), width, height)
        box.of(sheet)[:] = picture
        _text(sheet, _fitting(caption, width, 0.48), box.x, box.y + height + 19, 0.48, _TEXT)
    return sheet


def moments(steps: int, count: int = 12) -> list[int]:
    """`count` steps spread evenly over an episode, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, steps - 1, min(count, steps))})


def write_png(path: str | os.PathLike[str], image: Image) -> None:
    """Write an RGB picture uint8 [h, w, 3] as PNG, whole or not at all.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    cv2 = _cv2()
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise OSError(f"opencv could not encode a picture of shape {list(image.shape)} for {os.fspath(path)}")
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data.tobytes())
