"""Focus metrics: how well attention maps localise the target, given ground-truth masks (NumPy).

Conventions of all functions here:

- a *map* is non-negative and sums to 1 over a frame's pixels (`[..., H, W]`); a *mask* is bool, True on the
  target;
- a frame where the target is not visible (an empty mask) cannot be scored: it is excluded, and counted;
- `chance` is the mask's share of the frame, the expected mass on target of an uninformative map;
- over many frames, a ratio is the **ratio of the means** over visible frames, not the mean of the frames'
  ratios: otherwise a target of two pixels at the frame's edge would outweigh a hundred ordinary frames.

An active camera centres its target, so a map that always attends to the centre scores well without looking at
the frame. Compare every figure with the same figure of the reference maps below: `uniform_map`,
`center_bias_map`, and the mean target mask over other episodes (`PriorMap`), the prior of the target's
position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

_TIE = 1e-6  # relative difference to the maximum within which pixels tie: they differ by rounding


def uniform_map(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Uninformative reference: the uniform map float64 [H, W] of sum 1.

    Args:
        image_size: (H, W) in pixels.
    """
    height, width = image_size
    return np.full((height, width), 1.0 / (height * width))


def center_bias_map(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Centre-bias reference: a Gaussian with sigma of a quarter of the shorter side, float64 [H, W] of sum 1.

    A fixed centre baseline like the MIT saliency benchmark's "center" model (Judd, Durand & Torralba 2012).
    Its width was chosen once and is not fitted to the episodes; `PriorMap` is the fitted reference.

    Args:
        image_size: (H, W) in pixels.
    """
    height, width = image_size
    sigma = min(height, width) / 4
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    values = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * sigma**2))
    return np.asarray(values / values.sum())


class PriorMap:
    """Prior of the target's position: the mean target mask over visible frames, as a map.

    Measured on calibration episodes, it is the hardest of the reference maps, since it is fitted to task and
    policy. Its maximum is the pixel that the target covers most often, so its pointing game is the best that
    a fixed point could achieve on those episodes.

    Args:
        image_size: (H, W) of the frames in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        self._sum = np.zeros(image_size)

    def add(self, masks: Bools) -> None:
        """Add masks bool [B, H, W]; empty masks have no effect."""
        self._sum += masks.sum(axis=0)

    def map(self) -> NDArray[np.float64]:
        """Return the map float64 [H, W] of sum 1; uniform if the target was never visible."""
        return _prior(self._sum)

    def without(self, masks: Bools) -> NDArray[np.float64]:
        """Return the map without masks bool [B, H, W] that were added, such as those of one episode."""
        return _prior(self._sum - masks.sum(axis=0))


def _prior(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum()
    return counts / total if total > 0 else uniform_map((counts.shape[0], counts.shape[1]))


def chance(masks: Bools) -> NDArray[np.float64]:
    """Compute the mask's share of the frame, float64 [T] in [0, 1], for masks bool [T, H, W]."""
    return np.asarray(masks.mean(axis=(-2, -1), dtype=np.float64))


def mass_on_target(maps: Floats, masks: Bools) -> NDArray[np.float64]:
    """Compute the share of each map's mass on the target.

    Args:
        maps: float [T, K, H, W], each of sum 1.
        masks: bool [T, H, W], True on the target.

    Returns:
        float64 [T, K], in [0, 1].

    Raises:
        ValueError: masks that are not bool, or incompatible shapes.
    """
    _check(maps, masks)
    flat = maps.reshape(*maps.shape[:2], -1)
    target = masks.reshape(len(masks), -1, 1).astype(maps.dtype)
    # The clip only removes rounding: the mass of a full frame may be 1 + 1e-7.
    return np.clip((flat @ target)[..., 0].astype(np.float64), 0.0, 1.0)


def mass_by_label(maps: Floats, labels: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    """Compute the share of each map's mass on the pixels of each label.

    Args:
        maps: float [T, K, H, W], each of sum 1.
        labels: int [T, H, W], what each pixel shows, from 0 to count - 1.
        count: number of labels.

    Returns:
        float64 [T, K, count], which sums to 1 over the labels.

    Raises:
        ValueError: labels out of range, or incompatible shapes.
    """
    if maps.ndim != 4 or labels.ndim != 3 or maps.shape[:1] + maps.shape[2:] != labels.shape:
        raise ValueError(
            f"expected maps [T, K, H, W] and labels [T, H, W] of the same frames, got {list(maps.shape)} and "
            f"{list(labels.shape)}"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < count):
        raise ValueError(f"expected labels from 0 to {count - 1}, got {labels.min()} to {labels.max()}")
    frames, heads = maps.shape[:2]
    every, mass = np.arange(count)[:, None].astype(labels.dtype), np.empty((frames, heads, count))
    for frame, shown in enumerate(labels):  # a product per frame takes a tenth of the time of a histogram
        masks = (shown.reshape(1, -1) == every).astype(maps.dtype)
        mass[frame] = maps[frame].reshape(heads, -1) @ masks.T
    return mass


def pointing_game(maps: Floats, masks: Bools, tolerance: int = 0) -> NDArray[np.float64]:
    """Pointing game: is the map's maximum on the target?

    Zhang et al. 2016, "Top-down neural attention by excitation backprop", section 4.1: a hit if the saliency
    map's maximum lies on the object, within a tolerance of 15 pixels in images of several hundred. Two
    details are made precise here. An attention cell covers several pixels that all attain the maximum: the
    score is the share of them that hit, the probability that a point sampled from the maximum hits. So a
    coarse map gains nothing when the corner of a large cell touches the target, and a uniform map scores
    exactly `chance`. And the tolerance, zero by default, is the radius in pixels of the disc by which the
    target is dilated.

    Args:
        maps: float [T, K, H, W].
        masks: bool [T, H, W], True on the target.
        tolerance: distance from the target, in pixels, that still counts as a hit.

    Returns:
        float64 [T, K], in [0, 1].

    Raises:
        ValueError: masks that are not bool, incompatible shapes, or a negative tolerance.
    """
    _check(maps, masks)
    flat = maps.reshape(*maps.shape[:2], -1)
    highest = flat >= flat.max(axis=-1, keepdims=True) * (1 - _TIE)
    target = grow(masks, tolerance).reshape(len(masks), 1, -1)
    hits = np.count_nonzero(highest & target, axis=-1)
    return np.asarray(hits / np.count_nonzero(highest, axis=-1))


def grow(masks: Bools, radius: int) -> Bools:
    """Dilate masks bool [..., H, W] by a disc of `radius` pixels, measured between pixel centres.

    Raises:
        ValueError: a negative radius.
    """
    if radius < 0:
        raise ValueError(f"expected a tolerance in pixels of 0 or more, got {radius}")
    if radius == 0:
        return masks
    height, width = masks.shape[-2:]
    grown = np.zeros_like(masks)
    for dy in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        for dx in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            if dy * dy + dx * dx <= radius * radius:
                to_y, from_y = _shifted(dy, height)
                to_x, from_x = _shifted(dx, width)
                grown[..., to_y, to_x] |= masks[..., from_y, from_x]
    return grown


def _shifted(offset: int, size: int) -> tuple[slice, slice]:
    return slice(max(offset, 0), size + min(offset, 0)), slice(max(-offset, 0), size + min(-offset, 0))


def _check(maps: Floats, masks: Bools) -> None:
    if masks.dtype != np.bool_:
        raise ValueError(
            f"expected target masks of bool, True on the target, got {masks.dtype}: convert them by "
            "astype(bool)"
        )
    if maps.ndim != 4 or masks.ndim != 3 or maps.shape[:1] + maps.shape[2:] != masks.shape:
        raise ValueError(
            f"expected maps [T, K, H, W] and masks [T, H, W] of the same frames, "
            f"got {list(maps.shape)} and {list(masks.shape)}"
        )


class RatioOfSums(NamedTuple):
    """A ratio over all visible frames, kept as one numerator and denominator per episode.

    Bootstrap intervals resample episodes: frames of one episode are correlated, and resampling frames would
    make the interval too narrow.

    Attributes:
        numerator: float64 [E].
        denominator: float64 [E].
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    @property
    def value(self) -> float:
        """Ratio of the sums over episodes; NaN if nothing was visible in any episode."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total > 0 else float("nan")


@dataclass(frozen=True)
class FocusTotals:
    """Sums over the visible frames of each of E episodes, for K maps."""

    mass: NDArray[np.float64]
    """[E, K] sum of the mass on target."""
    hits: NDArray[np.float64]
    """[E, K] sum of the pointing-game scores."""
    chance: NDArray[np.float64]
    """[E] sum of the mask's share of the frame."""
    visible: NDArray[np.int64]
    """[E] number of frames scored."""
    hidden: NDArray[np.int64]
    """[E] number of frames excluded because the target was not visible."""

    def mean_mass(self, index: int) -> RatioOfSums:
        """Mean mass on target of map `index`, in [0, 1]."""
        return RatioOfSums(self.mass[:, index], self.visible.astype(np.float64))

    def mean_mass_in_all_frames(self, index: int) -> RatioOfSums:
        """Mean mass on target of map `index` over all frames, 0 where the target is out of view, in [0, 1].

        The mean over visible frames rises when a policy loses its target; this one falls.
        """
        return RatioOfSums(self.mass[:, index], (self.visible + self.hidden).astype(np.float64))

    def mean_chance(self) -> RatioOfSums:
        """Mean share of the frame covered by the target, in [0, 1]."""
        return RatioOfSums(self.chance, self.visible.astype(np.float64))

    def mass_over_chance(self, index: int) -> RatioOfSums:
        """Mass on target of map `index` as a multiple of chance: mean mass / mean chance."""
        return RatioOfSums(self.mass[:, index], self.chance)

    def mass_over(self, index: int, other: int) -> RatioOfSums:
        """Mass on target of map `index` as a multiple of that of map `other`."""
        return RatioOfSums(self.mass[:, index], self.mass[:, other])

    def pointing(self, index: int) -> RatioOfSums:
        """Mean pointing-game score of map `index`, in [0, 1]."""
        return RatioOfSums(self.hits[:, index], self.visible.astype(np.float64))


class FocusMeter:
    """Accumulates mass, chance and pointing game over batches of frames, for E episodes and K maps.

    Args:
        episodes: E, number of episodes.
        maps: K, number of maps per frame.
        tolerance: of the pointing game, in pixels.
    """

    def __init__(self, episodes: int, maps: int, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self._mass = np.zeros((episodes, maps))
        self._hits = np.zeros((episodes, maps))
        self._chance = np.zeros(episodes)
        self._visible = np.zeros(episodes, dtype=np.int64)
        self._hidden = np.zeros(episodes, dtype=np.int64)

    def add(self, episode: NDArray[np.integer], maps: Floats, masks: Bools) -> None:
        """Add a batch of frames.

        Args:
            episode: int [B], episode of each frame.
            maps: float [B, K, H, W].
            masks: bool [B, H, W], True on the target.

        Raises:
            ValueError: masks that are not bool, or incompatible shapes.
        """
        _check(maps, masks)
        visible = masks.any(axis=(1, 2))
        np.add.at(self._hidden, episode[~visible], 1)
        if not visible.any():
            return
        episode, maps, masks = episode[visible], maps[visible], masks[visible]
        np.add.at(self._visible, episode, 1)
        np.add.at(self._mass, episode, mass_on_target(maps, masks))
        np.add.at(self._hits, episode, pointing_game(maps, masks, self._tolerance))
        np.add.at(self._chance, episode, chance(masks))

    def totals(self) -> FocusTotals:
        """Return the sums over all frames added so far."""
        return FocusTotals(
            mass=self._mass.copy(),
            hits=self._hits.copy(),
            chance=self._chance.copy(),
            visible=self._visible.copy(),
            hidden=self._hidden.copy(),
        )
