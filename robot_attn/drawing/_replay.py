"""Replay of an episode: one picture per step with frame, heat, target, actions, reward and return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing._heat import HeatScale, blend_heat
from robot_attn.drawing._layout import MIN_SIZE, Box, Image, plan
from robot_attn.drawing._shapes import (
    draw_curve,
    draw_outline,
    draw_text,
    find_outline,
    fit_text,
    place_curve,
    scale_frame,
)
from robot_attn.drawing.colors import (
    ACCENT,
    BACKGROUND,
    BAR,
    BLUE,
    DIM,
    FAINT,
    GREEN,
    HIDDEN,
    LINE,
    PANEL,
    RED,
    TEXT,
    Color,
)
from robot_attn.episode import MAPS, Episode
from robot_attn.optional import import_cv2
from robot_attn.stretches import stretches_of

_BIT = 4  # sub-pixel bits of opencv's `shift`, for smooth lines


class Replay:
    """An episode drawn as one picture per step.

    A map that is not usable (`robot_attn.maps.usable_maps`) is not drawn; its panel says "no map".

    Args:
        episode: an episode with at least one attention map per frame.
        size: height of the pictures in pixels, even; `layout` has their width.
        title: text in the header.
        action_range: lowest and highest value of the action bars.

    Attributes:
        episode: the episode.
        action_range: the range of the action bars.
        returns: float [T], sum of the rewards up to each step.
        layout: positions of the picture's parts.

    Raises:
        ValueError: an episode without attention maps, a size that is odd or too small, or more heads than fit
            in the picture.
    """

    def __init__(
        self,
        episode: Episode,
        *,
        size: int = 720,
        title: str = "",
        action_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        heads = episode.attention.shape[1]
        if heads == 0:
            raise ValueError(
                "expected an episode with attention maps, got one without: show it as a page (`write_page`)"
            )
        if size < MIN_SIZE or size % 2:
            raise ValueError(f"expected an even height of at least {MIN_SIZE} pixels, got {size}")
        self.episode, self.action_range = episode, action_range
        self.usable = episode.attention_maps.usable
        """bool [T, heads], True for maps that are drawn."""
        self.returns = np.cumsum(episode.rewards)
        self.mass = (
            np.full((len(episode), heads), np.nan)
            if episode.target_masks is None or episode.uniform
            else episode.attention_maps.mass_on(episode.target_masks)
        )
        """float [T, heads], mass on the target; NaN where the target or the map is missing."""
        self._weights = episode.attention_maps.cleaned().weights
        self._action_names = episode.action_names or tuple(
            f"action {i}" for i in range(episode.actions.shape[1])
        )
        self.layout = plan(episode.image_size, heads, size)
        self._main_heat = HeatScale(episode.grid, (self.layout.main.h, self.layout.main.w))
        tile = self.layout.tiles[0]
        self._tile_heat = HeatScale(episode.grid, (tile.h, tile.w))
        # NaN marks gaps in a curve.
        self._curves = (self.returns, episode.rewards, self.mass[:, episode.best_head])
        self._points = [self._place(i) for i in range(3)]
        self._still = self._draw_still(title)

    def __len__(self) -> int:
        return len(self.episode)

    def draw(self, step: int) -> Image:
        """Draw the picture of a step.

        Args:
            step: from 0.

        Returns:
            uint8 [layout.height, layout.width, 3] RGB.

        Raises:
            ValueError: a step out of range.
        """
        if not 0 <= step < len(self):
            raise ValueError(f"expected step from 0 to {len(self) - 1}, got {step}")
        layout, u = self.layout, self.layout.unit
        image = self._still.copy()
        clock = f"step {step + 1} / {len(self)}"
        if self.episode.dt is not None:
            clock = f"{step * self.episode.dt:.2f} s    {clock}"
        draw_text(image, clock, layout.width - 16 * u, 26 * u, 0.52 * u, TEXT, "right")
        layout.main.of(image)[:] = self.large(step)
        self._draw_captions(image, step)
        self._draw_tiles(image, step)
        self._draw_plots(image, step)
        self._draw_actions(image, step)
        return image

    def large(self, step: int) -> Image:
        """Draw the large panel of a step: frame, best head's heat and outline of the target.

        Args:
            step: from 0.

        Returns:
            uint8 [main.h, main.w, 3] RGB.
        """
        size = (self.layout.main.h, self.layout.main.w)
        episode = self.episode
        image = scale_frame(episode.images[step], size)
        if not episode.uniform:
            weights = self._weights[step, episode.best_head]
            image = blend_heat(image, self._main_heat.levels(weights[None])[0])
        if episode.target_masks is not None:
            outline = find_outline(episode.target_masks[step], size)
            draw_outline(image, outline, max(2, round(2 * self.layout.unit)))
        return image

    def caption(self, step: int) -> str:
        """Describe a step in one line, as the caption in a contact sheet."""
        episode, masks = self.episode, self.episode.target_masks
        usable = self.usable[step, episode.best_head]
        parts = [f"step {step + 1}" if episode.dt is None else f"{step * episode.dt:.1f} s"]
        parts.append(f"reward {episode.rewards[step]:.2f}")
        if masks is not None and not masks[step].any():
            parts.append("target not visible")
        elif masks is not None and not episode.uniform and usable:
            name = "on target" if episode.maps == "attention" else f"{MAPS[episode.maps]} on target"
            parts.append(f"{name} {self.mass[step, episode.best_head]:.0%}")
        if not episode.uniform and not usable:
            parts.append("no map")
        return "   ".join(parts)

    # Parts that are the same in every step.

    def _draw_still(self, title: str) -> Image:
        layout, u = self.layout, self.layout.unit
        image: Image = np.full((layout.height, layout.width, 3), BACKGROUND, dtype=np.uint8)
        draw_text(image, fit_text(title, layout.width - 330 * u, 0.56 * u), 16 * u, 26 * u, 0.56 * u)
        for box in (*layout.plots, layout.actions):
            box.of(image)[:] = PANEL
        draw_text(image, "camera", layout.tiles[0].x, layout.tiles[0].y - 7 * u, 0.44 * u, DIM)
        if not self.episode.uniform:
            cv2 = import_cv2()
            tile = layout.tiles[1 + self.episode.best_head]
            edge = max(2, round(2 * u))
            corner = (tile.x - edge, tile.y - edge), (tile.x + tile.w + edge - 1, tile.y + tile.h + edge - 1)
            cv2.rectangle(image, *corner, ACCENT, edge)
        for i, name in enumerate(("return", "reward", f"{MAPS[self.episode.maps]} on target")):
            self._draw_plot_still(image, i, name)
        self._draw_action_still(image)
        self._draw_footer(image)
        return image

    def _draw_footer(self, image: Image) -> None:
        cv2 = import_cv2()
        layout, u = self.layout, self.layout.unit
        x, y, scale = 16 * u, layout.footer, 0.4 * u
        if not self.episode.uniform:
            heat = (
                "heat: weight relative to uniform attention"
                if self.episode.maps == "attention"
                else f"heat: {MAPS[self.episode.maps]} relative to a uniform one"
            )
            draw_text(image, heat, x, y, scale, DIM)
            x += cv2.getTextSize(heat, 0, scale, 1)[0][0] + 14 * u
            rows, cols = self.episode.grid.shape
            draw_text(image, "1x", x, y, scale, DIM)
            x += 22 * u
            bar = Box(round(x), round(y - 10 * u), round(150 * u), round(11 * u))
            levels = np.linspace(0, 255, bar.w).astype(np.uint8)[None].repeat(bar.h, axis=0)
            bar.of(image)[:] = blend_heat(np.full((bar.h, bar.w, 3), 96, dtype=np.uint8), levels)
            x += bar.w + 8 * u
            draw_text(image, f"{rows * cols}x (one cell)", x, y, scale, DIM)
            x += 130 * u
        if self.episode.target_masks is not None:
            middle = round(y - 4.5 * u)
            ends = np.array([[[round(x + 8 * u), middle], [round(x + 32 * u), middle]]], dtype=np.int32)
            draw_outline(image, tuple(ends), max(2, round(2 * u)))
            draw_text(image, "target", x + 40 * u, y, scale, DIM)
            x += 110 * u
            if not self.episode.target_masks.any(axis=(1, 2)).all():
                Box(round(x), round(y - 10 * u), round(16 * u), round(11 * u)).of(image)[:] = HIDDEN
                draw_text(image, "target not visible", x + 24 * u, y, scale, DIM)

    # Captions and tiles.

    def _draw_captions(self, image: Image, step: int) -> None:
        layout, u = self.layout, self.layout.unit
        main, scale = layout.main, 0.48 * u
        if self.episode.uniform:
            draw_text(
                image,
                "no attention: this policy weights the whole frame equally",
                main.x,
                main.y - 7 * u,
                scale,
            )
            return
        name = self._name(self.episode.best_head)
        if self.episode.maps != "attention":
            name += " of the action"
        elif self.episode.target_masks is not None:
            name += " (best)"
        text = f"{name}: {self._share(step, self.episode.best_head)}"
        draw_text(image, text, main.x, main.y - 7 * u, scale, ACCENT)

    def _name(self, head: int) -> str:
        return f"head {head}" if self.episode.maps == "attention" else MAPS[self.episode.maps]

    def _share(self, step: int, head: int) -> str:
        if not self.usable[step, head]:
            return "no map"
        if self.episode.target_masks is None:
            return "target not known"
        mass = self.mass[step, head]
        return "target not visible" if np.isnan(mass) else f"{mass:.0%} on the target"

    def _draw_tiles(self, image: Image, step: int) -> None:
        cv2 = import_cv2()
        layout, u = self.layout, self.layout.unit
        camera, *tiles = layout.tiles
        small = scale_frame(self.episode.images[step], (camera.h, camera.w))
        camera.of(image)[:] = small
        levels = self._tile_heat.levels(self._weights[step])
        # Heads are stacked vertically, so that OpenCV is called once for all instead of once per head.
        heads = len(tiles)
        stacked = cv2.repeat(small, heads, 1)
        if not self.episode.uniform:
            stacked = blend_heat(stacked, levels.reshape(heads * camera.h, camera.w))
        masks = self.episode.target_masks
        polygons = () if masks is None else find_outline(masks[step], (camera.h, camera.w))
        for head, tile in enumerate(tiles):
            picture = stacked[head * tile.h : (head + 1) * tile.h]
            draw_outline(picture, polygons, max(1, round(u)))
            tile.of(image)[:] = picture
            best = head == self.episode.best_head and not self.episode.uniform
            color = ACCENT if best else TEXT
            above = tile.y - 7 * u
            name = "uniform" if self.episode.uniform else self._name(head)
            draw_text(image, name, tile.x, above, 0.44 * u, color)
            if self.episode.uniform:
                continue
            if not self.usable[step, head]:
                draw_text(image, "no map", tile.x + tile.w, above, 0.44 * u, DIM, "right")
            elif not np.isnan(self.mass[step, head]):
                mass = f"{self.mass[step, head]:.0%}"
                draw_text(image, mass, tile.x + tile.w, above, 0.44 * u, color, "right")

    # Plots and action bars.

    def _plot_area(self, index: int) -> tuple[Box, float, float]:
        """Compute the area of a plot's curve, and the values at its bottom and top."""
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
        """Compute the points [T, 2] of a curve in the picture, with `_BIT` fractional bits."""
        inside, low, high = self._plot_area(index)
        return place_curve(self._curves[index], inside, low, high, bits=_BIT)

    def _draw_plot_still(self, image: Image, index: int, name: str) -> None:
        cv2 = import_cv2()
        u, box = self.layout.unit, self.layout.plots[index]
        inside, low, high = self._plot_area(index)
        draw_text(image, name, box.x + 12 * u, box.y + 21 * u, 0.44 * u, DIM)
        if self.episode.target_masks is not None:
            hidden = ~np.asarray(self.episode.target_masks.any(axis=(1, 2)))
            for start, stop in stretches_of(hidden):
                left = round(inside.x + start / len(self) * inside.w)
                right = max(left + 1, round(inside.x + stop / len(self) * inside.w))
                image[inside.y : inside.y + inside.h, left:right] = HIDDEN
        for value in (low, high):
            y = round(inside.y + inside.h - (value - low) / (high - low) * inside.h)
            cv2.line(image, (inside.x, y), (inside.x + inside.w, y), LINE, 1)
        self._draw_curve(image, index, len(self), FAINT)

    def _draw_curve(self, image: Image, index: int, stop: int, color: Color) -> None:
        width = max(1, round(1.6 * self.layout.unit))
        known = ~np.isnan(self._curves[index][:stop])
        draw_curve(image, self._points[index][:stop], color, width, known=known, bits=_BIT)

    def _draw_plots(self, image: Image, step: int) -> None:
        cv2 = import_cv2()
        u = self.layout.unit
        for index, (color, form) in enumerate(((BLUE, ".1f"), (GREEN, ".2f"), (ACCENT, ".0%"))):
            box, value = self.layout.plots[index], self._curves[index][step]
            self._draw_curve(image, index, step + 1, color)
            known = not np.isnan(value)
            if known:
                x, y = self._points[index][step]
                cv2.circle(
                    image, (int(x), int(y)), round(3.2 * u * (1 << _BIT)), color, -1, cv2.LINE_AA, _BIT
                )
            text = format(value, form) if known else "-"
            shade = color if known else DIM
            draw_text(image, text, box.x + box.w - 12 * u, box.y + 22 * u, 0.52 * u, shade, "right")

    def _action_rows(self) -> tuple[int, float]:
        """Compute the number of actions that fit, and the height of a row."""
        box, u = self.layout.actions, self.layout.unit
        room = box.h - 38 * u
        count = min(len(self._action_names), max(1, int(room // (16 * u))))
        return count, min(34 * u, room / count)

    def _draw_action_still(self, image: Image) -> None:
        cv2 = import_cv2()
        box, u = self.layout.actions, self.layout.unit
        count, pitch = self._action_rows()
        hidden = len(self._action_names) - count
        title = "action" if hidden == 0 else f"action (first {count} of {len(self._action_names)})"
        draw_text(image, title, box.x + 12 * u, box.y + 21 * u, 0.44 * u, DIM)
        left, right = self._bar_span()
        for i in range(count):
            y = box.y + 34 * u + (i + 0.5) * pitch
            label = fit_text(self._action_names[i], left - box.x - 20 * u, 0.42 * u)
            draw_text(image, label, box.x + 12 * u, y + 5 * u, 0.42 * u)
            half = max(2, round(min(7 * u, pitch * 0.36)))
            cv2.rectangle(image, (left, round(y) - half), (right, round(y) + half), BAR, -1)

    def _bar_span(self) -> tuple[int, int]:
        box, u = self.layout.actions, self.layout.unit
        return round(box.x + box.w * 0.36), round(box.x + box.w - 62 * u)

    def _draw_actions(self, image: Image, step: int) -> None:
        cv2 = import_cv2()
        box, u = self.layout.actions, self.layout.unit
        count, pitch = self._action_rows()
        left, right = self._bar_span()
        low, high = self.action_range
        zero = left + (min(max(0.0, low), high) - low) / (high - low) * (right - left)
        for i in range(count):
            value = float(self.episode.actions[step, i])
            y = round(box.y + 34 * u + (i + 0.5) * pitch)
            half = max(2, round(min(7 * u, pitch * 0.36)))
            end = left + (min(max(value, low), high) - low) / (high - low) * (right - left)
            color = BLUE if value >= 0 else RED
            corner = round(min(zero, end)), y - half
            cv2.rectangle(image, corner, (round(max(zero, end)), y + half), color, -1)
            cv2.line(image, (round(zero), y - half), (round(zero), y + half), DIM, 1)
            text = f"{round(value, 2) + 0.0:+.2f}"  # no -0.00
            draw_text(image, text, box.x + box.w - 12 * u, y + 5 * u, 0.42 * u, TEXT, "right")
