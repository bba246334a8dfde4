"""Where attention is in every frame: on the target, elsewhere, or on a target that is out of view.

A frame is divided into `BLOCKS` x `BLOCKS` blocks. The target with the blocks around it is one place, and
every square of 3/16 to 1/2 of the frame's sides elsewhere is another. The target is *attended* where its
place stands out of the map, and no other place that stands out holds more of it. The target's
place is made at least as large as the other: a wide or coarse map with its centre on the target is not taken
for one that looks past it.

Mass against chance alone is not enough: a map with a tenth of its mass on a target of 1 % of the frame, and
seven tenths on one other thing, has ten times chance on the target, and the policy goes for the other thing.
The pointing game alone is not enough either: it is decided by one pixel, misses a target that is smaller
than a cell, and calls the same map attended if the small target has its highest pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain._failures import ON_TARGET_RATIO
from robot_attn.maps import AttentionMaps

Floats = NDArray[np.float64]

HIDDEN = 0
"""State of a frame in which the target is out of view."""
ATTENDED = 1
"""State of a frame in which the target is attended."""
ELSEWHERE = 2
"""State of a frame in which the target is in view while another place holds more of the map."""
NOWHERE = 3
"""State of a frame in which the target is in view while no place stands out, or there is no usable map."""

STATES = ("attended", "in view, not attended", "out of view")
"""What frames are counted by, with `ELSEWHERE` and `NOWHERE` as one."""

BLOCKS = 16
"""Blocks along each side of the frame: 4 pixels each in a frame of 64."""
SIDES = (3, 4, 6, 8)
"""Sides of the other places, in blocks. 3 is the least side of a target's place; of a thing wider than half
the frame, the best part counts."""
_CHUNK = 256  # frames at a time, to limit memory


def attention_states(
    maps: AttentionMaps,
    masks: NDArray[np.bool_],
    *,
    labels: NDArray[np.uint8] | None = None,
    allowed: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Determine the state of every frame: `HIDDEN`, `ATTENDED`, `ELSEWHERE` or `NOWHERE`.

    A place stands out if its share of the map is `ON_TARGET_RATIO` times its share of the frame, or halfway
    from the latter to 1 if that is less.

    Args:
        maps: attention maps [T, ..., rows, cols], such as of each head.
        masks: bool [T, H, W], True on the target.
        labels: uint8 [T, H, W], the thing of each pixel: 0 the backdrop, 1 the target, others from 2 on. With
            it, other things next to the target do not belong to the target's place.
        allowed: labels of things that a policy may look at instead, such as the robot and a goal. Attention
            on them is not elsewhere, and next to the target it belongs to the target's place.

    Returns:
        uint8 [T, ...].

    Raises:
        ValueError: masks or labels that do not match the maps.
    """
    check_frames(maps, masks, labels)
    states = np.empty(maps.weights.shape[:-2], np.uint8)
    for rows in _chunks(len(masks)):
        part = None if labels is None else labels[rows]
        states[rows] = compare_places(maps[rows], masks[rows], part, allowed).states
    return states


def count_states(states: NDArray[np.uint8], episode: NDArray[np.integer], episodes: int) -> NDArray[np.int64]:
    """Count the frames of each episode by `STATES`.

    Args:
        states: uint8 [T, ...], as `attention_states`.
        episode: int [T], episode of each frame, from 0.
        episodes: number of episodes.

    Returns:
        int64 [episodes, ..., 3], in the order of `STATES`; the three sum to the episode's frames.
    """
    kinds = np.stack([states == ATTENDED, (states == ELSEWHERE) | (states == NOWHERE), states == HIDDEN], -1)
    counts = np.zeros((episodes, *kinds.shape[1:]), np.int64)
    np.add.at(counts, episode, kinds)
    return counts


@dataclass(frozen=True)
class Places:
    """The states of T frames, and the place that holds more of the map than the target's.

    Attributes:
        states: uint8 [T, ...].
        other: float64 [T, ...], share of the map in the other place; 0 where the state is not `ELSEWHERE`.
        boxes: int64 [T, ..., 3], first block row, first block column and side of the other place.
    """

    states: NDArray[np.uint8]
    other: Floats
    boxes: NDArray[np.int64]


def compare_places(
    maps: AttentionMaps, masks: NDArray[np.bool_], labels: NDArray[np.uint8] | None, allowed: Sequence[int]
) -> Places:
    """Compare the target's place with the strongest other one; arguments as `attention_states`."""
    height, width = maps.grid.image_size
    down, across = _block_members(height), _block_members(width)

    def fraction(pixels: NDArray[np.bool_]) -> Floats:
        blocks = down @ pixels.astype(np.float64) @ across.T
        return np.asarray(blocks / (down.sum(axis=1)[:, None] * across.sum(axis=1)))

    touched = fraction(masks) > 0
    own, spared = np.ones(touched.shape), np.zeros(touched.shape)
    if labels is not None:
        may = np.isin(labels, allowed)
        own = 1 - fraction((labels > 1) & ~may)
        spared = (fraction(may) > 0).astype(np.float64)

    heads = (slice(None), *(None,) * (maps.weights.ndim - 3))
    down_shares, across_shares = maps.grid.box_shares
    shares = maps.normalised().weights.astype(np.float64)
    blocks = (down @ down_shares.T) @ shares @ (across @ across_shares.T).T

    def place(side: int) -> tuple[Floats, Floats]:
        """The blocks of the target's place, at least `side` blocks wide, and its share of the maps."""
        near = _grown(touched, (side - 1) // 2) * own
        return near, (blocks * near[heads]).sum(axis=(-2, -1))

    near, mass = place(SIDES[0])
    attended = mass >= _stands_out(near.mean(axis=(-2, -1))[heads])
    other, lead = np.zeros_like(mass), np.zeros_like(mass)
    boxes = np.zeros((*mass.shape, 3), np.int64)
    for side in (min(side, *blocks.shape[-2:]) for side in SIDES):
        near, mass = place(side)
        rest = np.clip(1.0 - near - spared, 0.0, 1.0)
        sums = _window_sums(blocks * rest[heads], side)
        flat = sums.reshape(*mass.shape, -1)
        best, index = flat.max(axis=-1), flat.argmax(axis=-1)
        better = (best - mass > lead) & (best >= _stands_out(side * side / (len(down) * len(across))))
        lead, other = np.where(better, best - mass, lead), np.where(better, best, other)
        corner = np.stack([*np.divmod(index, sums.shape[-1]), np.full(index.shape, side)], axis=-1)
        boxes = np.where(better[..., None], corner, boxes)

    visible = np.broadcast_to(np.asarray(masks.any(axis=(1, 2)))[heads], mass.shape)
    states = np.select([~visible, other > 0, attended], [HIDDEN, ELSEWHERE, ATTENDED], NOWHERE)
    return Places(states.astype(np.uint8), np.where(visible, other, 0.0), boxes)


def _stands_out(area: Floats | float) -> Floats:
    """Share of the map from which a place stands out, by its share of the frame."""
    return np.minimum(ON_TARGET_RATIO * np.asarray(area), (1 + np.asarray(area)) / 2)


def block_pixels(box: NDArray[np.int64], image_size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of pixels of a place (first block row, first block column, side)."""
    first, sides = box[:2], int(box[2])
    slices = []
    for start, length in zip(first.tolist(), image_size, strict=True):
        inside = np.flatnonzero(_block_members(length)[start : start + sides].any(axis=0))
        slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return slices[0], slices[1]


def check_frames(maps: AttentionMaps, masks: NDArray[np.bool_], labels: NDArray[np.uint8] | None) -> None:
    """Check that maps, masks and labels belong to the same frames.

    Raises:
        ValueError: they do not.
    """
    size = (len(maps), *maps.grid.image_size)
    if maps.weights.ndim < 3 or masks.dtype != np.bool_ or masks.shape != size:
        raise ValueError(
            f"expected maps [T, ..., rows, cols] and masks bool {list(size)} of the same frames, got "
            f"{list(maps.weights.shape)} and {masks.dtype} {list(masks.shape)}: give one mask per frame"
        )
    if labels is not None and (labels.dtype != np.uint8 or labels.shape != size):
        raise ValueError(
            f"expected labels uint8 {list(size)}, as the masks, got {labels.dtype} {list(labels.shape)}: "
            "give one label per pixel"
        )


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK))


def _block_members(length: int) -> Floats:
    """Which pixels of a side belong to which block, [blocks, length]; a small frame has a block per pixel."""
    blocks = min(BLOCKS, length)
    pixels = np.arange(length)
    return np.asarray(pixels * blocks // length == np.arange(blocks)[:, None], np.float64)


def _grown(touched: NDArray[np.bool_], radius: int) -> Floats:
    """Blocks within `radius` of a block that is touched, 1.0 or 0.0."""
    around = ((0, 0), (radius, radius), (radius, radius))
    sums = _window_sums(np.pad(touched, around).astype(np.float64), 2 * radius + 1)
    return np.asarray(sums > 0.5, np.float64)


def _window_sums(values: Floats, side: int) -> Floats:
    """Sums over all squares of `side` blocks, [..., rows - side + 1, cols - side + 1]."""
    *lead, rows, cols = values.shape
    down, across = _windows(rows, side), _windows(cols, side)
    sums = (values.reshape(-1, cols) @ across.T).reshape(*lead, rows, len(across))  # one product, not many
    return np.asarray(down @ sums)


def _windows(blocks: int, side: int) -> Floats:
    """Which blocks belong to which window of `side` blocks, [blocks - side + 1, blocks]."""
    first, at = np.arange(blocks - side + 1)[:, None], np.arange(blocks)
    return np.asarray((at >= first) & (at < first + side), np.float64)
