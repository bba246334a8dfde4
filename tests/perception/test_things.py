"""Kinds of things, and the mass on each kind."""

from __future__ import annotations

import numpy as np
import pytest

from robot_attn.things import cannot_matter, sum_by_kind, thing_kinds

NAMES = ("backdrop", "target", "robot", "occluder", "distractor 1", "distractor 12", "goal")


def test_distractors_are_one_kind_and_all_else_is_its_own() -> None:
    assert thing_kinds(NAMES) == ("backdrop", "target", "robot", "occluder", "distractors", "goal")
    mass = np.array([[0.1, 0.2, 0.05, 0.15, 0.3, 0.1, 0.1], [1.0, 0, 0, 0, 0, 0, 0]])
    expected = [[0.1, 0.2, 0.05, 0.15, 0.4, 0.1], [1, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(sum_by_kind(mass, NAMES), expected, rtol=0, atol=1e-12)


def test_nothing_depends_on_backdrop_distractors_and_occluders() -> None:
    assert cannot_matter(NAMES).tolist() == [True, False, False, True, True, True, False]


def test_mass_needs_a_name_for_each_thing() -> None:
    with pytest.raises(ValueError, match=r"expected mass \[..., 7\], one for each name, got \[3, 2\]"):
        sum_by_kind(np.zeros((3, 2)), NAMES)
