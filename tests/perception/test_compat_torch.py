"""Contract tests of the private interfaces of torch that are used: each exists and works."""

import pytest
import torch

import robot_attn
from robot_attn.compat.torch import transforming

PARTS = ("_C", "_functorch")


def test_torch_still_has() -> None:
    owner: object = torch
    for name in PARTS:
        assert hasattr(owner, name), f"this torch has no {name}"
        owner = getattr(owner, name)
    assert hasattr(owner, "peek_interpreter_stack"), "this torch has no peek_interpreter_stack"


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
