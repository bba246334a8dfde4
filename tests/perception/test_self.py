"""The family "self": its layer compared with torch's, its rollout written out, its pooled tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.families._mixing import Layer
from robot_attn.families._self import SelfAttention


@given(
    batch=st.sampled_from([1, 2, 3]),
    count=st.sampled_from([1, 2, 5, 11]),
    num_heads=st.sampled_from([1, 2, 3]),
    size=st.sampled_from([1, 2, 5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_a_layer_equals_torchs_encoder_layer(
    batch: int, count: int, num_heads: int, size: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    embed = num_heads * size
    ours = Layer(embed, num_heads)
    theirs = nn.TransformerEncoderLayer(
        embed, num_heads, 2 * embed, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    with torch.no_grad():
        theirs.self_attn.in_proj_bias.zero_()
        theirs.self_attn.in_proj_weight.copy_(ours.to_look.weight)
    for one, other in (
        (ours.from_look, theirs.self_attn.out_proj),
        (ours.before_looking, theirs.norm1),
        (ours.before_thinking, theirs.norm2),
        (ours.think[0], theirs.linear1),
        (ours.think[2], theirs.linear2),
    ):
        other.load_state_dict(one.state_dict())
    tokens = torch.randn(batch, count, embed, dtype=dtype)
    ours_attended, _ = ours.to(dtype)(tokens, lambda *parts: (F.scaled_dot_product_attention(*parts), None))
    close = {"rtol": 1e-6, "atol": 1e-6 if dtype == torch.float32 else 1e-10}
    torch.testing.assert_close(ours_attended, theirs.to(dtype)(tokens), **close)


def test_rollout_equals_the_product_of_the_layers() -> None:
    torch.manual_seed(0)
    module = SelfAttention((3, 41, 53), layers=2, num_layer_heads=2, rollout=True).double()
    frames = torch.rand(3, 3, 41, 53, dtype=torch.float64)
    matrices = []
    attend_tokens = module.attend_tokens

    def written_out(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        matrices.append(weights.mean(1))
        return weights @ value, weights

    rolled = module(frames)
    module.attend_tokens = written_out  # type: ignore[method-assign]
    by_hand = module(frames)
    module.attend_tokens = attend_tokens  # type: ignore[method-assign]
    module.rollout = False
    pooled = module(frames)
    first, second = (0.5 * matrix + 0.5 * torch.eye(matrix.shape[-1]) for matrix in matrices)
    expected = pooled.attention.flatten(2) @ second @ first
    torch.testing.assert_close(rolled.attention.flatten(2), expected, rtol=1e-10, atol=1e-12)
    for percept in (rolled, by_hand):
        torch.testing.assert_close(percept.features, pooled.features, rtol=1e-10, atol=1e-12)


def test_every_token_depends_on_every_patch() -> None:
    torch.manual_seed(0)
    module = SelfAttention((1, 48, 48)).double()
    tokens = []
    module.before_pooling.register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0]))
    frames = torch.rand(1, 1, 48, 48, dtype=torch.float64)
    other = frames.clone()
    other[..., 0, 0] = 1 - other[..., 0, 0]
    module(frames), module(other)
    assert bool((tokens[0] != tokens[1]).any(-1).all())


def test_positions_affect_the_tokens() -> None:
    """On a constant frame tokens differ only by their position embeddings."""
    torch.manual_seed(0)
    module = SelfAttention((3, 48, 48))
    frames = torch.full((1, 3, 48, 48), 0.25)
    assert not torch.allclose(module(frames).attention, torch.full((1, 8, 11, 11), 1 / 121), rtol=1e-2)
    with torch.no_grad():
        module.rows.zero_()
        module.cols.zero_()
    torch.testing.assert_close(module(frames).attention, torch.full((1, 8, 11, 11), 1 / 121))


def test_a_large_frame_has_coarser_tokens() -> None:
    module = SelfAttention((3, 512, 64), max_tokens=500)  # 127 x 15 patches, 64 x 8 tokens, 43 x 5 tokens
    assert module.grid.shape == (43, 5)
    ys, xs = (torch.tensor(centers) for centers in (module.grid.ys, module.grid.xs))
    # Patches are centred on 3.5, 7.5, 11.5, ...; three make a token, and the last row has one left.
    torch.testing.assert_close(ys[[0, 1, 42]], torch.tensor([7.5, 19.5, 507.5]))
    torch.testing.assert_close(xs, torch.tensor([7.5, 19.5, 31.5, 43.5, 55.5]))
    assert SelfAttention((3, 512, 64), max_tokens=512).grid.shape == (64, 8)
    assert SelfAttention((3, 64, 64)).grid.shape == (15, 15)
    assert SelfAttention((3, 512, 512)).grid.shape == (32, 32)
    assert SelfAttention((3, 64, 64), max_tokens=1).grid.shape == (1, 1)


def test_a_coarse_token_keeps_the_largest_numbers_of_its_patches() -> None:
    torch.manual_seed(0)
    module = SelfAttention((3, 64, 64), max_tokens=64)
    tokens = []
    module.layers[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    frames = torch.rand(2, 3, 64, 64)
    module(frames)
    patches = module.patches(frames)
    assert module.grid.shape == (8, 8)
    largest = torch.stack(
        [patches[:, :, 2 * (i // 8) :][:, :, :2, 2 * (i % 8) :][..., :2].amax((2, 3)) for i in range(64)], 1
    )
    positions = (module.rows + module.cols).view(64, 16)
    torch.testing.assert_close(tokens[0], largest + positions)


def test_number_of_parameters() -> None:
    module = SelfAttention((3, 64, 64))
    assert sum(parameter.numel() for parameter in module.parameters()) == 24_472
    assert (module.num_heads, module.grid.shape, module.features_dim) == (8, (15, 15), 128)


@pytest.mark.parametrize("rollout", [False, True])
def test_compiles_to_one_graph_for_any_batch(rollout: bool) -> None:
    module = SelfAttention((3, 33, 37), 2, rollout=rollout, max_tokens=20)
    batch = torch.export.Dim("batch")
    given = {"frames": torch.rand(2, 3, 33, 37), "context": torch.rand(2, 2)}
    shapes = {name: {0: batch} for name in given}
    program = torch.export.export(module, (), given, dynamic_shapes=shapes, strict=True).module()
    frames, context = torch.rand(5, 3, 33, 37), torch.rand(5, 2)
    for one, other in zip(program(frames=frames, context=context), module(frames, context), strict=True):
        torch.testing.assert_close(one, other)


def test_invalid_options_raise_value_error() -> None:
    for match, options in (
        ("expected max_tokens as a whole number of at least 1, got 0", {"max_tokens": 0}),
        ("expected num_layer_heads as a whole number of at least 1", {"num_layer_heads": 0}),
        ("a multiple of num_layer_heads, got 16 and 3", {"num_layer_heads": 3}),
        ("expected rollout as True or False, got 'yes'", {"rollout": "yes"}),
    ):
        with pytest.raises(ValueError, match=match):
            SelfAttention((3, 32, 32), **options)  # type: ignore[arg-type]
