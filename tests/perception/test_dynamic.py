"""Recurrent attention: the mechanism, and the family "dynamic" that applies it to frames."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention._dynamic import DynamicAttention
from robot_attn.families._dynamic import Dynamic


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    # A query of ln 3 over keys 1 and 0: weights 3/4, 1/4. A GRU of zeros halves its state, so the second
    # glimpse has a query of half of ln 3, and its weights are as sqrt(3) : 1.
    module = DynamicAttention(1, state_dim=1, glimpses=2, score="dot").double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.first_state.fill_(math.log(3.0))
        module.to_query.weight.fill_(1.0)
    attended, state = module.step(torch.tensor([[[1.0], [0.0]]], dtype=torch.float64))
    root = math.sqrt(3.0)
    second = [root / (1 + root), 1 / (1 + root)]
    expected = torch.tensor([[0.75, 0.25], second], dtype=torch.float64).view(1, 1, 2, 2)
    torch.testing.assert_close(attended.weights, expected)
    torch.testing.assert_close(attended.values, expected[..., :1])
    torch.testing.assert_close(state, torch.full((1, 1), math.log(3.0) / 4, dtype=torch.float64))


def written_out(
    module: DynamicAttention, tokens: Tensor, state: Tensor, context: Tensor, mask: Tensor
) -> tuple[list[Tensor], Tensor]:
    """What each glimpse reads [B, h, d], and the state, from torch's attention and the GRU's equations."""
    w, u = module.cell.weight_ih.chunk(3), module.cell.weight_hh.chunk(3)
    b, c = module.cell.bias_ih.chunk(3), module.cell.bias_hh.chunk(3)
    reads = []
    for glimpse in range(module.glimpses):
        query = (state @ module.to_query.weight.T + module.to_query.bias).unflatten(1, (module.num_heads, -1))
        keys = tokens[:, None].expand(-1, module.num_heads, -1, -1)
        read = F.scaled_dot_product_attention(query[:, :, None], keys, keys, mask[:, None, None])[:, :, 0]
        last = glimpse == module.glimpses - 1
        x = torch.cat([read.flatten(1), context if last else torch.zeros_like(context)], dim=1)
        reset = torch.sigmoid(x @ w[0].T + b[0] + state @ u[0].T + c[0])
        keep = torch.sigmoid(x @ w[1].T + b[1] + state @ u[1].T + c[1])
        new = torch.tanh(x @ w[2].T + b[2] + reset * (state @ u[2].T + c[2]))
        state = (1 - keep) * new + keep * state
        reads.append(read)
    return reads, state


@given(
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 5),
    glimpses=st.integers(1, 3),
    context_dim=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_formulas(sizes: tuple[int, ...], glimpses: int, context_dim: int, seed: int) -> None:
    b, h, n, d, s = sizes
    torch.manual_seed(seed)
    module = DynamicAttention(
        d, state_dim=s, num_heads=h, glimpses=glimpses, context_dim=context_dim, score="scaled_dot"
    ).double()
    tokens, state, context = sample(b, n, d), sample(b, s, seed=1), sample(b, context_dim, seed=2)
    mask = torch.rand(b, n) > 0.4
    mask[:, 0] = True  # torch's own gives NaN for a fully masked row
    attended, left = module.step(tokens, state, context=context, mask=mask)
    reads, expected = written_out(module, tokens, state, context, mask)
    torch.testing.assert_close(attended.values, torch.stack(reads, dim=2), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(left, expected, rtol=1e-10, atol=1e-10)
    assert attended.weights.shape == (b, h, glimpses, n)
    torch.testing.assert_close(
        attended.weights.sum(-1), torch.ones(b, h, glimpses, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert bool((attended.weights.movedim(-1, 1)[~mask] == 0).all())


@given(
    steps=st.integers(1, 5),
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 5])] * 4),
    glimpses=st.integers(1, 2),
    fresh=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_sequence_equals_its_steps(
    steps: int, sizes: tuple[int, ...], glimpses: int, fresh: bool, seed: int
) -> None:
    b, h, n, s = sizes
    torch.manual_seed(seed)
    module = DynamicAttention(3, state_dim=s, num_heads=h, glimpses=glimpses, context_dim=2)
    tokens, context = torch.randn(steps, b, n, 3), torch.randn(steps, b, 2)
    starts, mask = torch.rand(steps, b) > 0.6, torch.rand(steps, b, n) > 0.3
    first = None if fresh else torch.randn(b, s)
    whole, states = module(tokens, first, starts=starts, context=context, mask=mask)
    state = first
    for t in range(steps):
        before = module.first_state.expand(b, s) if state is None else state
        before = torch.stack([module.first_state if starts[t, row] else before[row] for row in range(b)])
        attended, state = module.step(tokens[t], before, context=context[t], mask=mask[t])
        for one, other in zip(
            (*attended, state), (whole.values[t], whole.weights[t], states[t]), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_starts_reset_the_state() -> None:
    torch.manual_seed(0)
    module = DynamicAttention(3, state_dim=5, num_heads=2)
    tokens = torch.randn(7, 1, 11, 3)
    starts = torch.zeros(7, 1, dtype=torch.bool)
    starts[4] = True
    whole, states = module(tokens, starts=starts)
    alone, alone_states = module(tokens[4:])
    torch.testing.assert_close(whole.weights[4:], alone.weights, rtol=0, atol=1e-7)
    torch.testing.assert_close(states[4:], alone_states, rtol=0, atol=1e-7)
    running, _ = module(tokens)
    assert not torch.allclose(whole.weights[4:], running.weights[4:], atol=1e-4)


def test_a_glimpse_affects_the_next_one_and_the_context_only_the_next_step() -> None:
    torch.manual_seed(0)
    module = DynamicAttention(3, state_dim=5, glimpses=2, context_dim=1, score="scaled_dot")
    tokens, other = torch.randn(1, 7, 3), torch.randn(1, 7, 3)
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    attended, state = module.step(tokens, context=zero)
    with_context, context_state = module.step(tokens, context=one)
    assert torch.equal(attended.weights, with_context.weights) and not torch.equal(state, context_state)
    after, after_context = (
        module.step(other, left, context=zero)[0].weights for left in (state, context_state)
    )
    assert not torch.allclose(after, after_context, atol=1e-5)
    # The same tokens among others: the first glimpse has the same query, so the same ratios; not the second.
    both, _ = module.step(torch.cat([tokens, other], dim=1), context=zero)
    ratio = (attended.weights / both.weights[..., :7]).log().detach()[0, 0]
    assert float(ratio[0].std()) < 1e-6 and float(ratio[1].std()) > 1e-4


def test_it_learns_to_search_for_an_object_shown_before() -> None:
    """One object is shown, then all five in another order: no fixed query finds it in more than 1 of 5."""
    torch.manual_seed(0)
    module = DynamicAttention(5, state_dim=16, score="dot")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    kinds = torch.eye(5)

    def attend_to_batch(batch: int) -> tuple[Tensor, Tensor]:
        cue = torch.randint(5, (batch,))
        order = torch.rand(batch, 5).argsort(dim=1)
        shown = kinds[cue][:, None].expand(-1, 5, -1)
        attended, _ = module(torch.stack([shown, kinds[order]]))
        return attended.weights[1, :, 0, 0], (order == cue[:, None]).float().argmax(dim=1)

    for _ in range(150):
        weights, place = attend_to_batch(64)
        optimizer.zero_grad()
        F.nll_loss(weights.log(), place).backward()
        optimizer.step()
    with torch.no_grad():
        weights, place = attend_to_batch(500)
    assert float((weights.argmax(dim=1) == place).float().mean()) > 0.95


@pytest.mark.parametrize("score", ["standardized", "scaled_dot", "additive", "cosine"])
def test_gradients(score: str) -> None:
    torch.manual_seed(0)
    module = DynamicAttention(3, state_dim=2, num_heads=2, glimpses=2, context_dim=1, score=score).double()
    starts = torch.tensor([[False], [False], [True]])
    mask = torch.ones(3, 1, 5, dtype=torch.bool)
    mask[1, 0, 1:3] = False
    inputs = [x.requires_grad_() for x in (sample(3, 1, 5, 3), sample(1, 2, seed=1), sample(3, 1, 1, seed=2))]

    def run(tokens: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        attended, states = module(tokens, state, starts=starts, context=context, mask=mask)
        return (*attended, states)

    assert torch.autograd.gradcheck(run, inputs)
    attended, states = module(inputs[0], context=inputs[2])
    (attended.values.square().sum() + states.square().sum()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_a_fully_masked_frame_reads_zeros() -> None:
    torch.manual_seed(0)
    module = DynamicAttention(3, state_dim=5, num_heads=2)
    tokens = torch.randn(2, 7, 3, requires_grad=True)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1] = False
    attended, state = module.step(tokens, mask=mask)
    assert bool((attended.weights[1] == 0).all()) and bool((attended.values[1] == 0).all())
    torch.testing.assert_close(state[1:], module.cell(torch.zeros(1, 6), module.first_state[None]))
    (attended.weights.square().sum() + state.square().sum()).backward()
    assert tokens.grad is not None and bool(tokens.grad.isfinite().all())
    assert bool((tokens.grad[0] != 0).any()) and bool((tokens.grad[1] == 0).all())
    for parameter in module.parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("score", ["standardized", "dot", "additive"])
def test_half_precision_does_not_overflow(dtype: torch.dtype, score: str) -> None:
    torch.manual_seed(0)
    module = DynamicAttention(64, state_dim=32, num_heads=2, glimpses=2, score=score).to(dtype)
    tokens = (1000 * torch.randn(2, 3, 11, 64)).to(dtype).requires_grad_()
    attended, states = module(tokens)
    assert attended.weights.dtype == attended.values.dtype == states.dtype == dtype
    assert all(bool(tensor.isfinite().all()) for tensor in (*attended, states))
    torch.testing.assert_close(attended.weights.float().sum(-1), torch.ones(2, 3, 2, 2), rtol=0, atol=0.02)
    states.float().square().sum().backward()
    assert tokens.grad is not None and bool(tokens.grad.isfinite().all())


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    module = DynamicAttention(3, state_dim=5, num_heads=2, glimpses=2)
    attended, states = module(torch.rand(4, batch, 7, 3))
    assert attended.values.shape == (4, batch, 2, 2, 3) and attended.weights.shape == (4, batch, 2, 2, 7)
    assert states.shape == (4, batch, 5)


def test_invalid_input_raises_value_error() -> None:
    module, contextual = DynamicAttention(3, state_dim=5), DynamicAttention(3, state_dim=5, context_dim=2)
    tokens, mask = torch.rand(2, 7, 3), torch.ones(2, 7, dtype=torch.bool)
    for match, call in (
        (r"expected tokens \[B, n, 3\] .* got shape \[2, 7, 4\]", lambda: module.step(torch.rand(2, 7, 4))),
        (r"expected tokens \[B, n, 3\] with at least 1 token", lambda: module.step(tokens[:, :0])),
        (r"expected tokens \[T, B, n, 3\] .* got shape \[2, 7, 3\]", lambda: module(tokens)),
        (r"with at least 1 frame", lambda: module(tokens[None][:0])),
        ("expected tokens of finite", lambda: module.step(tokens / 0)),
        (
            r"expected state torch.float32 \[2, 5\], got torch.float32 \[2, 4\]",
            lambda: module.step(tokens, torch.rand(2, 4)),
        ),
        ("expected state of finite", lambda: module.step(tokens, torch.rand(2, 5) * math.nan)),
        (r"got torch.float64 \[2, 5\]", lambda: module.step(tokens, torch.rand(2, 5).double())),
        ("expected tokens torch.float32", lambda: module.step(tokens.half())),
        (r"expected context torch.float32 \[2, 2\], got None", lambda: contextual.step(tokens)),
        (
            r"expected context torch.float32 \[2, 2\], got .* \[2, 3\]",
            lambda: contextual.step(tokens, context=torch.rand(2, 3)),
        ),
        (r"expected context torch.float32 \[2, 0\]", lambda: module.step(tokens, context=torch.rand(2, 3))),
        ("expected context of finite", lambda: contextual.step(tokens, context=torch.rand(2, 2) / 0)),
        (r"expected context \[1, 2, ...\]", lambda: contextual(tokens[None], context=torch.rand(2, 2))),
        (
            r"expected mask torch.bool \[2, 7\], got torch.float32",
            lambda: module.step(tokens, mask=mask.float()),
        ),
        (
            r"expected mask torch.bool \[2, 7\], got torch.bool \[2, 3\]",
            lambda: module.step(tokens, mask=mask[:, :3]),
        ),
        (r"expected mask \[1, 2, ...\]", lambda: module(tokens[None], mask=mask)),
        (
            r"expected starts torch.bool \[1, 2\], got .* \[1, 3\]",
            lambda: module(tokens[None], starts=mask[:1, :3]),
        ),
        ("expected starts torch.bool", lambda: module(tokens[None], starts=torch.ones(1, 2))),
        ("expected glimpses as a whole number", lambda: DynamicAttention(3, state_dim=5, glimpses=0)),
        ("expected context_dim as a whole number", lambda: DynamicAttention(3, state_dim=5, context_dim=-1)),
        ("did you mean 'cosine'", lambda: DynamicAttention(3, state_dim=5, score="cosin")),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_a_frame_equals_a_first_step_and_a_sequence_its_steps() -> None:
    torch.manual_seed(0)
    module = Dynamic((3, 41, 37), 2)
    frames = torch.randint(0, 256, (5, 3, 3, 41, 37), dtype=torch.uint8)
    context = torch.randn(5, 3, 2)
    starts = torch.zeros(5, 3, dtype=torch.bool)
    starts[0], starts[2, 1], starts[4, 0] = True, True, True
    whole, last = module.sequence(frames, context=context, starts=starts)
    assert whole.features.shape == (5, 3, 128) and whole.attention.shape == (5, 3, 4, 9, 8)
    state: Tensor | None = None
    for t in range(5):
        fresh, _ = module.step(frames[t], None, context[t])
        for one, other in zip(module(frames[t], context[t]), fresh, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
        if state is not None:
            state = torch.where(starts[t, :, None], module.attention.first_state, state)
        percept, state = module.step(frames[t], state, context[t])
        for one, other, alone in zip(percept, whole, fresh, strict=True):
            torch.testing.assert_close(one, other[t], rtol=1e-6, atol=1e-6)
            for row in range(3):
                assert torch.allclose(one[row], alone[row], atol=1e-6) == bool(starts[t, row])
    assert state is not None
    torch.testing.assert_close(last, state, rtol=1e-6, atol=1e-6)
    going_on, _ = module.sequence(
        frames[3:], module.sequence(frames[:3], context=context[:3])[1], context[3:]
    )
    torch.testing.assert_close(
        going_on.features, module.sequence(frames, context=context)[0].features[3:], rtol=1e-6, atol=1e-6
    )


def test_two_glimpses_at_a_frame_equal_two_frames_of_one_glimpse() -> None:
    torch.manual_seed(0)
    twice, once = Dynamic((3, 32, 32), glimpses=2), Dynamic((3, 32, 32), glimpses=1)
    once.load_state_dict(twice.state_dict())
    frames = torch.rand(3, 3, 32, 32)
    first, state = once.step(frames)
    second, _ = once.step(frames, state)
    for one, other in zip(twice(frames), second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(first.attention, second.attention, atol=1e-5)


def test_past_frames_and_contexts_affect_the_attention() -> None:
    torch.manual_seed(0)
    module = Dynamic((3, 32, 32), 2, glimpses=1)
    one, other, now = torch.rand(3, 1, 3, 32, 32)
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
    after = [
        module.step(now, module.step(frame, None, context)[1], zeros)[0].attention
        for frame, context in ((one, zeros), (other, zeros), (one, ones))
    ]
    assert not torch.allclose(after[0], after[1], atol=1e-5)
    assert not torch.allclose(after[0], after[2], atol=1e-5)


def test_the_gradient_reaches_the_first_frame() -> None:
    torch.manual_seed(0)
    module = Dynamic((1, 32, 32))
    frames = torch.rand(4, 1, 1, 32, 32, requires_grad=True)
    percept, _ = module.sequence(frames)
    percept.features[-1].sum().backward()
    assert frames.grad is not None
    assert bool((frames.grad[0] != 0).any()) and bool(frames.grad.isfinite().all())
    (cut,) = torch.autograd.grad(
        module.step(frames[1], module.step(frames[0])[1].detach())[0].features.sum(), frames
    )
    assert bool((cut[0] == 0).all()) and bool((cut[1] != 0).any())


def test_the_state_can_encode_a_location() -> None:
    """A query of -a (x^2 + y^2) + 2 a (p x + q y) is a round bump around (p, q)."""
    module = Dynamic((1, 64, 64), num_heads=1, hidden_dim=1, glimpses=1, score="dot")
    y, x = (2 * 43.5 + 1) / 64 - 1, (2 * 51.5 + 1) / 64 - 1  # the patch of row 10 and column 12
    with torch.no_grad():
        module.attention.to_query.weight.zero_()
        module.attention.to_query.bias.copy_(200 * torch.tensor([0.0, 2 * x, 2 * y, -1.0]))
    attention = module(torch.rand(1, 1, 64, 64)).attention
    assert attention[0, 0].argmax().item() == 10 * 15 + 12
    # Four neighbours are 8 pixels' half, 1/8, away: each has exp(-200 / 64) of the peak's weight.
    torch.testing.assert_close(
        attention[0, 0, 10, 13] / attention[0, 0, 10, 12], torch.tensor(-200 / 64).exp()
    )


def test_invalid_frames_raise_value_error() -> None:
    module = Dynamic((3, 32, 32), 2)
    frames, context = torch.rand(4, 2, 3, 32, 32), torch.rand(4, 2, 2)
    for match, call in (
        (r"expected frames \[T, B, 3, 32, 32\] .* got shape \[2, 3, 32", lambda: module.sequence(frames[0])),
        ("with T of at least 1", lambda: module.sequence(frames[:0], context=context[:0])),
        (r"expected frames \[T, B, 3, 32, 32\]", lambda: module.sequence(frames[..., :31], context=context)),
        (r"in \[0, 1\], got numbers from", lambda: module.sequence(255 * frames, context=context)),
        (r"expected context \[4, 2, 2\]", lambda: module.sequence(frames, context=context[:3])),
        (r"expected context .* \[8, 2\]", lambda: module.sequence(frames)),
        (
            r"expected state torch.float32 \[2, 64\]",
            lambda: module.step(frames[0], torch.rand(2, 3), context[0]),
        ),
        ("expected starts torch.bool", lambda: module.sequence(frames, None, context, torch.ones(4, 2))),
        ("expected state_dim as", lambda: Dynamic((3, 32, 32), state_dim=0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("glimpses", [1, 3])
def test_compiles_to_one_graph_with_the_same_result(glimpses: int) -> None:
    module = Dynamic((3, 33, 37), 2, glimpses=glimpses)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)
