"""Perturbation-based explanations: ablating the pixels that a map selects.

What a policy does without some pixels shows how much it depends on them (Petsiuk et al. 2018, "RISE", section
4.1, https://arxiv.org/abs/1806.07421: deletion and insertion). Three choices decide whether such a test is
valid.

- *Selection.* The receptive field of an attention cell is larger than its own box, so `spread` blurs the map
  by one cell before pixels are ranked. Otherwise the ranking of all pixels but the few under a sharp peak is
  rounding noise, and the rim of the attended object stays in the frame.
- *Replacement.* `ablate_pixels` inpaints with a blur of the surroundings. Copying the pixels at the very edge
  of the hole would restore the colour of an object whose rim lies outside it.
- *Baseline.* The same number of pixels in one connected piece, as those of a sharp map are: `discs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn.frames import channels_to_back, channels_to_front
from robot_attn.maps import AttentionMaps

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Frames = NDArray[Any]
"""[B, H, W, C], of any dtype; ablated pixels of integer frames are rounded."""

CURVE_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Default fractions of the frame's pixels for deletion and insertion curves."""
MIN_BLUR = 1 / 16
"""Smallest sigma of the blur of a map, as a fraction of the frame's shorter side; otherwise one cell."""
INPAINTING_SIGMA = 3 / 16
"""Sigma of the Gaussian that inpaints ablated pixels, as a fraction of the frame's shorter side."""
MIN_WEIGHT = 1e-4
"""Weight of the unmasked pixels around a masked one, as a share of the frame's pixels, below which rounding
matters."""
_TIE = 1e-6  # relative difference within which values tie and are ranked at random: they differ by rounding


def spread(maps: AttentionMaps, head_weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Combine the heads into one smooth pixel map per frame: weighted mean, upsampled, blurred by one cell.

    Args:
        maps: [B, heads, rows, cols], non-negative.
        head_weights: float [heads], 0 or more and not all 0; None for the plain mean.

    Returns:
        float64 [B, H, W], each of sum 1. A map that is zero everywhere becomes uniform.

    Raises:
        ValueError: attention that is negative or not finite, or weights of another shape or range.
    """
    attention, grid = maps.weights, maps.grid
    if not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError(
            "expected finite, non-negative attention, got other numbers: check the policy or the file"
        )
    heads = attention.shape[1]
    share = np.ones(heads) if head_weights is None else np.asarray(head_weights, np.float64)
    if share.shape != (heads,) or (share < 0).any() or not 0 < share.sum() < np.inf:
        raise ValueError(
            f"expected a weight of at least 0 for each of {heads} heads, not all 0, got {share.tolist()}"
        )
    # Combined before upsampling, since there are fewer cells than pixels.
    combined = np.tensordot(share, attention.astype(np.float64, copy=False), (0, 1))
    pixels = AttentionMaps(combined, grid).upsampled()
    min_sigma = MIN_BLUR * min(grid.image_size)
    down, across = (
        _gaussian(length, max(min_sigma, spacing))
        for length, spacing in zip(grid.image_size, grid.spacing, strict=True)
    )
    # Divided by the blur of uniform attention, so that uniform attention stays uniform: the blur loses mass
    # at the frame's edge, and the outermost cells may have larger boxes than the others.
    uniform = AttentionMaps(np.ones(grid.shape), grid).upsampled()
    edge = down @ uniform @ across.T
    blurred = down @ pixels @ across.T / edge
    total = blurred.sum(axis=(1, 2), keepdims=True)
    blank = total == 0
    return np.asarray(np.where(blank, 1.0, blurred) / np.where(blank, edge.size, total))


def top_pixels(maps: Floats, share: float, rng: np.random.Generator) -> Bools:
    """Select the `share` of pixels with the highest values in each map; ties are broken at random.

    Args:
        maps: float [B, H, W].
        share: fraction of the pixels, in [0, 1].
        rng: random generator for ties.

    Returns:
        bool [B, H, W].

    Raises:
        ValueError: a share outside [0, 1].
    """
    count = _count(share, maps.shape[1:])
    flat = maps.reshape(len(maps), -1)
    rank = np.round(flat / np.maximum(flat.max(axis=1, keepdims=True), np.finfo(flat.dtype).tiny) / _TIE)
    return _lowest(-(rank + rng.random(rank.shape)), count).reshape(maps.shape)


def discs(centers: Floats, image_size: tuple[int, int], share: float) -> Bools:
    """Select the `share` of pixels nearest to each centre.

    A disc at the frame's edge has a larger radius, so that all have the same number of pixels.

    Args:
        centers: float [B, 2], (y, x) in pixels.
        image_size: (H, W) in pixels.
        share: fraction of the pixels, in [0, 1].

    Returns:
        bool [B, H, W].

    Raises:
        ValueError: a share outside [0, 1].
    """
    count = _count(share, image_size)
    y, x = (np.arange(length) for length in image_size)
    distance = (y[:, None] - centers[:, :1, None]) ** 2 + (x - centers[:, 1:, None]) ** 2
    return _lowest(distance.reshape(len(centers), -1), count).reshape(distance.shape)


def random_places(count: int, image_size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Sample positions (y, x) uniformly in the frame, float64 [count, 2], in pixels."""
    return rng.uniform(-0.5, np.asarray(image_size) - 0.5, (count, 2))


def centred_places(count: int, image_size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Sample positions (y, x) from `focus.center_bias_map`, float64 [count, 2], in pixels."""
    size = np.asarray(image_size)
    # Rejection sampling: the map has no mass outside the frame.
    places = np.empty((0, 2))
    while len(places) < count:
        sampled = rng.normal((size - 1) / 2, min(image_size) / 4, (2 * count, 2))
        places = np.concatenate([places, sampled[((sampled > -0.5) & (sampled < size - 0.5)).all(axis=1)]])
    return places[:count]


def ablate_pixels(frames: Frames, masks: Bools) -> Frames:
    """Replace the masked pixels of frames by a blur of their surroundings.

    A masked pixel becomes the mean of the unmasked pixels, weighted by a Gaussian of the distance. A fully
    masked frame becomes its own mean colour.

    Args:
        frames: [B, H, W, C], of any dtype.
        masks: bool [B, H, W], True on the pixels to ablate.

    Returns:
        The ablated frames, of the same shape and dtype.

    Raises:
        ValueError: masks that are not bool, or of another shape.
    """
    if frames.ndim != 4 or masks.dtype != np.bool_ or masks.shape != frames.shape[:3]:
        raise ValueError(
            f"expected frames [B, H, W, C] and bool masks [B, H, W], got {list(frames.shape)} "
            f"and {masks.dtype} {list(masks.shape)}"
        )
    # A fully masked frame has no unmasked pixels: use all of them.
    whole = np.asarray(masks.all(axis=(1, 2)))
    left = (~masks | whole[:, None, None]).astype(np.float32)
    # The unmasked pixels, and as the last plane how many there are.
    planes = np.empty((len(frames), frames.shape[3] + 1, *masks.shape[1:]), np.float32)
    np.multiply(channels_to_front(frames), left[:, None], out=planes[:, :-1], casting="unsafe")
    planes[:, -1] = left
    fill = _inpainting(planes)
    fill[whole] = planes[whole, :-1].mean((2, 3), keepdims=True)
    if np.issubdtype(frames.dtype, np.integer):
        fill = np.round(fill)
    return np.where(masks[..., None], channels_to_back(fill).astype(frames.dtype), frames)


def _inpainting(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur planes [B, C + 1, H, W] and divide the first C by the last: [B, C, H, W].

    The blur's matrices are so smooth that they have a low rank, up to rounding. Where the nearest unmasked
    pixel is far away, weights are so small that this rounding would matter: such frames get the full blur.
    """
    height, width = planes.shape[2:]
    sigma = INPAINTING_SIGMA * min(height, width)
    down, across = (_gaussian_root(length, sigma) for length in (height, width))
    blurred = down @ ((down.T @ (planes @ across)) @ across.T)
    weights = blurred[:, -1]
    far = weights.min(axis=(1, 2)) < MIN_WEIGHT * down.shape[0] * across.shape[0]
    if far.any():
        down, across = (_gaussian(length, sigma).astype(np.float32) for length in (height, width))
        blurred[far] = down @ planes[far] @ across.T
    return np.asarray(blurred[:, :-1] / blurred[:, -1:])


def blur_frames(frames: Frames, sigma: float) -> Frames:
    """Blur frames by a Gaussian.

    Args:
        frames: [B, H, W, C], of any dtype.
        sigma: standard deviation, as a fraction of the frame's shorter side.

    Returns:
        The blurred frames, of the same shape and dtype. Weights are renormalised at the frame's edge.
    """
    height, width = frames.shape[1:3]
    down, across = (
        _gaussian(length, sigma * min(height, width)).astype(np.float32) for length in (height, width)
    )
    down, across = down / down.sum(axis=1, keepdims=True), across / across.sum(axis=1, keepdims=True)
    blurred = channels_to_back(down @ channels_to_front(frames).astype(np.float32) @ across.T)
    if np.issubdtype(frames.dtype, np.integer):
        blurred = np.round(blurred)
    return np.asarray(blurred.astype(frames.dtype))


class InsensitivePolicyError(ValueError):
    """The actions do not depend on what is ablated, so there is nothing to explain."""


def action_change(actions: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Measure how much actions change: Euclidean distance, or for discrete actions whether they differ.

    Args:
        actions: [B, ...], float, or int for discrete actions.
        others: [B, ...], of the same shape and kind.

    Returns:
        float64 [B], 0 or more.
    """
    if np.issubdtype(actions.dtype, np.integer):
        return np.asarray((actions != others).reshape(len(actions), -1).any(axis=1), np.float64)
    difference = actions.astype(np.float64) - others
    return np.asarray(np.linalg.norm(difference.reshape(len(difference), -1), axis=1))


@dataclass(frozen=True)
class ActionCurves:
    """Deletion and insertion curves: change of the actions as pixels are removed, or added to an empty frame.

    Changes are in units of the mean change when all pixels are removed, at which deletion ends and insertion
    starts. Curves may exceed 1 in between, since a frame without one object may call for another action than
    an empty frame.
    """

    shares: NDArray[np.float64]
    """[S] fractions of the frame's pixels."""
    deleted: dict[str, NDArray[np.float64]]
    """[T, S] change after removing pixels, by selection: "attended", "random" or "centred"."""
    inserted: dict[str, NDArray[np.float64]]
    """[T, S] change when only these pixels are present, by selection."""


def action_curves(
    act: Callable[[Frames], NDArray[Any]],
    frames: Frames,
    maps: Floats,
    *,
    shares: Sequence[float] = CURVE_SHARES,
    seed: int = 0,
) -> ActionCurves:
    """Compute deletion and insertion curves of the pixels that maps select, and of baselines.

    Args:
        act: frames [T, H, W, C] -> actions [T, ...], with all other inputs of the policy unchanged.
        frames: [T, H, W, C].
        maps: float [T, H, W], as returned by `spread`.
        shares: fractions of the pixels, ascending, each in (0, 1).
        seed: random seed of the baselines and of ties.

    Raises:
        InsensitivePolicyError: the actions do not depend on the frames at all.
        ValueError: as `top_pixels` and `ablate_pixels`.
    """
    rng = np.random.default_rng(seed)
    size = (maps.shape[1], maps.shape[2])
    places = {"random": random_places(len(maps), size, rng), "centred": centred_places(len(maps), size, rng)}
    original = act(frames)
    scale = action_change(original, act(ablate_pixels(frames, np.ones(maps.shape, np.bool_)))).mean()
    if scale == 0:
        raise InsensitivePolicyError(
            "expected actions that depend on the frames, got the same actions with all pixels ablated"
        )
    deleted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("attended", *places)}
    inserted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in deleted}
    for share in shares:
        masks = {"attended": top_pixels(maps, share, rng)}
        masks |= {name: discs(at, size, share) for name, at in places.items()}
        for name, mask in masks.items():
            deleted[name].append(action_change(original, act(ablate_pixels(frames, mask))) / scale)
            inserted[name].append(action_change(original, act(ablate_pixels(frames, ~mask))) / scale)
    return ActionCurves(
        np.asarray(shares, np.float64),
        {name: np.stack(rows, axis=1) for name, rows in deleted.items()},
        {name: np.stack(rows, axis=1) for name, rows in inserted.items()},
    )


def _gaussian(length: int, sigma: float) -> NDArray[np.float64]:
    """Unnormalised Gaussian blur along an axis as a matrix [length, length]; sums are lower at the edges."""
    pixel = np.arange(length)
    return np.asarray(np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2)))


@lru_cache(maxsize=16)
def _gaussian_root(length: int, sigma: float) -> NDArray[np.float32]:
    """Matrix [length, rank] whose product with its transpose is `_gaussian`, up to rounding."""
    values, vectors = np.linalg.eigh(_gaussian(length, sigma))
    kept = values > np.finfo(np.float32).eps * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]), np.float32)


def _count(share: float, image_size: Sequence[int]) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of the pixels between 0 and 1, such as 0.1, got {share}")
    return round(share * image_size[0] * image_size[1])


def _lowest(values: Floats, count: int) -> Bools:
    """Select the `count` lowest values of each row, bool [B, N]."""
    chosen = np.zeros(values.shape, np.bool_)
    if count:
        lowest = np.argpartition(values, count - 1, axis=1)[:, :count]
        np.put_along_axis(chosen, lowest, True, axis=1)
    return chosen
