"""Sinks: found where they were planted, and not where a head follows its target."""

from __future__ import annotations

import numpy as np
import pytest

from robot_attn.explain import describe_sinks, find_sinks, without_sinks
from robot_attn.maps import AttentionGrid, AttentionMaps

GRID = AttentionGrid.even((6, 7), (48, 56))  # cells of 8 pixels
FRAMES = 60


def following(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps [B, 6, 7] on the cells (row, col), and masks of a target of 4 x 4 pixels in them."""
    maps, masks = np.zeros((len(places), 6, 7)), np.zeros((len(places), 48, 56), np.bool_)
    for frame, (row, col) in enumerate(places):
        maps[frame, row, col] = 1.0
        masks[frame, 8 * row + 2 : 8 * row + 6, 8 * col + 2 : 8 * col + 6] = True
    return maps, masks


def wandering() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return following(np.stack([rng.integers(6, size=FRAMES), rng.integers(7, size=FRAMES)], axis=1))


def test_a_sink_is_found_and_named_and_taken_out() -> None:
    honest, masks = wandering()
    corner, edge = np.zeros_like(honest), np.zeros_like(honest)
    corner[:, 0, 0] = edge[:, 3, 6] = 1.0
    heads = np.stack([honest, 0.4 * honest + 0.6 * corner, corner, 0.7 * honest + 0.3 * edge], axis=1)
    sinks = find_sinks(AttentionMaps(heads, GRID), masks)
    assert np.argwhere(sinks).tolist() == [[1, 0, 0], [2, 0, 0], [3, 3, 6]]
    assert describe_sinks(sinks, GRID) == (
        "heads 1 and 2 have a sink in the top left corner",
        "head 3 has a sink at the right",
    )
    rest = without_sinks(heads, sinks)
    np.testing.assert_allclose(rest.sum(axis=(2, 3)), 1.0)
    elsewhere = honest[:, 0, 0] == 0
    np.testing.assert_allclose(rest[elsewhere, 1], honest[elsewhere])
    np.testing.assert_allclose(rest[:, 2], 1 / 42)  # nothing is left: it says nothing


def test_a_head_that_follows_its_target_has_no_sink_even_if_the_target_stays() -> None:
    for maps, masks in (wandering(), following(np.full((FRAMES, 2), 3))):
        assert not find_sinks(AttentionMaps(maps[:, None], GRID), masks).any()


@pytest.mark.parametrize(("share", "found"), [(0.2, False), (0.3, True)])
def test_a_sink_holds_a_quarter_of_the_mass(share: float, found: bool) -> None:
    honest, masks = wandering()
    corner = np.zeros_like(honest)
    corner[:, 5, 3] = 1.0
    maps = AttentionMaps(((1 - share) * honest + share * corner)[:, None], GRID)
    assert find_sinks(maps, masks).any() == found


def test_uniform_maps_of_few_cells_have_no_sink() -> None:
    grid = AttentionGrid.even((2, 2), (8, 8))
    masks = np.zeros((FRAMES, 8, 8), np.bool_)
    assert not find_sinks(AttentionMaps(np.full((FRAMES, 1, 2, 2), 0.25), grid), masks).any()
