"""What a trained policy attends to in a frame of any size: its map, the places that stand out, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robot_attn import AttentionMaps, tokenize
from robot_attn.drawing import Box, HeatScale, Image, blend_heat, draw_outline
from robot_attn.drawing.colors import BACKGROUND, BLACK, TEXT, WHITE
from robot_attn.maps import usable_maps
from robot_attn.optional import import_cv2
from robot_attn.regions import Tracker, regions
from robot_attn_policies.probing.probe import MAP_KINDS
from robot_attn_policies.sb3.extractor import TOKENS

if TYPE_CHECKING:
    from robot_attn.regions import Track
    from robot_attn_policies.probing.probe import PolicyProbe

CAPTION = 26
"""Height in pixels of the line below a picture."""
LEAST_MASS = 0.05
"""A part of the frame with a smaller share of the attention gets no box."""


class Watcher:
    """A policy that looks at frames of any size, and a picture of what it attends to.

    Args:
        eyes: the policy.
        width: of the pictures, in pixels.
        head: the one to show; None for the mean of all.
        instruction: what to look for, where the policy reads that.
        boxes: whether to find and draw regions. Gradients have none: they are too scattered.
        title: goes below every picture.

    Raises:
        ValueError: no such head; an instruction where none is read, or none where one is; or a policy that
            does not see RGB.
    """

    def __init__(
        self,
        probe: PolicyProbe,
        *,
        width: int = 640,
        head: int | None = None,
        instruction: str | None = None,
        boxes: bool = True,
        title: str = "",
    ) -> None:
        if head is not None and not 0 <= head < probe.num_heads:
            raise ValueError(f"there is no head {head}: the heads are 0 to {probe.num_heads - 1}")
        self.probe, self._width, self._head = probe, width, head
        self._rest, self.unknown = _rest(probe, instruction)
        self._tracker = Tracker() if boxes and probe.kind == "attention" else None
        name = "mean of all heads" if head is None else f"head {head}"
        shown = f"{MAP_KINDS[probe.kind]}, {name}" if probe.kind == "attention" else MAP_KINDS[probe.kind]
        self._caption = "   ".join(
            part for part in (title, shown, "" if instruction is None else f'"{instruction}"') if part
        )
        self._canvas: Image | None = None

    def fit(self, frame: Image) -> Image:
        """What the policy sees of a frame: its middle, at the policy's size."""
        cv2 = import_cv2()
        height, width = self.probe.grid.image_size
        part = crop((frame.shape[0], frame.shape[1]), (height, width))
        smaller = part.h > height
        mode = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        seen: Image = cv2.resize(part.of(frame), (width, height), interpolation=mode)
        return seen

    def look(self, seen: Image) -> NDArray[np.float32] | None:
        """The map [rows, cols] of what `fit` gave, with sum 1; None where it cannot be drawn."""
        observation = seen[None]
        _, percept = self.probe.act(
            observation if self.probe.image is None else {**self._rest, self.probe.image: observation}
        )
        assert percept is not None, "eyes say where they look"
        heads: NDArray[np.float32] = percept.attention[0].numpy(force=True)
        weights = heads.mean(axis=0) if self._head is None else heads[self._head]
        return weights if usable_maps(weights) else None

    def find(self, weights: NDArray[np.float32] | None, seen: Image) -> list[Track]:
        """The places that stand out in a map, as objects that keep their numbers from frame to frame."""
        if self._tracker is None:
            return []
        found = []
        if weights is not None:
            spread = AttentionMaps(weights, self.probe.grid).upsampled()
            found = [region for region in regions(spread) if region.mass >= LEAST_MASS]
        return [track for track in self._tracker.update(found, seen) if track.missed == 0]

    def draw(self, frame: Image, weights: NDArray[np.float32] | None, tracks: list[Track]) -> Image:
        """The picture of a frame; the next one takes its place in memory."""
        cv2, grid = import_cv2(), self.probe.grid
        if self._canvas is None:
            size = frame.shape[0], frame.shape[1]
            height = 2 * round(size[0] * self._width / size[1] / 2)
            self._canvas = _canvas(height, self._width, self._caption)
            self._part = crop((height, self._width), grid.image_size)
            self._whole = Box(0, 0, self._width, height)
            self._scale = HeatScale(grid, (self._part.h, self._part.w))
        whole, part = self._whole.of(self._canvas), self._part
        mode = cv2.INTER_AREA if frame.shape[1] > self._width else cv2.INTER_LINEAR
        cv2.resize(frame, (self._whole.w, self._whole.h), dst=whole, interpolation=mode)
        for side in _beside(self._whole, part):
            cv2.convertScaleAbs(side.of(whole), dst=side.of(whole), alpha=0.35)
        shown = part.of(whole)
        if weights is not None:
            shown[:] = blend_heat(shown, self._scale.levels(weights[None])[0])
        _draw_boxes(shown, tracks, grid.image_size)
        return self._canvas

    def __call__(self, frame: Image) -> tuple[Image, int]:
        """The picture of the next frame, and how many boxes are in it."""
        seen = self.fit(frame)
        weights = self.look(seen)
        tracks = self.find(weights, seen)
        return self.draw(frame, weights, tracks), len(tracks)


def crop(size: tuple[int, int], shape: tuple[int, int]) -> Box:
    """The largest part in the middle of a frame of `size` (H, W) with the proportions of `shape` (h, w)."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(scale * side)) for side in shape)
    return Box((size[1] - width) // 2, (size[0] - height) // 2, width, height)


def _beside(whole: Box, part: Box) -> list[Box]:
    """What of `whole` is left and right of, or above and below `part`."""
    right, below = part.x + part.w, part.y + part.h
    sides = [
        Box(0, 0, part.x, whole.h),
        Box(right, 0, whole.w - right, whole.h),
        Box(part.x, 0, part.w, part.y),
        Box(part.x, below, part.w, whole.h - below),
    ]
    return [side for side in sides if side.w > 0 and side.h > 0]


def _canvas(height: int, width: int, caption: str) -> Image:
    cv2 = import_cv2()
    canvas: Image = np.full((height + CAPTION, width, 3), BACKGROUND, dtype=np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    needed = cv2.getTextSize(caption, font, scale, 1)[0][0]
    scale *= min(1.0, (width - 16) / max(needed, 1))
    cv2.putText(canvas, caption, (8, height + CAPTION - 9), font, scale, TEXT, 1, cv2.LINE_AA)
    return canvas


def _draw_boxes(image: Image, tracks: list[Track], image_size: tuple[int, int]) -> None:
    cv2 = import_cv2()
    down, across = image.shape[0] / image_size[0], image.shape[1] / image_size[1]
    corners = []
    for track in tracks:
        x, y, w, h = track.region.box
        left, top = round(x * across), round(y * down)
        right, bottom = round((x + w) * across) - 1, round((y + h) * down) - 1
        corners.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.int32))
    draw_outline(image, corners, 2)
    for track, corner in zip(tracks, corners, strict=True):
        at = int(corner[0, 0]) + 2, max(int(corner[0, 1]) - 6, 12)
        text = f"{track.id}: {track.region.mass:.0%}"
        for color, thickness in ((BLACK, 3), (WHITE, 1)):
            cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, thickness, cv2.LINE_AA)


def _rest(probe: PolicyProbe, instruction: str | None) -> tuple[Mapping[str, NDArray[Any]], tuple[str, ...]]:
    """What the policy reads beside the frame, a batch of one, and which of it is not known.

    Raises:
        ValueError: as `Watcher`.
    """
    space = probe.policy.observation_space
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    frames = entries.pop(probe.image) if probe.image is not None else space
    if not isinstance(frames, spaces.Box) or frames.shape[0] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"expected a policy that sees RGB frames of bytes, got one that sees {frames}")
    tokens = entries.pop(TOKENS, None)
    if tokens is None and instruction is not None:
        raise ValueError("this policy reads no instruction: leave --instruction out")
    if tokens is not None and instruction is None:
        raise ValueError(
            'this policy reads an instruction: say what to look for, as --instruction "the red box"'
        )
    rest = {name: _zero(entry)[None] for name, entry in entries.items()}
    unknown = tuple(rest)
    if tokens is not None and instruction is not None:
        rest[TOKENS] = tokenize(instruction).numpy().astype(tokens.dtype)[None]
    return rest, unknown


def _zero(space: spaces.Space[Any]) -> NDArray[Any]:
    """Zeros, or what is nearest to them in the space."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    return np.zeros(space.shape or (), space.dtype)
