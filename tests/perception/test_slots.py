"""Slot attention, compared with algorithm 1 of its paper written out, and its decoder."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn import SCORES, build_score
from robot_attn.families._slots import SlotAttention, Slots, compete


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    # Two slots, two tokens. The first token is shared out as 3 : 1, the second as 1 : 1, so of what the first
    # slot gets, 3/4 and 1/2, the first token is 3/5; of what the second gets, 1/4 and 1/2, it is 1/3.
    query = torch.tensor([[[math.log(3.0)], [0.0]]])
    key = torch.tensor([[[1.0], [0.0]]])
    weights = compete(query, key, SCORES["dot"])
    torch.testing.assert_close(weights, torch.tensor([[[3 / 5, 2 / 5], [1 / 3, 2 / 3]]]))


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7, 11])] * 3),
    batch=st.sampled_from([0, 1, 2, 5]),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_equations_1_and_2(
    sizes: tuple[int, int, int], batch: int, seed: int, dtype: torch.dtype
) -> None:
    slots, count, size = sizes
    query, key = (
        sample(batch, slots, size, seed=seed).to(dtype),
        sample(batch, count, size, seed=seed + 1).to(dtype),
    )
    scores = torch.einsum("bnd,bkd->bnk", key, query) / math.sqrt(size)
    attn = scores.exp() / scores.exp().sum(2, keepdim=True)
    expected = (attn / attn.sum(1, keepdim=True)).transpose(1, 2)
    close = 1e-6 if dtype == torch.float32 else 1e-12
    weights = compete(query, key, SCORES["scaled_dot"])
    torch.testing.assert_close(weights, expected, rtol=10 * close, atol=close)
    torch.testing.assert_close(weights.sum(2), torch.ones(batch, slots, dtype=dtype))


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = ((centred**2).mean(-1, keepdim=True) + 1e-5) ** 0.5
    return centred / scale * layer.weight + layer.bias


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_equals_algorithm_1(rounds: int) -> None:
    torch.manual_seed(0)
    module = SlotAttention(5, slots=3, slot_dim=7, rounds=rounds).double()
    tokens = sample(2, 11, 5)
    inputs = norm(tokens, module.norm_tokens)
    slots = module.first.expand(2, -1, -1)
    cell = module.cell
    for _ in range(rounds):
        previous, slots = slots, norm(slots, module.norm_slots)
        scores = (inputs @ module.key.weight.t()) @ (slots @ module.query.weight.t()).transpose(1, 2)
        attn = (scores / 7**0.5).softmax(2)  # over the slots
        shares = attn / attn.sum(1, keepdim=True)
        updates = shares.transpose(1, 2) @ (inputs @ module.value.weight.t())
        of_input = (updates @ cell.weight_ih.t() + cell.bias_ih).chunk(3, 2)
        of_state = (previous @ cell.weight_hh.t() + cell.bias_hh).chunk(3, 2)
        reset, update = ((a + b).sigmoid() for a, b in zip(of_input[:2], of_state[:2], strict=True))
        slots = (1 - update) * torch.tanh(of_input[2] + reset * of_state[2]) + update * previous
        first, last = module.update[0], module.update[2]
        hidden = F.relu(norm(slots, module.norm_update) @ first.weight.t() + first.bias)
        slots = slots + hidden @ last.weight.t() + last.bias
    ours, weights = module(tokens)
    torch.testing.assert_close(ours, slots, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weights, shares.transpose(1, 2), rtol=1e-10, atol=1e-12)


def test_a_slot_without_tokens_still_has_a_map() -> None:
    """The paper's epsilon prevents 0 / 0 here; this implementation needs none."""
    query = torch.tensor([[[0.0], [-1e6]]], requires_grad=True)
    weights = compete(query, torch.tensor([[[1.0], [1.0], [2.0]]]), SCORES["dot"])
    torch.testing.assert_close(weights[0, 1], torch.tensor([0.5, 0.5, 0.0]))
    weights.square().sum().backward()
    assert query.grad is not None and bool(query.grad.isfinite().all())


@pytest.mark.parametrize("score", ["additive", "cosine", "scaled_dot", "standardized"])
def test_the_gradient(score: str) -> None:
    torch.manual_seed(0)
    measure = build_score(score, 3, 1)
    inputs = (sample(2, 4, 3).requires_grad_(), sample(2, 5, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: compete(q, k, measure), inputs)
    module = SlotAttention(3, slots=2, slot_dim=3, rounds=2, score=score).double()
    assert torch.autograd.gradcheck(module, sample(1, 5, 3).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_numbers_in_half_precision(dtype: torch.dtype) -> None:
    query, key = ((200 * sample(2, 5, 7, seed=seed)).to(dtype).requires_grad_() for seed in (0, 1))
    weights = compete(query, key, SCORES["dot"])
    assert weights.dtype == dtype
    scores = query.detach().double() @ key.detach().double().transpose(1, 2)
    exact = scores.log_softmax(1).softmax(2)
    torch.testing.assert_close(weights.double(), exact, rtol=1e-2, atol=1e-4)
    weights.square().sum().backward()
    for tensor in (query, key):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())


def test_invalid_input_raises_value_error() -> None:
    tokens, dot = torch.zeros(2, 3, 5), SCORES["dot"]
    for match, arguments in (
        (r"expected query \[B, n, d\] .* got shape \[3, 5\]", (tokens[0], tokens)),
        (r"expected key .* at least 1 token, got shape \[2, 0, 5\]", (tokens, tokens[:, :0])),
        ("same batch size, got 2 and 1", (tokens, tokens[:1])),
        ("expected query of finite numbers", (tokens * math.nan, tokens)),
    ):
        with pytest.raises(ValueError, match=match):
            compete(*arguments, dot)
    module = SlotAttention(5, slots=2, slot_dim=3)
    for wrong in (tokens[0], tokens[:, :0], tokens[:, :, :4]):
        with pytest.raises(ValueError, match=r"expected tokens \[B, n, 5\] with at least 1 token"):
            module(wrong)
    with pytest.raises(ValueError, match="expected key of finite numbers"):
        module(tokens * math.nan)
    with pytest.raises(ValueError, match="expected rounds as a whole number of at least 1, got 0"):
        Slots((3, 32, 32), rounds=0)
    with pytest.raises(ValueError, match="expected slots as a whole number of at least 1, got 0"):
        Slots((3, 32, 32), slots=0)
    with pytest.raises(ValueError, match="did you mean 'scaled_dot'"):
        Slots((3, 32, 32), score="scaled_dott")


def test_the_same_frame_always_gives_the_same_slots() -> None:
    torch.manual_seed(0)
    module = Slots((3, 33, 37))
    frames = torch.rand(2, 3, 33, 37)
    assert module.training
    for one, other in zip(module(frames), module(frames), strict=True):
        assert torch.equal(one, other)


def test_without_a_decoder_reconstruction_is_refused() -> None:
    module = Slots((3, 32, 32))
    assert not any(name.startswith("decoder") for name, _ in module.named_parameters())
    for method in (module.reconstruct, module.reconstruction_loss):
        with pytest.raises(ValueError, match="build Slots with decoder=True"):
            method(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 41, 67), (7, 33, 97)])
def test_the_decoder_reconstructs_frames_of_any_size(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    module = Slots(shape, 2, slots=3, decoder=True)
    frames = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    painted, masks = module.reconstruct(frames)
    assert painted.shape == (2, *shape) and masks.shape == (2, 3, *shape[1:])
    torch.testing.assert_close(masks.sum(1), torch.ones(2, *shape[1:]))
    expected = (painted - frames / 255).square().mean()
    torch.testing.assert_close(module.reconstruction_loss(frames), expected)
    with pytest.raises(ValueError, match="expected frames"):
        module.reconstruct(frames[0])
    assert module.reconstruct(frames[:0])[0].shape == (0, *shape)


def test_reconstruction_trains_the_decoder_and_all_layers_before_it() -> None:
    torch.manual_seed(0)
    module = Slots((3, 40, 40), decoder=True)
    module.reconstruction_loss(torch.rand(3, 3, 40, 40)).backward()
    for name, parameter in module.named_parameters():
        if not name.startswith("project"):
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_the_loss_without_labels_can_be_learned() -> None:
    """Coloured squares on grey: short training reconstructs them better than their mean colour does."""
    torch.manual_seed(0)
    frames = torch.full((2, 3, 32, 32), 0.4)
    for frame in frames:
        for colour in torch.eye(3):
            top, left = torch.randint(0, 20, (2,)).tolist()
            frame[:, top : top + 12, left : left + 12] = colour[:, None, None]
    module = Slots((3, 32, 32), slots=4, decoder=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        module.reconstruction_loss(frames).backward()
        optimizer.step()
    plain = (frames - frames.mean((2, 3), keepdim=True)).square().mean().item()
    assert module.reconstruction_loss(frames).item() < 0.5 * plain


def test_compiles_to_one_graph_with_the_same_result() -> None:
    torch.manual_seed(0)
    module = Slots((3, 33, 37), 2)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)
