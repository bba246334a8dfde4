"""Draw an episode at several cameras, beside another camera's frames, or beside another policy's episode.

Pictures are drawn step by step, as by `robot_attn.drawing.Replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot_attn.drawing import (
    Box,
    Color,
    Image,
    Replay,
    contact_sheet,
    draw_curve,
    draw_text,
    place_curve,
    scale_frame,
)
from robot_attn.drawing.colors import ACCENT, BACKGROUND, BLUE, FAINT
from robot_attn.optional import import_cv2

COLORS: tuple[Color, Color] = (ACCENT, BLUE)
"""Colours of the first and the second policy."""
_WIDTH = 2  # of a curve
_GAP = 6  # pixels between the cameras in a contact sheet
_BELOW = 42  # pixels below the last picture of a contact sheet
_DARKER = 0.45  # brightness of the last picture of an episode that has ended


class Pictures(Protocol):
    """Pictures of an episode, drawn step by step."""

    def __len__(self) -> int: ...

    def draw(self, step: int) -> Image:
        """Draw a step, uint8 [H, W, 3] RGB; all pictures have one size."""

    def large(self, step: int) -> Image:
        """Draw the part of a step that a contact sheet shows, uint8 [h, w, 3] RGB."""

    def caption(self, step: int) -> str:
        """Return the text below a step in a contact sheet."""


class WithCamera:
    """A replay with the same steps from another camera to its right, without attention maps.

    Args:
        replay: the replay.
        name: name of the other camera.
        frames: frames of the other camera, uint8 [T, H, W, 3] RGB.
    """

    def __init__(self, replay: Replay, name: str, frames: NDArray[np.uint8]) -> None:
        self.replay, self.name, self.frames = replay, name, frames
        height, width = frames.shape[1:3]
        room = replay.layout.main.h
        self._size = room, round(room * width / height)

    def __len__(self) -> int:
        return len(self.replay)

    def draw(self, step: int) -> Image:
        left = self.replay.draw(step)
        frame = scale_frame(self.frames[step], self._size)
        sheet = contact_sheet([frame], [""], most_width=self._size[1], title=f"camera {self.name}")
        right: Image = np.empty((len(left), sheet.shape[1], 3), dtype=np.uint8)
        right[:] = left[0, 0]
        top = self.replay.layout.main.y + len(frame) + _BELOW - len(sheet)  # align the tops of the frames
        right[top : top + len(sheet)] = sheet
        return np.concatenate([left, right], axis=1)

    def large(self, step: int) -> Image:
        return self.replay.large(step)

    def caption(self, step: int) -> str:
        return self.replay.caption(step)


class Cameras:
    """The replays of one episode at several cameras, side by side.

    Args:
        replays: a replay for each camera, all of one height.
    """

    def __init__(self, replays: Sequence[Replay]) -> None:
        self.replays = list(replays)

    def __len__(self) -> int:
        return len(self.replays[0])

    def draw(self, step: int) -> Image:
        return np.concatenate([replay.draw(step) for replay in self.replays], axis=1)

    def large(self, step: int) -> Image:
        pictures = [replay.large(step) for replay in self.replays]
        height = max(len(picture) for picture in pictures)
        gap: Image = np.full((height, _GAP, 3), BACKGROUND, dtype=np.uint8)
        parts = []
        for picture in pictures:
            parts += [scale_frame(picture, (height, round(height * picture.shape[1] / len(picture)))), gap]
        return np.concatenate(parts[:-1], axis=1)

    def caption(self, step: int) -> str:
        cameras = [f"{replay.episode.camera} {self._share(replay, step)}" for replay in self.replays]
        return "   ".join([f"step {step + 1}", *cameras])

    def _share(self, replay: Replay, step: int) -> str:
        mass = replay.mass[step, replay.episode.best_head]
        return "-" if np.isnan(mass) else f"{mass:.0%} on target"


class SideBySide:
    """Two policies on the same seed: both large panels, and both returns in one plot.

    After the shorter episode has ended, its last step stays on the screen, darkened.

    Args:
        replays: the two replays.
        names: names of the two policies.
        title: title of the pictures.
    """

    def __init__(self, replays: Sequence[Replay], names: Sequence[str], title: str = "") -> None:
        self.replays, self.names, self.title = list(replays), list(names), title
        boxes = [replay.layout.main for replay in replays]
        self._panel = max(box.h for box in boxes), max(box.w for box in boxes)
        height, width, _ = self.draw_panels(0).shape
        self._strip = Box(0, 0, width, max(150, replays[0].layout.height - height))
        self._background = self._draw_background()

    def __len__(self) -> int:
        return max(len(replay) for replay in self.replays)

    def draw(self, step: int) -> Image:
        cv2 = import_cv2()
        strip = self._background.copy()
        for i, replay in enumerate(self.replays):
            last = min(step, len(replay) - 1)
            corners = self._corners(i)
            draw_curve(strip, corners[: last + 1], COLORS[i], _WIDTH)
            x, y = corners[last]
            cv2.circle(strip, (int(x), int(y)), 5, COLORS[i], -1, cv2.LINE_AA)
            draw_text(strip, f"{'AB'[i]}  {replay.returns[last]:.1f}", 16, 56 + 50 * i, 0.62, COLORS[i])
            draw_text(strip, replay.caption(last), 16, 76 + 50 * i, 0.42)
        return np.concatenate([self.draw_panels(step), strip])

    def large(self, step: int) -> Image:
        return np.concatenate([self._draw_panel(i, step) for i in range(2)], axis=1)

    def caption(self, step: int) -> str:
        shown = (self._steps(i, step) for i in range(2))
        return "   ".join(f"{'AB'[i]} {replay.returns[at]:.1f}" for i, (replay, at) in enumerate(shown))

    def draw_panels(self, step: int) -> Image:
        """Draw both large panels with their captions, uint8 [h, w, 3] RGB."""
        captions = [
            f"{'AB'[i]}  {f'ended after {len(replay)} steps   ' if step >= len(replay) else ''}{name}"
            for i, (replay, name) in enumerate(zip(self.replays, self.names, strict=True))
        ]
        panels = [self._draw_panel(i, step) for i in range(2)]
        return contact_sheet(panels, captions, most_width=self._panel[1], title=self.title)

    def _steps(self, i: int, step: int) -> tuple[Replay, int]:
        replay = self.replays[i]
        return replay, min(step, len(replay) - 1)

    def _draw_panel(self, i: int, step: int) -> Image:
        replay, at = self._steps(i, step)
        picture = replay.large(at)
        if step >= len(replay):
            picture = np.rint(picture * _DARKER).astype(np.uint8)
        height, width = self._panel
        panel: Image = np.zeros((height, width, 3), dtype=np.uint8)
        middle = Box(
            (width - picture.shape[1]) // 2, (height - len(picture)) // 2, picture.shape[1], len(picture)
        )
        middle.of(panel)[:] = picture
        import_cv2().rectangle(panel, (0, 0), (width - 1, height - 1), COLORS[i], 3)
        return panel

    def _inside(self) -> Box:
        left = 300
        return Box(left, 20, self._strip.w - left - 24, self._strip.h - 44)

    def _corners(self, i: int) -> NDArray[np.int32]:
        """Return the curve of the return, int32 [T, 2] in pixels of the strip; both share their axes."""
        returns = [replay.returns for replay in self.replays]
        low = min(0.0, *(float(np.nanmin(curve)) for curve in returns))
        high = max(low + 1e-9, *(float(np.nanmax(curve)) for curve in returns))
        return place_curve(returns[i], self._inside(), low, high, steps=len(self))

    def _draw_background(self) -> Image:
        """Draw the part of the plot that all steps share."""
        inside = self._inside()
        strip: Image = np.empty((self._strip.h, self._strip.w, 3), dtype=np.uint8)
        strip[:] = self.draw_panels(0)[0, 0]
        for y in (inside.y, inside.y + inside.h):
            import_cv2().line(strip, (inside.x, y), (inside.x + inside.w, y), FAINT, 1)
        draw_text(strip, "return", 16, 30, 0.5)
        for i in range(len(self.replays)):
            draw_curve(strip, self._corners(i), FAINT, _WIDTH)
        return strip
