"""From attention to objects: the places that a map picks out, and the same ones from frame to frame.

A robot can detect and follow with this and an attention map, without any reinforcement learning:

    import torch
    from robot_attn import build, to_channels_first, upsample_attention
    from robot_attn.regions import Tracker, regions

    module = build("query", (3, 64, 64))  # trained to look at what matters
    tracker = Tracker(patience=10)
    for frame in camera:  # uint8 [64, 64, 3]
        with torch.no_grad():
            seen = module(to_channels_first(torch.from_numpy(frame))[None])
        maps = upsample_attention(seen.attention, module.grid)[0]
        for track in tracker.update(regions(maps), frame):
            print(track.id, track.region.box, track.region.centroid, track.missed)

A *map* is float [H, W], non-negative: how much each pixel is looked at. [K, H, W] are the maps of K heads for
one frame and stand for their mean; for the objects of each head, give one at a time. Both may be arrays or
tensors. Places are (x, y) in pixels, where (0, 0) is the centre of the first pixel.

Needs opencv (`pip install "robot-attn[video]"`), and to track scipy (`pip install "robot-attn[train]"`), each
imported only when used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from robot_attn.optional import import_cv2, import_optional
from robot_attn.perception import is_whole_number

Map = NDArray[np.floating] | Tensor
Floats = NDArray[np.float64]

_LEVELS = 2**20  # a map is compared in steps of its maximum over this: finer differences are rounding


class Peak(NamedTuple):
    """A local maximum of a map: its place in pixels, and the map's value there."""

    x: float
    y: float
    height: float


@dataclass(frozen=True, eq=False)
class Region:
    """A connected part of a map that stands out."""

    mask: NDArray[np.bool_]
    """[H, W], True on the region."""
    box: tuple[int, int, int, int]
    """(x, y, w, h): the first column and row, and how many of each, in pixels."""
    centroid: tuple[float, float]
    """(x, y) in pixels, the mean place of its attention."""
    mass: float
    """Its share of all the map's attention, in (0, 1]."""
    peak: Peak
    """Its highest place."""


@dataclass(frozen=True, eq=False)
class Track:
    """An object, as it stands after a frame."""

    id: int
    """Its own as long as it lives, from 0 in the order of births; never used again."""
    region: Region
    """Where it was when last seen."""
    age: int
    """Frames since its birth: 0 in the first."""
    missed: int
    """Frames since it was last seen: 0 where it is in this one."""
    look: Floats | None = None
    """[D], what it looks like: the descriptor of its regions, averaged over time; None if none was given."""


def peaks(map: Map, *, threshold: float = 0.2, over_chance: float = 1.5) -> list[Peak]:
    """Find the local maxima of a map, finer than its cells, the highest first.

    A maximum is a pixel, or a flat patch of them as an upsampled cell is, that nothing around (8 neighbours)
    rises above. Its place is moved from the patch's middle to the vertex of the parabola through its value
    and those a patch further on either side, so that even cells and their upsampled map have peaks at one
    place; it is not moved along an axis where the frame ends before.

    map: float [H, W] or [K, H, W]. threshold, over_chance: which peaks count, as for `regions`.
    Raises ValueError, as `regions` does.
    """
    values, scale = _as_map(map)
    levels, standing_out = _standing_out(values, threshold, over_chance)
    found = _find_peaks(values, levels, standing_out)
    return [peak._replace(height=scale * peak.height) for peak, _ in found]


def regions(map: Map, *, threshold: float = 0.2, over_chance: float = 1.5, min_area: int = 1) -> list[Region]:
    """Find the connected parts (8 neighbours) of a map that stand out, the one with most attention first.

    A pixel stands out where it has at least `threshold` times the map's maximum, and more than `over_chance`
    times the map's mean, which is what a map that looks nowhere in particular has everywhere. So a map of
    zeros or of one value has no region.

    map: float [H, W] or [K, H, W]; only its proportions matter.
    threshold: in [0, 1]. The default, and boxes around what is above it, are from Zhou et al. 2016,
        https://arxiv.org/abs/1512.04150, which take the largest part alone. Lower, it finds faint objects
        beside a bright one, and joins near ones.
    over_chance: 0 or more; 0 leaves it out. Even attention, upsampled, is 1.1 to 1.3 times the mean where
        cells are small, as the outer ones are larger.
    min_area: pixels; a smaller part is left out.

    Returns regions whose masks share no pixel.
    Raises ValueError for a map of another rank, without a pixel, or with negative numbers, NaN or infinity,
    and for options out of range; ModuleNotFoundError where opencv is not installed.
    Cost: a few passes over H W numbers, and H W bytes for each region's mask.
    """
    if not is_whole_number(min_area) or min_area < 1:
        raise ValueError(f"min_area must be a whole number of pixels, at least 1; it is {min_area!r}.")
    values, scale = _as_map(map)
    levels, standing_out = _standing_out(values, threshold, over_chance)
    cv2 = import_cv2()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(standing_out.view(np.uint8), connectivity=8)
    # All around a part is lower than all of it: its highest patch is a peak, and the first of them to be met.
    highest: dict[int, Peak] = {}
    for peak, pixel in _find_peaks(values, levels, standing_out):
        highest.setdefault(int(labels[pixel]), peak._replace(height=scale * peak.height))
    total = values.sum()
    found = []
    for label, peak in highest.items():
        left, top, width, height, area = (int(number) for number in stats[label])
        if area < min_area:
            continue
        mask = labels == label
        here = np.where(mask, values, 0.0)[top : top + height, left : left + width]
        mass = here.sum()
        x = left + float(here.sum(axis=0) @ np.arange(width) / mass)
        y = top + float(here.sum(axis=1) @ np.arange(height) / mass)
        found.append(Region(mask, (left, top, width, height), (x, y), float(mass / total), peak))
    return sorted(found, key=_order)


class Tracker:
    """Keeps the identities of objects from frame to frame: one region of a frame is one object.

    In each frame the regions are matched with the known objects, as many as can be and at the least total
    cost (`scipy.optimize.linear_sum_assignment`), and

        cost = (distance / reach + 1 - IoU) / 2 + looks * difference,

    with the distance between centroids, the intersection over union of boxes, and the difference between
    descriptors a and b, |a - b| / (|a| + |b|) in [0, 1]. A pair further apart than `reach` or more different
    than `unlike` is never matched. A region left over is a new object; an object left over is missed, and
    gone once it is missed for more than `patience` frames. The outcome depends on nothing but what is given,
    and not on the order of the regions.

    patience: frames that an object may be hidden and still be known, at least 0.
    reach: how far an object moves from one frame to the next, as a share of the frame's longer side; once
        more for each frame that it was missed.
    looks: what a difference costs, 0 or more. The default lets appearance outweigh place where two cross.
    unlike: in [0, 1], the difference at which two descriptors cannot be of one object.
    memory: in [0, 1), the share of the old descriptor that is kept when an object is seen again.

    Boxes matched by least total cost are from Bewley et al. 2016, https://arxiv.org/abs/1602.00763 (SORT);
    appearance beside them, and gates on both, from Wojke et al. 2017, https://arxiv.org/abs/1703.07402
    (Deep SORT). Neither's Kalman filter is here: a robot's own camera moves, and with it all that is seen.
    Cost a frame: O((T + N)^3) steps for T objects and N regions, and T N (D + 10) FLOPs before.
    """

    def __init__(
        self,
        *,
        patience: int = 10,
        reach: float = 0.2,
        looks: float = 2.0,
        unlike: float = 0.5,
        memory: float = 0.9,
    ) -> None:
        if not is_whole_number(patience) or patience < 0:
            raise ValueError(f"patience must be a whole number of frames, at least 0; it is {patience!r}.")
        for name, value, fits, range_ in (
            ("reach", reach, 0 < reach < np.inf, "greater than 0"),
            ("looks", looks, 0 <= looks < np.inf, "0 or more"),
            ("unlike", unlike, 0 <= unlike <= 1, "in [0, 1]"),
            ("memory", memory, 0 <= memory < 1, "in [0, 1)"),
        ):
            if not fits:
                raise ValueError(f"{name} must be {range_}; it is {value!r}.")
        self.patience, self.reach, self.looks = patience, reach, looks
        self.unlike, self.memory = unlike, memory
        self._tracks: list[Track] = []
        self._births = 0

    def update(
        self,
        regions: Sequence[Region],
        frame: NDArray[Any] | Tensor | None = None,
        *,
        descriptors: ArrayLike | Tensor | None = None,
    ) -> list[Track]:
        """Take in the regions of the next frame, of the same size as before.

        frame: uint8 [H, W, C], or float in [0, 1]; objects are then told apart by the mean colour of their
            regions. descriptors: float [N, D], one for each region, instead of a frame: what was attended to
            there, for example. With neither, and where an object or a region has none, place alone decides.

        Returns all objects that are not gone, seen in this frame or not, by their ids.
        Raises ValueError for regions, a frame or descriptors of sizes that do not go together or differ from
        those before, numbers that are not finite, or a frame and descriptors at once; ModuleNotFoundError
        where scipy is not installed.
        """
        looks = self._describe(regions, frame, descriptors)
        # In an order of their own, so that neither ties nor the ids of new objects depend on the one given.
        keys = [
            (*_order(region), *(() if look is None else look))
            for region, look in zip(regions, looks, strict=True)
        ]
        order = sorted(range(len(regions)), key=keys.__getitem__)
        regions, looks = [regions[index] for index in order], [looks[index] for index in order]
        matches = self._match(regions, looks)
        tracks = []
        for index, track in enumerate(self._tracks):
            if index in matches:
                region, look = regions[matches[index]], looks[matches[index]]
                tracks.append(Track(track.id, region, track.age + 1, 0, self._blend(track.look, look)))
            elif track.missed < self.patience:
                tracks.append(replace(track, age=track.age + 1, missed=track.missed + 1))
        for index in sorted(set(range(len(regions))) - set(matches.values())):
            tracks.append(Track(self._births, regions[index], 0, 0, looks[index]))
            self._births += 1
        self._tracks = tracks
        return list(tracks)

    def _describe(self, regions: Sequence[Region], frame: Any, descriptors: Any) -> list[Floats | None]:
        """One descriptor a region, once all that is given is found to go together."""
        sizes = {entry.mask.shape for entry in [*regions, *(track.region for track in self._tracks)]}
        if len(sizes) > 1:
            raise ValueError(f"all regions must be of frames of one size; theirs are {sorted(sizes)}.")
        if frame is not None and descriptors is not None:
            raise ValueError("give a frame or descriptors, not both: an object has one description.")
        if frame is not None:
            image = _as_floats(frame, "frame")
            if image.ndim != 3 or any(image.shape[:2] != size for size in sizes):
                wanted = ", ".join(str(side) for size in sizes for side in size) or "H, W"
                raise ValueError(f"frame must be [{wanted}, C]; its shape is {list(image.shape)}.")
            # Bytes and floats of the same picture must look the same.
            scale = 255.0 if frame.dtype in (np.uint8, torch.uint8) else 1.0
            looks: list[Floats | None] = [image[region.mask].mean(axis=0) / scale for region in regions]
        elif descriptors is not None:
            given = _as_floats(descriptors, "descriptors")
            if given.ndim != 2 or len(given) != len(regions):
                raise ValueError(
                    f"descriptors must be [{len(regions)}, D], one for each region; "
                    f"their shape is {list(given.shape)}."
                )
            looks = list(given)
        else:
            return [None] * len(regions)
        known = {len(look) for look in [*looks, *(track.look for track in self._tracks)] if look is not None}
        if len(known) > 1:
            raise ValueError(
                f"descriptors, or the channels of frames, must be as many in every frame; "
                f"here and before there are {sorted(known)}."
            )
        return looks

    def _match(self, regions: list[Region], looks: list[Floats | None]) -> dict[int, int]:
        """Index of a track -> index of the region that is the same object."""
        if not self._tracks or not regions:
            return {}
        optimize = import_optional("scipy.optimize", needs="tracking needs scipy", extra="train")
        olds = [track.region for track in self._tracks]
        step = np.array([old.centroid for old in olds])[:, None] - [new.centroid for new in regions]
        missed = np.array([track.missed for track in self._tracks])[:, None]
        distance = np.linalg.norm(step, axis=-1) / (self.reach * max(regions[0].mask.shape))
        overlap = _overlaps(np.array([old.box for old in olds]), np.array([new.box for new in regions]))
        difference = np.array([[_difference(track.look, look) for look in looks] for track in self._tracks])
        cost = (distance + 1 - overlap) / 2 + self.looks * difference
        possible = (distance <= 1 + missed) & (difference <= self.unlike)
        # Dearer than all others together: such a pair is made only for want of a possible one, and undone.
        impossible = min(cost.shape) * (1 + cost.max())
        rows, columns = optimize.linear_sum_assignment(np.where(possible, cost, impossible))
        return {
            int(row): int(column) for row, column in zip(rows, columns, strict=True) if possible[row, column]
        }

    def _blend(self, old: Floats | None, new: Floats | None) -> Floats | None:
        if old is None or new is None:
            return old if new is None else new
        return self.memory * old + (1 - self.memory) * new


def _difference(one: Floats | None, other: Floats | None) -> float:
    if one is None or other is None:
        return 0.0
    sizes = float(np.linalg.norm(one) + np.linalg.norm(other))
    return float(np.linalg.norm(one - other)) / sizes if sizes > 0 else 0.0


def _overlaps(ones: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """Intersection over union of boxes (x, y, w, h), [T, 4] and [N, 4] -> [T, N]."""
    start = np.maximum(ones[:, None, :2], others[None, :, :2])
    stop = np.minimum((ones[:, :2] + ones[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    common = np.clip(stop - start, 0, None).prod(axis=-1)
    areas = ones[:, 2:].prod(axis=-1)[:, None] + others[:, 2:].prod(axis=-1)[None]
    return np.asarray(common / (areas - common))


def _order(region: Region) -> tuple[float, ...]:
    return (-region.mass, region.centroid[1], region.centroid[0], *region.box)


def _as_floats(given: Any, name: str) -> Floats:
    """A finite float64 array of what may be a tensor, on any device."""
    array = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
    array = np.asarray(array, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity.")
    return array


def _as_map(map: Map) -> tuple[Floats, float]:
    """A map [H, W] that no sum overflows, and what to multiply it with to get the one given."""
    values = _as_floats(map, "map")
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            f"map must be [H, W], or [K, H, W] for K heads, with a pixel at least; "
            f"its shape is {list(values.shape)}."
        )
    if values.min() < 0:
        raise ValueError(f"map must not be negative; its least value is {values.min():.4g}.")
    scale = float(values.max()) or 1.0
    values = values / scale
    return (values if values.ndim == 2 else values.mean(axis=0)), scale


def _standing_out(
    values: Floats, threshold: float, over_chance: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The map in whole levels, and where they are high enough."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], a share of the maximum; it is {threshold!r}.")
    if not 0 <= over_chance < np.inf:
        raise ValueError(f"over_chance must be 0 or more, times the mean; it is {over_chance!r}.")
    levels = np.rint(values / (values.max() or 1.0) * _LEVELS).astype(np.float32)
    high = levels >= max(1, round(threshold * _LEVELS))
    high &= levels > over_chance * levels.mean(dtype=np.float64)
    return levels, high


def _find_peaks(
    values: Floats, levels: NDArray[np.float32], standing_out: NDArray[np.bool_]
) -> list[tuple[Peak, tuple[int, int]]]:
    """The peaks among what stands out, the highest first, each with a pixel (row, column) of its patch."""
    cv2 = import_cv2()
    around = np.ones((3, 3), np.uint8)
    top = levels >= cv2.dilate(levels, around)
    # A patch is no peak if it goes on, at its own height, to a pixel with something higher beside it.
    beside = cv2.dilate(np.where(top, np.float32(-1), levels), around)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(top.view(np.uint8), connectivity=8)
    shoulders = labels[top & (beside == levels)]
    found = []
    for label in np.setdiff1d(labels[top & standing_out], shoulders):
        left, first, width, height = (int(number) for number in stats[label, :4])
        patch = labels[first : first + height, left : left + width] == label
        row, column = (int(number) for number in np.argwhere(patch)[0])
        pixel = first + row, left + column
        x, y, peak = left + (width - 1) / 2, first + (height - 1) / 2, float(values[pixel])
        across = _vertex(values[round(y)], x, width, peak)
        down = _vertex(values[:, round(x)], y, height, peak)
        found.append((Peak(x + across, y + down, peak), pixel))
    return sorted(found, key=lambda each: (-levels[each[1]], each[1]))


def _vertex(line: Floats, at: float, step: int, peak: float) -> float:
    """How far from `at` the parabola through the peak, and the values `step` before and after, is highest."""
    before, after = at - step, at + step
    if before < 0 or after > len(line) - 1:
        return 0.0
    low, high = np.interp([before, after], np.arange(len(line)), line)
    bend = float(low + high - 2 * peak)
    if max(low, high) > peak or bend >= 0:
        return 0.0
    return step * float(low - high) / (2 * bend)
