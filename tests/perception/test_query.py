"""The folded attention of "query", compared with attention written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robot_attn import attend, build
from robot_attn.attention._scores import EPSILON
from robot_attn.families import _query
from robot_attn.families._query import pool_patches

B, S, N, D, H, K = 3, 5, 13, 7, 2, 11


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return sample(B, N, S), sample(D, S, seed=1), sample(H, D, seed=2), sample(H, seed=3).exp()


def test_folded_equals_unfolded() -> None:
    """Explicit queries, keys and values in `attend` give the same result as `pool_patches`."""
    patches, hidden, _, temperature = parameters()
    queries, to_keys, to_values = sample(H, K, seed=4), sample(H, K, D, seed=5), sample(H, 17, S, seed=6)
    folded = torch.einsum("hk,hkd->hd", queries, to_keys)
    pooled, weights = pool_patches(patches, hidden, folded, temperature)
    values = torch.einsum("hvs,bhs->bhv", to_values, pooled)

    keys = torch.einsum("hkd,bnd->bhnk", to_keys, torch.relu(patches @ hidden.t()))
    logits = torch.einsum("hk,bhnk->bhn", queries, keys)
    spread = (logits.var(dim=-1, correction=0) + EPSILON).sqrt()
    # Taking the mean from the logits changes no softmax; the rest of the normalisation scales the query.
    query = queries * (temperature / spread)[..., None]
    attended = attend(query[:, :, None], keys, torch.einsum("hvs,bns->bhnv", to_values, patches), score="dot")
    torch.testing.assert_close(weights, attended.weights[:, :, 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(values, attended.values[:, :, 0], rtol=1e-10, atol=1e-12)


def test_by_hand() -> None:
    # One number a patch; the hidden unit passes it on; the head wants much of it. Logits 1, 1, 5, 5 are -1,
    # -1, 1, 1 once normalised, and at a temperature of ln(3) / 2 the weights are as 1 : 1 : 3 : 3.
    patches = torch.tensor([[[1.0], [1.0], [5.0], [5.0]]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    values, weights = pool_patches(patches, one, one, torch.tensor([3.0], dtype=torch.float64).log() / 2)
    torch.testing.assert_close(
        weights, torch.tensor([[[1, 1, 3, 3]]]) / 8.0, rtol=1e-5, atol=0, check_dtype=False
    )
    torch.testing.assert_close(values, torch.tensor([[[4.0]]]), rtol=1e-5, atol=0, check_dtype=False)


@pytest.mark.parametrize("frames_at_a_time", [1, 2, 3])
@pytest.mark.parametrize("outputs", ["values", "weights", "both"])
def test_the_gradient_written_by_hand(
    monkeypatch: pytest.MonkeyPatch, frames_at_a_time: int, outputs: str
) -> None:
    monkeypatch.setattr(_query, "CHUNK_BYTES", frames_at_a_time * D * N * 8)
    inputs = [tensor.requires_grad_() for tensor in parameters()]
    keep = {"values": slice(0, 1), "weights": slice(1, 2), "both": slice(0, 2)}[outputs]
    assert torch.autograd.gradcheck(lambda *x: pool_patches(*x)[keep], inputs)


@given(
    batch=st.sampled_from([1, 2, 3, 5, 7]),
    chunk=st.sampled_from([1, 2, 3, 100]),
    seed=st.integers(0, 2**31),
)
def test_the_result_is_the_same_with_and_without_gradient(batch: int, chunk: int, seed: int) -> None:
    patches = sample(batch, N, S, seed=seed)
    _, hidden, folded_query, temperature = parameters()
    kept = _query.CHUNK_BYTES
    try:
        _query.CHUNK_BYTES = chunk * D * N * 8
        by_hand = pool_patches(patches.requires_grad_(), hidden, folded_query, temperature)
    finally:
        _query.CHUNK_BYTES = kept
    with torch.no_grad():
        plain = pool_patches(patches, hidden, folded_query, temperature)
    assert by_hand[0].requires_grad and not plain[0].requires_grad
    for one, other in zip(by_hand, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain[1].sum(-1), torch.ones(batch, H, dtype=torch.float64))


def test_logits_are_scale_invariant() -> None:
    patches, hidden, folded_query, temperature = parameters()
    torch.testing.assert_close(
        pool_patches(patches, hidden, folded_query, temperature),
        pool_patches(patches, hidden, 1e3 * folded_query, temperature),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_constant_frame_gets_uniform_attention() -> None:
    module = build("query", (3, 41, 67))
    percept = module(torch.full((2, 3, 41, 67), 0.25))
    torch.testing.assert_close(percept.attention, torch.full((2, 8, 9, 15), 1 / 135))
    percept.features.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_the_expected_position_is_that_of_the_attended_patch() -> None:
    """One bright patch: the features contain its position, with the frame's edges at -1 and 1."""
    module = build("query", (1, 64, 64), features_dim=2, num_heads=1, patch_dim=1, hidden_dim=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.get_parameter("patches.weight").fill_(1.0)
        module.get_parameter("hidden.weight").fill_(1.0)
        module.get_parameter("queries.weight").fill_(1.0)
        module.get_parameter("readout.score.log_temperature").fill_(3.0)
        module.get_parameter("patches.bias").fill_(32.0)  # makes up for mid-grey: a black patch is 0
        project = module.get_parameter("readout.project.weight")
        project[0, 1], project[1, 2] = 1.0, 1.0  # of (mixture, x, y): x, y
    frames = torch.zeros(1, 1, 64, 64)
    frames[0, 0, 40:48, 48:56] = 1.0  # the patch of row 10 and column 12, centred on pixels 43.5 and 51.5
    percept = module(frames)
    assert percept.attention[0, 0].argmax().item() == 10 * 15 + 12
    torch.testing.assert_close(
        percept.features, torch.tensor([[2 * 52 / 64 - 1, 2 * 44 / 64 - 1]]), rtol=0, atol=0.02
    )


def test_fewer_than_60_000_parameters_and_15_x_15_patches() -> None:
    module = build("query", (3, 64, 64))
    assert sum(parameter.numel() for parameter in module.parameters()) == 22_424
    assert (module.num_heads, module.grid.shape, module.features_dim) == (8, (15, 15), 128)


def test_compiles_to_one_graph_with_the_same_result() -> None:
    module = build("query", (3, 33, 37), 2)
    frames, context = torch.rand(2, 3, 33, 37), torch.rand(2, 2)
    program = torch.export.export(module, (frames, context))
    for one, other in zip(program.module()(frames, context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)
