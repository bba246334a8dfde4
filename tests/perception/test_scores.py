"""The scores, each compared with its formula written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robot_attn import SCORES, attend, build_score
from robot_attn.attention import LEARNED_SCORES
from robot_attn.attention._scores import EPSILON

ALL = sorted({*SCORES, *LEARNED_SCORES})
SIZES = st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 5)


def written_out(name: str, query: Tensor, key: Tensor, score: object) -> Tensor:
    """logits [B, h, q, n], pair by pair."""
    b, h, q, _ = query.shape
    n = key.shape[2]
    logits = query.new_zeros(b, h, q, n)
    for i in range(b):
        for j in range(h):
            for k in range(q):
                for m in range(n):
                    one, other = query[i, j, k], key[i, j, m]
                    logits[i, j, k, m] = pair(name, one, other, score, j)
    if name == "standardized":
        mean, variance = logits.mean(-1, keepdim=True), logits.var(-1, correction=0, keepdim=True)
        logits = (logits - mean) / (variance + EPSILON).sqrt()
    if name in ("cosine", "standardized"):
        assert isinstance(score, nn.Module)
        logits = logits * score.get_parameter("log_temperature").exp()[:, None, None]
    return logits


def pair(name: str, query: Tensor, key: Tensor, score: object, head: int) -> Tensor:
    product = (query * key).sum()
    if name == "cosine":
        return product / (query.square().sum() * key.square().sum()).sqrt()
    if name == "scaled_dot":
        return product / math.sqrt(len(query))
    if name == "additive":
        assert isinstance(score, nn.Module)
        w, u, v = (score.get_parameter(part)[head] for part in ("to_query", "to_key", "weight"))
        return (v * (w @ query + u @ key).tanh()).sum()
    return product


@pytest.mark.parametrize("name", ALL)
@given(sizes=SIZES, seed=st.integers(0, 2**31))
def test_equals_its_formula(name: str, sizes: tuple[int, ...], seed: int) -> None:
    b, h, q, n, d = sizes
    torch.manual_seed(seed)
    query, key = torch.randn(b, h, q, d).double(), torch.randn(b, h, n, d).double()
    score = build_score(name, d, h)
    if isinstance(score, nn.Module):
        score.double()
    torch.testing.assert_close(score(query, key), written_out(name, query, key, score), rtol=1e-9, atol=1e-9)
    shared = score(query, key[:, :1])
    torch.testing.assert_close(shared, score(query, key[:, :1].expand(-1, h, -1, -1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_gradients(name: str) -> None:
    torch.manual_seed(1)
    query, key = torch.randn(1, 2, 3, 5).double(), torch.randn(1, 2, 7, 5).double()
    score = build_score(name, 5, 2)
    learned = list(score.double().parameters()) if isinstance(score, nn.Module) else []
    inputs = [query.requires_grad_(), key.requires_grad_(), *learned]
    assert torch.autograd.gradcheck(lambda q, k, *_: score(q, k), inputs)


@pytest.mark.parametrize("name", ALL)
def test_each_score_works_in_attend_in_any_precision(name: str) -> None:
    score = build_score(name, 5, 2)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        query, key, value = (torch.randn(1, 2, n, 5).to(dtype) for n in (3, 7, 7))
        attended = attend(query, key, value, score=score)
        assert attended.weights.dtype == dtype
        torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(1, 2, 3), rtol=0, atol=0.02)


def test_initial_temperatures() -> None:
    for name, temperature in (("cosine", 10.0), ("standardized", 1.0)):
        score = build_score(name, 7, 3)
        assert isinstance(score, nn.Module)
        torch.testing.assert_close(
            score.get_parameter("log_temperature").exp(), torch.full((3,), temperature)
        )


def test_equal_keys_get_uniform_weights() -> None:
    attended = attend(
        torch.randn(1, 1, 2, 5), torch.ones(1, 1, 7, 5), torch.ones(1, 1, 7, 1), score="standardized"
    )
    torch.testing.assert_close(attended.weights, torch.full((1, 1, 2, 7), 1 / 7))


def test_an_unknown_score_raises_value_error() -> None:
    with pytest.raises(ValueError, match="did you mean 'additive'"):
        build_score("aditive", 3, 1)


@pytest.mark.parametrize("key_heads", [1, 3])
def test_gradients_of_dot_are_those_of_the_product(key_heads: int) -> None:
    """Written by hand, so that the key's gradient lies in memory as the key does; twice differentiable."""
    torch.manual_seed(0)
    query = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, key_heads, 11, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 5, 11, dtype=torch.float64)
    found = torch.autograd.grad((SCORES["dot"](query, key) * weight).sum(), (query, key))
    expected = torch.autograd.grad((query @ key.transpose(-2, -1) * weight).sum(), (query, key))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found[1].is_contiguous() and not expected[1].is_contiguous()
    assert torch.autograd.gradcheck(SCORES["dot"], (query, key))
    assert torch.autograd.gradgradcheck(SCORES["dot"], (query, key))
