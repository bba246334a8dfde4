"""Gradient maps of functions with known gradients, and of every family."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from torch import Tensor, nn

pytest.importorskip("captum")

import robot_attn
from robot_attn.explain import (
    METHODS,
    attention_gradient,
    gradient_length,
    gradient_maps,
    rank_agreement,
    top_agreement,
)
from robot_attn.explain._gradients import MAX_PIXELS, blurred, last_feature_map
from robot_attn.maps import AttentionGrid, AttentionMaps

B, C, H, W = 3, 3, 37, 43
FRAMES = torch.rand(B, C, H, W, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """Two outputs, each a weighted sum of all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, C, H, W))
        with torch.no_grad():
            self.weight[0, 0, 5, 7], self.weight[0, 1, 5, 7] = 3.0, 4.0  # length 5 over colours
            self.weight[1, 2, 5, 7] = 12.0  # 13 over outputs
            self.weight[1, 0, 30, 11] = -26.0

    def forward(self, frames: Tensor) -> Tensor:
        return frames.flatten(1) @ self.weight.flatten(1).T


def test_saliency_of_a_linear_function_is_the_length_of_its_weights() -> None:
    maps = gradient_maps(Linear(), FRAMES, "saliency")
    expected = np.zeros((B, H, W))
    expected[:, 5, 7], expected[:, 30, 11] = 13 / 39, 26 / 39
    assert_allclose(maps, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradients_length_is_over_outputs_and_colours(dtype: torch.dtype) -> None:
    frames = FRAMES.clone().requires_grad_()
    length = gradient_length(Linear()(frames), frames, dtype=dtype)
    expected = torch.zeros(B, H, W, dtype=dtype)
    expected[:, 5, 7], expected[:, 30, 11] = 13, 26
    assert torch.equal(length, expected)


def test_outputs_independent_of_the_frame_have_a_zero_gradient() -> None:
    frames, other = FRAMES.clone().requires_grad_(), torch.ones(B, 2, requires_grad=True)
    for outputs in (torch.ones(B, 2), other * 3):
        assert torch.equal(gradient_length(outputs, frames), torch.zeros(B, H, W, dtype=torch.float64))


def test_saliency_needs_no_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with torch.no_grad():  # whatever the caller has set
        assert gradient_maps(Linear(), FRAMES, "saliency").sum() == pytest.approx(B)
    with pytest.raises(ModuleNotFoundError, match=r"captum.*robot-attn\[explain\]"):
        gradient_maps(Linear(), FRAMES, "integrated")


def test_integrated_gradients_of_a_linear_function_are_weights_times_the_difference() -> None:
    module = Linear()
    way = (FRAMES - blurred(FRAMES))[:, None] * module.weight.detach()
    expected = way.square().sum(dim=(1, 2)).sqrt().numpy()
    maps = gradient_maps(module, FRAMES, "integrated")
    assert_allclose(maps, expected / expected.sum(axis=(1, 2), keepdims=True), atol=1e-6)


def test_integrated_gradients_add_up_to_the_change_in_the_output() -> None:
    """Completeness (Sundararajan et al. 2017, proposition 1), of the cube of a pixel."""
    pixel = torch.zeros(1, C, H, W)
    pixel[0, 1, 9, 9] = 1.0

    def function(frames: Tensor) -> Tensor:
        return (frames * pixel).sum(dim=(1, 2, 3), keepdim=False)[:, None] ** 3

    from captum.attr import IntegratedGradients

    found = IntegratedGradients(function).attribute(FRAMES, baselines=blurred(FRAMES), target=0, n_steps=16)
    assert_allclose(found.sum(dim=(1, 2, 3)), (function(FRAMES) - function(blurred(FRAMES)))[:, 0], atol=1e-6)
    maps = gradient_maps(function, FRAMES, "integrated")
    assert_allclose(maps[:, 9, 9], 1.0)


class Convolved(nn.Module):
    """Two feature maps, of red and of green in each 4 x 4 patch; the output is the mean of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(C, 2, 4, 4, bias=False)
        self.rest = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.weight[0, 0], self.features.weight[1, 1] = 1.0, 1.0
            self.rest.weight.copy_(torch.tensor([[1.0, 0.0]]))

    def forward(self, frames: Tensor) -> Tensor:
        return self.rest(self.features(frames).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_grad_cam_is_on_the_relevant_feature() -> None:
    frames = torch.zeros(1, C, 40, 40)
    frames[0, 0, 8:12, 20:24] = 1.0  # red: counts
    frames[0, 1, 28:32, 4:8] = 1.0  # green: does not
    module = Convolved()
    assert last_feature_map(module, module, frames) is module.features
    maps = gradient_maps(module, frames, "grad_cam", module=module)
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) in {(y, x) for y in (9, 10) for x in (21, 22)}
    assert maps[0, 28:32, 4:8].sum() == 0
    assert_allclose(maps.sum(), 1.0)


class SideBranch(Convolved):
    """Ends with a mask head on the feature maps, which feeds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_head = nn.Conv2d(2, 3, 1)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.features(frames)
        self.mask = self.mask_head(features)
        return self.rest(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_grad_cam_passes_over_a_branch_that_feeds_nothing() -> None:
    module, without = SideBranch(), Convolved()
    assert last_feature_map(module, module, FRAMES) is module.features
    for method in METHODS:
        found = gradient_maps(module, FRAMES, method, module=module)
        assert_array_equal(found, gradient_maps(without, FRAMES, method, module=without))
    with pytest.raises(ValueError, match=r"feature maps .* that the outputs depend on, got Conv2d"):
        gradient_maps(module, FRAMES, "grad_cam", module=module.mask_head)


@pytest.mark.parametrize("method", METHODS)
def test_outputs_of_weights_alone_have_a_zero_map(method: str) -> None:
    """As those of a policy that acts on its state: they have gradients, but none of the frames."""
    module = Convolved()
    maps = gradient_maps(lambda frames: module.rest.weight.expand(B, 2), FRAMES, method, module=module)  # type: ignore[arg-type]
    assert_array_equal(maps, np.zeros((B, H, W)))


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_function_has_a_zero_map(method: str) -> None:
    module = Convolved()
    with torch.no_grad():
        module.rest.weight.zero_()
    maps = gradient_maps(module, FRAMES, method, module=module)  # type: ignore[arg-type]
    assert_array_equal(maps, np.zeros((B, H, W)))


def test_a_single_output_needs_no_axis() -> None:
    module = Linear()
    maps = gradient_maps(lambda frames: module(frames)[:, 0], FRAMES, "saliency")
    assert_array_equal(np.argwhere(maps[0]), [[5, 7]])
    assert_allclose(maps[:, 5, 7], 1.0)


def test_integrating_in_parts_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Convolved()
    given: list[int] = []

    def function(frames: Tensor) -> Tensor:
        given.append(len(frames))
        return module(frames) ** 3

    whole = gradient_maps(function, FRAMES, "integrated", steps=7)
    assert max(given) == 7 * B <= MAX_PIXELS // (H * W)
    given.clear()
    # Two steps of three frames fit, and a frame more.
    monkeypatch.setattr("robot_attn.explain._gradients.MAX_PIXELS", 7 * H * W)
    assert_allclose(gradient_maps(function, FRAMES, "integrated", steps=7), whole, atol=1e-8)
    assert max(given) == 2 * B
    given.clear()
    monkeypatch.setattr("robot_attn.explain._gradients.MAX_PIXELS", 1)
    assert_allclose(gradient_maps(function, FRAMES, "integrated", steps=7), whole, atol=1e-8)
    assert set(given) == {B}, "never some of the frames"


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_non_finite_gradient_is_not_a_zero_map(broken: float) -> None:
    module = Linear()
    with torch.no_grad():
        module.weight[1, 2, 5, 7] = broken
    assert np.isnan(gradient_maps(module, FRAMES, "saliency")).all()
    # Of one frame alone: the others keep theirs.
    scale = torch.ones(B, 1)
    scale[1] = broken
    maps = gradient_maps(lambda frames: Linear()(frames) * scale, FRAMES, "saliency")
    assert np.isnan(maps[1]).all()
    assert_allclose(maps[[0, 2]].sum(axis=(1, 2)), 1.0)


@pytest.mark.parametrize("frames", [(FRAMES * 255).byte(), FRAMES[0], FRAMES[:0]])
def test_frames_must_be_floats_and_not_empty(frames: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected float frames \[B, C, H, W\]"):
        gradient_maps(Linear(), frames, "saliency")
    with pytest.raises(ValueError, match=r"expected float frames \[B, C, H, W\]"):
        attention_gradient(robot_attn.build("query", image_shape=(C, H, W)), frames)


def test_invalid_arguments_state_what_was_expected() -> None:
    with pytest.raises(
        ValueError, match=r"expected a method among grad_cam, integrated, saliency, got 'lime'$"
    ):
        gradient_maps(Linear(), FRAMES, "lime")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a module for Grad-CAM"):
        gradient_maps(Linear(), FRAMES, "grad_cam")
    with pytest.raises(ValueError, match=r"expected a module with a layer of feature maps .*, got Linear"):
        gradient_maps(Linear(), FRAMES, "grad_cam", module=Linear())


@pytest.mark.parametrize("family", robot_attn.FAMILIES)
def test_every_family_has_gradients_of_features_and_attention(family: str) -> None:
    torch.manual_seed(0)
    module = robot_attn.build(family, image_shape=(C, H, W), context_dim=2)
    context = torch.rand(B, 2)
    for method in METHODS:

        def function(frames: Tensor) -> Tensor:
            times = len(frames) // B
            return module(frames, context.repeat(times, 1)).features.sum(dim=1)

        maps = gradient_maps(function, FRAMES, method, module=module, steps=2)
        assert maps.shape == (B, H, W) and (maps >= 0).all()
        assert_allclose(maps.sum(axis=(1, 2)), 1.0)
        with torch.no_grad():  # as a caller that plays has it
            assert_array_equal(gradient_maps(function, FRAMES, method, module=module, steps=2), maps)
    moved = attention_gradient(module, FRAMES, context)
    with torch.no_grad():
        assert_array_equal(attention_gradient(module, FRAMES, context), moved)
    assert moved.shape == (B, module.num_heads, H, W)
    # What chooses nothing, or without a gradient, is moved by no pixel.
    assert (moved.sum() > 0) == (family not in ("cnn",))


def test_attention_gradient_lies_on_the_attended_object() -> None:
    """Keypoints that find red: only the patches on the red square can move the position."""
    module = robot_attn.build("keypoints", image_shape=(C, 48, 48), num_heads=1, patch_dim=2)
    frames = torch.zeros(1, C, 48, 48)
    frames[0, 0, 20:24, 28:32] = 1.0
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.patches.weight[0, 0] = 1 / 64  # type: ignore[union-attr, index, operator]
        module.patches.weight[0, 1] = -1 / 64  # type: ignore[union-attr, index, operator]
        module.around.weight[0, 0, 1, 1] = 1.0  # type: ignore[union-attr, index, operator]
        module.maps.weight[0, 0] = 60.0  # type: ignore[union-attr, index, operator]
    moved = attention_gradient(module, frames)[0, 0]
    assert moved[12:32, 20:40].sum() > 0.5
    assert moved[:8].sum() + moved[:, :16].sum() < 0.25


@given(
    arrays(np.float64, (2, 5, 7), elements=st.integers(-3, 3)),
    arrays(np.float64, (2, 5, 7), elements=st.floats(-1, 1)),
)
def test_rank_agreement_is_spearmans(maps: np.ndarray, others: np.ndarray) -> None:
    for ours, theirs, found in zip(maps, others, rank_agreement(maps, others), strict=True):
        constant = len(np.unique(ours)) == 1 or len(np.unique(theirs)) == 1
        expected = np.nan if constant else spearmanr(ours.ravel(), theirs.ravel()).statistic
        assert_allclose(found, expected, atol=1e-9)


def test_top_agreement_by_hand() -> None:
    rows = np.arange(20.0).reshape(1, 4, 5)  # a tenth: the cells of 19 and 18
    assert_array_equal(top_agreement(rows, rows), 1.0)
    assert_array_equal(top_agreement(rows, -rows), 0.0)
    half = rows.copy()
    half[0, 3, 3] = -1.0  # 18 falls: 19 and 17 are left
    assert_array_equal(top_agreement(rows, half), 0.5)
    assert_array_equal(top_agreement(rows, half, share=0.01), 1.0)  # one cell at least
    tied = np.where(rows >= 16, 7.0, 0.0)  # two places for four: each has half of one
    assert_array_equal(top_agreement(rows, tied), 0.5)
    assert_array_equal(top_agreement(tied, rows), 0.5)
    assert_array_equal(top_agreement(tied, tied), 0.5)  # two lots, drawn apart
    above = np.where(rows == 0, 9.0, tied)  # one place is taken, the other is for four: a quarter each
    assert_array_equal(top_agreement(rows, above), 0.25)


@given(
    arrays(np.float64, (3, 5, 7), elements=st.integers(-2, 2)),
    arrays(np.float64, (3, 5, 7), elements=st.integers(-2, 2)),
    st.sampled_from([0.02, 0.1, 0.3, 0.9]),
)
def test_top_agreement_equals_the_mean_over_random_tie_breaks(
    maps: np.ndarray, others: np.ndarray, share: float
) -> None:
    found = top_agreement(maps, others, share)
    constant = [len(np.unique(a)) == 1 or len(np.unique(b)) == 1 for a, b in zip(maps, others, strict=True)]
    assert_array_equal(np.isnan(found), constant)
    assert ((found >= 0) & (found <= 1 + 1e-12))[~np.isnan(found)].all()
    assert_allclose(found, top_agreement(others, maps, share))
    assert_allclose(found, top_agreement(3 * maps - 1, others, share))  # only ranks count


def test_agreement_with_a_constant_map_is_nan() -> None:
    maps = np.arange(3 * 35, dtype=np.float64).reshape(3, 5, 7)
    others = maps.copy()
    maps[0] = 1 / 35
    others[1, 2, 3] = np.nan
    for agreement in (rank_agreement, top_agreement):
        assert_array_equal(agreement(maps, others), [np.nan, np.nan, 1.0])


def test_agreement_needs_maps_of_the_same_shape() -> None:
    for agreement in (rank_agreement, top_agreement):
        with pytest.raises(ValueError, match="expected two batches of maps"):
            agreement(np.zeros((1, 5, 7)), np.zeros((1, 7, 5)))
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="expected a share of the cells between 0 and 1"):
            top_agreement(np.zeros((1, 5, 7)), np.zeros((1, 5, 7)), share)


def test_pooling_is_the_mean_in_each_cell() -> None:
    maps = np.arange(6 * 10, dtype=np.float64).reshape(1, 6, 10)
    grid = AttentionGrid([1.0, 4.0], [2.0, 7.0], (6, 10))  # boxes of 3 x 5 pixels
    pooled = AttentionMaps.pooled(maps, grid).weights
    expected = maps.reshape(1, 2, 3, 2, 5).mean(axis=(2, 4))
    assert_allclose(pooled, expected)
