"""Pixel selection, ablation and the columns of each head, worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import robot_attn
from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import (
    ablate_pixels,
    action_change,
    action_curves,
    centred_places,
    discs,
    random_places,
    spread,
    top_pixels,
)

H, W = 32, 48
GRID = AttentionGrid(2 + 4 * np.arange(8.0) - 0.5, 2 + 4 * np.arange(12.0) - 0.5, (H, W))
PIXELS = AttentionGrid(np.arange(H), np.arange(W), (H, W))


def one_cell(row: int, col: int) -> np.ndarray:
    attention = np.zeros((1, 1, 8, 12), np.float32)
    attention[0, 0, row, col] = 1.0
    return attention


def test_a_map_is_blurred_by_one_cell() -> None:
    blurred = spread(AttentionMaps(one_cell(4, 6), GRID))[0]
    assert blurred.sum() == pytest.approx(1.0)
    # The cell's box is rows 16 to 19; the blur's sigma is 4 pixels, one cell; edges lose nothing.
    near = lambda rows, y: np.exp(-((rows - y) ** 2) / 32).sum()  # noqa: E731
    along = lambda y: near(np.arange(16, 20), y) / near(np.arange(H), y)  # noqa: E731
    assert blurred[24, 25] / blurred[17, 25] == pytest.approx(along(24) / along(17))
    assert np.allclose(blurred[:, 24:28], blurred[:, 27:23:-1])
    assert top_pixels(blurred[None], 16 / (H * W), np.random.default_rng(0))[0, 16:20, 24:28].all()


def test_a_fine_grid_is_blurred_by_a_sixteenth_of_the_frame() -> None:
    attention = np.zeros((1, 1, H, W), np.float32)
    attention[0, 0, 10, 20] = 1.0
    blurred = spread(AttentionMaps(attention, PIXELS))[0]
    assert blurred[12, 20] / blurred[10, 20] == pytest.approx(math.exp(-(2**2) / (2 * 2**2)))


def test_heads_count_by_their_weights() -> None:
    heads = AttentionMaps(np.concatenate([one_cell(2, 2), one_cell(5, 9)], axis=1), GRID)
    first, second = spread(heads[:, :1]), spread(heads[:, 1:])
    # Divided by what the blur leaves at the edges, a map near one loses nothing: 3 to 1 up to that.
    mixed = spread(heads, [3, 1])
    ratio = mixed[0, 9, 9] / first[0, 9, 9] / (mixed[0, 21, 37] / second[0, 21, 37])
    assert ratio == pytest.approx(3.0, rel=0.05)
    assert spread(heads, [0, 2]) == pytest.approx(second)
    for weights in ([1], [1, -1], [0, 0], [1, np.nan]):
        with pytest.raises(ValueError, match="weight of at least 0 for each of 2"):
            spread(heads, weights)


def test_a_zero_map_becomes_uniform_and_an_invalid_one_is_refused() -> None:
    flat = np.full((1, 1, H, W), 1 / (H * W))
    # Patches of 8 x 8 pixels, 4 apart: the outermost of them are nearest to 6 pixels, the others to 4.
    patches = np.full((1, 1, 7, 11), 1 / 77)
    for attention, grid in (
        (flat, PIXELS),
        (patches, AttentionGrid(3.5 + 4 * np.arange(7), 3.5 + 4 * np.arange(11), (H, W))),
        (0 * one_cell(0, 0), GRID),
    ):
        assert spread(AttentionMaps(attention, grid)) == pytest.approx(np.full((1, H, W), 1 / (H * W)))
    for bad in (np.nan, np.inf, -0.1):
        broken = one_cell(3, 3)
        broken[0, 0, 1, 1] = bad
        with pytest.raises(ValueError, match="expected finite, non-negative attention"):
            spread(AttentionMaps(broken, GRID))


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_every_selection_has_the_same_number_of_pixels(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((3, H, W)) ** 20
    count = round(share * H * W)
    top = top_pixels(maps, share, rng)
    assert top.sum(axis=(1, 2)).tolist() == [count] * 3
    if 0 < count < H * W:
        assert all(m[t].min() >= m[~t].max() - 1e-6 * m.max() for m, t in zip(maps, top, strict=True))
    for places in (random_places, centred_places):
        centers = places(3, (H, W), rng)
        assert discs(centers, (H, W), share).sum(axis=(1, 2)).tolist() == [count] * 3


def test_ties_are_broken_at_random() -> None:
    flat = np.full((1, H, W), 1 / (H * W))
    flat[0] *= 1 + 1e-9 * np.arange(W)  # rounding must not choose the right-hand side
    top = top_pixels(flat, 0.5, np.random.default_rng(0))[0]
    assert abs(top[:, : W // 2].mean() - 0.5) < 0.06


def test_a_disc_is_round_and_grows_at_the_edge() -> None:
    disc = discs(np.array([[10.0, 20.0], [0.0, 0.0]]), (H, W), 13 / (H * W))
    y, x = np.mgrid[:H, :W]
    assert np.array_equal(disc[0], (y - 10) ** 2 + (x - 20) ** 2 <= 4)  # 13 pixels within a radius of 2
    assert disc[1].sum() == 13
    assert disc[1][:3, :3].all()
    with pytest.raises(ValueError, match=r"between 0 and 1.*1\.5"):
        discs(np.zeros((1, 2)), (H, W), 1.5)


def test_positions_follow_their_distributions() -> None:
    rng = np.random.default_rng(0)
    anywhere, centred = (draw(20_000, (H, W), rng) for draw in (random_places, centred_places))
    middle = np.array([(H - 1) / 2, (W - 1) / 2])
    for places in (anywhere, centred):
        assert ((places >= -0.5) & (places <= np.array([H, W]) - 0.5)).all()
        assert places.mean(axis=0) == pytest.approx(middle, abs=0.5)
    assert anywhere.std(axis=0) == pytest.approx(np.array([H, W]) / math.sqrt(12), rel=0.03)
    # A Gaussian of sigma 8, cut at 2 sigma down (which leaves 0.880 of its deviation) and 3 across (0.987).
    assert centred.std(axis=0) == pytest.approx([0.880 * 8, 0.987 * 8], rel=0.02)


def test_ablated_pixels_get_the_weighted_mean_of_the_remaining_ones() -> None:
    frame = np.array([[0, 77, 30, 90]], np.uint8)[None, ..., None].repeat(16, axis=1)
    mask = np.zeros((1, 16, 4), bool)
    mask[:, :, 1] = True
    # The shorter side is 4 pixels, so sigma is 0.75: pixels 1, 1 and 2 away.
    near, far = math.exp(-1 / (2 * 0.75**2)), math.exp(-4 / (2 * 0.75**2))
    expected = round((near * (0 + 30) + far * 90) / (2 * near + far))
    filled = ablate_pixels(frame, mask)
    assert filled.dtype == np.uint8
    assert filled[0, :, 1, 0].tolist() == [expected] * 16
    assert np.array_equal(filled[:, :, [0, 2, 3]], frame[:, :, [0, 2, 3]])


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.9]))
def test_ablation_removes_all_information_of_the_pixels(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, H, W, 3), dtype=np.uint8)
    masks = discs(random_places(2, (H, W), rng), (H, W), share)
    others = np.where(masks[..., None], rng.integers(0, 256, frames.shape, dtype=np.uint8), frames)
    filled = ablate_pixels(frames, masks)
    assert np.array_equal(filled, ablate_pixels(others, masks))
    assert np.array_equal(filled[~masks], frames[~masks])


def test_constant_frames_are_unchanged_and_fully_ablated_frames_become_their_mean() -> None:
    frames = np.full((1, H, W, 3), (10, 200, 90), np.uint8)
    whole = np.ones((1, H, W), bool)
    assert np.array_equal(ablate_pixels(frames, discs(np.array([[5.0, 5.0]]), (H, W), 0.95)), frames)
    assert np.array_equal(ablate_pixels(frames, whole), frames)
    mixed = np.linspace(0, 1, H * W * 3, dtype=np.float32).reshape(1, H, W, 3)
    assert ablate_pixels(mixed, whole)[0, 3, 3] == pytest.approx(mixed.mean(axis=(0, 1, 2)), abs=1e-6)
    for masks in (whole[:, 1:], whole.astype(int)):
        with pytest.raises(ValueError, match="bool masks"):
            ablate_pixels(frames, masks)


def test_action_change_is_a_distance_or_a_different_choice() -> None:
    assert action_change(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 1.0]])).tolist() == [
        5,
        0,
    ]
    assert action_change(np.array([1, 2, 3]), np.array([1, 3, 5])).tolist() == [0, 1, 1]


def bright_place(frames: np.ndarray) -> np.ndarray:
    """A policy whose action depends on the red pixels."""
    red = np.clip(frames[..., 0].astype(float) - 128, 0, None)
    y, x = np.mgrid[:H, :W]
    total = red.sum(axis=(1, 2)) + 1e-6
    return np.stack([(red * y).sum(axis=(1, 2)), (red * x).sum(axis=(1, 2))], axis=1) / total[:, None]


def spots(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    places = rng.uniform((4, 4), (H - 5, W - 5), (count, 2))
    masks = discs(places, (H, W), 0.01)
    frames = np.full((count, H, W, 3), 90, np.uint8)
    frames[masks] = (255, 0, 0)
    return frames, masks


def test_curves_separate_a_causal_map_from_an_irrelevant_one() -> None:
    frames, masks = spots(40)
    right = action_curves(bright_place, frames, masks.astype(float), shares=(0.02, 0.1))
    assert right.deleted["attended"].shape == (40, 2)
    assert right.deleted["attended"].mean(axis=0) == pytest.approx([1.0, 1.0], abs=1e-6)
    # What fills the rest of the frame is reddish, too: the place is off by a little.
    assert right.inserted["attended"].mean() < 0.1
    assert right.deleted["random"].mean() < 0.3
    wrong = action_curves(bright_place, frames, np.roll(masks, 1, axis=0).astype(float), shares=(0.01,))
    assert wrong.deleted["attended"].mean() < 0.3
    assert wrong.inserted["attended"].mean() > 0.7
    with pytest.raises(ValueError, match="got the same actions with all pixels ablated"):
        action_curves(lambda shown: np.zeros((len(shown), 2)), frames, masks.astype(float))


SEVERAL = ["query", "keypoints", "self", "local", "hierarchical", "slots", "instruction"]


@pytest.mark.parametrize("family", SEVERAL)
def test_with_all_heads_ablated_the_features_are_constant(family: str) -> None:
    torch.manual_seed(0)
    perception = robot_attn.build(family, image_shape=(3, 32, 32), context_dim=2)
    frames, context = torch.rand(6, 3, 32, 32), torch.rand(1, 2).expand(6, -1)
    heads = perception.head_inputs()
    assert len(heads.columns) == perception.num_heads
    with torch.no_grad(), heads.recorded() as inputs:
        usual = perception(frames, context).features
    mean = inputs[0].mean(dim=0)
    with torch.no_grad(), heads.ablated(range(perception.num_heads), mean):
        blind = perception(frames, context).features
        with_context = perception(frames, 1 - context).features
    assert torch.equal(blind, blind[:1].expand(6, -1))
    assert not torch.equal(blind, with_context)  # inputs that belong to no head still count
    with torch.no_grad(), heads.ablated([0], mean):
        without = perception(frames, context).features
    assert not torch.equal(without, usual)
    with torch.no_grad():
        assert torch.equal(perception(frames, context).features, usual)


@pytest.mark.parametrize(
    ("family", "weight"),
    [("query", "queries"), ("self", "queries"), ("keypoints", "maps"), ("hierarchical", "inner_queries")],
)
def test_columns_belong_to_their_head(family: str, weight: str) -> None:
    torch.manual_seed(0)
    perception = robot_attn.build(family, image_shape=(3, 32, 32))
    frames, heads = torch.rand(4, 3, 32, 32), perception.head_inputs()
    with torch.no_grad(), heads.recorded() as inputs:
        perception(frames)
        getattr(perception, weight).weight[2] *= -1
        perception(frames)
    changed = (inputs[0] != inputs[1]).any(dim=0).nonzero().flatten().tolist()
    assert set(changed) <= set(heads.columns[2])
    assert len(changed) > len(heads.columns[2]) / 2


@pytest.mark.parametrize(
    ("family", "why"), [("mask", "Mask with one"), ("cnn", "Cnn with one"), ("dynamic", "share a state")]
)
def test_heads_that_cannot_be_ablated_separately(family: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        robot_attn.build(family, image_shape=(3, 32, 32)).head_inputs()
