import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_attn import AttentionGrid, AttentionMaps, focus, upsample_attention

SIZE = (5, 7)


def mask_of(*pixels: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((1, *SIZE), dtype=bool)
    for pixel in pixels:
        mask[(0, *pixel)] = True
    return mask


@st.composite
def maps_and_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Maps [T, K, H, W] that sum to 1, and masks [T, H, W] with at least one pixel each."""
    t, k, h, w = (draw(st.integers(1, top)) for top in (3, 3, 7, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maps = rng.random((t, k, h, w)) ** draw(st.sampled_from([1, 8])) + 1e-9
    masks = rng.random((t, h, w)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    masks[:, rng.integers(h), rng.integers(w)] = True
    return (maps / maps.sum(axis=(2, 3), keepdims=True)).astype(np.float32), masks


def test_mass_and_chance_by_hand() -> None:
    maps = np.zeros((1, 2, *SIZE))
    maps[0, 0, 1, 2], maps[0, 0, 1, 3], maps[0, 0, 4, 6] = 0.5, 0.125, 0.375
    maps[0, 1, 0, 0] = 1.0
    mask = mask_of((1, 2), (1, 3), (2, 2))
    assert focus.mass_on_target(maps, mask).tolist() == [[0.625, 0.0]]
    assert focus.chance(mask).tolist() == [3 / 35]


def test_upsample_is_the_torch_function_on_arrays() -> None:
    attention = np.random.default_rng(0).random((2, 3, 2, 3)).astype(np.float32)
    grid = AttentionGrid([1.0, 3.5], [0.5, 3.0, 5.5], SIZE)
    maps = AttentionMaps(attention, grid).upsampled()
    torched = upsample_attention(torch.from_numpy(attention), grid)
    assert maps.dtype == np.float32
    assert np.array_equal(maps, torched.numpy())


def test_a_perfect_map_scores_one_and_a_wrong_one_zero() -> None:
    mask = mask_of((2, 3), (2, 4), (3, 3))
    perfect = mask / mask.sum()
    wrong = ~mask / (~mask).sum()
    maps = np.stack([perfect, wrong], axis=1)
    assert focus.mass_on_target(maps, mask) == pytest.approx(np.array([[1.0, 0.0]]))
    assert focus.pointing_game(maps, mask).tolist() == [[1.0, 0.0]]


def test_the_pointing_game_averages_over_a_plateau() -> None:
    # A cell of 2 x 3 pixels has the maximum; the target covers two of its six.
    maps = np.full((1, 1, *SIZE), 0.01)
    maps[0, 0, 1:3, 2:5] = 0.1
    assert focus.pointing_game(maps, mask_of((1, 2), (2, 2), (4, 6))) == pytest.approx(2 / 6)


def test_pointing_game_tolerance_is_a_radius_in_pixels() -> None:
    maps = np.zeros((1, 1, *SIZE))
    maps[0, 0, 2, 3] = 1.0
    diagonal = mask_of((3, 4))  # at a distance of 1.41
    assert [focus.pointing_game(maps, diagonal, radius).item() for radius in (0, 1, 2)] == [0.0, 0.0, 1.0]


def test_grow_makes_a_disc() -> None:
    grown = focus.grow(mask_of((2, 3)), 1)[0]
    assert grown.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    corner = focus.grow(mask_of((0, 0)), 99)[0]
    assert corner.all()  # larger than the frame, and no wrapping around
    with pytest.raises(ValueError, match="0 or more"):
        focus.grow(mask_of((0, 0)), -1)


@given(maps_and_masks())
def test_mass_and_pointing_stay_within_bounds(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = drawn
    for score in (focus.mass_on_target(maps, masks), focus.pointing_game(maps, masks)):
        assert score.shape == maps.shape[:2]
        assert (score >= 0).all()
        assert (score <= 1).all()
    # The mass on the target and beside it sum to that of the map.
    beside = focus.mass_on_target(maps, ~masks)
    assert focus.mass_on_target(maps, masks) + beside == pytest.approx(np.ones(maps.shape[:2]), abs=1e-5)


@given(maps_and_masks(), st.integers(0, 3))
def test_a_larger_target_is_never_harder_to_point_at(
    drawn: tuple[np.ndarray, np.ndarray], tolerance: int
) -> None:
    maps, masks = drawn
    nearer = focus.pointing_game(maps, masks, tolerance)
    assert (focus.pointing_game(maps, masks, tolerance + 1) >= nearer).all()


@given(maps_and_masks())
def test_the_uniform_map_scores_chance(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    _, masks = drawn
    uniform = np.broadcast_to(focus.uniform_map(masks.shape[1:]), (len(masks), 1, *masks.shape[1:]))
    meter = focus.FocusMeter(1, 1)
    meter.add(np.zeros(len(masks), dtype=int), uniform, masks)
    totals = meter.totals()
    assert totals.mass_over_chance(0).value == pytest.approx(1.0)
    assert totals.pointing(0).value == pytest.approx(totals.mean_chance().value)


def test_center_bias_is_a_round_gaussian() -> None:
    center = focus.center_bias_map((13, 17))
    assert center.sum() == pytest.approx(1.0)
    assert np.unravel_index(center.argmax(), center.shape) == (6, 8)
    sigma = 13 / 4
    assert center[6, 8 + 5] / center[6, 8] == pytest.approx(np.exp(-(5**2) / (2 * sigma**2)))
    assert center[6 + 3, 8 - 4] == pytest.approx(center[6, 8 + 5])  # round: both at a distance of 5
    assert np.array_equal(center, center[::-1, ::-1])


def test_the_prior_map_is_the_mean_mask() -> None:
    prior = focus.PriorMap(SIZE)
    assert np.array_equal(prior.map(), focus.uniform_map(SIZE))  # no target was visible yet
    prior.add(np.concatenate([mask_of((1, 1), (1, 2)), mask_of((1, 1)), mask_of()]))
    assert prior.map()[1, 1] == pytest.approx(2 / 3)
    assert prior.map()[1, 2] == pytest.approx(1 / 3)
    assert prior.map().sum() == pytest.approx(1.0)


def test_ratios_are_ratios_of_means_over_visible_frames() -> None:
    maps = np.zeros((3, 1, *SIZE))
    maps[:, 0, 1, 1], maps[:, 0, 0, 0] = 0.5, 0.5
    masks = np.concatenate([mask_of((1, 1), (1, 2), (1, 3)), mask_of((4, 6)), mask_of()])
    meter = focus.FocusMeter(episodes=2, maps=1)
    meter.add(np.array([0, 1, 1]), maps, masks)
    totals = meter.totals()
    assert totals.visible.tolist() == [1, 1]
    assert totals.hidden.tolist() == [0, 1]
    assert totals.mean_mass(0).value == pytest.approx(0.25)
    assert totals.mean_chance().value == pytest.approx((3 / 35 + 1 / 35) / 2)
    # The ratio of the means; the mean of the two ratios would be (0.5 / (3 / 35) + 0) / 2.
    assert totals.mass_over_chance(0).value == pytest.approx(0.25 / (2 / 35))


def test_the_meter_is_independent_of_the_batches() -> None:
    rng = np.random.default_rng(3)
    maps = rng.random((11, 2, *SIZE))
    masks = rng.random((11, *SIZE)) < 0.2
    masks[4] = False
    episode = rng.integers(3, size=11)
    whole, parts = focus.FocusMeter(3, 2), focus.FocusMeter(3, 2)
    whole.add(episode, maps / maps.sum(axis=(2, 3), keepdims=True), masks)
    for t in range(11):
        part = slice(t, t + 1)
        parts.add(episode[part], maps[part] / maps[part].sum(axis=(2, 3), keepdims=True), masks[part])
    assert whole.totals().hidden.sum() == 1
    for name in ("mass", "hits", "chance", "visible", "hidden"):
        assert getattr(whole.totals(), name) == pytest.approx(getattr(parts.totals(), name))


def test_nothing_visible_gives_nan_and_no_warning() -> None:
    meter = focus.FocusMeter(1, 1)
    meter.add(np.array([0]), np.full((1, 1, *SIZE), 1 / 35), mask_of())
    assert np.isnan(meter.totals().mass_over_chance(0).value)
    assert np.isnan(meter.totals().pointing(0).value)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.zeros((1, 1, 5, 7)), np.zeros((1, 5, 7)), "bool"),
        (np.zeros((1, 1, 5, 7)), np.zeros((1, 7, 5), dtype=bool), "same frames"),
        (np.zeros((1, 5, 7)), np.zeros((1, 5, 7), dtype=bool), "same frames"),
    ],
)
def test_incompatible_arrays_are_refused(maps: np.ndarray, masks: np.ndarray, message: str) -> None:
    for function in (focus.mass_on_target, focus.pointing_game):
        with pytest.raises(ValueError, match=message):
            function(maps, masks)


def test_mass_by_label_equals_a_count_by_hand() -> None:
    maps = np.array([[[[0.5, 0.25, 0.0], [0.125, 0.0, 0.125]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]])
    labels = np.array([[[0, 1, 3], [1, 0, 3]]], np.uint8)
    expected = [[[0.5, 0.375, 0.0, 0.125], [0.0, 0.0, 0.0, 1.0]]]
    assert np.array_equal(focus.mass_by_label(maps, labels, 4), expected)
    with pytest.raises(ValueError, match="expected labels from 0 to 2, got 0 to 3"):
        focus.mass_by_label(maps, labels, 3)
    with pytest.raises(ValueError, match=r"expected maps .* and labels"):
        focus.mass_by_label(maps, labels[:, :1], 4)
