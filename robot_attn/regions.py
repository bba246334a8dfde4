"""From attention maps to objects: peaks and regions of a map, and tracks of regions over frames.

With an attention map this detects and follows objects on a robot, without reinforcement learning:

    import torch
    from robot_attn import build, to_channels_first, upsample_attention
    from robot_attn.regions import Tracker, regions

    module = build("query", (3, 64, 64))  # trained to attend to the target
    tracker = Tracker(patience=10)
    for frame in camera:  # uint8 [64, 64, 3]
        with torch.no_grad():
            percept = module(to_channels_first(torch.from_numpy(frame))[None])
        maps = upsample_attention(percept.attention, module.grid)[0]
        for track in tracker.update(regions(maps), frame):
            print(track.id, track.region.box, track.region.centroid, track.missed)

A *map* is float [H, W], non-negative: the attention on each pixel. Maps [K, H, W] of K heads are averaged;
for the objects of each head, pass one map at a time. Arrays and tensors are accepted. Positions are (x, y) in
pixels, where (0, 0) is the centre of the first pixel.

Needs opencv (`pip install "robot-attn[video]"`), and scipy for tracking (`pip install "robot-attn[train]"`),
each imported on first use.
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

_LEVELS = 2**20  # maps are quantised to this fraction of their maximum: smaller differences are rounding


class Peak(NamedTuple):
    """A local maximum of a map.

    Attributes:
        x: column in pixels, with subpixel accuracy.
        y: row in pixels, with subpixel accuracy.
        height: value of the map there.
    """

    x: float
    y: float
    height: float


@dataclass(frozen=True, eq=False)
class Region:
    """A connected region of a map that stands out."""

    mask: NDArray[np.bool_]
    """bool [H, W], True on the region."""
    box: tuple[int, int, int, int]
    """(x, y, w, h) in pixels: first column and row, width and height."""
    centroid: tuple[float, float]
    """(x, y) in pixels, weighted by attention."""
    mass: float
    """Share of the map's attention, in (0, 1]."""
    peak: Peak
    """Highest point of the region."""


@dataclass(frozen=True, eq=False)
class Track:
    """The state of an object after a frame."""

    id: int
    """Unique id, from 0 in order of appearance; never reused."""
    region: Region
    """Region in the frame where the object was last visible."""
    age: int
    """Frames since the first; 0 in the first."""
    missed: int
    """Frames since the object was last visible; 0 if it is visible now."""
    appearance: Floats | None = None
    """[D], moving average of the region's descriptors; None if none was given."""


def peaks(map: Map, *, threshold: float = 0.2, mean_factor: float = 1.5) -> list[Peak]:
    """Find the local maxima of a map with subpixel accuracy, highest first.

    A maximum is a pixel, or a plateau of equal pixels such as an upsampled cell, whose 8-neighbourhood is
    nowhere higher. Its position is refined from the centre of the plateau to the vertex of the parabola
    through its value and the values one plateau width to either side, so that a grid of cells and its
    upsampled map have peaks at the same position. An axis is not refined where that would leave the frame.

    Args:
        map: float [H, W] or [K, H, W], non-negative.
        threshold: as for `regions`.
        mean_factor: as for `regions`.

    Raises:
        ValueError: as `regions`.
        ModuleNotFoundError: opencv is not installed.
    """
    values, scale = _as_map(map)
    levels, standing_out = _standing_out(values, threshold, mean_factor)
    found = _find_peaks(values, levels, standing_out)
    return [peak._replace(height=scale * peak.height) for peak, _ in found]


def regions(map: Map, *, threshold: float = 0.2, mean_factor: float = 1.5, min_area: int = 1) -> list[Region]:
    """Find the 8-connected regions of a map that stand out, largest mass first.

    A pixel stands out if its value is at least `threshold` times the map's maximum and more than
    `mean_factor` times its mean, the value that a uniform map has everywhere. So a constant map has no
    region.

    Args:
        map: float [H, W] or [K, H, W], non-negative; the result is invariant to its scale.
        threshold: fraction of the maximum, in [0, 1]. The default, and boxes around the thresholded map, are
            from Zhou et al. 2016, https://arxiv.org/abs/1512.04150, who keep only the largest component. A
            lower threshold finds faint objects beside a bright one, and merges close ones.
        mean_factor: multiple of the mean, 0 or more; 0 disables the criterion. Upsampled uniform attention
            has values of 1.1 to 1.3 times the mean where cells are small, since the outer cells are larger.
        min_area: smallest area of a region, in pixels.

    Returns:
        Regions with disjoint masks.

    Raises:
        ValueError: a map of another rank, empty, or with negative or non-finite numbers; options out of
            range.
        ModuleNotFoundError: opencv is not installed.

    Cost: a few passes over H W numbers, and H W bytes for each region's mask.
    """
    if not is_whole_number(min_area) or min_area < 1:
        raise ValueError(f"expected min_area as a whole number of at least 1, got {min_area!r}")
    values, scale = _as_map(map)
    levels, standing_out = _standing_out(values, threshold, mean_factor)
    cv2 = import_cv2()
    _, labels, stats, _ = cv2.connectedComponentsWithStats(standing_out.view(np.uint8), connectivity=8)
    # A region's surroundings are lower than the region: its highest plateau is a peak, the first in the list.
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
    """Multi-object tracker: assigns the regions of each frame to persistent object ids.

    In each frame regions are matched to known objects, as many as possible and with the least total cost
    (`scipy.optimize.linear_sum_assignment`), where

        cost = (distance / max_displacement + 1 - IoU) / 2 + appearance_weight * appearance distance.

    The distance is that of the centroids; the IoU is that of the boxes; the appearance distance of
    descriptors a and b is |a - b| / (|a| + |b|), in [0, 1]. Pairs farther apart than `max_displacement` or
    with an appearance distance above `max_appearance_distance` are never matched. An unmatched region starts
    a new object; an unmatched object is missed, and deleted after more than `patience` missed frames. The
    result is deterministic and independent of the order of the regions.

    Matching boxes by least total cost: Bewley et al. 2016, https://arxiv.org/abs/1602.00763 (SORT).
    Appearance descriptors and gating on both terms: Wojke et al. 2017, https://arxiv.org/abs/1703.07402 (Deep
    SORT). Their Kalman filter is left out: a robot's camera moves, and with it everything in view. Cost per
    frame: O((T + N)^3) operations for T objects and N regions, after T N (D + 10) FLOPs.

    Args:
        patience: frames that an object may be missed before it is deleted, 0 or more (`max_age` of SORT).
        max_displacement: largest movement between two frames, as a fraction of the frame's longer side, above
            0; once more for each missed frame.
        appearance_weight: weight of the appearance distance in the cost, 0 or more. With the default,
            appearance outweighs position where two objects cross.
        max_appearance_distance: largest appearance distance between two descriptors of one object, in [0, 1].
        appearance_momentum: weight of the old descriptor in the moving average, in [0, 1).

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        patience: int = 10,
        max_displacement: float = 0.2,
        appearance_weight: float = 2.0,
        max_appearance_distance: float = 0.5,
        appearance_momentum: float = 0.9,
    ) -> None:
        if not is_whole_number(patience) or patience < 0:
            raise ValueError(f"expected patience as a whole number of at least 0, got {patience!r}")
        for name, value, fits, range_ in (
            ("max_displacement", max_displacement, 0 < max_displacement < np.inf, "greater than 0"),
            ("appearance_weight", appearance_weight, 0 <= appearance_weight < np.inf, "of 0 or more"),
            (
                "max_appearance_distance",
                max_appearance_distance,
                0 <= max_appearance_distance <= 1,
                "in [0, 1]",
            ),
            ("appearance_momentum", appearance_momentum, 0 <= appearance_momentum < 1, "in [0, 1)"),
        ):
            if not fits:
                raise ValueError(f"expected {name} {range_}, got {value!r}")
        self.patience, self.max_displacement = patience, max_displacement
        self.appearance_weight, self.max_appearance_distance = appearance_weight, max_appearance_distance
        self.appearance_momentum = appearance_momentum
        self._tracks: list[Track] = []
        self._births = 0

    def update(
        self,
        regions: Sequence[Region],
        frame: NDArray[Any] | Tensor | None = None,
        *,
        descriptors: ArrayLike | Tensor | None = None,
    ) -> list[Track]:
        """Match the regions of the next frame, which has the same size as before.

        Without a frame or descriptors, or where an object or region has none, only position and overlap
        count.

        Args:
            regions: the regions found in the frame.
            frame: uint8 [H, W, C], or float in [0, 1]; the descriptor of a region is then its mean colour.
            descriptors: float [N, D], one for each region, in place of the frame: the values read there, for
                example.

        Returns:
            All objects that are not deleted, visible in this frame or not, ordered by id.

        Raises:
            ValueError: regions, frame or descriptors of incompatible sizes or of other sizes than before,
                non-finite numbers, or both a frame and descriptors.
            ModuleNotFoundError: scipy is not installed.
        """
        appearances = self._describe(regions, frame, descriptors)
        # Sorted, so that neither ties nor the ids of new objects depend on the order of the regions.
        keys = [
            (*_order(region), *(() if appearance is None else appearance))
            for region, appearance in zip(regions, appearances, strict=True)
        ]
        order = sorted(range(len(regions)), key=keys.__getitem__)
        regions, appearances = [regions[index] for index in order], [appearances[index] for index in order]
        matches = self._match(regions, appearances)
        tracks = []
        for index, track in enumerate(self._tracks):
            if index in matches:
                region, appearance = regions[matches[index]], appearances[matches[index]]
                blended = self._blend(track.appearance, appearance)
                tracks.append(Track(track.id, region, track.age + 1, 0, blended))
            elif track.missed < self.patience:
                tracks.append(replace(track, age=track.age + 1, missed=track.missed + 1))
        for index in sorted(set(range(len(regions))) - set(matches.values())):
            tracks.append(Track(self._births, regions[index], 0, 0, appearances[index]))
            self._births += 1
        self._tracks = tracks
        return list(tracks)

    def _describe(self, regions: Sequence[Region], frame: Any, descriptors: Any) -> list[Floats | None]:
        """Check the inputs, and compute one descriptor per region; None without a frame or descriptors."""
        sizes = {entry.mask.shape for entry in [*regions, *(track.region for track in self._tracks)]}
        if len(sizes) > 1:
            raise ValueError(
                f"expected regions of frames of one size, got sizes {sorted(sizes)}: use one tracker per size"
            )
        if frame is not None and descriptors is not None:
            raise ValueError("expected a frame or descriptors, got both: pass one of them")
        if frame is not None:
            image = _as_floats(frame, "frame")
            if image.ndim != 3 or any(image.shape[:2] != size for size in sizes):
                expected = ", ".join(str(side) for size in sizes for side in size) or "H, W"
                raise ValueError(f"expected frame [{expected}, C], got shape {list(image.shape)}")
            # The same image as uint8 and as float has the same descriptor.
            scale = 255.0 if frame.dtype in (np.uint8, torch.uint8) else 1.0
            appearances: list[Floats | None] = [image[region.mask].mean(axis=0) / scale for region in regions]
        elif descriptors is not None:
            rows = _as_floats(descriptors, "descriptors")
            if rows.ndim != 2 or len(rows) != len(regions):
                raise ValueError(
                    f"expected descriptors [{len(regions)}, D], one per region, got shape {list(rows.shape)}"
                )
            appearances = list(rows)
        else:
            return [None] * len(regions)
        tracked = (track.appearance for track in self._tracks)
        dims = {len(appearance) for appearance in [*appearances, *tracked] if appearance is not None}
        if len(dims) > 1:
            raise ValueError(
                f"expected descriptors or colours of one dimension, got {sorted(dims)}: use one tracker each"
            )
        return appearances

    def _match(self, regions: list[Region], appearances: list[Floats | None]) -> dict[int, int]:
        """Match tracks to regions: index of a track -> index of its region."""
        if not self._tracks or not regions:
            return {}
        optimize = import_optional("scipy.optimize", needs="tracking needs scipy", extra="train")
        tracked = [track.region for track in self._tracks]
        step = np.array([old.centroid for old in tracked])[:, None] - [new.centroid for new in regions]
        missed = np.array([track.missed for track in self._tracks])[:, None]
        distance = np.linalg.norm(step, axis=-1) / (self.max_displacement * max(regions[0].mask.shape))
        overlap = _overlaps(np.array([old.box for old in tracked]), np.array([new.box for new in regions]))
        difference = np.array(
            [
                [_difference(track.appearance, appearance) for appearance in appearances]
                for track in self._tracks
            ]
        )
        cost = (distance + 1 - overlap) / 2 + self.appearance_weight * difference
        possible = (distance <= 1 + missed) & (difference <= self.max_appearance_distance)
        # Costs more than all other pairs together: assigned only if no possible pair is left, then discarded.
        impossible = min(cost.shape) * (1 + cost.max())
        rows, columns = optimize.linear_sum_assignment(np.where(possible, cost, impossible))
        return {
            int(row): int(column) for row, column in zip(rows, columns, strict=True) if possible[row, column]
        }

    def _blend(self, old: Floats | None, new: Floats | None) -> Floats | None:
        if old is None or new is None:
            return old if new is None else new
        return self.appearance_momentum * old + (1 - self.appearance_momentum) * new


def _difference(one: Floats | None, other: Floats | None) -> float:
    if one is None or other is None:
        return 0.0
    sizes = float(np.linalg.norm(one) + np.linalg.norm(other))
    return float(np.linalg.norm(one - other)) / sizes if sizes > 0 else 0.0


def _overlaps(ones: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """Intersection over union of boxes (x, y, w, h): [T, 4] and [N, 4] -> [T, N]."""
    start = np.maximum(ones[:, None, :2], others[None, :, :2])
    stop = np.minimum((ones[:, :2] + ones[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    common = np.clip(stop - start, 0, None).prod(axis=-1)
    areas = ones[:, 2:].prod(axis=-1)[:, None] + others[:, 2:].prod(axis=-1)[None]
    return np.asarray(common / (areas - common))


def _order(region: Region) -> tuple[float, ...]:
    return (-region.mass, region.centroid[1], region.centroid[0], *region.box)


def _as_floats(values: Any, name: str) -> Floats:
    """Convert an array, or a tensor on any device, to a float64 array, and check that it is finite."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(array, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"expected {name} of finite numbers, got NaN or infinity: check what computes it")
    return array


def _as_map(map: Map) -> tuple[Floats, float]:
    """Normalise a map to [H, W] with maximum 1, so that sums cannot overflow; return it and the scale."""
    values = _as_floats(map, "map")
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            f"expected map [H, W], or [K, H, W] for K heads, with at least 1 pixel, "
            f"got shape {list(values.shape)}"
        )
    if values.min() < 0:
        raise ValueError(
            f"expected a non-negative map, got a minimum of {values.min():.4g}: pass attention, not scores"
        )
    scale = float(values.max()) or 1.0
    values = values / scale
    return (values if values.ndim == 2 else values.mean(axis=0)), scale


def _standing_out(
    values: Floats, threshold: float, mean_factor: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Quantise a map to integer levels, and flag the pixels that exceed both thresholds."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected threshold in [0, 1], a fraction of the maximum, got {threshold!r}")
    if not 0 <= mean_factor < np.inf:
        raise ValueError(f"expected mean_factor of 0 or more, a multiple of the mean, got {mean_factor!r}")
    levels = np.rint(values / (values.max() or 1.0) * _LEVELS).astype(np.float32)
    high = levels >= max(1, round(threshold * _LEVELS))
    high &= levels > mean_factor * levels.mean(dtype=np.float64)
    return levels, high


def _find_peaks(
    values: Floats, levels: NDArray[np.float32], standing_out: NDArray[np.bool_]
) -> list[tuple[Peak, tuple[int, int]]]:
    """Find the peaks among the pixels that stand out, highest first, each with a pixel (row, column)."""
    cv2 = import_cv2()
    neighbourhood = np.ones((3, 3), np.uint8)
    top = levels >= cv2.dilate(levels, neighbourhood)
    # A plateau is not a peak if it extends, at the same level, to a pixel with a higher neighbour.
    beside = cv2.dilate(np.where(top, np.float32(-1), levels), neighbourhood)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(top.view(np.uint8), connectivity=8)
    shoulders = labels[top & (beside == levels)]
    found = []
    for label in np.setdiff1d(labels[top & standing_out], shoulders):
        left, first, width, height = (int(number) for number in stats[label, :4])
        plateau = labels[first : first + height, left : left + width] == label
        row, column = (int(number) for number in np.argwhere(plateau)[0])
        pixel = first + row, left + column
        x, y, peak = left + (width - 1) / 2, first + (height - 1) / 2, float(values[pixel])
        across = _vertex(values[round(y)], x, width, peak)
        down = _vertex(values[:, round(x)], y, height, peak)
        found.append((Peak(x + across, y + down, peak), pixel))
    return sorted(found, key=lambda each: (-levels[each[1]], each[1]))


def _vertex(line: Floats, at: float, step: int, peak: float) -> float:
    """Offset from `at` to the vertex of the parabola through the peak and the values `step` pixels apart."""
    before, after = at - step, at + step
    if before < 0 or after > len(line) - 1:
        return 0.0
    low, high = np.interp([before, after], np.arange(len(line)), line)
    bend = float(low + high - 2 * peak)
    if max(low, high) > peak or bend >= 0:
        return 0.0
    return step * float(low - high) / (2 * bend)
