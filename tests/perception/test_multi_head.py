"""`MultiHeadAttention`, compared with torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robot_attn import SCORES
from robot_attn.attention import LEARNED_SCORES
from robot_attn.attention._multi_head import MultiHeadAttention

SIZES = st.sampled_from([1, 2, 3, 5, 7, 11])


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def torchs(embed: int, num_heads: int, seed: int = 0, **options: object) -> nn.MultiheadAttention:
    """A module of torch with biases other than its initial zeros."""
    torch.manual_seed(seed)
    module = nn.MultiheadAttention(embed, num_heads, **options)  # type: ignore[arg-type]
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return module


def test_by_hand() -> None:
    """Identity projections: head i compares and reads the i-th slice of the numbers."""
    module = MultiHeadAttention(2, 2, bias=False)
    with torch.no_grad():
        for linear in (module.to_query, module.to_key, module.to_value, module.to_output):
            linear.weight.copy_(torch.eye(2))
    query = torch.tensor([[[1.0, 2.0]]])
    key = torch.tensor([[[0.0, 0.0], [1.0, 0.5]]]) * torch.tensor(3.0).log()
    attended = module(query, key, torch.tensor([[[4.0, 8.0], [0.0, 16.0]]]))
    torch.testing.assert_close(attended.weights, torch.tensor([[[[0.25, 0.75]], [[0.25, 0.75]]]]))
    torch.testing.assert_close(attended.values, torch.tensor([[[1.0, 14.0]]]))


@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    others=st.none() | st.tuples(SIZES, SIZES),
    bias=st.booleans(),
    batch_first=st.booleans(),
    masked=st.sampled_from(["no", "attn_mask", "key_padding_mask", "both"]),
    seed=st.integers(0, 2**31),
)
def test_weights_round_trip_to_torchs_module(
    sizes: tuple[int, ...],
    others: tuple[int, int] | None,
    bias: bool,
    batch_first: bool,
    masked: str,
    seed: int,
) -> None:
    batch, queries, keys, heads, head_size = sizes
    embed = heads * head_size
    key_dim, value_dim = others or (embed, embed)
    theirs = torchs(embed, heads, seed, kdim=key_dim, vdim=value_dim, bias=bias, batch_first=batch_first)
    query, key, value = (
        sample(batch, count, size, seed=seed + index)
        for index, (count, size) in enumerate(((queries, embed), (keys, key_dim), (keys, value_dim)))
    )
    hidden, padded = sample(queries, keys, seed=seed) > 0, sample(batch, keys, seed=seed) > 0
    hidden[:, 0] = padded[:, 0] = False  # torch's module gives NaN for a fully masked row
    mask, options = torch.ones(1, 1, 1, 1, dtype=torch.bool), {}
    if masked in ("attn_mask", "both"):
        mask, options["attn_mask"] = mask & ~hidden, hidden
    if masked in ("key_padding_mask", "both"):
        mask, options["key_padding_mask"] = mask & ~padded[:, None, None], padded

    ours = MultiHeadAttention.from_torch(theirs)
    values, weights = ours(query, key, value, mask=None if masked == "no" else mask)
    for module in (theirs, ours.to_torch(batch_first=batch_first)):
        inputs = (
            (query, key, value) if batch_first else (each.transpose(0, 1) for each in (query, key, value))
        )
        expected, expected_weights = module(*inputs, need_weights=True, average_attn_weights=False, **options)
        expected = expected if batch_first else expected.transpose(0, 1)
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(weights, expected_weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kdim": 5, "vdim": 7}, {"kdim": 5}, {"bias": False}])
def test_the_state_dict_round_trips(options: dict[str, object]) -> None:
    theirs = torchs(6, 3, **options)
    ours = MultiHeadAttention.from_torch(theirs)
    state = ours.torch_state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor)
        state[name].add_(1)  # a copy: neither module changes with it
    for name, tensor in ours.torch_state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor)


def test_self_attention_and_values_that_are_keys() -> None:
    module = MultiHeadAttention(6, 2)
    query, key = sample(2, 3, 6), sample(2, 5, 6, seed=1)
    for one, other in zip(module(query), module(query, query, query), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(module(query, key), module(query, key, key), strict=True):
        assert torch.equal(one, other)


def test_the_dtype_is_kept() -> None:
    theirs = torchs(6, 2).double()
    ours = MultiHeadAttention.from_torch(theirs)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in ours.to_torch().parameters()} == {torch.float64}


@pytest.mark.parametrize("score", sorted({*SCORES, *LEARNED_SCORES}))
def test_gradients(score: str) -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(6, 2, key_dim=5, value_dim=3, score=score).double()
    shapes = ((2, 3, 6), (2, 4, 5), (2, 4, 3))
    inputs = [sample(*shape, seed=index, dtype=torch.float64) for index, shape in enumerate(shapes)]
    parameters = dict(module.named_parameters())
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[0, 1:3] = mask[2] = False

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        weights = dict(zip(parameters, tensors[3:], strict=True))
        return tuple(torch.func.functional_call(module, weights, tensors[:3], {"mask": mask}))

    tensors = [*inputs, *(parameter.detach() for parameter in parameters.values())]
    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in tensors])


def test_a_fully_masked_query_reads_zeros() -> None:
    module = MultiHeadAttention.from_torch(torchs(6, 2))
    query = sample(2, 5, 6).requires_grad_()
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[3] = False
    attended = module(query, mask=mask)
    assert bool((attended.weights[:, :, 3] == 0).all()) and bool((attended.weights[:, :, 2] > 0).all())
    torch.testing.assert_close(attended.values[:, 3], module.to_output.bias.expand(2, 6), rtol=0, atol=0)
    (attended.values.square().sum() + attended.weights.square().sum()).backward()
    for tensor in (query, *module.parameters()):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    module = MultiHeadAttention(64, 2).to(dtype)
    attended = module(300 * sample(2, 7, 64, dtype=dtype))
    assert attended.values.dtype == attended.weights.dtype == dtype
    assert bool(attended.values.isfinite().all())
    torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(2, 2, 7), rtol=0, atol=0.02)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    attended = MultiHeadAttention(6, 3)(torch.rand(batch, 5, 6), torch.rand(batch, 7, 6))
    assert attended.values.shape == (batch, 5, 6) and attended.weights.shape == (batch, 3, 5, 7)


def test_invalid_input_raises_value_error() -> None:
    module = MultiHeadAttention(6, 2, key_dim=5)
    query, key = sample(2, 3, 6), sample(2, 7, 5)
    for match, arguments, options in (
        (r"expected query \[batch, tokens, 6\], got shape \[3, 6\]", (query[0], key), {}),
        (r"expected key \[batch, tokens, 5\], got shape \[2, 3, 6\]", (query,), {}),
        (r"expected value \[batch, tokens, 5\]", (query, key, query), {}),
        ("that agree on B and n", (query, key[:1]), {}),
        ("that agree on B and n", (query, key, key[:, :5]), {}),
        ("expected at least 1 key", (query, key[:, :0]), {}),
        ("expected key of finite numbers", (query, key / 0.0), {}),
        ("expected mask of bool", (query, key), {"mask": torch.ones(3, 7)}),
        ("expected mask that broadcasts", (query, key), {"mask": torch.ones(3, 5, dtype=torch.bool)}),
    ):
        with pytest.raises(ValueError, match=match):
            module(*arguments, **options)
    for match, sizes, named in (
        ("embed_dim that is a multiple of num_heads, got 6 and 4", (6, 4), {}),
        ("expected num_heads as a whole number of at least 1, got 0", (6, 0), {}),
        ("expected key_dim as a whole number of at least 1, got True", (6, 2), {"key_dim": True}),
        ("did you mean 'scaled_dot'", (6, 2), {"score": "scaled_dott"}),
    ):
        with pytest.raises(ValueError, match=match):
            MultiHeadAttention(*sizes, **named)  # type: ignore[arg-type]


def test_options_without_an_equivalent_in_torch_are_refused() -> None:
    with pytest.raises(ValueError, match="without add_bias_kv, got one with it"):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(6, 2, add_bias_kv=True))
    with pytest.raises(ValueError, match="without add_zero_attn, got one with it"):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(6, 2, add_zero_attn=True))
    for export in ("to_torch", "torch_state_dict"):
        with pytest.raises(ValueError, match="expected score 'scaled_dot', the only one"):
            getattr(MultiHeadAttention(6, 2, score="dot"), export)()
    module = MultiHeadAttention(6, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for other in (torchs(4, 2), torchs(6, 2, bias=False), torchs(6, 2, kdim=5)):
        with pytest.raises(ValueError, match=r"expected state with tensors of the shapes .* got"):
            module.load_torch_state_dict(other.state_dict())
    for name, tensor in module.state_dict().items():
        assert torch.equal(before[name], tensor)


@pytest.mark.parametrize("score", ["scaled_dot", "additive"])
def test_compiles_to_one_graph_with_the_same_result(score: str) -> None:
    module = MultiHeadAttention(6, 2, score=score)
    batch = torch.export.Dim("batch", min=2, max=64)
    inputs = (sample(2, 3, 6), sample(2, 5, 6, seed=1))
    program = torch.export.export(module, inputs, dynamic_shapes=({0: batch}, {0: batch}))
    inputs = (sample(7, 3, 6), sample(7, 5, 6, seed=1))
    for one, other in zip(program.module()(*inputs), module(*inputs), strict=True):
        torch.testing.assert_close(one, other)
