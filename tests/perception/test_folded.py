"""`attend_folded`, compared with attention to explicit keys and values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robot_attn import attend
from robot_attn.attention._folded import FOLDED_SCORES, attend_folded

SIZES = st.sampled_from([1, 2, 3, 5, 7, 11])


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def inputs(
    batch: int, count: int, size: int, num_heads: int, keys: int, values: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, query, to_key, to_value."""
    return (
        sample(batch, count, size, seed=seed),
        sample(num_heads, keys, seed=seed + 1),
        sample(num_heads, keys, size, seed=seed + 2),
        sample(num_heads, values, size, seed=seed + 3),
    )


def test_by_hand() -> None:
    # The key is the first number and the value twice the second; logits ln 3 and 0 are weights 3/4 and 1/4.
    tokens = torch.tensor([[[math.log(3.0), 5.0], [0.0, 9.0]]])
    attended = attend_folded(
        tokens, torch.ones(1, 1), torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    )
    torch.testing.assert_close(attended.weights, torch.tensor([[[0.75, 0.25]]]))
    torch.testing.assert_close(attended.values, torch.tensor([[[12.0]]]))


@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES),
    score=st.sampled_from(FOLDED_SCORES),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_folded_equals_unfolded(sizes: tuple[int, ...], score: str, masked: bool, seed: int) -> None:
    """With a gradient and without, and the gradients as well."""
    ours = [tensor.requires_grad_() for tensor in inputs(*sizes, seed=seed)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    batch, count, _, heads, _, values = sizes
    mask = sample(batch, 1, count, seed=seed + 4) > 0 if masked else None
    attended = attend_folded(*ours, score=score, mask=mask)
    tokens, query, to_key, to_value = theirs
    expected = attend(
        query.expand(batch, -1, -1)[:, :, None],
        torch.einsum("hks,bns->bhnk", to_key, tokens),
        torch.einsum("hvs,bns->bhnv", to_value, tokens),
        score=score,
        mask=None if mask is None else mask[:, :, None],
    )
    assert attended.values.shape == (batch, heads, values)
    for one, other in zip(attended, expected, strict=True):
        torch.testing.assert_close(one, other[:, :, 0], rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        plain = attend_folded(*ours, score=score, mask=mask)
    assert attended.values.requires_grad and not plain.values.requires_grad
    for one, other in zip(attended, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    for pair in (attended, expected):
        (pair.values.square().sum() + pair.weights.pow(3).sum()).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-8)


@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    shared=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_torchs_module_with_the_same_queries(
    sizes: tuple[int, ...], shared: bool, masked: bool, seed: int
) -> None:
    """One query for all heads, or, as so many queries of torch's, one for each head; biases as well.

    In double precision: sums in another order differ by more than 1e-6 in single precision.
    """
    batch, count, heads, head_size, size = sizes
    embed = heads * head_size
    torch.manual_seed(seed)
    module = nn.MultiheadAttention(embed, heads, kdim=size, vdim=size + 1, batch_first=True).double()
    nn.init.normal_(module.in_proj_bias)
    with torch.no_grad():  # the outputs as the heads give them, to compare them head by head
        module.out_proj.weight.copy_(torch.eye(embed, dtype=torch.float64))
        module.v_proj_weight[:, size] = 0  # vdim differs from kdim, so that torch keeps the three apart
    tokens = sample(batch, count, size, seed=seed, dtype=torch.float64)
    learned = sample(1 if shared else heads, embed, seed=seed + 1, dtype=torch.float64)
    padded = sample(batch, count, seed=seed + 2) > 0
    padded[:, 0] = False
    expected, weights = module(
        learned.expand(batch, -1, -1),
        tokens,
        torch.cat([tokens, tokens[..., :1]], dim=2),
        key_padding_mask=padded if masked else None,
        average_attn_weights=False,
    )
    to_query, to_key, to_value = (
        weight.view(heads, head_size, -1)
        for weight in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight[:, :size])
    )
    query_bias, _, value_bias = module.in_proj_bias.view(3, heads, head_size)  # a key's changes nothing
    query = torch.einsum("hke,he->hk", to_query, learned.expand(heads, -1)) + query_bias
    attended = attend_folded(tokens, query, to_key, to_value, mask=~padded[:, None] if masked else None)

    head = torch.arange(heads)
    row = torch.zeros(heads, dtype=torch.int64) if shared else head
    torch.testing.assert_close(attended.weights, weights[:, head, row], rtol=1e-12, atol=1e-12)
    theirs = expected.view(batch, -1, heads, head_size)[:, row, head]
    torch.testing.assert_close(attended.values + value_bias, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("score", FOLDED_SCORES)
@pytest.mark.parametrize("outputs", ["values", "weights", "both"])
def test_the_gradient_written_by_hand(score: str, outputs: str) -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(2, 7, 5, 3, 2, 3)]
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 1:4] = mask[2] = False
    keep = {"values": slice(0, 1), "weights": slice(1, 2), "both": slice(0, 2)}[outputs]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(attend_folded(*tensors, score=score, mask=mask)[keep])

    assert torch.autograd.gradcheck(function, tensors)


def test_any_memory_layout_with_and_without_gradient() -> None:
    tokens, *learned = inputs(2, 7, 5, 3, 2, 3)
    laid_otherwise = tokens.transpose(1, 2).contiguous().transpose(1, 2)
    grads = []
    for each, expected in ((tokens, False), (laid_otherwise, True)):
        tensors = [
            each.detach().requires_grad_(expected),
            *(tensor.clone().requires_grad_() for tensor in learned),
        ]
        attend_folded(*tensors).values.square().sum().backward()
        assert (tensors[0].grad is not None) == expected
        grads.append([tensor.grad for tensor in tensors[1:]])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score", FOLDED_SCORES)
def test_a_fully_masked_head_gets_zeros(score: str) -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(2, 7, 5, 3, 2, 3)]
    mask = torch.ones(2, 3, 7, dtype=torch.bool)
    mask[1, 2] = False
    attended = attend_folded(*tensors, score=score, mask=mask)
    assert bool((attended.weights[1, 2] == 0).all()) and bool((attended.values[1, 2] == 0).all())
    assert bool((attended.weights[1, 1] > 0).all())
    (attended.values.square().sum() + attended.weights.square().sum()).backward()
    for tensor in tensors:
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", FOLDED_SCORES)
def test_half_precision_does_not_overflow(score: str, dtype: torch.dtype, gradient: bool) -> None:
    """Keys and logits that float16 could not hold."""
    tokens, query, to_key, to_value = inputs(2, 7, 64, 3, 64, 2)
    tensors = [each.to(dtype) for each in (300 * tokens, 300 * query, 300 * to_key, to_value)]
    attended = attend_folded(*(tensor.requires_grad_(gradient) for tensor in tensors), score=score)
    assert attended.values.dtype == attended.weights.dtype == dtype
    assert bool(attended.values.isfinite().all())
    torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(2, 3), rtol=0, atol=0.02)


def test_under_autocast() -> None:
    tensors = [tensor.float().requires_grad_() for tensor in inputs(2, 7, 5, 3, 2, 3)]
    with torch.autocast("cpu", torch.bfloat16):
        attended = attend_folded(*tensors)
    attended.values.sum().backward()
    for one, other in zip(attended, attend_folded(*tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.1)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    tensors = [tensor.requires_grad_() for tensor in inputs(batch, 7, 5, 3, 2, 11)]
    attended = attend_folded(*tensors)
    assert attended.values.shape == (batch, 3, 11) and attended.weights.shape == (batch, 3, 7)
    attended.values.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in tensors)


def test_invalid_input_raises_value_error() -> None:
    tokens, query, to_key, to_value = good = inputs(2, 7, 5, 3, 2, 11)
    for match, arguments, options in (
        (
            "expected a score that can be folded among dot, scaled_dot, standardized, got 'cosine'",
            good,
            {"score": "cosine"},
        ),
        ("did you mean 'scaled_dot'", good, {"score": "scaled_dott"}),
        (r"expected tokens .* got shape \[7, 5\]", (tokens[0], query, to_key, to_value), {}),
        ("with at least 1 token, got shape", (tokens[:, :0], query, to_key, to_value), {}),
        ("that agree on h, k and the tokens' s = 4", (tokens[..., :4], query, to_key, to_value), {}),
        ("that agree on h, k", (tokens, query[:2], to_key, to_value), {}),
        ("that agree on h, k", (tokens, query, to_key[:, :1], to_value), {}),
        ("that agree on h, k", (tokens, query, to_key, to_value[:1]), {}),
        ("expected tokens of finite numbers", (tokens / 0.0, query, to_key, to_value), {}),
        ("expected to_value of finite numbers", (tokens, query, to_key, to_value * math.nan), {}),
        ("expected mask of bool", good, {"mask": torch.ones(3, 7)}),
        ("expected mask that broadcasts", good, {"mask": torch.ones(5, 7, dtype=torch.bool)}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_folded(*arguments, **options)  # type: ignore[arg-type]


class Folded(nn.Module):
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(attend_folded(*tensors, score="standardized"))


def test_compiles_to_one_graph_with_the_same_result() -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Folded(), inputs(2, 7, 5, 3, 2, 3), dynamic_shapes=(({0: batch}, None, None, None),)
    )
    tensors = inputs(5, 7, 5, 3, 2, 3)
    for one, other in zip(program.module()(*tensors), Folded()(*tensors), strict=True):
        torch.testing.assert_close(one, other)
