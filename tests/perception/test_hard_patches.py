"""Votes and selection of "patches", compared with the paper's formula written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn import SCORES, build_score
from robot_attn.families import _hard_patches
from robot_attn.families._hard_patches import HardPatches, choose, votes


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    # The first query gives 3/4 and 1/4; the second, which is 0, gives halves.
    query = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
    key = torch.tensor([[[1.0, 5.0], [0.0, 7.0]]])
    torch.testing.assert_close(votes(query, key, SCORES["dot"]), torch.tensor([[5.0, 3.0]]) / 8)

    chosen, shares = choose(torch.tensor([[0.1, 0.4, 0.0, 0.3, 0.2], [0.2, 0.2, 0.6, 0.0, 0.0]]), 2)
    assert chosen[0].tolist() == [1, 3] and chosen[1, 0] == 2
    torch.testing.assert_close(shares, torch.tensor([[4 / 7, 3 / 7], [3 / 4, 1 / 4]]))


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7, 11])] * 3),
    batch=st.sampled_from([0, 1, 2, 5]),
    at_a_time=st.sampled_from([1, 7, 30, 10**6]),
    seed=st.integers(0, 2**31),
)
def test_votes_equal_the_column_means_of_torchs_attention(
    sizes: tuple[int, int, int], batch: int, at_a_time: int, seed: int
) -> None:
    q, n, d = sizes
    query, key = sample(batch, q, d, seed=seed), sample(batch, n, d, seed=seed + 1)
    # Values that are the unit vectors make attention return its own weights.
    matrix = F.scaled_dot_product_attention(query, key, torch.eye(n).double().expand(batch, -1, -1))
    kept = _hard_patches.CHUNK
    try:
        _hard_patches.CHUNK = at_a_time
        ours = votes(query, key, SCORES["scaled_dot"])
    finally:
        _hard_patches.CHUNK = kept
    torch.testing.assert_close(ours, matrix.sum(1) / q, rtol=1e-10, atol=1e-12)


@given(
    count=st.integers(1, 13),
    batch=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**31),
)
def test_the_selection_equals_the_sorted_votes(count: int, batch: int, seed: int) -> None:
    cast = sample(batch, 13, seed=seed).softmax(1)
    chosen, shares = choose(cast, count)
    for row, indices, share in zip(cast.tolist(), chosen.tolist(), shares, strict=True):
        best = sorted(range(13), key=lambda i: -row[i])[:count]
        assert indices == best
        total = sum(row[i] for i in best)
        torch.testing.assert_close(share, torch.tensor([row[i] / total for i in best], dtype=torch.float64))


@pytest.mark.parametrize("at_a_time", [1, 12, 40, 10**6])
@pytest.mark.parametrize("score", ["additive", "scaled_dot", "standardized"])
def test_the_gradient(monkeypatch: pytest.MonkeyPatch, at_a_time: int, score: str) -> None:
    """With recomputed weights, in chunks of frames and in chunks of queries."""
    monkeypatch.setattr(_hard_patches, "CHUNK", at_a_time)
    torch.manual_seed(0)
    measure = build_score(score, 3, 1)
    inputs = (sample(2, 4, 3).requires_grad_(), sample(2, 5, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: choose(votes(q, k, measure), 3)[1], inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_numbers_in_half_precision(dtype: torch.dtype) -> None:
    query, key = ((200 * sample(2, 31, 5, seed=seed)).to(dtype).requires_grad_() for seed in (0, 1))
    cast = votes(query, key, SCORES["dot"])
    assert cast.dtype == dtype
    exact = (query.detach().double() @ key.detach().double().transpose(1, 2)).softmax(2).mean(1)
    torch.testing.assert_close(cast.double(), exact, rtol=1e-2, atol=1e-4)
    choose(cast, 5)[1].square().sum().backward()
    for tensor in (query, key):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())


def test_invalid_input_raises_value_error() -> None:
    tokens, dot = torch.zeros(2, 3, 5), SCORES["dot"]
    for match, arguments in (
        (r"expected query \[B, n, d\] .* got shape \[3, 5\]", (tokens[0], tokens)),
        (r"expected query .* at least 1 token, got shape \[2, 0, 5\]", (tokens[:, :0], tokens)),
        (r"expected key .* at least 1 token, got shape \[2, 0, 5\]", (tokens, tokens[:, :0])),
        ("same batch size, got 2 and 1", (tokens, tokens[:1])),
        ("expected key of finite numbers", (tokens, tokens * math.nan)),
    ):
        with pytest.raises(ValueError, match=match):
            votes(*arguments, dot)
    for count in (0, 4):
        with pytest.raises(ValueError, match=rf"a count from 1 to n, got shape \[2, 3\] and {count}"):
            choose(torch.ones(2, 3), count)
    with pytest.raises(ValueError, match="of at most 49, the frame's patches, got 50"):
        HardPatches((3, 32, 32), chosen=50)
    with pytest.raises(ValueError, match="did you mean 'scaled_dot'"):
        HardPatches((3, 32, 32), score="scaled_dott")


@pytest.mark.parametrize("chosen", [1, 3, 10, 49])
def test_attention_is_zero_outside_the_selected_patches(chosen: int) -> None:
    torch.manual_seed(0)
    attention = HardPatches((3, 32, 32), chosen=chosen)(torch.rand(5, 3, 32, 32)).attention
    assert attention.shape == (5, 1, 7, 7)
    assert bool(((attention > 0).sum((1, 2, 3)) == chosen).all())
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(5))


def test_features_are_computed_from_locations_in_order_of_votes() -> None:
    """Written out from the module's weights: self-attention, columns, the best K, their centres."""
    torch.manual_seed(0)
    module = HardPatches((3, 41, 67), features_dim=5, chosen=4).double()
    frames = torch.rand(2, 3, 41, 67, dtype=torch.float64)
    percept = module(frames)
    ys, xs = (torch.tensor(centers) for centers in (module.grid.ys, module.grid.xs))
    for index in range(2):
        patches = module.patches(frames)[index].flatten(1).t()
        query, key = module.query(patches), patches @ module.key.weight.t()
        columns = ((query @ key.t()) / query.shape[1] ** 0.5).softmax(1).sum(0).detach()
        order = columns.argsort(descending=True)[:4].tolist()
        total = sum(float(columns[i]) for i in order)
        inputs = []
        for i in order:
            weight = float(columns[i]) / total
            y, x = float(ys[i // 15]), float(xs[i % 15])
            inputs += [4 * weight * (2 * (x + 0.5) / 67 - 1), 4 * weight * (2 * (y + 0.5) / 41 - 1)]
            torch.testing.assert_close(percept.attention[index, 0, i // 15, i % 15].item(), weight)
        features = torch.relu(module.project(torch.tensor(inputs, dtype=torch.float64)))
        torch.testing.assert_close(percept.features[index], features, rtol=1e-6, atol=1e-6)


def test_unselected_patches_learn_through_the_votes() -> None:
    """The gradient of a selected patch's share reaches the keys of all patches competing for the votes."""
    query, key = sample(1, 5, 3), sample(1, 7, 3, seed=1).requires_grad_()
    chosen, shares = choose(votes(query, key, SCORES["dot"]), 2)
    shares[0, 0].backward()
    assert key.grad is not None and bool((key.grad.abs().sum(2) > 0).all())
    assert len(set(chosen[0].tolist())) == 2


def test_gradient_descent_learns_to_select_the_bright_patch() -> None:
    """The hard selection, trained through the features only, learns to locate a bright square."""
    torch.manual_seed(0)
    module = HardPatches((1, 32, 32), features_dim=16, chosen=8)
    head = torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=1e-2)
    ys, xs = (torch.tensor(centers) for centers in (module.grid.ys, module.grid.xs))

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, cols = torch.randint(0, 7, (2, size))
        frames = 0.2 * torch.rand(size, 1, 32, 32)
        for frame, row, col in zip(frames, rows.tolist(), cols.tolist(), strict=True):
            frame[0, 4 * row : 4 * row + 8, 4 * col : 4 * col + 8] += 0.7
        return frames, torch.stack([xs[cols], ys[rows]], 1) / 16 - 1, 7 * rows + cols

    for _ in range(200):
        frames, places, _ = batch(32)
        optimizer.zero_grad()
        F.mse_loss(head(module(frames).features), places).backward()
        optimizer.step()
    frames, _, cells = batch(256)
    hits = (module(frames).attention.flatten(1).argmax(1) == cells).float().mean()
    assert hits.item() > 0.9


def test_compiles_to_one_graph_with_the_same_result() -> None:
    torch.manual_seed(0)
    module = HardPatches((3, 33, 37), 2)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_under_autocast_recomputes_in_its_precision() -> None:
    query, key = (sample(2, 31, 5, seed=seed).float().requires_grad_() for seed in (0, 1))
    weight = sample(2, 31, seed=2).float()

    def gradients(cast: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((cast * weight).sum(), (query, key))

    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = votes(query, key, SCORES["dot"]), _hard_patches._add_votes(query, key, SCORES["dot"])
    exact = gradients(_hard_patches._add_votes(query, key, SCORES["dot"]) / 31)
    for found, expected, other in zip(gradients(ours), gradients(plain / 31), exact, strict=True):
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, other, rtol=1e-4, atol=1e-6)  # autocast did make a difference
