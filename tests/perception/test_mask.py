"""The gate of "mask", whose budget limits how many cells can be open, and the family."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robot_attn.families._mask import Mask, gate


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(logits: Tensor, temperature: float, budget: float) -> tuple[Tensor, Tensor]:
    mean = logits.mean(1, keepdim=True)
    variance = ((logits - mean) ** 2).mean(1, keepdim=True)
    z = (logits - mean) / (variance + 1e-5) ** 0.5
    mask = 1 / (1 + (-temperature * (z - (1 / budget - 1) ** 0.5)).exp())
    return mask, mask / mask.sum(1, keepdim=True)


def test_by_hand() -> None:
    # Logits 0, 0, 4, 4 are -1, -1, 1, 1 once normalised. With a budget of a half a cell is half open at 1,
    # and at a temperature of ln 3 one at -1 is open by 1 / (1 + 3^2).
    logits = torch.tensor([[0.0, 0.0, 4.0, 4.0]], dtype=torch.float64)
    mask, weights = gate(logits, torch.tensor(math.log(3), dtype=torch.float64), 0.5)
    expected = torch.tensor([[0.1, 0.1, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(mask, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(weights, expected / 1.2, rtol=1e-5, atol=0)


@given(
    batch=st.sampled_from([0, 1, 2, 5]),
    count=st.sampled_from([1, 2, 3, 7, 53]),
    temperature=st.floats(0.1, 5.0),
    budget=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**31),
)
def test_equals_the_formula(batch: int, count: int, temperature: float, budget: float, seed: int) -> None:
    logits = 3 * sample(batch, count, seed=seed)
    for ours, theirs in zip(
        gate(logits, torch.tensor(temperature, dtype=torch.float64), budget),
        written_out(logits, temperature, budget),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@given(
    count=st.sampled_from([2, 3, 5, 31, 225]),
    budget=st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.9]),
    temperature=st.floats(0.5, 100.0),
    power=st.integers(1, 9),
    scale=st.sampled_from([1e-2, 1.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_no_logits_open_more_cells_than_the_budget(
    count: int, budget: float, temperature: float, power: int, scale: float, seed: int
) -> None:
    logits = scale * sample(7, count, seed=seed) ** power + sample(7, 1, seed=seed + 1)
    mask, weights = gate(logits, torch.tensor(temperature, dtype=torch.float64), budget)
    assert bool(((mask > 0.5 + 1e-9).sum(1) <= budget * count).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(7, dtype=torch.float64))


def test_the_gradient() -> None:
    inputs = (sample(2, 7).requires_grad_(), torch.tensor(1.3, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(lambda *x: gate(*x, 0.3), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_numbers_in_half_precision(dtype: torch.dtype) -> None:
    logits = (sample(3, 41).clamp(-2, 2) * 3e4).to(dtype).requires_grad_()
    mask, weights = gate(logits, torch.tensor(2.0, dtype=dtype), 0.2)
    assert mask.dtype == weights.dtype == dtype
    exact = written_out(logits.detach().double(), 2.0, 0.2)
    for ours, theirs in zip((mask, weights), exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-2, atol=1e-4)
    (mask.sum() + weights.square().sum()).backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_weights_are_accurate_where_the_mask_underflows() -> None:
    logits = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    mask, weights = gate(logits, torch.tensor(300.0), 0.1)
    assert bool((mask == 0).all())
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.0, 0.5, 0.5]]))


def test_invalid_input_raises_value_error() -> None:
    one, logits = torch.tensor(1.0), torch.zeros(2, 3)
    for match, arguments in (
        (r"expected logits \[B, n\] .* got shape \[3\]", (logits[0], one, 0.2)),
        (r"at least 1 cell, got shape \[2, 0\]", (logits[:, :0], one, 0.2)),
        ("expected logits of finite numbers", (logits / 0.0, one, 0.2)),
        ("expected budget as a fraction .* got 0", (logits, one, 0)),
        ("expected budget as a fraction .* got 1.0", (logits, one, 1.0)),
        ("expected budget as a fraction .* got nan", (logits, one, math.nan)),
        ("expected budget as a fraction .* got 'low'", (logits, one, "low")),
    ):
        with pytest.raises(ValueError, match=match):
            gate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected budget as a fraction .* got True"):
        Mask((3, 32, 32), budget=True)


def test_the_map_equals_the_normalised_mask() -> None:
    torch.manual_seed(0)
    module = Mask((3, 41, 67))
    frames = torch.randint(0, 256, (2, 3, 41, 67), dtype=torch.uint8)
    mask = module.mask(frames)
    assert mask.shape == (2, 1, 9, 15) and bool(((mask > 0) & (mask < 1)).all())
    torch.testing.assert_close(module(frames).attention, mask / mask.sum((2, 3), keepdim=True))
    torch.testing.assert_close(module.mask(frames.float() / 255), mask)
    with pytest.raises(ValueError, match="expected frames"):
        module.mask(frames[0])


def test_masked_content_does_not_reach_the_features() -> None:
    """Frames that differ only where the mask is 0 have the same features."""
    torch.manual_seed(0)
    module = Mask((1, 64, 64), patch_dim=2, hidden_dim=1)
    with torch.no_grad():
        module.get_parameter("patches.weight").zero_()[0] = (
            1.0  # the first number: how bright; both: positive
        )
        module.get_parameter("patches.bias").copy_(torch.tensor([32.0, 1.0]))
        module.get_parameter("patches.weight")[1, 0, 0, 0] = 0.5
        module.get_parameter("hidden.weight").copy_(torch.tensor([[1.0, 0.0]]))
        module.get_parameter("logit.weight").fill_(1.0)
        module.get_parameter("log_temperature").fill_(5.0)
    frames = torch.zeros(2, 1, 64, 64)
    frames[:, :, 24:32, 24:32] = 1.0
    frames[1, :, 48, 48] = 0.4  # visible to a patch's second number
    assert not torch.equal(*module.patches(frames))
    closed = module.mask(frames)[:, 0] == 0
    assert bool(closed[:, 12, 12].all()) and not bool(closed[:, 6, 6].any())
    torch.testing.assert_close(*module(frames).features)


def test_training_cannot_open_it_everywhere() -> None:
    """Adam maximises the mask on frames of noise: it stays within its budget, and no map is uniform."""
    torch.manual_seed(0)
    module = Mask((3, 40, 40), budget=0.1)
    frames = torch.rand(8, 3, 40, 40)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    before = module.mask(frames).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        (-module.mask(frames).mean()).backward()
        optimizer.step()
    mask, attention = module.mask(frames), module(frames).attention
    assert mask.mean().item() > before
    assert bool(((mask > 0.5).float().mean((1, 2, 3)) <= 0.1).all())
    assert bool((attention.amax((1, 2, 3)) > 3 / 81).all())


def test_a_constant_frame_is_masked_uniformly() -> None:
    module = Mask((3, 41, 67))
    percept = module(torch.full((2, 3, 41, 67), 0.25))
    torch.testing.assert_close(percept.attention, torch.full((2, 1, 9, 15), 1 / 135))
    percept.features.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_compiles_to_one_graph_with_the_same_result() -> None:
    module = Mask((3, 33, 37), 2)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)
