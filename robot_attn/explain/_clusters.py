"""What a policy looks at, as a handful of frames: clusters of attention maps.

- *Which maps are near.* The heads' maps together, blurred by one cell, so that peaks in neighbouring cells
  are near and not strangers; then the Hellinger distance, the Euclidean one between square roots, which
  treats maps as the distributions that they are and lets no single sharp peak outweigh the rest.
- *Where groups are looked for.* In the few directions along which the maps vary most: over all cells,
  distances are mostly those between accidents.
- *Which groups are two.* Those that k-means finds, except that those whose mean maps a person could not tell
  apart are joined.
- *How many there are.* k-means always finds as many groups as it is asked for. A division counts by how much
  higher its silhouette is than that of as many groups in clouds of normal draws, which spread as the maps do
  and have no groups (the idea of the gap statistic, Tibshirani, Walther & Hastie 2001). Where none beats
  them, there is one cluster.

What moves on smoothly is divided, too: a peak that wanders from left to right makes a left, a middle and a
right cluster, each of which stands for its stretch of the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain._perturb import _gaussian
from robot_attn.maps import usable_maps
from robot_attn.optional import import_optional

MOST = 6
"""Clusters, where their number is not given."""
DIRECTIONS = 4
"""Principal components that groups are looked for in."""
APART = 0.15
"""Hellinger distance that the mean maps of two clusters have at least, where the number is not given.
A sharp peak that moves by half a cell is 0.17 away from where it was, by a whole cell 0.34."""
LEAST_GAIN = 0.05
"""By how much the silhouette must be higher than that of clouds without groups."""
CLOUDS = 5
"""As many are drawn; the most clustered of them counts."""
SAMPLE = 600
"""Maps that clusters are found by, at most; the others go to the nearest."""
_STARTS = 4


@dataclass(frozen=True)
class Clusters:
    """T maps in K clusters, the largest first, of equal ones the earlier. K is 0 where no map was usable."""

    labels: NDArray[np.int64]
    """[T] which cluster; -1 for maps that are no distribution, which are left out."""
    medoids: NDArray[np.int64]
    """[K] the map that stands for each: the member nearest to the others, in squared distance."""
    shares: NDArray[np.float64]
    """[K] of the maps that were not left out."""
    distances: NDArray[np.float64]
    """[K] how far the members are from their medoid on average, in [0, 1]: above 0.5 or so, it stands for
    maps that have little in common."""

    def __len__(self) -> int:
        return len(self.medoids)


def cluster_maps(maps: NDArray[np.floating], *, clusters: int | None = None, seed: int = 0) -> Clusters:
    """Group attention maps, of one episode or of many.

    `stretches(result.labels, episode)` tells when each is used.

    Args:
        maps: [T, rows, cols] or [T, heads, rows, cols]. Heads whose map is all zero or not finite are left
            out of that step, and steps without a head that is left.
        clusters: how many; there are fewer where fewer maps differ. None for 1 to `MOST`, by silhouette.
        seed: the same seed gives the same clusters.

    Raises:
        ValueError: another shape, or fewer than one cluster.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    if maps.ndim not in (3, 4) or 0 in maps.shape[1:]:
        raise ValueError(f"expected maps [T, rows, cols] or [T, heads, rows, cols], got {list(maps.shape)}")
    if clusters is not None and clusters < 1:
        raise ValueError(f"expected one cluster or more, got {clusters}; give None to have it chosen")
    together, known = _together(maps if maps.ndim == 4 else maps[:, None])
    rows = np.flatnonzero(known)
    labels = np.full(len(maps), -1)
    if len(rows) == 0:
        return Clusters(labels, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    features = _features(together[rows])
    _, first, found, size = np.unique(
        _group(features, clusters, seed), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -size))
    labels[rows] = np.argsort(order)[found]
    medoids, distances = [], []
    for label in range(len(order)):
        members = np.flatnonzero(labels[rows] == label)
        own = features[members]
        # The member nearest to the mean has the least sum of squared distances to the others.
        medoid = int(((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin())
        medoids.append(int(rows[members[medoid]]))
        distances.append(float(np.linalg.norm(own - own[medoid], axis=1).mean()))
    shares = np.bincount(labels[rows]) / len(rows)
    return Clusters(labels, np.array(medoids), shares, np.array(distances))


def _together(maps: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean of a step's usable heads [T, rows, cols], with sum 1, and where there is one, [T]."""
    usable = usable_maps(maps)
    total = np.zeros((len(maps), *maps.shape[2:]))
    for head in range(maps.shape[1]):  # one at a time: all of them as float64 may not fit
        on = usable[:, head]
        weights = maps[on, head].astype(np.float64)
        total[on] += weights / weights.sum(axis=(1, 2), keepdims=True)
    known = np.asarray(usable.any(axis=1))
    return total / np.maximum(usable.sum(axis=1), 1)[:, None, None], known


def _features(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps [T, rows, cols] -> [T, rows * cols], whose Euclidean distances are Hellinger's, in [0, 1]."""
    down, across = (_gaussian(length, 1.0) for length in maps.shape[1:])
    # Each column with sum 1: what the blur would push over the edge stays.
    blurred = (down / down.sum(axis=0)) @ maps @ (across / across.sum(axis=0)).T
    return np.asarray(np.sqrt(blurred / 2).reshape(len(maps), -1))


def _group(features: NDArray[np.float64], clusters: int | None, seed: int) -> NDArray[np.int64]:
    """Labels of features [T, cells], from 0, [T]."""
    import_optional("sklearn", needs="clusters need scikit-learn", extra="explain")
    from sklearn import cluster, metrics

    rng = np.random.default_rng(seed)
    away = features - features.mean(axis=0)
    some = rng.permutation(len(away))[:SAMPLE]
    directions = np.linalg.svd(away[some], full_matrices=False)[2][:DIRECTIONS]
    points = away @ directions.T
    different = len(np.unique(points[some].round(6), axis=0))

    def k_means(points: NDArray[np.float64], count: int) -> Any:
        return cluster.KMeans(count, n_init=_STARTS, random_state=seed).fit(points)

    if clusters is not None:
        model = k_means(points[some], min(clusters, different))
        return np.asarray(model.predict(points), np.int64)

    clouds = [rng.normal(size=(len(some), points.shape[1])) * points[some].std(axis=0) for _ in range(CLOUDS)]

    @cache
    def of_clouds(count: int) -> float:
        return max(float(metrics.silhouette_score(cloud, k_means(cloud, count).labels_)) for cloud in clouds)

    best, most = np.zeros(len(points), np.int64), LEAST_GAIN
    for count in range(2, min(MOST, len(some) - 1, different) + 1):
        model = k_means(points[some], count)
        group = _joined(features[some], model.labels_)
        labels = group[model.labels_]
        if group.max() > 0:
            gain = metrics.silhouette_score(points[some], labels) - of_clouds(int(group.max()) + 1)
            if gain > most:
                best, most = group[model.predict(points)], gain
    return best


def _joined(features: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each label: those whose means are less than `APART` are one, the nearest joined first."""
    group = np.arange(labels.max() + 1)
    while True:
        group = np.unique(group, return_inverse=True)[1]
        of = group[labels]
        means = np.stack([features[of == one].mean(axis=0) for one in range(group.max() + 1)])
        apart = np.linalg.norm(means[:, None] - means, axis=2)
        np.fill_diagonal(apart, np.inf)
        if apart.min() >= APART:
            return group
        one, other = np.unravel_index(apart.argmin(), apart.shape)
        group[group == other] = one
