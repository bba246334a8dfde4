"""Grids and operations on attention maps: values computed by hand, and invariants."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_attn import AttentionGrid, AttentionMaps, upsample_attention
from robot_attn.maps import BATCH, usable_maps

# Rows part at edge 2.5 of 5, columns at 2 and 5 of 7.
GRID = AttentionGrid([0.5, 3.5], [0.5, 2.5, 6.0], (5, 7))


@st.composite
def maps_on_a_grid(draw: st.DrawFn, steps: int = 2, num_heads: int = 3) -> AttentionMaps:
    """Maps [steps, heads, rows, cols] with sum 1, on any grid."""
    size = draw(st.sampled_from([(5, 7), (11, 13), (37, 53), (64, 64)]))
    shape = tuple(draw(st.integers(1, min(side, 7))) for side in size)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    ys, xs = (
        np.sort(rng.choice(4 * side, cells, replace=False) / 4 - 0.5)
        for side, cells in zip(size, shape, strict=True)
    )
    weights = rng.dirichlet(np.full(shape[0] * shape[1], 0.3), (steps, num_heads))
    return AttentionMaps(weights.reshape(steps, num_heads, *shape), AttentionGrid(ys, xs, size))


# ---- The grid ----


def test_equal_grids_have_equal_hashes() -> None:
    same = AttentionGrid(np.array([0.5, 3.5]), torch.tensor([0.5, 2.5, 6.0]), (5, 7))
    assert same == GRID and hash(same) == hash(GRID) and {GRID: 1}[same] == 1
    for other in (
        AttentionGrid([0.5, 3.25], [0.5, 2.5, 6.0], (5, 7)),
        AttentionGrid([0.5, 3.5], [0.5, 2.5], (5, 7)),
        AttentionGrid([0.5, 3.5], [0.5, 2.5, 6.0], (5, 8)),
        (5, 7),
    ):
        assert other != GRID
    for again in (copy.deepcopy(GRID), pickle.loads(pickle.dumps(GRID))):
        assert again == GRID and again.shape == (2, 3)


def test_a_grid_copies_its_centres() -> None:
    centers = np.array([0.5, 3.5], dtype=np.float32)
    grid = AttentionGrid(centers, [0.5], (5, 7))
    centers[0] = 1.0
    assert grid.ys.tolist() == [0.5, 3.5] and grid.ys.dtype == grid.xs.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        grid.ys[0] = 1.0
    with pytest.raises(AttributeError):
        grid.shape = (1, 1)  # type: ignore[misc]


def test_the_share_of_a_box_in_each_pixel_by_hand() -> None:
    down, across = GRID.box_shares
    assert down == pytest.approx(np.array([[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]))
    # Between 2.5 and 6.0 lies 4.25, in pixels' edges 4.75.
    last = [0, 0, 0, 0, 0.25 / 2.25, 1 / 2.25, 1 / 2.25]
    assert across == pytest.approx(
        np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 1 / 2.75, 1 / 2.75, 0.75 / 2.75, 0, 0], last])
    )
    assert GRID.spacing == (3.0, 2.75)
    assert AttentionGrid([2.0], [3.0], (5, 7)).spacing == (5.0, 7.0)


def test_an_even_grid_by_hand() -> None:
    grid = AttentionGrid.even((3, 2), (7, 5))
    assert grid.ys == pytest.approx([7 / 6 - 0.5, 3.0, 35 / 6 - 0.5])
    assert grid.xs.tolist() == [0.75, 3.25]
    assert AttentionGrid.even((5, 7), (5, 7)) == AttentionGrid(range(5), range(7), (5, 7))
    assert grid.resized((14, 15)) == AttentionGrid.even((3, 2), (14, 15))


@pytest.mark.parametrize(
    ("ys", "size", "message"),
    [
        ([3.0, 1.0], (5, 7), "ascending ys within the frame's 5 pixels"),
        ([1.0, 1.0], (5, 7), "expected ascending ys"),
        ([1.0, np.nan], (5, 7), "expected ascending ys"),
        ([-1.0, 1.0], (5, 7), "expected ascending ys"),
        ([1.0, 5.0], (5, 7), "frame's 5 pixels"),
        ([], (5, 7), r"one centre, got shape \[0\]"),
        ([[1.0]], (5, 7), r"one centre, got shape \[1, 1\]"),
        ([1.0], (5,), r"\(height, width\), each at least 1, got \(5,\)"),
        ([1.0], (5, 0), r"\(height, width\), each at least 1, got \(5, 0\)"),
    ],
)
def test_an_invalid_grid_raises_value_error(ys: Any, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionGrid(ys, [2.0], size)


# ---- Maps ----


def test_only_usable_maps_are_normalised() -> None:
    weights = np.ones((5, 2, 3), dtype=np.float32)
    weights[1] = 0
    weights[2, 0, 0], weights[3, 1, 1], weights[4, 0, 2] = np.nan, -1, np.inf
    maps = AttentionMaps(weights, GRID)
    assert maps.usable.tolist() == usable_maps(weights).tolist() == [True, False, False, False, False]
    assert np.array_equal(maps.cleaned().weights, np.concatenate([weights[:1], np.zeros((4, 2, 3))]))
    assert maps.normalised().weights[0] == pytest.approx(np.full((2, 3), 1 / 6))
    assert not maps.normalised().weights[1:].any() and maps.normalised().weights.dtype == np.float32
    assert len(maps) == 5 and maps[0].weights.shape == (2, 3) and maps[0].usable.tolist() is True


def test_upsampling_and_pooling_by_hand() -> None:
    weights = np.array([[0.2, 0, 0.9], [0, 0.55, 0]])
    pixels = AttentionMaps(weights, GRID).upsampled()
    top = [0.04, 0.04, 0, 0, 0.04, 0.16, 0.16]  # 0.4 of the row: 0.2 / 2 and 0.9 / 2.25 of the columns
    low = [0, 0, 0.08, 0.08, 0.06, 0, 0]
    middle = [(a + b) / 2 for a, b in zip(top, low, strict=True)]
    assert pixels == pytest.approx(np.array([top, top, middle, low, low]))
    # The mean over a box of 2.5 x 2 pixels that are all of one cell.
    cells = AttentionMaps.pooled(np.arange(35.0).reshape(5, 7), GRID).weights
    assert cells[0, 0] == pytest.approx(0.4 * 0.5 + 0.4 * 7.5 + 0.2 * 14.5)
    assert cells.shape == (2, 3)


def test_mean_over_heads_by_hand() -> None:
    weights = np.stack([np.full((2, 3), value) for value in (1.0, 2.0, 5.0)])[None]
    maps = AttentionMaps(weights, GRID)
    assert maps.mean_over_heads().weights == pytest.approx(np.full((1, 2, 3), 8 / 3))
    assert maps.mean_over_heads(np.array([0.5, 0, 0.5])).weights == pytest.approx(np.full((1, 2, 3), 3.0))
    for wrong in (np.array([0.5, 0.5]), np.array([1.0, 1.0, 1.0]), np.full(3, np.nan)):
        with pytest.raises(ValueError, match="a weight for each of 3 heads, with sum 1"):
            maps.mean_over_heads(wrong)
    with pytest.raises(ValueError, match=r"\[\.\.\., heads, rows, cols\], got \[2, 3\]"):
        maps[0, 0].mean_over_heads()


def test_mass_on_the_target_by_hand() -> None:
    weights = np.zeros((3, 2, 2, 3), dtype=np.float32)
    weights[:, 0, 0, 0] = 1  # rows 0 to 1 and half of 2, columns 0 and 1
    weights[:, 1] = 1 / 6
    weights[2, 1] = np.nan
    masks = np.zeros((3, 5, 7), dtype=bool)
    masks[0, :2, 1:3] = True
    masks[2, 2:, 0] = True
    mass = AttentionMaps(weights, GRID).mass_on(masks)
    # Of the first cell 0.8 x 0.5; uniform over cells: 0.8 of a row of cells, x (1 / 2 + 1 / 2.75) of columns.
    assert mass[0] == pytest.approx([0.4, 0.8 * (0.5 + 1 / 2.75) / 6])
    assert np.isnan(mass[1]).all()  # not in view
    assert mass[2, 0] == pytest.approx(0.2 * 0.5) and np.isnan(mass[2, 1])
    with pytest.raises(ValueError, match="of the same frames"):
        AttentionMaps(weights, GRID).mass_on(masks[:2])


@settings(max_examples=25)
@given(maps_on_a_grid(steps=BATCH + 3))
def test_upsampling_preserves_mass_in_batches_too(maps: AttentionMaps) -> None:
    pixels = maps.upsampled()
    assert pixels.shape == (*maps.weights.shape[:2], *maps.grid.image_size) and (pixels >= 0).all()
    assert pixels.sum(axis=(2, 3)) == pytest.approx(np.ones(pixels.shape[:2]))
    parts = [part for _, part in maps.in_batches()]
    assert [len(part) for part in parts] == [BATCH, 3]
    assert np.concatenate(parts) == pytest.approx(pixels, abs=1e-12)
    masks = np.random.default_rng(0).random((len(maps), *maps.grid.image_size)) < 0.5
    masks[:, 0, 0] = True
    on = np.where(masks[:, None], pixels, 0).sum(axis=(2, 3))
    assert maps.mass_on(masks) == pytest.approx(on)
    assert maps.mass_on(masks) + maps.mass_on(~masks) == pytest.approx(np.ones_like(on), nan_ok=True)


@given(maps_on_a_grid())
def test_pooling_inverts_upsampling(maps: AttentionMaps) -> None:
    pooled = AttentionMaps.pooled(np.ones((1, 3, *maps.grid.image_size)), maps.grid)
    assert pooled.weights == pytest.approx(np.ones((1, 3, *maps.grid.shape)))
    # The mean over a box of what the box alone has: its mass over its area.
    one = np.zeros(maps.grid.shape)
    one[-1, 0] = 1
    down, across = maps.grid.box_shares
    area = (down[-1] ** 2).sum() * (across[0] ** 2).sum()
    found = AttentionMaps.pooled(AttentionMaps(one, maps.grid).upsampled(), maps.grid).weights
    assert found[-1, 0] == pytest.approx(area)


@given(maps_on_a_grid(), st.floats(1e-10, 1e10))
def test_normalised_maps_sum_to_one_whatever_the_scale(maps: AttentionMaps, scale: float) -> None:
    scaled = AttentionMaps(maps.weights * scale, maps.grid).normalised()
    assert scaled.weights == pytest.approx(maps.weights)
    assert scaled.weights.sum(axis=(2, 3)) == pytest.approx(np.ones(scaled.weights.shape[:2]))


@given(maps_on_a_grid())
def test_arrays_and_tensors_are_upsampled_to_the_same_bits(maps: AttentionMaps) -> None:
    attention = torch.from_numpy(maps.weights).requires_grad_()
    pixels = upsample_attention(attention, maps.grid)
    assert np.array_equal(maps.upsampled(), pixels.numpy(force=True))
    # Every cell's mass goes somewhere once: the sum over pixels has slope 1 in each cell.
    pixels.sum().backward()
    torch.testing.assert_close(attention.grad, torch.ones_like(attention))


def test_upsampling_other_inputs_raises_value_error() -> None:
    array = np.full((1, 1, 2, 3), 1 / 6)
    with pytest.raises(ValueError, match=r"torch.Tensor, got ndarray: .*AttentionMaps\(array, grid\)"):
        upsample_attention(array, GRID)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an AttentionGrid, got tuple: give a module's `grid`"):
        upsample_attention(torch.from_numpy(array), (5, 7))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[B, heads, 2, 3\], .* got \[1, 1, 3, 2\]"):
        upsample_attention(torch.zeros(1, 1, 3, 2), GRID)
    with pytest.raises(ValueError, match="a NumPy array of floats, got Tensor: convert them"):
        AttentionMaps(torch.from_numpy(array), GRID)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a NumPy array of floats, got int64"):
        AttentionMaps(np.ones((2, 3), dtype=np.int64), GRID)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[\.\.\., 2, 3\], .* got \[3, 2\]"):
        AttentionMaps(np.ones((3, 2)), GRID)
    with pytest.raises(ValueError, match=r"\[\.\.\., 5, 7\], .* got \[7, 5\]"):
        AttentionMaps.pooled(np.ones((7, 5)), GRID)


def test_maps_and_episodes_need_neither_opencv_nor_h5py() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["cv2", "h5py", "gymnasium", "stable_baselines3", "mujoco"]))
import numpy as np
import robot_attn
from robot_attn.episode import Episode
grid = robot_attn.AttentionGrid([1.0], [2.0], (3, 5))
frames = np.zeros((2, 3, 5, 3), np.uint8)
episode = Episode(
    images=frames, actions=np.zeros((2, 1), np.float32), rewards=np.zeros(2), dones=np.zeros(2, bool),
    attention=np.ones((2, 1, 1, 1), np.float32), grid=grid, env_args={}, seed=0,
)
print(episode.attention_maps.mass_on(frames[..., 0] == 0).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[[1.0], [1.0]]", done.stderr
