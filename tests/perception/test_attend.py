import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn import SCORES, attend


def tensors(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_by_hand() -> None:
    # Logits ln 3 and 0 without the scale: weights 3/4 and 1/4.
    query = torch.tensor([math.log(3.0), 0.0]).view(1, 1, 1, 2)
    key = torch.tensor([[1.0, 5.0], [0.0, 7.0]]).view(1, 1, 2, 2)
    value = torch.tensor([[4.0, 0.0, 8.0], [0.0, 12.0, 8.0]]).view(1, 1, 2, 3)
    attended = attend(query, key, value, score="dot")
    torch.testing.assert_close(attended.weights, torch.tensor([0.75, 0.25]).view(1, 1, 1, 2))
    torch.testing.assert_close(attended.values, torch.tensor([3.0, 3.0, 8.0]).view(1, 1, 1, 3))


def test_scaled_dot_divides_by_the_root_of_the_query_dimension() -> None:
    query = torch.zeros(1, 1, 1, 9)
    query[..., 0] = 3 * math.log(3.0)  # divided by sqrt(9)
    key = torch.eye(9)[:2].view(1, 1, 2, 9)
    attended = attend(query, key, torch.ones(1, 1, 2, 1))
    torch.testing.assert_close(attended.weights, torch.tensor([0.75, 0.25]).view(1, 1, 1, 2))


def test_cosine_by_hand() -> None:
    query = torch.tensor([30.0, 40.0]).view(1, 1, 1, 2)
    key = torch.tensor([[3.0, 4.0], [-4.0, 3.0], [0.0, 0.0], [1.0, 0.0]]).view(1, 1, 4, 2)
    logits = SCORES["cosine"](query, key)
    torch.testing.assert_close(logits, torch.tensor([1.0, 0.0, 0.0, 0.6]).view(1, 1, 1, 4))


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7, 11])] * 6),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_torchs_attention(sizes: tuple[int, ...], masked: bool, seed: int, dtype: torch.dtype) -> None:
    b, h, q, n, d, v = sizes
    query, key, value, chance = (
        tensor.to(dtype) for tensor in tensors(seed, (b, h, q, d), (b, h, n, d), (b, h, n, v), (b, 1, q, n))
    )
    close = 1e-6 if dtype == torch.float32 else 1e-12
    mask = None
    if masked:
        mask = chance > 0
        mask[..., 0] = True  # torch's own gives NaN for a fully masked row
    attended = attend(query, key, value, mask=mask)
    torch.testing.assert_close(
        attended.values,
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        rtol=close,
        atol=close,
    )
    torch.testing.assert_close(attended.weights.sum(-1), torch.ones(b, h, q, dtype=dtype))
    assert bool((attended.weights >= 0).all())
    if mask is not None:
        assert bool((attended.weights[~mask.expand(b, h, q, n)] == 0).all())


@pytest.mark.parametrize("score", sorted(SCORES))
def test_a_fully_masked_query_gets_zeros(score: str) -> None:
    query, key, value = tensors(0, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    mask = torch.ones(2, 1, 5, 11, dtype=torch.bool)
    mask[1, 0, 3] = False
    for tensor in (query, key, value):
        tensor.requires_grad_()
    attended = attend(query, key, value, score=score, mask=mask)
    assert bool((attended.weights[1, :, 3] == 0).all())
    assert bool((attended.values[1, :, 3] == 0).all())
    assert bool((attended.weights[1, :, 2] > 0).all())
    (attended.values.square().sum() + attended.weights.square().sum()).backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())
    assert query.grad is not None and bool((query.grad[1, :, 3] == 0).all())


@pytest.mark.parametrize("score", sorted(SCORES))
def test_gradients(score: str) -> None:
    query, key, value = tensors(1, (1, 2, 3, 5), (1, 2, 7, 5), (1, 2, 7, 2))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 1:4] = False
    mask[2] = False
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    assert torch.autograd.gradcheck(lambda q, k, v: tuple(attend(q, k, v, score=score, mask=mask)), inputs)


def test_a_custom_score() -> None:
    query, key, value = tensors(2, (1, 1, 2, 3), (1, 1, 5, 4), (1, 1, 5, 1))
    attended = attend(query, key, value, score=lambda q, k: q.new_zeros(1, 1, 2, 5))
    torch.testing.assert_close(attended.weights, torch.full((1, 1, 2, 5), 0.2, dtype=torch.float64))


def test_invalid_input_raises_value_error() -> None:
    query, key, value = tensors(3, (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))
    for match, arguments, options in (
        ("did you mean 'scaled_dot'", (query, key, value), {"score": "scaled_dott"}),
        (r"expected query .* got shape \[3, 5, 7\]", (query[0], key, value), {}),
        (r"agree on B, h \(or 1\) and n, got shapes", (query, key[:1], value), {}),
        (r"agree on B, h \(or 1\) and n, got shapes", (query, key, value[:, :, :5]), {}),
        ("queries and keys of the same dimension .*, got 7 and 5", (query, key[..., :5], value), {}),
        ("expected at least 1 key", (query, key[:, :, :0], value[:, :, :0]), {}),
        ("expected key of finite numbers", (query, key / 0.0, value), {}),
        ("expected value of finite numbers", (query, key, value * math.nan), {}),
        (r"got 'additive', which has some: pass score=", (query, key, value), {"score": "additive"}),
        ("expected mask of bool", (query, key, value), {"mask": torch.ones(5, 11)}),
        ("expected mask that broadcasts", (query, key, value), {"mask": torch.ones(7, 11, dtype=torch.bool)}),
        (
            "expected mask that broadcasts",
            (query, key, value),
            {"mask": torch.ones(1, 2, 3, 5, 11, dtype=torch.bool)},
        ),
    ):
        with pytest.raises(ValueError, match=match):
            attend(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", ["key", "value", "both"])
@pytest.mark.parametrize("score", sorted(SCORES))
def test_shared_keys_and_values_equal_repeated_ones(score: str, shared: str) -> None:
    query, key, value = tensors(4, (2, 3, 5, 7), (2, 1, 11, 7), (2, 1, 11, 13))
    each_key, each_value = key.expand(2, 3, 11, 7).contiguous(), value.expand(2, 3, 11, 13).contiguous()
    attended = attend(
        query,
        each_key if shared == "value" else key,
        each_value if shared == "key" else value,
        score=score,
    )
    for one, other in zip(attended, attend(query, each_key, each_value, score=score), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", sorted(SCORES))
def test_half_precision_does_not_overflow(score: str, dtype: torch.dtype) -> None:
    query, key, value = (300 * tensor for tensor in tensors(5, (2, 3, 5, 64), (2, 3, 11, 64), (2, 3, 11, 7)))
    attended = attend(query.to(dtype), key.to(dtype), value.to(dtype), score=score)
    assert attended.values.dtype == attended.weights.dtype == dtype
    assert bool(attended.values.isfinite().all())
    torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(2, 3, 5), rtol=0, atol=0.02)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    attended = attend(torch.rand(batch, 2, 3, 5), torch.rand(batch, 2, 7, 5), torch.rand(batch, 1, 7, 11))
    assert attended.values.shape == (batch, 2, 3, 11) and attended.weights.shape == (batch, 2, 3, 7)
