"""Adam takes the steps of torch.optim.Adam, without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from robot_attn_policies.sb3.adam import Adam

SHAPES = [(3, 5), (7,), (2, 3, 2, 2), ()]


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in SHAPES]


def take_steps(optimizer: Adam | torch.optim.Adam, own: list[Tensor], first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        optimizer.zero_grad()
        for parameter in own[:-1]:  # the last one never has a gradient
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        optimizer.step()


def test_a_step_by_hand() -> None:
    """Algorithm 1 with gradients 2 and -1, and half the default decay of the second moment."""
    parameter = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = Adam([parameter], lr=0.1, betas=(0.5, 0.75), eps=1.0)
    parameter.grad = torch.tensor([2.0], dtype=torch.float64)
    optimizer.step()  # m = 1, corrected 2; v = 1, corrected 4, its root 2
    assert parameter.item() == pytest.approx(1 - 0.1 * 2 / (2 + 1), abs=1e-12)
    parameter.grad = torch.tensor([-1.0], dtype=torch.float64)
    optimizer.step()  # m = 0; v = 1
    assert parameter.item() == pytest.approx(1 - 0.1 * 2 / (2 + 1), abs=1e-12)
    optimizer.step()  # m = -0.5, corrected by 7 / 8; v = 1, corrected by 37 / 64
    expected = 1 - 0.1 * 2 / 3 + 0.1 * (0.5 * 8 / 7) / ((64 / 37) ** 0.5 + 1)
    assert parameter.item() == pytest.approx(expected, abs=1e-12)


def test_steps_are_those_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    take_steps(Adam(ours, lr=1.0, eps=1e-5), ours, 0, 20)
    take_steps(torch.optim.Adam(theirs, lr=1.0, eps=1e-5), theirs, 0, 20)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("kind", [Adam, torch.optim.Adam])
def test_a_restored_state_continues_bit_identically(
    kind: type[Adam] | type[torch.optim.Adam], before: int
) -> None:
    whole, parts = parameters(), parameters()
    take_steps(Adam(whole, lr=1.0), whole, 0, 9)
    first = kind(parts, lr=1.0)
    take_steps(first, parts, 0, before)
    second = Adam(parts, lr=3.0)
    second.zero_grad()
    second.step()  # a step by gradients of 0: another state, the same parameters
    second.load_state_dict(first.state_dict())
    take_steps(second, parts, before, 9)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
        if kind is Adam:
            assert torch.equal(one, other)


def test_the_state_of_other_parameters_is_rejected() -> None:
    own = parameters()
    optimizer = Adam(own, lr=1.0)
    take_steps(optimizer, own, 0, 1)
    with pytest.raises(ValueError, match="expected the state of 2 parameters, got 4"):
        Adam(own[:2], lr=1.0).load_state_dict(optimizer.state_dict())
    other = [torch.zeros(5, 3, requires_grad=True), *own[1:]]
    with pytest.raises(ValueError, match=r"expected exp_avg of parameter 0 of shape \[5, 3\], got \[3, 5\]"):
        Adam(other, lr=1.0).load_state_dict(optimizer.state_dict())


def test_torchs_compiler_is_not_imported() -> None:
    code = """
import sys, torch
from robot_attn_policies.sb3.adam import Adam
parameter = torch.zeros(3, requires_grad=True)
optimizer = Adam([parameter], lr=1.0)
parameter.sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
