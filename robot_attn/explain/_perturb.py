"""Frames without what a map names, and perceptions without one of their heads.

An explanation by erasing: what a policy does without some pixels tells what they were to it (Petsiuk et al.
2018, "RISE", section 4.1, https://arxiv.org/abs/1806.07421: deletion and insertion). Three things decide
whether such a test says anything.

- *Which pixels.* A cell of an attention map saw more of the frame than its own box: `spread` therefore blurs
  the map by one cell before pixels are ranked. Without that, the pixels after the few that a sharp head names
  come from rounding, and the rim of what was looked at stays in the frame.
- *What takes their place.* `ablate_pixels` continues the surroundings, blurred. What is copied from the very
  edge of the hole would bring back the colour of a thing whose rim was left outside it.
- *What to compare with.* As many pixels, in one piece as those of a sharp map are: `discs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn.frames import channels_to_back, channels_to_front
from robot_attn.maps import AttentionMaps

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Frames = NDArray[Any]
"""[B, H, W, C], of any dtype; a hole in whole numbers is filled with whole numbers."""

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the frame's pixels, for curves."""
FINEST = 1 / 16
"""Of the frame's shorter side: a map is blurred by one cell, and by no less than this."""
SURROUNDINGS = 3 / 16
"""Of the frame's shorter side: how far around a hole what fills it is taken from."""
_TIE = 1e-6  # values this close, relatively, are ranked by lot: they differ by rounding


def spread(maps: AttentionMaps, head_weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """One smooth map a frame: the heads together, spread over pixels and blurred by one cell.

    Args:
        maps: [B, heads, rows, cols].
        head_weights: [heads], how much each counts, not all zero; None for the plain mean.

    Returns:
        [B, H, W], each with sum 1. A map that is zero everywhere says nothing, and comes out uniform.

    Raises:
        ValueError: attention that is negative, NaN or infinite, or weights that do not fit.
    """
    attention, grid = maps.weights, maps.grid
    if not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError("attention must be finite and not negative: the policy or the file is broken")
    heads = attention.shape[1]
    share = np.ones(heads) if head_weights is None else np.asarray(head_weights, np.float64)
    if share.shape != (heads,) or (share < 0).any() or not 0 < share.sum() < np.inf:
        raise ValueError(
            f"expected a weight of at least 0 for each of {heads} heads, one above 0, got {share.tolist()}"
        )
    # Put together as cells, of which there are fewer than pixels.
    together = np.tensordot(share, attention.astype(np.float64, copy=False), (0, 1))
    pixels = AttentionMaps(together, grid).upsampled()
    least = FINEST * min(grid.image_size)
    down, across = (
        _gaussian(length, max(least, apart))
        for length, apart in zip(grid.image_size, grid.spacing, strict=True)
    )
    # Divided by what becomes of uniform attention, so that it stays uniform: the blur loses some of it at the
    # frame's edge, and the outermost cells' boxes may be larger than the others.
    uniform = AttentionMaps(np.ones(grid.shape), grid).upsampled()
    edge = down @ uniform @ across.T
    blurred = down @ pixels @ across.T / edge
    total = blurred.sum(axis=(1, 2), keepdims=True)
    blank = total == 0
    return np.asarray(np.where(blank, 1.0, blurred) / np.where(blank, edge.size, total))


def top_pixels(maps: Floats, share: float, rng: np.random.Generator) -> Bools:
    """The highest `share` of each map's pixels, bool [B, H, W]; among equals the lot decides.

    Raises:
        ValueError: a share outside [0, 1].
    """
    count = _count(share, maps.shape[1:])
    flat = maps.reshape(len(maps), -1)
    rank = np.round(flat / np.maximum(flat.max(axis=1, keepdims=True), np.finfo(flat.dtype).tiny) / _TIE)
    return _lowest(-(rank + rng.random(rank.shape)), count).reshape(maps.shape)


def discs(centers: Floats, image_size: tuple[int, int], share: float) -> Bools:
    """The `share` of the frame's pixels that is nearest to each of `centers` (y, x) [B, 2], bool [B, H, W].

    A disc that would leave the frame is wider, so that every one has as many pixels.

    Raises:
        ValueError: a share outside [0, 1].
    """
    count = _count(share, image_size)
    y, x = (np.arange(length) for length in image_size)
    away = (y[:, None] - centers[:, :1, None]) ** 2 + (x - centers[:, 1:, None]) ** 2
    return _lowest(away.reshape(len(centers), -1), count).reshape(away.shape)


def random_places(count: int, image_size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (y, x) anywhere in the frame, [count, 2]."""
    return rng.uniform(-0.5, np.asarray(image_size) - 0.5, (count, 2))


def centred_places(count: int, image_size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (y, x) drawn from `focus.center_bias_map`, [count, 2]: a look that knows no frame."""
    size = np.asarray(image_size)
    # Those outside the frame are drawn again, as the map has no mass there.
    places = np.empty((0, 2))
    while len(places) < count:
        drawn = rng.normal((size - 1) / 2, min(image_size) / 4, (2 * count, 2))
        places = np.concatenate([places, drawn[((drawn > -0.5) & (drawn < size - 0.5)).all(axis=1)]])
    return places[:count]


def ablate_pixels(frames: Frames, masks: Bools) -> Frames:
    """The frames [B, H, W, C] with the pixels of `masks` [B, H, W] replaced by their blurred surroundings.

    A hole is filled with the mean of the pixels outside it, weighted by a Gaussian of the distance. A frame
    that is all hole becomes its own mean colour.

    Raises:
        ValueError: masks that are not bool, or of other frames.
    """
    if frames.ndim != 4 or masks.dtype != np.bool_ or masks.shape != frames.shape[:3]:
        raise ValueError(
            f"expected frames [B, H, W, C] and bool masks [B, H, W], got {list(frames.shape)} "
            f"and {masks.dtype} {list(masks.shape)}"
        )
    height, width = masks.shape[1:]
    sigma = SURROUNDINGS * min(height, width)
    down, across = (_gaussian(length, sigma).astype(np.float32) for length in (height, width))
    # Where nothing is left outside the hole, all of it counts.
    whole = np.asarray(masks.all(axis=(1, 2)))[:, None, None]
    left = (~masks | whole).astype(np.float32)
    planes = channels_to_front(frames).astype(np.float32) * left[:, None]
    fill = (down @ planes @ across.T) / (down @ left @ across.T)[:, None]
    fill = np.where(whole[:, None], planes.mean((2, 3), keepdims=True), fill)
    if np.issubdtype(frames.dtype, np.integer):
        fill = np.round(fill)
    return np.where(masks[..., None], channels_to_back(fill).astype(frames.dtype), frames)


class InsensitivePolicyError(ValueError):
    """Actions that do not depend on what is tested."""


def action_change(actions: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """How far two batches of actions are apart, [B]: their distance; of choices, whether they differ."""
    if np.issubdtype(actions.dtype, np.integer):
        return np.asarray((actions != others).reshape(len(actions), -1).any(axis=1), np.float64)
    apart = actions.astype(np.float64) - others
    return np.asarray(np.linalg.norm(apart.reshape(len(apart), -1), axis=1))


@dataclass(frozen=True)
class ActionCurves:
    """How far actions change as pixels go (deletion), and how far they are off as pixels come (insertion).

    A change is in units of the mean change that all of the frames' pixels make together, where both curves
    would end: 1 without any pixel, 0 with all of them. In between they may pass 1, as a frame that lacks one
    thing may call for another action than a frame that shows nothing.
    """

    shares: NDArray[np.float64]
    """[S] of the frame's pixels."""
    deleted: dict[str, NDArray[np.float64]]
    """[T, S] by which pixels go: "attended", "random" or "centred"."""
    inserted: dict[str, NDArray[np.float64]]
    """[T, S] by which pixels come first."""


def action_curves(
    act: Callable[[Frames], NDArray[Any]],
    frames: Frames,
    maps: Floats,
    *,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> ActionCurves:
    """Delete and insert the pixels that maps name, and as many others, in frames that were kept.

    Args:
        act: frames [T, H, W, C] -> actions [T, ...], whatever else the policy sees left as it was.
        frames: [T, H, W, C].
        maps: [T, H, W], as `spread` gives them.
        shares: of the pixels, rising, each in (0, 1).
        seed: of what is drawn by lot.

    Raises:
        NoDecision: the actions do not depend on the frames at all.
        ValueError: as `top_pixels` and `ablate_pixels`.
    """
    rng = np.random.default_rng(seed)
    size = (maps.shape[1], maps.shape[2])
    places = {"random": random_places(len(maps), size, rng), "centred": centred_places(len(maps), size, rng)}
    usual = act(frames)
    scale = action_change(usual, act(ablate_pixels(frames, np.ones(maps.shape, np.bool_)))).mean()
    if scale == 0:
        raise InsensitivePolicyError(
            "the actions are the same without any frame: there is nothing to explain"
        )
    deleted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("attended", *places)}
    inserted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in deleted}
    for share in shares:
        masks = {"attended": top_pixels(maps, share, rng)}
        masks |= {name: discs(at, size, share) for name, at in places.items()}
        for name, mask in masks.items():
            deleted[name].append(action_change(usual, act(ablate_pixels(frames, mask))) / scale)
            inserted[name].append(action_change(usual, act(ablate_pixels(frames, ~mask))) / scale)
    return ActionCurves(
        np.asarray(shares, np.float64),
        {name: np.stack(rows, axis=1) for name, rows in deleted.items()},
        {name: np.stack(rows, axis=1) for name, rows in inserted.items()},
    )


def _gaussian(length: int, sigma: float) -> NDArray[np.float64]:
    """[length, length]: what each pixel of an axis takes from each, unnormalised, so that edges show."""
    pixel = np.arange(length)
    return np.asarray(np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2)))


def _count(share: float, image_size: Sequence[int]) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"a share of the pixels lies between 0 and 1, such as 0.1, got {share}")
    return round(share * image_size[0] * image_size[1])


def _lowest(values: Floats, count: int) -> Bools:
    """The `count` lowest of each row, bool [B, N]."""
    chosen = np.zeros(values.shape, np.bool_)
    if count:
        lowest = np.argpartition(values, count - 1, axis=1)[:, :count]
        np.put_along_axis(chosen, lowest, True, axis=1)
    return chosen
