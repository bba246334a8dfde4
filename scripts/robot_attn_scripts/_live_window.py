"""A window that shows a policy while it runs: space pauses, q or Esc stops."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from robot_attn.drawing import (
    HeatScale,
    Image,
    blend_heat,
    contact_sheet,
    draw_outline,
    find_outline,
    plan,
    scale_frame,
)
from robot_attn.episode import MAPS
from robot_attn.optional import import_cv2

if TYPE_CHECKING:
    from robot_attn_policies.probing.probe import PolicyProbe
    from robot_attn_policies.rollouts.actor import ObservationBatch
    from robot_attn_policies.rollouts.rollout import Step

SPACE, ESCAPE = ord(" "), 27
_PAUSED_MS = 30  # between two checks of the keyboard while paused


class WindowClosed(Exception):
    """The user closed the window, or pressed q or Esc."""


class Window:
    """OpenCV window as a context manager.

    Args:
        name: title of the window.

    Raises:
        ValueError: on entering, if no window can be opened.
    """

    def __init__(self, name: str = "robot-attn") -> None:
        self._name = name

    def __enter__(self) -> Window:
        check_display()
        # Qt warns of missing fonts, which we do not use.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        cv2 = import_cv2()
        cv2.namedWindow(self._name, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        return self

    def __exit__(self, *_: object) -> None:
        import_cv2().destroyWindow(self._name)

    def show(self, picture: Image) -> None:
        """Show a picture, uint8 [H, W, 3] RGB."""
        import_cv2().imshow(self._name, picture[..., ::-1])

    def wait(self, milliseconds: int) -> int:
        """Wait for a key and return it: -1 if none was pressed, Esc if the window was closed."""
        cv2 = import_cv2()
        key: int = cv2.waitKey(milliseconds)
        closed = cv2.getWindowProperty(self._name, cv2.WND_PROP_VISIBLE) < 1
        return ESCAPE if closed else key if key == -1 else key & 0xFF


class LiveView:
    """Draw each step of a batch of one environment as it happens: an `on_step` callback.

    Args:
        probe: the policy.
        best_head: head to show large.
        show: called with each picture, uint8 [h, w, 3] RGB.
        wait: waits for so many milliseconds and returns the key that was pressed, or -1.
        to_rgb: converts observations to frames uint8 [1, H, W, 3]; not needed if they are so already.
        dt: seconds for which each step is shown. Default: as short as possible.
        size: approximate height of the picture in pixels.
        title: title of the picture.
    """

    def __init__(
        self,
        probe: PolicyProbe,
        best_head: int,
        show: Callable[[Image], None],
        wait: Callable[[int], int],
        *,
        to_rgb: Callable[[ObservationBatch], Image] | None = None,
        dt: float | None = None,
        size: int = 720,
        title: str = "",
    ) -> None:
        self._probe, self._best, self._show, self._wait = probe, best_head, show, wait
        self._to_rgb = to_rgb
        self._dt, self._title = dt or 0.0, title
        layout = plan(probe.grid.image_size, probe.num_heads, size)
        self._large, self._small = (layout.main.h, layout.main.w), (layout.tiles[0].h, layout.tiles[0].w)
        self._columns = len({tile.x for tile in layout.tiles})
        self._heats = {of: HeatScale(probe.grid, of) for of in (self._large, self._small)}
        self._count, self._total = 0, 0.0
        self._until: float | None = None

    def __call__(self, step: Step) -> None:
        """Show a step.

        Raises:
            WindowClosed: q or Esc was pressed, or the window was closed.
        """
        self._total += float(step.rewards[0])
        self._show(self.draw(step))
        self._count += 1
        now = time.monotonic()
        self._until = max(now, (self._until or now) + self._dt)
        key = self._wait(max(1, round(1000 * (self._until - now))))
        if key == SPACE:
            while (key := self._wait(_PAUSED_MS)) not in (SPACE, ESCAPE, ord("q")):
                pass
        if key in (ESCAPE, ord("q")):
            raise WindowClosed(f"stopped at step {self._count}")

    def draw(self, step: Step) -> Image:
        """Draw a step, the best head large and all heads small: uint8 [h, w, 3] RGB."""
        batch = step.observation
        if self._to_rgb is not None:
            frame = self._to_rgb(batch)[0]
        else:
            frame = (batch[self._probe.image or "image"] if isinstance(batch, Mapping) else batch)[0]
        maps = None
        if step.percept is not None and not self._probe.uniform:
            maps = step.percept.attention[0].numpy(force=True)
        mask = step.info["target_mask"][0] if "target_mask" in step.info else None

        def picture(size: tuple[int, int], head: int | None) -> Image:
            drawn = scale_frame(frame, size)
            if head is None:
                return drawn
            if maps is not None:
                drawn = blend_heat(drawn, self._heats[size].levels(maps[head][None])[0])
            if mask is not None:
                draw_outline(drawn, find_outline(mask, size), 2 if size == self._large else 1)
            return drawn

        clock = f"step {self._count + 1}"
        rewards = f"reward {float(step.rewards[0]):.2f}   return {self._total:.1f}"
        left = contact_sheet(
            [picture(self._large, self._best)],
            [f"{clock}   {rewards}" if maps is None else f"{clock}   {self._name(self._best)}   {rewards}"],
            most_width=self._large[1],
            title=self._title or " ",
        )
        if maps is None:
            return left
        right = contact_sheet(
            [picture(self._small, head) for head in (None, *range(len(maps)))],
            ["camera", *(self._name(head) for head in range(len(maps)))],
            columns=self._columns,
            most_width=self._small[1],
            title=" ",
        )
        sides = [left, right]
        height = max(len(side) for side in sides)
        return np.concatenate([_padded(side, height) for side in sides], axis=1)

    def _name(self, head: int) -> str:
        return f"head {head}" if self._probe.kind == "attention" else MAPS[self._probe.kind]


def _padded(picture: Image, height: int) -> Image:
    """Pad a picture at the bottom with its background colour."""
    padded: Image = np.empty((height, *picture.shape[1:]), dtype=np.uint8)
    padded[:] = picture[0, 0]
    padded[: len(picture)] = picture
    return padded


def check_display() -> None:
    """Check that a window can be opened, in a separate process, as OpenCV may abort the process.

    Raises:
        ValueError: no window can be opened.
    """
    code = "import cv2; cv2.namedWindow('robot-attn'); cv2.destroyAllWindows()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(
            "expected a display and opencv-python (not opencv-python-headless) to open a window, got none: "
            "omit --live and play the video"
        )
