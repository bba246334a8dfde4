"""Probe a trained policy with video frames of any size: attention map, regions of attention, picture."""

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
from robot_attn_policies.sb3.images import image_entries

if TYPE_CHECKING:
    from robot_attn.regions import Track
    from robot_attn_policies.probing.probe import PolicyProbe

CAPTION = 26
"""Height in pixels of the caption below a picture."""
LEAST_MASS = 0.05
"""The smallest share of the attention, in [0, 1], for which a region gets a box."""


class VideoProbe:
    """Run a policy on video frames of any size and draw its attention over them.

    Args:
        probe: the policy.
        width: width of the pictures in pixels.
        head: head to show. Default: the mean over all heads.
        instruction: language instruction, required if and only if the policy reads one.
        boxes: whether to find and draw regions of attention. Gradients are too scattered to have any.
        title: text below every picture.

    Attributes:
        probe: the policy.
        unknown: names of the observations that a video does not have; they are set to zero.

    Raises:
        ValueError: the head does not exist, the instruction is missing or not needed, or the policy's frames
            are not RGB.
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
            raise ValueError(f"expected --head from 0 to {probe.num_heads - 1}, got {head}")
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
        """Crop a frame at its centre and scale it to the policy's size.

        Args:
            frame: uint8 [H, W, 3] RGB.

        Returns:
            uint8 [h, w, 3] RGB, the policy's input.
        """
        cv2 = import_cv2()
        height, width = self.probe.grid.image_size
        part = crop((frame.shape[0], frame.shape[1]), (height, width))
        smaller = part.h > height
        mode = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        fitted: Image = cv2.resize(part.of(frame), (width, height), interpolation=mode)
        return fitted

    def attend(self, fitted: Image) -> NDArray[np.float32] | None:
        """Run the policy on a frame.

        Args:
            fitted: frame returned by `fit`, uint8 [h, w, 3] RGB.

        Returns:
            The attention map, float32 [rows, cols] with sum 1, or None if it is not finite.
        """
        observation = fitted[None]
        _, percept = self.probe.act(
            observation if self.probe.image is None else {**self._rest, self.probe.image: observation}
        )
        assert percept is not None, "a probe returns a percept"
        heads: NDArray[np.float32] = percept.attention[0].numpy(force=True)
        weights = heads.mean(axis=0) if self._head is None else heads[self._head]
        return weights if usable_maps(weights) else None

    def find_regions(self, weights: NDArray[np.float32] | None, fitted: Image) -> list[Track]:
        """Find the regions that stand out in an attention map and track them from frame to frame.

        Args:
            weights: map returned by `attend`.
            fitted: its frame, uint8 [h, w, 3] RGB.

        Returns:
            The regions in this frame, each with an id that it keeps in later frames.
        """
        if self._tracker is None:
            return []
        found = []
        if weights is not None:
            upsampled = AttentionMaps(weights, self.probe.grid).upsampled()
            found = [region for region in regions(upsampled) if region.mass >= LEAST_MASS]
        return [track for track in self._tracker.update(found, fitted) if track.missed == 0]

    def draw(self, frame: Image, weights: NDArray[np.float32] | None, tracks: list[Track]) -> Image:
        """Draw the attention and the boxes over a frame.

        Args:
            frame: uint8 [H, W, 3] RGB; all frames have one size.
            weights: map returned by `attend`.
            tracks: regions returned by `find_regions`.

        Returns:
            uint8 RGB picture. The next call overwrites it.
        """
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
        """Process the next frame, uint8 [H, W, 3] RGB, and return its picture and the number of boxes."""
        fitted = self.fit(frame)
        weights = self.attend(fitted)
        tracks = self.find_regions(weights, fitted)
        return self.draw(frame, weights, tracks), len(tracks)


def crop(size: tuple[int, int], shape: tuple[int, int]) -> Box:
    """Return the largest centred box in a frame of `size` (H, W) with the aspect ratio of `shape` (h, w)."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, round(scale * side)) for side in shape)
    return Box((size[1] - width) // 2, (size[0] - height) // 2, width, height)


def _beside(whole: Box, part: Box) -> list[Box]:
    """Return the parts of `whole` left, right, above and below of `part`, without empty ones."""
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
    """Make the observations beside the frame, as a batch of one, and list those that are unknown.

    Raises:
        ValueError: as `VideoProbe`.
    """
    space = probe.policy.observation_space
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    frames = entries.pop(probe.image) if probe.image is not None else space
    layout = image_entries(space)[probe.image]
    if frames.dtype != np.uint8 or layout.image_shape[0] != 3 or layout.stack != 1:
        raise ValueError(
            f"expected a policy with uint8 RGB frames, got one with {frames}: show its episodes by "
            "`robot-attn replay`"
        )
    tokens = entries.pop(TOKENS, None)
    if tokens is None and instruction is not None:
        raise ValueError(
            f"expected no --instruction for this policy, got {instruction!r}: it reads none, omit the option"
        )
    if tokens is not None and instruction is None:
        raise ValueError(
            "expected an --instruction, which this policy reads, got none: add one, such as "
            '--instruction "the red box"'
        )
    rest = {name: _zero(entry)[None] for name, entry in entries.items()}
    unknown = tuple(rest)
    if tokens is not None and instruction is not None:
        rest[TOKENS] = tokenize(instruction).numpy().astype(tokens.dtype)[None]
    return rest, unknown


def _zero(space: spaces.Space[Any]) -> NDArray[Any]:
    """Return zeros, or the point of the space that is nearest to them."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    return np.zeros(space.shape or (), space.dtype)
