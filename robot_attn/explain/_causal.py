"""Causal maps: which pixels an output depends on, measured by removing them. Works for any policy.

Random masks as in RISE (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, section 3), with two changes
that make fewer of them necessary. Masks come in blocks that divide the frame between them, so that every
pixel is removed equally often and the other pixels of a mask are never the same (RISE samples each cell
independently); and a pixel's importance comes with its standard error, at which sampling can stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from robot_attn.errors import unknown_name
from robot_attn.explain._perturb import (
    INPAINTING_SIGMA,
    Bools,
    Frames,
    ablate_pixels,
    action_change,
    blur_frames,
)

Respond: TypeAlias = Callable[[Frames], NDArray[Any]]
"""Frames [N * B, H, W, C], of which row i is a variant of frame i modulo B, to outputs [N * B, ...]: actions,
values or log-probabilities, with all other inputs of the policy unchanged."""
Replacement: TypeAlias = Literal["inpainting", "blur"]

CELL = 1 / 8
"""Side of a mask's cells, as a fraction of the frame's shorter side."""
MASKS_PER_BLOCK = 12
"""Masks that divide the frame between them: each removes a twelfth of it."""
MIN_BLOCKS = 8
"""Blocks after which sampling may stop: the standard error of fewer is itself too uncertain."""
MAX_BLOCKS = 40
ERROR = 0.15
"""Default standard error of the most important pixel, as a share of its importance."""
SIGNIFICANT = 3.0
"""Standard errors above 0 from which a pixel counts: one in 700 irrelevant pixels exceeds it."""
MAX_PIXELS = 2**21
"""Pixels in one call of the function, unless the batch alone has more."""


@dataclass(frozen=True)
class CausalMaps:
    """Importance of the pixels of B frames.

    Attributes:
        importance: change of the outputs when a mask removes the pixel, less the mean change over all masks,
            in units of the outputs; float64 [B, H, W]. It is about 0 where nothing depends on the pixel.
        error: its standard error, float64 [B, H, W].
        masks: number of masks that were used.
        cell: side of the masks' cells in pixels. A pixel's importance is also that of pixels less than a cell
            away, which share its cell in some of the masks.
    """

    importance: NDArray[np.float64]
    error: NDArray[np.float64]
    masks: int
    cell: int

    def significant(self, errors: float = SIGNIFICANT) -> NDArray[np.float64]:
        """Return the maps as weights: importance where it exceeds 0 by `errors` standard errors, else 0.

        Returns:
            float64 [B, H, W], each of sum 1; all 0 where no pixel is significant.
        """
        kept = np.where(self.importance > errors * self.error, self.importance, 0.0)
        total = kept.sum(axis=(1, 2), keepdims=True)
        return np.asarray(kept / np.where(total == 0, 1.0, total))


def causal_map(
    respond: Respond,
    frames: Frames,
    *,
    error: float = ERROR,
    max_blocks: int = MAX_BLOCKS,
    cell: int | None = None,
    masks_per_block: int = MASKS_PER_BLOCK,
    replacement: Replacement = "inpainting",
    seed: int = 0,
) -> CausalMaps:
    """Measure how much outputs change when random pixels are removed.

    Every block of masks divides the cells of a grid, which is shifted at random, between its masks. The
    importance of a pixel is the mean, over blocks, of the change that its mask causes less the mean change of
    the block.

    Args:
        respond: the policy, as described at `Respond`.
        frames: [B, H, W, C], B of at least 1.
        error: stop when, in every frame, the standard error of the most important pixel is at most this share
            of its importance.
        max_blocks: number of blocks after which to stop in any case, at least `MIN_BLOCKS`.
        cell: side of a cell in pixels; None for `CELL` of the shorter side.
        masks_per_block: number of masks in a block, at least 2.
        replacement: what removed pixels become: "inpainting", a blur of the pixels that are left
            (`ablate_pixels`), or "blur", the blurred frame, which is faster but leaves traces of what was
            removed.
        seed: random seed of the masks.

    Raises:
        ValueError: frames of another shape, an option out of range, or outputs that are not finite.
    """
    _check(frames, replacement)
    if not error > 0 or not max_blocks >= MIN_BLOCKS or not masks_per_block >= 2:
        raise ValueError(
            f"expected error above 0, max_blocks of at least {MIN_BLOCKS} and masks_per_block of at least 2, "
            f"got {error}, {max_blocks} and {masks_per_block}"
        )
    size = (frames.shape[1], frames.shape[2])
    side = _side(cell, size)
    rng = np.random.default_rng(seed)
    change = _Change(respond, frames, replacement)
    total, squares = np.zeros((2, *frames.shape[:3]))
    for blocks in range(1, max_blocks + 1):
        masks = block_of_masks(size, side, masks_per_block, rng)
        effects = change(masks)
        effects -= effects.mean(axis=0)
        # Each pixel is in exactly one mask of the block.
        own = np.tensordot(effects, masks.astype(np.float64), (0, 0))
        total += own
        squares += own**2
        mean = total / blocks
        if blocks >= MIN_BLOCKS:
            variance = np.maximum(squares / blocks - mean**2, 0.0) * blocks / (blocks - 1)
            errors = np.sqrt(variance / blocks)
            flat = mean.reshape(len(mean), -1)
            peak = flat.argmax(axis=1)[:, None]
            highest, uncertain = (
                np.take_along_axis(values.reshape(len(mean), -1), peak, axis=1) for values in (mean, errors)
            )
            if (uncertain <= error * highest).all():
                break
    return CausalMaps(mean, errors, blocks * masks_per_block, side)


def occlusion_map(
    respond: Respond,
    frames: Frames,
    *,
    cell: int | None = None,
    stride: int | None = None,
    replacement: Replacement = "inpainting",
) -> NDArray[np.float64]:
    """Measure how much outputs change when a sliding window is removed: the simple baseline.

    Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901, section 4.2. What is there twice is missed, as
    one window removes one copy.

    Args:
        respond: the policy, as described at `Respond`.
        frames: [B, H, W, C], B of at least 1.
        cell: side of the window in pixels; None for `CELL` of the frame's shorter side.
        stride: pixels by which the window moves; None for half its side.
        replacement: as for `causal_map`.

    Returns:
        float64 [B, H, W], 0 or more: the mean change of the windows that cover a pixel, in units of the
        outputs.

    Raises:
        ValueError: as `causal_map`.
    """
    _check(frames, replacement)
    height, width = frames.shape[1:3]
    side = _side(cell, (height, width))
    step = max(1, side // 2) if stride is None else stride
    if not 1 <= step <= side:
        raise ValueError(f"expected a stride from 1 to the window's {side} pixels, got {step}")
    y, x = np.arange(height)[:, None], np.arange(width)
    windows = np.stack(
        [
            (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
            for top in range(step - side, height, step)
            for left in range(step - side, width, step)
        ]
    )
    effects = _Change(respond, frames, replacement)(windows)
    covered = np.tensordot(effects, windows.astype(np.float64), (0, 0))
    return np.asarray(covered / windows.sum(axis=0))


def block_of_masks(
    image_size: tuple[int, int], cell: int, masks: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Divide the cells of a randomly shifted grid between masks at random, the same number to each.

    Args:
        image_size: (H, W) in pixels.
        cell: side of a cell in pixels.
        masks: number of masks.
        rng: random generator.

    Returns:
        bool [masks, H, W], of which every pixel is in exactly one.
    """
    height, width = image_size
    up, left = rng.integers(cell, size=2)
    rows, cols = -(-(height + up) // cell), -(-(width + left) // cell)
    owner = rng.permutation(np.arange(rows * cols) % masks).reshape(rows, cols)
    pixels = owner.repeat(cell, axis=0).repeat(cell, axis=1)[up : up + height, left : left + width]
    return np.asarray(pixels == np.arange(masks)[:, None, None])


class _Change:
    """How much the outputs of all frames change when masks are applied to them."""

    def __init__(self, respond: Respond, frames: Frames, replacement: Replacement) -> None:
        self._respond, self._frames = respond, frames
        self._blurred = blur_frames(frames, INPAINTING_SIGMA) if replacement == "blur" else None
        self._original = self._outputs(frames)

    def __call__(self, masks: Bools) -> NDArray[np.float64]:
        """bool [M, H, W] -> float64 [M, B]."""
        frames = len(self._frames)
        at_once = max(1, MAX_PIXELS // self._frames[..., 0].size)
        parts = []
        for first in range(0, len(masks), at_once):
            outputs = self._outputs(self._removed(masks[first : first + at_once]))
            original = np.concatenate([self._original] * (len(outputs) // frames))
            parts.append(action_change(original, outputs).reshape(-1, frames))
        return np.concatenate(parts)

    def _removed(self, masks: Bools) -> Frames:
        count, (batch, *shape) = len(masks), self._frames.shape
        every = np.broadcast_to(self._frames, (count, batch, *shape)).reshape(-1, *shape)
        removed = masks.repeat(batch, axis=0)
        if self._blurred is None:
            return ablate_pixels(every, removed)
        blurred = np.broadcast_to(self._blurred, (count, batch, *shape)).reshape(-1, *shape)
        return np.where(removed[..., None], blurred, every)

    def _outputs(self, frames: Frames) -> NDArray[Any]:
        outputs = np.asarray(self._respond(frames))
        if len(outputs) != len(frames) or not np.isfinite(outputs).all():
            raise ValueError(
                f"expected a finite output for each of {len(frames)} frames, got {list(outputs.shape)} "
                "or NaN or infinity: check the policy"
            )
        return outputs


def _check(frames: Frames, replacement: str) -> None:
    if frames.ndim != 4 or not len(frames):
        raise ValueError(f"expected frames [B, H, W, C], got {list(frames.shape)}")
    if replacement not in get_args(Replacement):
        raise unknown_name("replacement", replacement, get_args(Replacement))


def _side(cell: int | None, size: tuple[int, int]) -> int:
    side = max(1, round(CELL * min(size))) if cell is None else cell
    if not 1 <= side <= min(size):
        raise ValueError(f"expected a cell from 1 to {min(size)} pixels, got {side}")
    return side
