"""Contract tests of the private interfaces of torch that are used: each exists and works."""

import pytest
import torch

import robot_attn
from robot_attn.compat.torch import after_each_operation, is_compiled, transforming

PARTS = ("_C", "_functorch")


def test_torch_still_has() -> None:
    owner: object = torch
    for name in PARTS:
        assert hasattr(owner, name), f"this torch has no {name}"
        owner = getattr(owner, name)
    assert hasattr(owner, "peek_interpreter_stack"), "this torch has no peek_interpreter_stack"


def test_torch_still_has_what_replaces_the_outputs_of_operations() -> None:
    assert hasattr(torch.utils._python_dispatch, "TorchDispatchMode")
    seen: list[int] = []

    def replace(inputs: list[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return output + 1

    with torch.no_grad(), after_each_operation(replace):
        summed = torch.zeros(3) + torch.zeros(3)
        largest, index = torch.ones(3).max(dim=0)
        joined = torch.cat([summed, summed, summed])
    assert summed.tolist() == [3, 3, 3]  # each of the zeros, and their sum
    assert (largest.item(), index.item()) == (3, 1)
    assert joined.tolist() == [4] * 9
    assert seen == [0, 0, 2, 0, 1, 1, 3]  # the largest has two outputs
    assert (torch.zeros(3) + torch.zeros(3)).tolist() == [0, 0, 0]


def test_a_compiled_module_is_recognised() -> None:
    module = torch.nn.Linear(2, 3)
    assert hasattr(module, "_compiled_call_impl") and not is_compiled(module)
    module.compile(backend="eager")
    assert is_compiled(module)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_an_active_transform_is_detected(transform: object) -> None:
    active = []

    def function(x: torch.Tensor) -> torch.Tensor:
        active.append(transforming())
        return x.sum()

    transform(function)(torch.zeros(2))  # type: ignore[operator]
    assert active == [True] and not transforming()


def test_a_torch_without_it_still_runs_a_perception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._functorch, "peek_interpreter_stack")
    assert not transforming()
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert robot_attn.build("query", (3, 32, 32))(frames).features.shape == (2, 128)
