"""Clusters of attention maps: the typical maps of one or many episodes, each shown by a representative frame.

- *Distance.* The mean over a step's heads, blurred by one cell so that peaks in neighbouring cells are close;
  then the Hellinger distance, the Euclidean distance between square roots. It treats maps as the
  distributions that they are, and no single sharp peak dominates it.
- *Dimensionality reduction.* Clusters are fitted in the first few principal components: over all cells the
  distances are mostly noise.
- *Merging.* Clusters found by k-means are merged where their mean maps are visually indistinguishable.
- *Number of clusters.* k-means always finds as many clusters as requested. A clustering is scored by the
  excess of its silhouette over that of reference samples without structure, Gaussian with the standard
  deviations of the data (the idea of the gap statistic, Tibshirani, Walther & Hastie 2001). Where no
  clustering exceeds the reference, there is one cluster.

Continuous motion is divided as well: a peak that moves from left to right gives a left, a middle and a right
cluster, each covering one part of the path.
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

MAX_CLUSTERS = 6
"""Largest number of clusters when the number is chosen automatically."""
NUM_COMPONENTS = 4
"""Number of principal components in which clusters are fitted."""
MIN_CLUSTER_DISTANCE = 0.15
"""Smallest Hellinger distance between the mean maps of two clusters when the number is chosen automatically.
For scale: a sharp peak that moves by half a cell is at a distance of 0.17, by a whole cell 0.34.
"""
MIN_SILHOUETTE_GAIN = 0.05
"""Smallest excess of the silhouette over that of the reference samples."""
NUM_REFERENCES = 5
"""Number of reference samples without structure; the highest silhouette among them counts."""
MAX_FITTED_MAPS = 600
"""Largest number of maps to fit clusters to; the remaining maps are assigned to the nearest cluster."""
_KMEANS_RESTARTS = 4


@dataclass(frozen=True)
class Clusters:
    """T maps in K clusters, the largest first, ties by first occurrence; K is 0 if no map was usable."""

    labels: NDArray[np.int64]
    """[T] cluster of each map; -1 for unusable maps, which are ignored."""
    medoids: NDArray[np.int64]
    """[K] index of the map that represents each cluster, the one nearest to the other members (squared)."""
    shares: NDArray[np.float64]
    """[K] fraction of the usable maps in each cluster, in (0, 1]."""
    distances: NDArray[np.float64]
    """[K] mean Hellinger distance of the members from their medoid, in [0, 1]. Above about 0.5 the medoid
    represents maps that have little in common.
    """

    def __len__(self) -> int:
        return len(self.medoids)


def cluster_maps(maps: NDArray[np.floating], *, clusters: int | None = None, seed: int = 0) -> Clusters:
    """Cluster attention maps of one or many episodes.

    `stretches(result.labels, episode)` gives the intervals in which each cluster is active.

    Args:
        maps: float [T, rows, cols] or [T, heads, rows, cols], non-negative. Heads whose map is all zero or
            not finite are ignored in that step, and so are steps without a usable head.
        clusters: number of clusters, fewer if there are fewer distinct maps. None to choose 1 to
            `MAX_CLUSTERS` by silhouette.
        seed: random seed of k-means and the reference samples.

    Returns:
        The label of each map, and for each cluster its medoid, share and mean distance.

    Raises:
        ValueError: another shape, or fewer than one cluster.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    if maps.ndim not in (3, 4) or 0 in maps.shape[1:]:
        raise ValueError(f"expected maps [T, rows, cols] or [T, heads, rows, cols], got {list(maps.shape)}")
    if clusters is not None and clusters < 1:
        raise ValueError(f"expected one cluster or more, got {clusters}: pass None to choose the number")
    combined, usable = _mean_over_heads(maps if maps.ndim == 4 else maps[:, None])
    rows = np.flatnonzero(usable)
    labels = np.full(len(maps), -1)
    if len(rows) == 0:
        return Clusters(labels, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    features = _features(combined[rows])
    _, first, found, size = np.unique(
        _group(features, clusters, seed), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -size))
    labels[rows] = np.argsort(order)[found]
    medoids, distances = [], []
    for label in range(len(order)):
        members = np.flatnonzero(labels[rows] == label)
        own = features[members]
        # The member nearest to the mean has the smallest sum of squared distances to the others.
        medoid = int(((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin())
        medoids.append(int(rows[members[medoid]]))
        distances.append(float(np.linalg.norm(own - own[medoid], axis=1).mean()))
    shares = np.bincount(labels[rows]) / len(rows)
    return Clusters(labels, np.array(medoids), shares, np.array(distances))


def _mean_over_heads(maps: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Average the usable heads of each step: maps [T, rows, cols] of sum 1, and whether there is one, [T]."""
    usable = usable_maps(maps)
    total = np.zeros((len(maps), *maps.shape[2:]))
    for head in range(maps.shape[1]):  # one at a time: all of them as float64 may not fit into memory
        on = usable[:, head]
        weights = maps[on, head].astype(np.float64)
        total[on] += weights / weights.sum(axis=(1, 2), keepdims=True)
    any_usable = np.asarray(usable.any(axis=1))
    return total / np.maximum(usable.sum(axis=1), 1)[:, None, None], any_usable


def _features(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map [T, rows, cols] to vectors [T, rows * cols] whose Euclidean distance is Hellinger's, in [0, 1]."""
    down, across = (_gaussian(length, 1.0) for length in maps.shape[1:])
    # Columns of sum 1: the blur keeps the mass at the border inside the frame.
    blurred = (down / down.sum(axis=0)) @ maps @ (across / across.sum(axis=0)).T
    return np.asarray(np.sqrt(blurred / 2).reshape(len(maps), -1))


def _group(features: NDArray[np.float64], clusters: int | None, seed: int) -> NDArray[np.int64]:
    """Cluster features [T, cells]: labels from 0, [T]."""
    import_optional("sklearn", needs="clustering needs scikit-learn", extra="explain")
    from sklearn import cluster, metrics

    rng = np.random.default_rng(seed)
    centred = features - features.mean(axis=0)
    fitted = rng.permutation(len(centred))[:MAX_FITTED_MAPS]
    components = np.linalg.svd(centred[fitted], full_matrices=False)[2][:NUM_COMPONENTS]
    points = centred @ components.T
    distinct = len(np.unique(points[fitted].round(6), axis=0))

    def k_means(points: NDArray[np.float64], count: int) -> Any:
        return cluster.KMeans(count, n_init=_KMEANS_RESTARTS, random_state=seed).fit(points)

    if clusters is not None:
        model = k_means(points[fitted], min(clusters, distinct))
        return np.asarray(model.predict(points), np.int64)

    references = [
        rng.normal(size=(len(fitted), points.shape[1])) * points[fitted].std(axis=0)
        for _ in range(NUM_REFERENCES)
    ]

    @cache
    def reference_silhouette(count: int) -> float:
        return max(float(metrics.silhouette_score(each, k_means(each, count).labels_)) for each in references)

    best, best_gain = np.zeros(len(points), np.int64), MIN_SILHOUETTE_GAIN
    for count in range(2, min(MAX_CLUSTERS, len(fitted) - 1, distinct) + 1):
        model = k_means(points[fitted], count)
        group = _merged(features[fitted], model.labels_)
        labels = group[model.labels_]
        if group.max() > 0:
            gain = metrics.silhouette_score(points[fitted], labels) - reference_silhouette(
                int(group.max()) + 1
            )
            if gain > best_gain:
                best, best_gain = group[model.predict(points)], gain
    return best


def _merged(features: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge clusters whose means are closer than `MIN_CLUSTER_DISTANCE`, nearest first: label -> group."""
    group = np.arange(labels.max() + 1)
    while True:
        group = np.unique(group, return_inverse=True)[1]
        assigned = group[labels]
        means = np.stack([features[assigned == one].mean(axis=0) for one in range(group.max() + 1)])
        distances = np.linalg.norm(means[:, None] - means, axis=2)
        np.fill_diagonal(distances, np.inf)
        if distances.min() >= MIN_CLUSTER_DISTANCE:
            return group
        one, other = np.unravel_index(distances.argmin(), distances.shape)
        group[group == other] = one
