import numpy as np
import pytest
import torch

from robot_attn import build, upsample_attention
from robot_attn.frames import prepare_frames


def test_equals_sb3s_nature_cnn() -> None:
    torch_layers = pytest.importorskip("stable_baselines3.common.torch_layers")
    spaces = pytest.importorskip("gymnasium.spaces")
    peer = torch_layers.NatureCNN(spaces.Box(0, 255, (3, 64, 71), np.uint8))
    module = build("cnn", (3, 64, 71))
    weights = zip(module.state_dict(), peer.state_dict().values(), strict=True)
    module.load_state_dict(dict(weights))
    frames = torch.rand(5, 3, 64, 71)
    # Rounding depends on the layout of the frames: both get the one that a perception works in.
    laid = prepare_frames(frames, (3, 64, 71), torch.float32)
    assert torch.equal(module(frames).features, peer(laid))
    torch.testing.assert_close(module(frames).features, peer(frames))


def test_the_map_is_exactly_uniform() -> None:
    module = build("cnn", (3, 64, 64))
    percept = module(torch.rand(2, 3, 64, 64))
    assert module.uniform and not build("query", (3, 64, 64)).uniform
    assert percept.attention.shape == (2, 1, 4, 4)
    assert bool((percept.attention == 1 / 16).all())
    spread = upsample_attention(percept.attention, module.grid)
    assert bool((spread == 1 / 4096).all())


def test_small_frames_are_padded_with_black() -> None:
    torch.manual_seed(0)
    small = build("cnn", (3, 32, 40))
    large = build("cnn", (3, 36, 40))
    large.load_state_dict(small.state_dict())
    frames = torch.rand(2, 3, 32, 40)
    padded = torch.zeros(2, 3, 36, 40)
    padded[:, :, :32] = frames
    torch.testing.assert_close(small(frames).features, large(padded).features)
