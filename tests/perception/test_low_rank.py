"""Linformer and Nystrom attention, each compared with its formula written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robot_attn.attention import Linformer, attend, attend_linformer, attend_nystrom

SIZES = st.tuples(*[st.sampled_from([2, 3, 5, 7, 11])] * 6)


def tensors(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@given(
    sizes=SIZES,
    rank=st.sampled_from([1, 2, 3, 5]),
    by_head=st.booleans(),
    shared=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_linformer_equals_equation_7(
    sizes: tuple[int, ...], rank: int, by_head: bool, shared: bool, seed: int
) -> None:
    b, h, q, n, d, v = sizes
    shape = (h, rank, n) if by_head else (rank, n)
    query, key, value, to_keys, to_values = tensors(
        seed, (b, h, q, d), (b, 1 if shared else h, n, d), (b, h, n, v), shape, shape
    )
    attended = attend_linformer(query, key, value, to_keys, to_values)
    for i in range(b):
        for j in range(h):
            e, f = (p[j] if by_head else p for p in (to_keys, to_values))
            logits = query[i, j] @ (e @ key[i, 0 if shared else j]).T / math.sqrt(d)
            weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
            torch.testing.assert_close(attended.weights[i, j], weights, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(
                attended.values[i, j], weights @ (f @ value[i, j]), rtol=1e-10, atol=1e-10
            )


def test_linformer_of_full_rank_equals_attention() -> None:
    query, key, value = tensors(1, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    identity = torch.eye(11, dtype=torch.float64)
    for ours, expected in zip(
        attend_linformer(query, key, value, identity), attend(query, key, value), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_the_linformer_module_learns_its_projections() -> None:
    torch.manual_seed(0)
    module = Linformer(11, 3)
    query, key, value = tensors(2, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13), dtype=torch.float32)
    attended = module(query, key, value)
    assert attended.weights.shape == (2, 3, 5, 3)
    attended.values.square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).all())


@given(sizes=SIZES, seed=st.integers(0, 2**31))
def test_nystrom_equals_its_formula(sizes: tuple[int, ...], seed: int) -> None:
    b, h, q, n, d, v = sizes
    landmarks = 2
    query, key, value = tensors(seed, (b, h, q, d), (b, h, n, d), (b, h, n, v))
    rows = torch.tensor([q - 1, 0])
    attended = attend_nystrom(query, key, value, landmarks=landmarks, rows=rows)

    def softmax(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.T / math.sqrt(d)).softmax(-1)

    for i in range(b):
        for j in range(h):
            few_q = torch.stack([query[i, j, : q // 2].mean(0), query[i, j, q // 2 :].mean(0)])
            few_k = torch.stack([key[i, j, : n // 2].mean(0), key[i, j, n // 2 :].mean(0)])
            left, values, right = torch.linalg.svd(softmax(few_q, few_k))
            between = right.T @ (values / (values**2 + 2**-52)).diag() @ left.T
            matrix = softmax(query[i, j], few_k) @ between @ softmax(few_q, key[i, j])
            torch.testing.assert_close(attended.weights[i, j], matrix[rows], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(attended.values[i, j], matrix @ value[i, j], rtol=1e-6, atol=1e-6)


def test_nystrom_with_one_landmark_per_token_equals_attention() -> None:
    query, key, value = tensors(3, (2, 3, 7, 11), (2, 3, 7, 11), (2, 3, 7, 13))
    attended = attend_nystrom(query, key, value, landmarks=7, rows=torch.arange(7))
    for ours, expected in zip(attended, attend(query, key, value), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-8)


def test_nystrom_error_falls_with_the_number_of_landmarks() -> None:
    """Tokens that change slowly, as those of neighbouring places on a frame do."""
    generator = torch.Generator().manual_seed(4)
    slow = torch.randn(3, 1, 2, 8, 7, generator=generator, dtype=torch.float64)
    query, key, value = (
        torch.nn.functional.interpolate(slow.flatten(0, 2).transpose(1, 2), size=128, mode="linear")
        .transpose(1, 2)
        .view(3, 1, 2, 128, 7)
    )
    exact = attend(query, key, value).values
    errors = [
        float((attend_nystrom(query, key, value, landmarks=m).values - exact).norm() / exact.norm())
        for m in (2, 8, 32)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("landmarks", [8, 32, 64])
@pytest.mark.parametrize("spread", [0.1, 0.01, 0.0])
def test_nystrom_of_nearly_equal_tokens_is_stable_in_float32(spread: float, landmarks: int) -> None:
    """Nearly equal tokens have nearly equal landmarks, and their smallest singular values are rounding.

    Without damping, gradients are hundreds of times those of attention; here they are of the same order.
    """
    query, key, value, upward = tensors(
        5, (1, 2, 128, 7), (1, 2, 128, 7), (1, 2, 128, 7), (1, 2, 128, 7), dtype=torch.float32
    )
    query, key = ((1 + spread * tensor).requires_grad_() for tensor in (query, key))
    ours, exact = attend_nystrom(query, key, value, landmarks=landmarks), attend(query, key, value)
    assert bool((ours.values - exact.values).norm() < 0.01 * exact.values.norm())
    for tensor in (query, key):
        (ours_grad,), (exact_grad,) = (
            torch.autograd.grad((attended.values * upward).sum(), tensor, retain_graph=True)
            for attended in (ours, exact)
        )
        assert float(ours_grad.norm()) < 10 * float(exact_grad.norm()) + 1e-4


def test_gradients() -> None:
    query, key, value, projection = (
        tensor.requires_grad_() for tensor in tensors(5, (1, 2, 5, 3), (1, 2, 7, 3), (1, 2, 7, 2), (3, 7))
    )
    rows = torch.tensor([4])
    assert torch.autograd.gradcheck(lambda *x: tuple(attend_linformer(*x)), (query, key, value, projection))
    assert torch.autograd.gradcheck(
        lambda *x: tuple(attend_nystrom(*x, landmarks=3, rows=rows)), (query, key, value)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    query, key, value = (
        (300 * tensor).to(dtype) for tensor in tensors(6, (1, 2, 5, 64), (1, 2, 7, 64), (1, 2, 7, 3))
    )
    attended = attend_nystrom(query, key, value, landmarks=3)
    assert attended.values.dtype == dtype and bool(attended.values.isfinite().all())
    few = attend_linformer(query, key, value, torch.full((2, 7), 1 / 7, dtype=dtype))
    assert few.values.dtype == few.weights.dtype == dtype and bool(few.values.isfinite().all())
    # A sum of keys that exceeds 65,504, the largest float16.
    many = torch.full((1, 1, 300, 4), 300.0, dtype=dtype)
    sums, means = torch.ones(2, 300, dtype=dtype), torch.full((2, 300), 1 / 300, dtype=dtype)
    read = attend_linformer(many[:, :, :5], many, many, sums, means).values
    torch.testing.assert_close(read.float(), torch.full((1, 1, 5, 4), 300.0), rtol=0.01, atol=0)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    query, key, value = torch.rand(batch, 2, 3, 5), torch.rand(batch, 2, 7, 5), torch.rand(batch, 2, 7, 11)
    assert attend_nystrom(query, key, value, landmarks=2).values.shape == (batch, 2, 3, 11)
    assert attend_linformer(query, key, value, torch.rand(2, 7)).values.shape == (batch, 2, 3, 11)


def test_invalid_input_raises_value_error() -> None:
    query, key, value = tensors(7, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    for match, shape in (
        (r"\[r, 11\] or \[3, r, 11\]", (2, 5)),
        ("r of at least 1", (0, 11)),
        ("3, r", (2, 2, 11)),
    ):
        with pytest.raises(ValueError, match=match):
            attend_linformer(query, key, value, torch.ones(shape, dtype=torch.float64))
    ones = torch.ones(3, 11, dtype=torch.float64)
    with pytest.raises(ValueError, match="same number of mixtures, got 2 and 3"):
        attend_linformer(query, key, value, ones[:2], ones)
    for landmarks in (0, 6, 2.0, True):
        with pytest.raises(ValueError, match="expected landmarks as a whole number from 1 to 5"):
            attend_nystrom(query, key, value, landmarks=landmarks)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected project_value of finite numbers"):
        attend_linformer(query, key, value, ones, ones * math.nan)
    with pytest.raises(ValueError, match="same dimension, got 7 and 5"):
        attend_nystrom(query, key[..., :5], value, landmarks=2)
    for row in (-1, 5):
        with pytest.raises(ValueError, match="indices of the 5 queries"):
            attend_nystrom(query, key, value, landmarks=2, rows=torch.tensor([row]))
    with pytest.raises(ValueError, match="expected rank as a whole number"):
        Linformer(11, 0)
    with pytest.raises(ValueError, match="did you mean 'dot'"):
        Linformer(11, 3, score="dott")
