"""Local attention, compared with full attention under a band mask; and the family "local"."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from robot_attn import attend, build_score
from robot_attn.attention._local import attend_local, attend_local_grid, spread_local, spread_local_grid
from robot_attn.families._local import LocalAttention


def tensors(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def near(rows: int, cols: int, window: tuple[int, int]) -> Tensor:
    """bool [rows * cols, rows * cols]: is that cell in the window of this one?"""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"))
    down, across = (y - y[:, None]).abs(), (x - x[:, None]).abs()
    return (down <= window[0] // 2) & (across <= window[1] // 2)


def every_cell(rows: int, cols: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).view(-1, 2)


def test_by_hand() -> None:
    # Logits are the keys themselves: the query of 0 in the middle sees ln 2, ln 3 and 0, as 2 : 3 : 1.
    key = torch.tensor([math.log(2.0), math.log(3.0), 0.0, math.log(5.0)]).view(1, 1, 4, 1)
    value = torch.tensor([6.0, 12.0, 18.0, 24.0]).view(1, 1, 4, 1)
    attended = attend_local(torch.ones(1, 1, 4, 1), key, value, window=3, score="dot")
    weights = torch.tensor(
        [[0, 2 / 5, 3 / 5], [2 / 6, 3 / 6, 1 / 6], [3 / 9, 1 / 9, 5 / 9], [1 / 6, 5 / 6, 0]]
    )
    torch.testing.assert_close(attended.weights, weights[None, None])
    values = torch.tensor([12 / 5 + 36 / 5, 11.0, 4 + 2 + 120 / 9, 23.0])
    torch.testing.assert_close(attended.values, values.view(1, 1, 4, 1))
    row = spread_local(attended.weights, torch.tensor([3, 1]))
    torch.testing.assert_close(
        row, torch.tensor([[0, 0, 1 / 6, 5 / 6], [2 / 6, 3 / 6, 1 / 6, 0]])[None, None]
    )


LENGTHS = st.sampled_from([1, 2, 3, 5, 7, 13, 31, 53])
SIZES = st.sampled_from([1, 2, 3, 5])


@given(
    length=LENGTHS,
    sizes=st.tuples(*[SIZES] * 4),
    window=st.sampled_from([1, 3, 5, 17, 61]),
    shared=st.booleans(),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_sequence_equals_attention_with_a_band_mask(
    length: int, sizes: tuple[int, ...], window: int, shared: bool, seed: int, dtype: torch.dtype
) -> None:
    batch, heads, size, values = sizes
    of = 1 if shared else heads
    query, key, value = tensors(
        seed,
        (batch, heads, length, size),
        (batch, of, length, size),
        (batch, of, length, values),
        dtype=dtype,
    )
    attended = attend_local(query, key, value, window=window)
    band = near(1, length, (1, window))
    # Torch's own attention, which gives no weights, and ours, which does.
    each = [tokens.expand(batch, heads, -1, -1) for tokens in (key, value)]
    plain = F.scaled_dot_product_attention(query, *each, attn_mask=band)
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-10}
    torch.testing.assert_close(attended.values, plain, **close)
    assert attended.weights.shape == (batch, heads, length, window)
    spread = spread_local(attended.weights, torch.arange(length))
    torch.testing.assert_close(spread, attend(query, key, value, mask=band).weights, **close)
    torch.testing.assert_close(attended.weights.sum(-1), torch.ones(batch, heads, length, dtype=dtype))


@given(
    grid=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7, 11])] * 2),
    sizes=st.tuples(*[SIZES] * 4),
    window=st.tuples(*[st.sampled_from([1, 3, 5, 9])] * 2),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_grid_equals_attention_with_a_window_mask(
    grid: tuple[int, int],
    sizes: tuple[int, ...],
    window: tuple[int, int],
    masked: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    batch, heads, size, values = sizes
    shapes = [(batch, heads, *grid, last) for last in (size, size, values)]
    query, key, value = tensors(seed, *shapes, dtype=dtype)
    drawn = tensors(seed + 1, (batch, 1, *grid, window[0] * window[1]))[0] > -0.5
    mask = drawn if masked else None
    attended = attend_local_grid(query, key, value, window=window, mask=mask)
    seen_from = near(*grid, window)
    if masked:
        # One cell of a window at a time: where in the grid it is, and whether it may be looked at.
        seen_from = torch.zeros(batch, 1, *grid, *grid, dtype=torch.bool)
        for y, x in every_cell(*grid).tolist():
            for place in range(window[0] * window[1]):
                row = y + place // window[1] - window[0] // 2
                col = x + place % window[1] - window[1] // 2
                if 0 <= row < grid[0] and 0 <= col < grid[1]:
                    seen_from[:, 0, y, x, row, col] = drawn[:, 0, y, x, place]
        seen_from = seen_from.flatten(4).flatten(2, 3)
    flat = attend(*(cells.flatten(2, 3) for cells in (query, key, value)), mask=seen_from)
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-10}
    torch.testing.assert_close(attended.values.flatten(2, 3), flat.values, **close)
    assert attended.weights.shape == (batch, heads, *grid, window[0] * window[1])
    spread = spread_local_grid(attended.weights, every_cell(*grid), window=window)
    torch.testing.assert_close(spread.flatten(3), flat.weights, **close)


@pytest.mark.parametrize("name", ["additive", "cosine", "dot", "scaled_dot"])
def test_any_pairwise_score(name: str) -> None:
    torch.manual_seed(0)
    query, key, value = tensors(0, (2, 3, 5, 7, 4), (2, 3, 5, 7, 4), (2, 3, 5, 7, 2))
    score = build_score(name, 4, 3)
    if isinstance(score, nn.Module):
        score.double()
        with torch.no_grad():
            for parameter in score.parameters():
                parameter.add_(torch.randn_like(parameter))  # the heads differ
    attended = attend_local_grid(query, key, value, window=(3, 5), score=score)
    flat = attend(
        *(cells.flatten(2, 3) for cells in (query, key, value)), mask=near(5, 7, (3, 5)), score=score
    )
    torch.testing.assert_close(attended.values.flatten(2, 3), flat.values, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "dot", "scaled_dot"])
def test_gradients(name: str) -> None:
    inputs = [
        tensor.requires_grad_() for tensor in tensors(1, (1, 2, 5, 6, 2), (1, 2, 5, 6, 2), (1, 1, 5, 6, 1))
    ]
    mask = torch.ones(5, 6, 9, dtype=torch.bool)
    mask[1, 2, 3:7] = False
    mask[4, 0] = False
    assert torch.autograd.gradcheck(
        lambda q, k, v: tuple(attend_local_grid(q, k, v, window=(3, 3), score=name, mask=mask)), inputs
    )


def test_a_fully_masked_query() -> None:
    inputs = [tensor.requires_grad_() for tensor in tensors(2, *[(2, 3, 19, 5)] * 3)]
    mask = torch.ones(2, 1, 19, 7, dtype=torch.bool)
    mask[0, :, 11] = False
    mask[1, :, 0, 3:] = False  # open only where the sequence has not begun
    attended = attend_local(*inputs, window=7, mask=mask)
    for tensor in attended:
        assert bool((tensor[0, :, 11] == 0).all()) and bool((tensor[1, :, 0] == 0).all())
    torch.testing.assert_close(attended.weights[1, :, 1:].sum(-1), torch.ones(3, 18, dtype=torch.float64))
    (attended.values.square().sum() + attended.weights.square().sum()).backward()
    assert all(tensor.grad is not None and bool(tensor.grad.isfinite().all()) for tensor in inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", ["cosine", "dot", "scaled_dot"])
def test_half_precision_does_not_overflow(score: str, dtype: torch.dtype) -> None:
    query, key, value = (300 * tensor for tensor in tensors(3, *[(2, 3, 23, 64)] * 3))
    half = [tensor.to(dtype) for tensor in (query, key, value)]
    attended = attend_local(*half, window=5, score=score)
    exact = attend_local(*(tensor.double() for tensor in half), window=5, score=score)
    assert attended.values.dtype == attended.weights.dtype == dtype
    torch.testing.assert_close(attended.weights.double(), exact.weights, rtol=0, atol=0.01)


def test_an_empty_batch() -> None:
    attended = attend_local_grid(*[torch.rand(0, 2, 5, 7, 3)] * 3, window=(3, 3))
    assert attended.values.shape == (0, 2, 5, 7, 3) and attended.weights.shape == (0, 2, 5, 7, 9)


class Made(TorchDispatchMode):
    """Counts the numbers that operations give: of the largest tensor, and of all together."""

    largest = 0
    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for tensor in given if isinstance(given, tuple | list) else (given,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
                self.total += tensor.numel()
        return given


def test_memory_is_linear_in_the_tokens() -> None:
    """With the gradient too: twice the tokens, twice the numbers, and nothing near n x n."""

    def made(length: int) -> Made:
        inputs = [torch.rand(1, 2, length, 8, requires_grad=True) for _ in range(3)]
        with Made() as count:
            attend_local(*inputs, window=33)[0].sum().backward()
        return count

    small, large = made(66 * 10), made(66 * 160)
    assert large.largest < 16 * small.largest * 1.01 < (66 * 160) ** 2 / 10
    assert large.total < 16 * small.total * 1.01


def test_invalid_input_raises_value_error() -> None:
    tokens, grid = torch.rand(2, 3, 11, 5), torch.rand(2, 3, 7, 11, 5)
    closed = torch.ones(2, 3, 11, 5)
    learned = build_score("standardized", 5, 3)
    for match, arguments, options in (
        (r"expected query \[batch, heads, tokens, dim\], got shape \[3, 11, 5\]", (tokens[0],) * 3, {}),
        (r"expected key \[batch, heads, tokens, dim\]", (tokens, grid, tokens), {}),
        ("expected query, key and value .* that agree in all but heads", (tokens, tokens[:, :2], tokens), {}),
        (
            "expected query, key and value .* that agree in all but heads",
            (tokens, tokens[:, :, :7], tokens),
            {},
        ),
        ("expected query, key and value .* that agree in all but heads", (tokens, tokens, tokens[:1]), {}),
        ("expected at least 1 key", (tokens[:, :, :0],) * 3, {}),
        ("expected a window of an odd number, got 4", (tokens,) * 3, {"window": 4}),
        ("expected a window of an odd number, got -3", (tokens,) * 3, {"window": -3}),
        ("expected a window of an odd number, got True", (tokens,) * 3, {"window": True}),
        ("expected key of finite numbers", (tokens, tokens * math.nan, tokens), {}),
        ("did you mean 'scaled_dot'", (tokens,) * 3, {"score": "scaled_dott"}),
        ("needs all keys at once", (tokens,) * 3, {"score": "standardized"}),
        ("needs all keys at once", (tokens,) * 3, {"score": learned}),
        ("queries and keys of the same dimension .*, got 5 and 2", (tokens, tokens[..., :2], tokens), {}),
        ("expected mask of bool", (tokens,) * 3, {"mask": closed}),
        ("expected mask that broadcasts", (tokens,) * 3, {"mask": closed > 0}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_local(*arguments, **{"window": 3, **options})  # type: ignore[arg-type]
    for match, arguments, options in (
        (r"expected query \[batch, heads, rows, columns, dim\]", (tokens, grid, grid), {}),
        (
            "expected query, key and value .* that agree in all but heads",
            (grid, grid.transpose(2, 3), grid),
            {},
        ),
        ("expected at least 1 key", (grid[:, :, :0],) * 3, {}),
        ("expected a window of an odd number of rows, got 2", (grid,) * 3, {"window": (2, 3)}),
        ("expected a window of an odd number of columns, got 0", (grid,) * 3, {"window": (3, 0)}),
        ("expected mask that broadcasts", (grid,) * 3, {"mask": torch.ones(7, 11, 3, dtype=torch.bool)}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_local_grid(*arguments, **{"window": (3, 3), **options})  # type: ignore[arg-type]
    weights, places = torch.rand(2, 3, 11, 5), torch.arange(3)
    for match, call in (
        (r"places int64 \[m\]", lambda: spread_local(weights[0], places)),
        ("places torch.float32", lambda: spread_local(weights, places.float())),
        ("expected a window of an odd number", lambda: spread_local(weights[..., :4], places)),
        ("expected cells inside the grid of 1 x 11", lambda: spread_local(weights, places + 9)),
        ("expected cells inside the grid of 1 x 11", lambda: spread_local(weights, places - 1)),
        (
            "columns, 9], of windows of 3 x 3",
            lambda: spread_local_grid(grid, every_cell(2, 2), window=(3, 3)),
        ),
        (r"expected cells int64 \[m, 2\]", lambda: spread_local_grid(grid, places, window=(1, 5))),
    ):
        with pytest.raises(ValueError, match=match):
            call()


# ------------------------------------------------------------------------------------------------ the family


def test_a_patch_depends_on_its_window_only() -> None:
    """One layer: a change in one patch's frame reaches the tokens of its window, and no others."""
    torch.manual_seed(0)
    module = LocalAttention((3, 64, 64), window=5).double()
    tokens = []
    module.before_pooling.register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0]))
    frames = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = frames.clone()
    other[..., 32, 35] = 1 - other[..., 32, 35]  # in the patches of rows 7, 8 and columns 7, 8
    module(frames), module(other)
    changed = (tokens[0] != tokens[1]).any(-1).view(15, 15)
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[5:11, 5:11] = True
    assert torch.equal(changed, expected)


def test_the_map_is_attention_rollout_over_the_windows() -> None:
    """Against the N x N matrix of each layer, laid out and multiplied."""
    torch.manual_seed(0)
    module = LocalAttention((3, 41, 53), layers=2, num_layer_heads=2, window=5).double()
    frames = torch.rand(3, 3, 41, 53, dtype=torch.float64)
    rolled = module(frames)
    matrices = []
    attend_tokens = module.attend_tokens

    def recorded(*tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        attended = attend_tokens(*tokens)
        assert attended[1] is not None
        cells = every_cell(*module.grid.shape)
        matrices.append(spread_local_grid(attended[1], cells, window=(5, 5)).flatten(3).mean(1))
        return attended

    module.attend_tokens = recorded  # type: ignore[method-assign]
    module(frames)
    module.attend_tokens = attend_tokens  # type: ignore[method-assign]
    module.rollout = False
    pooled = module(frames)
    first, second = (0.5 * matrix + 0.5 * torch.eye(matrix.shape[-1]) for matrix in matrices)
    expected = pooled.attention.flatten(2) @ second @ first
    torch.testing.assert_close(rolled.attention.flatten(2), expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(rolled.features, pooled.features)


@pytest.mark.parametrize("rollout", [False, True])
def test_compiles_to_one_graph_for_any_batch(rollout: bool) -> None:
    module = LocalAttention((3, 33, 37), 2, rollout=rollout)
    batch = torch.export.Dim("batch")
    given = {"frames": torch.rand(2, 3, 33, 37), "context": torch.rand(2, 2)}
    shapes = {name: {0: batch} for name in given}
    program = torch.export.export(module, (), given, dynamic_shapes=shapes, strict=True).module()
    frames, context = torch.rand(5, 3, 33, 37), torch.rand(5, 2)
    for one, other in zip(program(frames=frames, context=context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": 4}, "expected window as an odd number of patches, got 4"),
        ({"window": 0}, "expected window as a whole number of at least 1"),
        ({"layers": 0}, "expected layers as a whole number of at least 1"),
        ({"embed_dim": 15, "num_layer_heads": 2}, "a multiple of num_layer_heads, got 15 and 2"),
        ({"rollout": 1}, "expected rollout as True or False, got 1"),
        ({"score": "dott"}, "did you mean 'dot'"),
    ],
)
def test_invalid_options_raise_value_error(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LocalAttention((3, 32, 32), **options)
