"""Objects: the choice of the target, its instruction, and the colours of the distractors."""

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_attn import tokenize
from robot_attn_envs.tasks.instructions import COLORS, HELD_OUT, MAX_TOKENS, SHAPES, TOKENS, tokens
from robot_attn_envs.tasks.objects import Objects, away_from_red, check_distractors, hsv_to_rgb

# Slots: a target, four distractors, two spare ones.
KINDS = ("sphere", "box", "cylinder", "capsule", "sphere", "box", "ellipsoid")


def make(num_worlds: int, **options: object) -> tuple[Objects, np.ndarray]:
    names = [f"g{i}" for i in range(len(KINDS))]
    geoms = "".join(
        f'<geom name="{name}" type="{kind}" size=".1 .1 .1"/>'
        for name, kind in zip(names, KINDS, strict=True)
    )
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>{geoms}</worldbody></mujoco>'
    )
    objects = Objects(num_worlds, names, KINDS, distractors=4, **options)  # type: ignore[arg-type]
    rgba = np.tile(model.geom_rgba.astype(np.float32), (num_worlds, 1, 1))
    objects.bind(model, rgba)
    return objects, rgba


def test_without_an_instruction_the_target_is_slot_0_and_no_distractor_has_its_hue() -> None:
    objects, rgba = make(2)
    before = rgba.copy()
    objects.sample(1, np.random.default_rng(0))
    assert objects.target.tolist() == [0, 0] and objects.target_geoms().tolist() == [1, 1]
    assert objects.words(1) == "" and not objects.tokens.any()
    assert objects.distractors(1).tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(rgba[0], before[0])  # the other world
    np.testing.assert_array_equal(rgba[1, :2], before[1, :2])  # floor and target
    red, green, blue = rgba[1, 2:6, :3].T
    assert (np.maximum(green, blue) > red * 0.7).all()


@pytest.mark.parametrize("instruction", [True, "held_out"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), added=st.integers(0, 3))
def test_the_instruction_names_exactly_one_object(instruction: bool | str, seed: int, added: int) -> None:
    objects, rgba = make(3, instruction=instruction)
    rng = np.random.default_rng(seed)
    objects.sample(1, rng)
    slots = objects.add(1, added, rng)
    assert slots.tolist() == [5, 6][:added]
    names = list(COLORS)
    pairs = [(names[objects.colors[1, i]], KINDS[i]) for i in np.flatnonzero(objects.present[1])]
    assert len(pairs) == 5 + min(added, 2)
    target = int(objects.target[1])
    named = pairs[target]
    assert pairs.count(named) == 1
    assert (named in HELD_OUT) == (instruction == "held_out")
    if instruction is True:
        assert not HELD_OUT & set(pairs)
    assert objects.words(1) == f"the {named[0]} {named[1]}"
    np.testing.assert_array_equal(objects.tokens[1], tokenize(objects.words(1)).numpy())
    # Every object is painted closest to the named colour that it has.
    for slot in np.flatnonzero(objects.present[1]):
        distance = [np.abs(rgba[1, 1 + slot, :3] - rgb).sum() for rgb in COLORS.values()]
        assert np.argmin(distance) == objects.colors[1, slot]
    assert target not in objects.distractors(1) and len(objects.distractors(1)) == len(pairs) - 1


@pytest.mark.parametrize("instruction", [True, "held_out"])
def test_every_allowed_pair_is_named_in_some_episode(instruction: bool | str) -> None:
    objects, _ = make(1, instruction=instruction)
    rng, named = np.random.default_rng(5), set()
    for _ in range(600):
        objects.sample(0, rng)
        named.add(objects.words(0))
    everything = {(color, shape) for color in COLORS for shape in SHAPES}
    allowed = HELD_OUT if instruction == "held_out" else everything - HELD_OUT
    assert named == {f"the {color} {shape}" for color, shape in allowed}


def test_tokens_are_those_of_the_perception_package() -> None:
    assert {word: int(tokenize(word)[0]) for word in TOKENS} == dict(TOKENS)
    assert {"the", *COLORS, *SHAPES} == set(TOKENS)
    row = tokens("the blue box")
    assert row.shape == (MAX_TOKENS,) and row.tolist() == tokenize("the blue box").tolist()


def test_training_shows_every_color_and_shape_of_the_held_out_pairs() -> None:
    assert {color for color, _ in HELD_OUT} == set(COLORS)
    for shape in SHAPES:
        assert sum((color, shape) not in HELD_OUT for color in COLORS) >= 3
    for color in COLORS:
        assert sum((color, shape) not in HELD_OUT for shape in SHAPES) >= 3


def test_hsv_by_hand() -> None:
    colors = [[0, 1, 1], [120, 1, 0.5], [240, 0.5, 0.8], [60, 1, 1], [300, 0, 0.3]]
    hue, saturation, value = np.array(colors, float).T
    expected = [[1, 0, 0], [0, 0.5, 0], [0.4, 0.4, 0.8], [1, 1, 0], [0.3, 0.3, 0.3]]
    np.testing.assert_allclose(hsv_to_rgb(hue, saturation, value), expected, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_colors_away_from_red(seed: int) -> None:
    red, green, blue = away_from_red(np.random.default_rng(seed), 23).T
    assert (np.maximum(green, blue) > red * 0.7).all()
    assert ((red >= 0) & (red <= 1) & (green <= 1) & (blue <= 1)).all()


def test_invalid_options_raise() -> None:
    with pytest.raises(ValueError, match="True, False or \"held_out\", got 'maybe'"):
        make(1, instruction="maybe")
    with pytest.raises(ValueError, match=r"can name, got \['ellipsoid'\]: add distractors"):
        Objects(1, ["a"], ["ellipsoid"], distractors=0, instruction=True)
    for wrong in (-1, 33, 2.0):
        with pytest.raises(ValueError, match="from 0 to 32"):
            check_distractors(wrong)  # type: ignore[arg-type]
