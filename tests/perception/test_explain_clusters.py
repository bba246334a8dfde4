"""Clusters of attention maps: planted clusters are found, and none in unstructured maps."""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_attn.explain import cluster_maps, stretches

pytest.importorskip("sklearn")

ROWS, COLS = 7, 11


def peaks(*places: tuple[float, float], width: float = 0.8) -> np.ndarray:
    """A map for each position (row, col), [T, rows, cols]."""
    at = np.array(places)
    row, col = np.arange(ROWS)[:, None], np.arange(COLS)
    away = (row - at[:, :1, None]) ** 2 + (col - at[:, 1:, None]) ** 2
    return np.exp(-away / (2 * width**2))


def planted(steps: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maps around three positions, active half, a third and a sixth of the time, and their labels."""
    rng = np.random.default_rng(seed)
    which = np.repeat([0, 1, 2], [steps // 2, steps // 3, steps // 6])
    at = np.array([[1.0, 1.0], [5.0, 5.0], [1.0, 9.0]])[which]
    return peaks(*(at + rng.normal(0, 0.2, at.shape))), which


def test_planted_clusters_are_found_largest_first() -> None:
    maps, which = planted()
    order = np.random.default_rng(1).permutation(60)
    found = cluster_maps(maps[order])
    assert np.array_equal(found.labels, which[order])
    assert found.shares == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert len(found) == 3
    assert np.array_equal(found.labels[found.medoids], [0, 1, 2])
    assert (found.distances < 0.15).all()  # 0.2 cells away down and across: 0.1 or so


def test_stretches_show_when_a_cluster_is_active() -> None:
    maps, _ = planted()
    found = cluster_maps(maps)
    assert [tuple(part) for part in stretches(found.labels)] == [(0, 30), (30, 50), (50, 60)]


def test_a_medoid_is_nearest_to_the_other_members() -> None:
    # Five maps about one place: four around the fifth.
    maps = peaks((3, 4.4), (3, 5.6), (3, 5), (2.4, 5), (3.6, 5))
    found = cluster_maps(maps, clusters=1)
    assert found.medoids.tolist() == [2]
    # Hellinger between Gaussians of one variance, sqrt(1 - exp(-d^2 / 8 sigma^2)); the blur of one cell
    # adds 1 to that variance. Of the five, four are 0.6 cells away.
    assert found.distances[0] == pytest.approx(0.8 * np.sqrt(1 - np.exp(-(0.6**2) / (8 * 1.64))), rel=0.05)


def test_unstructured_maps_give_one_cluster() -> None:
    rng = np.random.default_rng(0)
    trembling = peaks(*(np.array([3, 5]) + rng.normal(0, 0.3, (80, 2))))
    # An isotropic cloud around one map: k-means alone would find six clusters.
    y, x = np.cos(np.pi * np.arange(ROWS) / ROWS)[:, None], np.cos(np.pi * np.arange(COLS) / COLS)
    shapes = np.stack([y + 0 * x, x + 0 * y, y * x])
    cloud = np.exp(0.5 * np.tensordot(rng.normal(size=(80, 3)), shapes, 1))
    uniform = np.full((80, ROWS, COLS), 1 / (ROWS * COLS), np.float32)
    for maps in (
        trembling,
        cloud,
        uniform,
        uniform + rng.uniform(0, 1e-6, uniform.shape),
        rng.random((80, ROWS, COLS)),
        np.repeat(peaks((2, 2)), 80, axis=0),
    ):
        found = cluster_maps(maps)
        assert found.labels.tolist() == [0] * 80
        assert found.shares.tolist() == [1.0]


def test_nearly_equal_clusters_are_merged() -> None:
    near, far = peaks((3, 5), (3, 5.3)), peaks((3, 5), (3, 7))
    assert cluster_maps(np.repeat(near, 30, axis=0)).labels.max() == 0
    assert cluster_maps(np.repeat(far, 30, axis=0)).labels.tolist() == [0] * 30 + [1] * 30
    # With two requested, there are two.
    assert cluster_maps(np.repeat(near, 30, axis=0), clusters=2).labels.tolist() == [0] * 30 + [1] * 30


def test_a_moving_peak_is_split_into_contiguous_clusters() -> None:
    maps = peaks(*((3, x) for x in np.linspace(1, 9, 90)))
    labels = cluster_maps(maps).labels
    assert labels.max() >= 1
    assert len(stretches(labels)) == labels.max() + 1  # each is one contiguous part


def test_heads_are_averaged_and_one_without_a_map_is_ignored() -> None:
    maps, which = planted()
    still = np.repeat(peaks((5, 2)), 60, axis=0)
    heads = np.stack([maps * 7.0, still], axis=1)  # each is scaled to sum 1
    assert np.array_equal(cluster_maps(heads).labels, which)
    heads[:, 1] = np.nan
    alone = cluster_maps(heads)
    assert np.array_equal(alone.labels, cluster_maps(maps).labels)
    assert alone.distances == pytest.approx(cluster_maps(maps).distances)


def test_unusable_maps_are_ignored() -> None:
    maps, which = planted()
    bad = np.array([0, 3, 31, 59])
    maps[bad[0]], maps[bad[1], 2, 2], maps[bad[2], 1, 1], maps[bad[3], 0, 0] = 0, np.nan, -1, np.inf
    found = cluster_maps(maps)
    which[bad] = -1
    assert np.array_equal(found.labels, which)
    assert found.shares == pytest.approx([28 / 56, 19 / 56, 9 / 56])
    assert not set(found.medoids) & set(bad)
    for none in (np.zeros((5, ROWS, COLS)), np.zeros((0, ROWS, COLS))):
        found = cluster_maps(none, clusters=2)
        assert found.labels.tolist() == [-1] * len(none)
        assert len(found) == len(found.shares) == 0


@pytest.mark.parametrize("clusters", [None, 1, 3, 9])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_give_few_clusters(steps: int, clusters: int | None) -> None:
    found = cluster_maps(peaks((1, 1), (5, 5), (1, 9))[:steps], clusters=clusters)
    assert len(found) == (min(steps, clusters) if clusters else 1)
    assert (found.labels >= 0).all()
    assert cluster_maps(np.repeat(peaks((1, 1)), steps, axis=0), clusters=clusters).shares.tolist() == [1.0]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([None, 2, 5]))
def test_labels_medoids_and_shares_are_consistent(seed: int, steps: int, clusters: int | None) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((steps, 2, 3, 4)) ** rng.choice([1, 30])
    maps[rng.random(steps) < 0.2] = 0
    found = cluster_maps(maps, clusters=clusters)
    again = cluster_maps(maps, clusters=clusters)
    assert np.array_equal(found.labels, again.labels)
    assert np.array_equal(found.labels == -1, (maps == 0).all(axis=(1, 2, 3)))
    used = np.bincount(found.labels[found.labels >= 0], minlength=len(found))
    assert (used > 0).all()
    assert np.array_equal(used, np.sort(used)[::-1])
    assert found.labels[found.medoids].tolist() == list(range(len(found)))
    assert found.shares.sum() == pytest.approx(float(len(found) > 0))
    assert ((found.distances >= 0) & (found.distances <= 1)).all()


def test_invalid_input_is_refused(monkeypatch: Any) -> None:
    for shape in ((4, 5), (2, 0, 3), (2, 2, 2, 2, 2)):
        with pytest.raises(ValueError, match=r"expected maps \[T, rows, cols\] or"):
            cluster_maps(np.ones(shape))
    with pytest.raises(ValueError, match="one cluster or more, got 0"):
        cluster_maps(np.ones((3, 2, 2)), clusters=0)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "robot-attn\[explain\]"'):
        cluster_maps(peaks((1, 1), (5, 5)), clusters=2)
