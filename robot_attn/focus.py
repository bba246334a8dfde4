"""Did the attention fall on the target? Attention maps against ground-truth masks, as NumPy arrays.

Conventions shared by every function here:

- a *map* is non-negative and sums to 1 over a frame's pixels (`[..., H, W]`); a *mask* is bool, True on the
  target;
- a frame where the target is not visible (an empty mask) cannot be scored: it is left out, and counted;
- `chance` is the mask's share of the frame, which is what a map that knows nothing gets on average;
- over many frames, a ratio is the **ratio of the means** over visible frames, never the mean of the frames'
  ratios: a target of two pixels at the frame's edge would else outweigh a hundred ordinary frames.

An active camera centres its target, so a map that always looks at the centre scores well for nothing. Every
figure is therefore meant to be read beside the same figure of the reference maps below: `uniform_map`,
`center_bias_map`, and the mean target mask over other episodes (`PriorMap`), which knows where the target
tends to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

_TIE = 1e-6  # pixels this close to the maximum, relatively, share it: their values differ by rounding


def uniform_map(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """The map that knows nothing: the same weight on each pixel of (H, W)."""
    height, width = image_size
    return np.full((height, width), 1.0 / (height * width))


def center_bias_map(image_size: tuple[int, int]) -> NDArray[np.float64]:
    """The map that always looks at the centre: a round Gaussian, sigma a quarter of the shorter side.

    A fixed centre baseline in the spirit of the MIT saliency benchmark's "center" model (Judd, Durand &
    Torralba 2012), with its width chosen once and not fitted to the episodes; `PriorMap` is the fitted one.
    """
    height, width = image_size
    sigma = min(height, width) / 4
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    values = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * sigma**2))
    return np.asarray(values / values.sum())


class PriorMap:
    """The mean target mask over visible frames, as a map: where the target tends to be, frame unseen.

    Measured on calibration episodes, it is the hardest of the reference maps, since it is fitted to the task
    and the policy. Its maximum is the pixel that the target covers most often, so that its pointing game is
    the best that a fixed point could get on those episodes.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        self._sum = np.zeros(image_size)

    def add(self, masks: Bools) -> None:
        """Take in masks bool [B, H, W]; empty ones add nothing."""
        self._sum += masks.sum(axis=0)

    def map(self) -> NDArray[np.float64]:
        """The map, [H, W] with sum 1; uniform if no target was ever seen."""
        total = self._sum.sum()
        return self._sum / total if total > 0 else uniform_map((self._sum.shape[0], self._sum.shape[1]))


def chance(masks: Bools) -> NDArray[np.float64]:
    """The mask's share of the frame, [T] in [0, 1], for masks [T, H, W]."""
    return np.asarray(masks.mean(axis=(-2, -1), dtype=np.float64))


def mass_on_target(maps: Floats, masks: Bools) -> NDArray[np.float64]:
    """The mass that falls on the target, [T, K] in [0, 1], for maps [T, K, H, W] and masks [T, H, W]."""
    _check(maps, masks)
    flat = maps.reshape(*maps.shape[:2], -1)
    target = masks.reshape(len(masks), -1, 1).astype(maps.dtype)
    # The clip takes away rounding only: the mass of a whole frame may come out as 1 + 1e-7.
    return np.clip((flat @ target)[..., 0].astype(np.float64), 0.0, 1.0)


def pointing_game(maps: Floats, masks: Bools, tolerance: int = 0) -> NDArray[np.float64]:
    """The pointing game: does the map's maximum fall on the target? [T, K] in [0, 1].

    Zhang et al. 2016, "Top-down neural attention by excitation backprop", section 4.1: a hit if the saliency
    map's maximum lies on the object, within a tolerance of 15 pixels in images of several hundred. Two things
    are made exact here. An attention cell covers several pixels, all of which hold the maximum: the score is
    the share of them that hit, which is the chance that a point drawn from the maximum hits. So a coarse map
    wins nothing by touching the target with the corner of a large cell, and a uniform map scores exactly
    `chance`. And the tolerance, zero unless asked for, is the radius in pixels of the disc by which the
    target is grown.

    Args:
        maps: [T, K, H, W].
        masks: bool [T, H, W].
        tolerance: pixels beyond the target's outline that still count as a hit.
    """
    _check(maps, masks)
    flat = maps.reshape(*maps.shape[:2], -1)
    highest = flat >= flat.max(axis=-1, keepdims=True) * (1 - _TIE)
    target = grow(masks, tolerance).reshape(len(masks), 1, -1)
    hits = np.count_nonzero(highest & target, axis=-1)
    return np.asarray(hits / np.count_nonzero(highest, axis=-1))


def grow(masks: Bools, radius: int) -> Bools:
    """Masks bool [..., H, W] grown by a disc of `radius` pixels (distance between pixel centres)."""
    if radius < 0:
        raise ValueError(f"a tolerance is a number of pixels, 0 or more, got {radius}")
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
        raise ValueError(f"a target mask is bool, True on the target, got {masks.dtype}")
    if maps.ndim != 4 or masks.ndim != 3 or maps.shape[:1] + maps.shape[2:] != masks.shape:
        raise ValueError(
            f"expected maps [T, K, H, W] and masks [T, H, W] of the same frames, "
            f"got {list(maps.shape)} and {list(masks.shape)}"
        )


class RatioOfSums(NamedTuple):
    """A figure over all visible frames as `numerator / denominator`, both kept for each episode: [E].

    `value` is the ratio of the two sums. Episodes are what a bootstrap draws: frames of one episode resemble
    each other, and drawing frames would make the interval too narrow.
    """

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The ratio of sums, or NaN if nothing was visible in any episode."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total > 0 else float("nan")


@dataclass(frozen=True)
class FocusTotals:
    """Sums over the visible frames of each of E episodes, for K maps."""

    mass: NDArray[np.float64]
    """[E, K] sum of mass on target."""
    hits: NDArray[np.float64]
    """[E, K] sum of pointing-game scores."""
    chance: NDArray[np.float64]
    """[E] sum of the mask's share of the frame."""
    visible: NDArray[np.int64]
    """[E] frames scored."""
    hidden: NDArray[np.int64]
    """[E] frames left out because the target was not visible."""

    def mean_mass(self, index: int) -> RatioOfSums:
        """Mass on target of map `index`, in [0, 1]."""
        return RatioOfSums(self.mass[:, index], self.visible.astype(np.float64))

    def mean_chance(self) -> RatioOfSums:
        """The mask's share of the frame, in [0, 1]."""
        return RatioOfSums(self.chance, self.visible.astype(np.float64))

    def mass_over_chance(self, index: int) -> RatioOfSums:
        """Mass on target of map `index` as a multiple of chance: mean mass / mean chance."""
        return RatioOfSums(self.mass[:, index], self.chance)

    def mass_over(self, index: int, other: int) -> RatioOfSums:
        """Mass on target of map `index` as a multiple of that of map `other`."""
        return RatioOfSums(self.mass[:, index], self.mass[:, other])

    def pointing(self, index: int) -> RatioOfSums:
        """Pointing game of map `index`, in [0, 1]."""
        return RatioOfSums(self.hits[:, index], self.visible.astype(np.float64))


class FocusMeter:
    """Adds up mass, chance and pointing game as frames come, for E episodes and K maps; keeps no frame."""

    def __init__(self, episodes: int, maps: int, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self._mass = np.zeros((episodes, maps))
        self._hits = np.zeros((episodes, maps))
        self._chance = np.zeros(episodes)
        self._visible = np.zeros(episodes, dtype=np.int64)
        self._hidden = np.zeros(episodes, dtype=np.int64)

    def add(self, episode: NDArray[np.integer], maps: Floats, masks: Bools) -> None:
        """Take in maps [B, K, H, W] and masks bool [B, H, W]; frame b belongs to episode `episode[b]`."""
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
        """What has been added so far."""
        return FocusTotals(
            mass=self._mass.copy(),
            hits=self._hits.copy(),
            chance=self._chance.copy(),
            visible=self._visible.copy(),
            hidden=self._hidden.copy(),
        )
