"""Colours in words."""

import colorsys

import numpy as np
import pytest

from robot_attn.color_names import COLOR_NAMES, color_indices, color_name, main_color
from robot_attn.vocabulary import WORDS
from robot_attn_envs.tasks.instructions import COLORS


def test_names_are_words_of_the_vocabulary() -> None:
    assert set(COLOR_NAMES) <= set(WORDS)


@pytest.mark.parametrize("name", COLORS)
def test_the_colors_of_the_tasks_have_their_names(name: str) -> None:
    assert color_name(COLORS[name]) == name


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((250, 140, 20), "orange"),
        ((110, 60, 20), "brown"),
        ((250, 150, 160), "pink"),
        ((255, 0, 200), "magenta"),
        ((20, 20, 25), "black"),
        ((250, 250, 245), "white"),
        ((120, 125, 120), "grey"),
        ((0, 0, 0), "black"),
    ],
)
def test_one_color(rgb: tuple[int, int, int], name: str) -> None:
    assert color_name(np.array(rgb, np.uint8)) == name


def test_the_hue_is_that_of_the_standard_library() -> None:
    """Saturated colours all around the circle: the name changes where the hue is between two names."""
    hues = np.arange(0, 360, 2.0)
    rgb = np.array([colorsys.hsv_to_rgb(hue / 360, 1.0, 1.0) for hue in hues])
    found = [COLOR_NAMES[index] for index in color_indices(rgb)]
    assert list(dict.fromkeys(found)) == list(COLOR_NAMES[:8])
    assert found[-1] == "red"
    assert found[hues.tolist().index(120)] == "green"
    assert found[hues.tolist().index(240)] == "blue"


def test_the_main_color_is_that_of_most_weight() -> None:
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[:, :4] = 20, 200, 20
    pixels[:, 4] = 220, 10, 10
    weights = np.ones((3, 5))
    assert main_color(pixels, weights) == "green"
    weights[:, 4] = 10.0
    assert main_color(pixels, weights) == "red"


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.array([0.0, 0.5, 1.5]), np.array([0.0, np.nan, 1.0])])
def test_what_is_no_color_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected RGB"):
        color_indices(bad)
