"""Sharded: features and gradients equal those of the whole batch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.sharded import Sharded

SPACE = spaces.Dict(image=spaces.Box(0, 255, (3, 33, 41), "uint8"), state=spaces.Box(-1, 1, (5,)))


@pytest.fixture
def sharded() -> Iterator[Sharded]:
    sharded = Sharded(3)
    yield sharded
    sharded.close()


def batch(size: int) -> dict[str, Tensor]:
    torch.manual_seed(size)
    image = torch.randint(0, 256, (size, 3, 33, 41), dtype=torch.uint8)
    return {"image": image, "state": torch.rand(size, 5)}


def gradients(call: Any, module: nn.Module, size: int) -> list[Tensor]:
    features = call(batch(size))
    weights = torch.linspace(-1, 2, features.numel()).view_as(features)
    return [features, *torch.autograd.grad((features * weights).sum(), list(module.parameters()))]


@pytest.mark.parametrize("family", ["query", "keypoints", "cnn"])
@pytest.mark.parametrize("size", [1, 63, 64, 101, 128])
def test_features_and_gradients_equal_the_whole_batchs(sharded: Sharded, family: str, size: int) -> None:
    torch.manual_seed(0)
    module = PerceptionExtractor(SPACE, perception=family)
    whole = gradients(module, module, size)
    parts = gradients(lambda observation: sharded(module, observation), module, size)
    again = gradients(lambda observation: sharded(module, observation), module, size)
    # Parameters that a softmax cancels, such as a bias before it, have gradients of rounding errors only.
    least = 0.01 * max(expected.abs().max() for expected in whole)
    for expected, found, repeated in zip(whole, parts, again, strict=True):
        scale = expected.abs().max().clamp_min(least)
        assert ((found - expected).abs().max() / scale) < 2e-5
        assert torch.equal(found, repeated)  # to the bit, whichever thread was first


def test_an_unused_parameter_has_no_gradient(sharded: Sharded) -> None:
    module = nn.Linear(5, 2)
    module.register_parameter("idle", nn.Parameter(torch.ones(3)))
    sharded(module, torch.rand(96, 5)).sum().backward()
    assert module.idle.grad is None
    assert module.weight.grad is not None


def test_an_error_in_a_thread_is_raised(sharded: Sharded) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        sharded(nn.Linear(4, 2), torch.rand(96, 5))


def test_without_gradients_the_module_is_called_directly(sharded: Sharded) -> None:
    module = nn.Linear(5, 2)
    frames = torch.rand(96, 5)
    with torch.no_grad():
        assert torch.equal(sharded(module, frames), module(frames))
