"""`torch.func` and `torch.jit.trace` on every family, compared with direct calls of the module."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.testing import assert_close

from robot_attn import FAMILIES, MAX_TOKENS, Perception, build, tokenize

H, W, B, C = 32, 37, 3, 2
CASES = [(family, {}) for family in FAMILIES] + [("instruction", {"instruction": None})]


def module_of(family: str, options: dict[str, Any], seed: int = 0) -> Perception:
    torch.manual_seed(seed)
    size = MAX_TOKENS if "instruction" in options else 0
    return build(family, (3, H, W), C + size, **options).eval()


def inputs(options: dict[str, Any], batch: int = B) -> tuple[Tensor, Tensor]:
    """Frames uint8 and a context."""
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (batch, 3, H, W), dtype=torch.uint8)
    context = torch.randn(batch, C)
    if "instruction" in options:
        tokens = torch.stack([tokenize(("the red ball", "a blue box")[i % 2]) for i in range(batch)])
        context = torch.cat([context, tokens.float()], dim=1)
    return frames, context


def loss(module: nn.Module, parameters: dict[str, Tensor], frames: Tensor, context: Tensor) -> Tensor:
    """[B]: of each frame, a number that depends on its features and its map."""
    features, attention = functional_call(module, parameters, (frames, context))
    return (features.square().sum(dim=1) + attention.square().sum(dim=(1, 2, 3))).double()


@pytest.mark.parametrize(("family", "options"), CASES)
def test_vmap_over_frames_is_the_batch(family: str, options: dict[str, Any]) -> None:
    module, (frames, context) = module_of(family, options), inputs(options)
    expected = module(frames, context)
    for given in (frames, frames / 255):
        features, attention = vmap(lambda one, vector: tuple(module(one[None], vector[None])))(given, context)
        assert_close(features[:, 0], expected.features)
        assert_close(attention[:, 0], expected.attention)


@pytest.mark.parametrize(("family", "options"), CASES)
def test_vmap_over_weights_is_each_module(family: str, options: dict[str, Any]) -> None:
    modules = [module_of(family, options, seed) for seed in (0, 1)]
    frames, context = inputs(options)
    weights, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    bare = copy.deepcopy(modules[0]).to("meta")

    def run(*state: Any) -> Any:
        return tuple(functional_call(bare, state, (frames / 255, context)))

    features, attention = vmap(run)(weights, buffers)
    for i, module in enumerate(modules):
        assert_close(features[i], module(frames, context).features)
        assert_close(attention[i], module(frames, context).attention)


@pytest.mark.parametrize(("family", "options"), CASES)
def test_gradients_are_those_of_autograd(family: str, options: dict[str, Any]) -> None:
    module, (frames, context) = module_of(family, options).double(), inputs(options)
    frames, context = frames.double() / 255, context.double()
    weights = dict(module.named_parameters())
    frames.requires_grad_()
    total = loss(module, weights, frames, context).sum()
    of_weights = torch.autograd.grad(total, list(weights.values()), retain_graph=True, allow_unused=True)
    (of_frames,) = torch.autograd.grad(total, frames, allow_unused=True)
    frames = frames.detach()
    found = grad(lambda state: loss(module, state, frames, context).sum())(weights)
    assert any(one is not None and one.abs().max() > 0 for one in of_weights)
    for one, expected in zip(found.values(), of_weights, strict=True):
        assert_close(one, torch.zeros_like(one) if expected is None else expected)
    moved = grad(lambda given: loss(module, weights, given, context).sum())(frames)
    assert_close(moved, of_frames)


@pytest.mark.parametrize(("family", "options"), CASES)
def test_gradients_of_each_frame_alone(family: str, options: dict[str, Any]) -> None:
    module, (frames, context) = module_of(family, options).double(), inputs(options)
    frames, context = frames.double() / 255, context.double()
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def alone(state: dict[str, Tensor], frame: Tensor, vector: Tensor) -> Tensor:
        return loss(module, state, frame[None], vector[None]).sum()

    found = vmap(grad(alone), in_dims=(None, 0, 0))(weights, frames, context)
    for i in range(B):
        expected = grad(alone)(weights, frames[i], context[i])
        for name, one in expected.items():
            assert_close(found[name][i], one)


@pytest.mark.parametrize(("family", "options"), CASES)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_trace_takes_any_number_of_frames(family: str, options: dict[str, Any]) -> None:
    module = module_of(family, options)
    traced = torch.jit.trace(module, inputs(options, 2), check_trace=False)
    for batch in (1, 2, 5):
        frames, context = inputs(options, batch)
        with torch.no_grad():
            features, attention = traced(frames, context)
        assert_close(features, module(frames, context).features)
        assert_close(attention, module(frames, context).attention)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_sequence_is_traced_at_any_batch_size() -> None:
    module: Any = module_of("dynamic", {})

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, frames: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            percept, state = self.module.sequence(frames, None, context)
            return percept.features, percept.attention, state

    def episode(batch: int) -> tuple[Tensor, Tensor]:
        frames, context = inputs({}, 4 * batch)
        return frames.view(4, batch, 3, H, W), context.view(4, batch, C)

    traced = torch.jit.trace(Sequence(), episode(2), check_trace=False)
    with torch.no_grad():
        for found, expected in zip(traced(*episode(3)), Sequence()(*episode(3)), strict=True):
            assert_close(found, expected)
