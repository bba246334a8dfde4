"""`attend_hierarchical`, compared with its formula written out, and the family "hierarchical"."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn import SCORES, attend, upsample_attention
from robot_attn.attention import build_score
from robot_attn.attention._hierarchical import attend_hierarchical
from robot_attn.families._hierarchical import Hierarchical

SIZES = st.sampled_from([1, 2, 3, 5])


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks_of(grid: tuple[int, int], cell: int) -> list[list[int]]:
    """The tokens in each block, block rows first."""
    rows, cols = grid
    return [
        [y * cols + x for y in range(rows)[top : top + cell] for x in range(cols)[left : left + cell]]
        for top in range(0, rows, cell)
        for left in range(0, cols, cell)
    ]


def written_out(
    query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, int], cell: int, top: int
) -> tuple[Tensor, Tensor]:
    """One query [d], its keys [n, d] and values [n, v], block by block."""
    scale = math.sqrt(len(query))
    blocks = blocks_of(grid, cell)
    coarse = torch.stack([torch.stack([key[i] for i in block]).mean(0) @ query / scale for block in blocks])
    chosen = sorted(range(len(blocks)), key=lambda m: -float(coarse[m]))[:top]
    total = sum(math.exp(coarse[m]) for m in chosen)
    weights = torch.zeros(len(key), dtype=torch.float64)
    for m in chosen:
        inside = [math.exp(key[i] @ query / scale) for i in blocks[m]]
        for i, fine in zip(blocks[m], inside, strict=True):
            weights[i] = math.exp(coarse[m]) / total * fine / sum(inside)
    return weights @ value, weights


def test_by_hand() -> None:
    # A row of four tokens in blocks of two. Means 1 and ln 4 + 1 of the keys: coarsely 1 : 4. Inside, the
    # first block is even, the second e^(2 ln 3) : 1 about its mean, so 9 : 1.
    key = torch.tensor([1.0, 1.0, math.log(4) + 1 + math.log(3), math.log(4) + 1 - math.log(3)])
    value = torch.tensor([10.0, 20.0, 30.0, 40.0])
    query = torch.ones(1, 1, 1, 1)
    for top, expected in ((2, [0.1, 0.1, 0.72, 0.08]), (1, [0.0, 0.0, 0.9, 0.1])):
        # With cells of side two the blocks are one row high.
        attended = attend_hierarchical(
            query, key.view(1, 1, 4, 1), value.view(1, 1, 4, 1), (1, 4), cell=2, top=top
        )
        torch.testing.assert_close(attended.weights, torch.tensor(expected).view(1, 1, 1, 4))
        torch.testing.assert_close(attended.values.item(), float(torch.tensor(expected) @ value))


@given(
    sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    grid=st.tuples(st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 2, 3, 5, 7])),
    cell=st.sampled_from([1, 2, 3, 4]),
    part=st.sampled_from([0.0, 0.4, 1.0]),
    shared=st.sampled_from(["neither", "keys", "values", "both"]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_formula_written_out(
    sizes: tuple[int, ...],
    grid: tuple[int, int],
    cell: int,
    part: float,
    shared: str,
    seed: int,
) -> None:
    b, h, q, d, v = sizes
    n = grid[0] * grid[1]
    top = 1 + round(part * (len(blocks_of(grid, cell)) - 1))
    query = sample(b, h, q, d, seed=seed)
    key = sample(b, 1 if shared in ("keys", "both") else h, n, d, seed=seed + 1)
    value = sample(b, 1 if shared in ("values", "both") else h, n, v, seed=seed + 2)
    attended = attend_hierarchical(query, key, value, grid, cell=cell, top=top)
    assert attended.values.shape == (b, h, q, v) and attended.weights.shape == (b, h, q, n)
    keys, values = key.expand(b, h, n, d), value.expand(b, h, n, v)
    for item in (0, b - 1):
        for head in (0, h - 1):
            for index in (0, q - 1):
                expected = written_out(
                    query[item, head, index], keys[item, head], values[item, head], grid, cell, top
                )
                for one, other in zip(attended, expected, strict=True):
                    torch.testing.assert_close(one[item, head, index], other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_one_token_per_block_equals_attention(score: str) -> None:
    query, key, value = sample(2, 3, 5, 7), sample(2, 3, 11 * 3, 7, seed=1), sample(2, 1, 11 * 3, 2, seed=2)
    attended = attend_hierarchical(query, key, value, (11, 3), cell=1, top=33, score=score)
    for one, other in zip(attended, attend(query, key, value, score=score), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_a_single_block_equals_attention(score: str) -> None:
    query, key, value = sample(2, 3, 5, 7), sample(2, 1, 25, 7, seed=1), sample(2, 3, 25, 2, seed=2)
    attended = attend_hierarchical(query, key, value, (5, 5), cell=5, top=1, score=score)
    for one, other in zip(attended, attend(query, key, value, score=score), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_separate_coarse_queries_and_keys() -> None:
    """The weights of blocks are then those of `attend` with them."""
    query, key, value = sample(2, 3, 5, 7), sample(2, 3, 15, 7, seed=1), sample(2, 3, 15, 2, seed=2)
    coarse_query, coarse_key = sample(2, 3, 5, 4, seed=3), sample(2, 1, 6, 4, seed=4)
    attended = attend_hierarchical(
        query, key, value, (3, 5), cell=2, top=6, coarse_query=coarse_query, coarse_key=coarse_key
    )
    blocks = torch.stack([attended.weights[..., block].sum(-1) for block in blocks_of((3, 5), 2)], dim=-1)
    expected = attend(coarse_query, coarse_key, coarse_key).weights
    torch.testing.assert_close(blocks, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_gradients(score: str) -> None:
    inputs = [sample(1, 2, 3, 4), sample(1, 1, 15, 4, seed=1), sample(1, 2, 15, 2, seed=2)]

    def function(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        return tuple(attend_hierarchical(query, key, value, (3, 5), cell=2, top=2, score=score))

    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


def test_the_gradient_reaches_both_levels() -> None:
    query, key, value = sample(1, 2, 1, 4), sample(1, 1, 15, 4, seed=1), sample(1, 1, 15, 2, seed=2)
    coarse = [sample(1, 2, 1, 3, seed=3).requires_grad_(), sample(1, 1, 6, 3, seed=4).requires_grad_()]
    fine = [query.requires_grad_(), key.requires_grad_()]
    attend_hierarchical(
        query, key, value, (3, 5), cell=2, top=2, coarse_query=coarse[0], coarse_key=coarse[1]
    ).values.sum().backward()
    for tensor in (*coarse, *fine):
        assert tensor.grad is not None and bool((tensor.grad != 0).any())


@pytest.mark.parametrize("score", ["additive", "cosine", "standardized"])
def test_learned_scores(score: str) -> None:
    module = build_score(score, 4, 3).double()  # type: ignore[attr-defined]
    query, key, value = sample(2, 3, 5, 4), sample(2, 1, 15, 4, seed=1), sample(2, 1, 15, 2, seed=2)
    attended = attend_hierarchical(query, key, value, (3, 5), cell=2, top=3, score=module)
    torch.testing.assert_close(attended.weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    assert bool(((attended.weights > 0).sum(-1) <= 3 * 4).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    query, key, value = (
        (3000 * tensor).clamp(-6e4, 6e4).abs().to(dtype)
        for tensor in (sample(2, 3, 5, 64), sample(2, 3, 77, 64, seed=1), sample(2, 3, 77, 7, seed=2))
    )
    attended = attend_hierarchical(query, 4 * key, value, (7, 11), cell=4, top=3)
    assert attended.values.dtype == attended.weights.dtype == dtype
    assert bool(attended.values.isfinite().all())
    torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(2, 3, 5), rtol=0, atol=0.02)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    inputs = [torch.rand(batch, 2, 3, 5), torch.rand(batch, 1, 15, 5), torch.rand(batch, 2, 15, 11)]
    attended = attend_hierarchical(*(tensor.requires_grad_() for tensor in inputs), (3, 5), cell=2, top=2)
    assert attended.values.shape == (batch, 2, 3, 11) and attended.weights.shape == (batch, 2, 3, 15)
    attended.values.sum().backward()
    assert all(tensor.grad is not None for tensor in inputs)


def test_invalid_input_raises_value_error() -> None:
    query, key, value = good = sample(2, 3, 5, 7), sample(2, 3, 15, 7), sample(2, 3, 15, 2)
    for match, arguments, options in (
        ("expected a grid of 15 cells, one for each key, got 4 x 4", (*good, (4, 4)), {}),
        ("expected a grid of 15 cells", (*good, (-3, -5)), {}),
        ("expected cell as a whole number of at least 1, got 0", (*good, (3, 5)), {"cell": 0}),
        ("expected top as a whole number from 1 to the 6 blocks, got 7", (*good, (3, 5)), {"top": 7}),
        ("expected top as a whole number from 1 to the 6 blocks, got 0", (*good, (3, 5)), {"top": 0}),
        (r"expected query \[batch, heads, tokens, dim\]", (query[0], key, value, (3, 5)), {}),
        ("expected at least 1 key", (query, key[:, :, :0], value[:, :, :0], (0, 5)), {}),
        ("expected value of finite numbers", (query, key, value * math.nan, (3, 5)), {}),
        ("did you mean 'scaled_dot'", (*good, (3, 5)), {"score": "scaled_dott"}),
        ("coarse_key of 6 blocks", (*good, (3, 5)), {"coarse_key": key[:, :, :5]}),
        (r"expected coarse_query \[2, 3, 5, e\]", (*good, (3, 5)), {"coarse_query": query[:, :, :2]}),
    ):
        with pytest.raises(ValueError, match=match):
            attend_hierarchical(*arguments, **{"cell": 2, "top": 2, **options})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- the family


def test_the_map_is_finer_than_the_patches_and_zero_outside_the_selected_ones() -> None:
    torch.manual_seed(0)
    module = Hierarchical((3, 64, 64), num_heads=3, top=4)
    assert module.grid.shape == (30, 30) and module.features_dim == 128
    attention = module(torch.rand(5, 3, 64, 64)).attention
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(5, 3))
    patches = F.avg_pool2d(attention, 2)
    assert bool(((patches > 0).sum((2, 3)) == 4).all())


def test_cells_attend_where_their_centres_are() -> None:
    """One bright spot of 6 x 6 pixels that just one of the fine patches holds: there is the maximum."""
    module = Hierarchical((1, 47, 64), features_dim=2, num_heads=1, patch_dim=1, top=5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.get_parameter("patches.weight").fill_(1.0)
        module.get_parameter("patches.bias").fill_(32.0)  # makes up for mid-grey: a black patch is 0
        module.get_parameter("inner.weight").fill_(1.0)
        module.get_parameter("inner.bias").fill_(18.0)
        module.get_parameter("queries.weight").fill_(1.0)
        module.get_parameter("inner_queries.weight").fill_(1.0)
        module.get_parameter("readout.score.log_temperature").fill_(3.0)
    ys, xs = module.grid.ys, module.grid.xs
    for row, col in ((0, 0), (3, 8), (12, 29), (19, 17)):
        assert module.grid.shape == (20, 30)
        frame = torch.zeros(1, 1, 47, 64)
        top, left = round(float(ys[row]) - 2.5), round(float(xs[col]) - 2.5)
        frame[0, 0, top : top + 6, left : left + 6] = 1.0
        attention = module(frame).attention[0, 0]
        assert divmod(int(attention.argmax()), 30) == (row, col)


def test_the_fine_level_equals_a_convolution_over_the_frame() -> None:
    torch.manual_seed(0)
    module = Hierarchical((3, 41, 67), num_heads=2, patch_dim=5).double()
    frames = torch.rand(2, 3, 41, 67, dtype=torch.float64)
    rows, cols = module.patches.grid.shape
    chosen = torch.tensor([[0, cols - 1], [cols, 7], [rows * cols - 1, 3], [2 * cols + 5, 2 * cols + 5]])
    fine = module._fine_patches(frames, chosen.expand(2, 1, 4, 2))
    everywhere = F.relu(module.inner(frames - 0.5))
    for index in range(4):
        for head in range(2):
            row, col = divmod(int(chosen[index, head]), cols)
            expected = everywhere[:, :, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            torch.testing.assert_close(fine[:, 0, index, head], expected.flatten(2).transpose(1, 2))


def test_the_gradient_reaches_both_levels_from_features_and_from_the_map() -> None:
    torch.manual_seed(0)
    module = Hierarchical((3, 40, 48))
    for output in (0, 1):
        module.zero_grad()
        module(torch.rand(4, 3, 40, 48))[output].square().sum().backward()
        for name in ("patches.weight", "queries.weight", "inner.weight", "inner_queries.weight"):
            grad = module.get_parameter(name).grad
            assert grad is not None and bool((grad != 0).any()), name


def test_top_is_clamped_to_the_number_of_patches() -> None:
    module = Hierarchical((3, 32, 32), top=10**6)
    assert module.top == 49
    attention = module(torch.rand(2, 3, 32, 32)).attention
    assert bool((attention > 0).all())
    spread = upsample_attention(attention, module.grid)
    torch.testing.assert_close(spread.sum((2, 3)), torch.ones(2, 4))


def test_compiles_to_one_graph_with_the_same_result() -> None:
    module = Hierarchical((3, 33, 37), 2)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (frames, context), dynamic_shapes=({0: batch}, {0: batch}))
    frames, context = torch.rand(7, 3, 33, 37), torch.rand(7, 2)
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)
