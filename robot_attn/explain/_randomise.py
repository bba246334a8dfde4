"""Parameter randomisation: do explanation maps depend on the learned weights?

The sanity check of Adebayo et al. 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292,
section 4: a map that does not change when the weights are randomised does not depend on what was learned.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from robot_attn.errors import unknown_name

Order: TypeAlias = Literal["cascade", "independent"]


def randomised(
    module: nn.Module, *, order: Order = "cascade", seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield a copy of a module with its layers randomised one after the other, from the output to the input.

    "cascade" leaves the layers randomised so far as they are, until all are. "independent" restores each
    layer before the next is randomised, which isolates that layer's influence on the map.

    The parameters of a layer are sampled from a normal distribution with their own mean and standard
    deviation, so that the learned values are lost but not their scale. A layer is a module with direct
    parameters; layers are visited in the reverse order of `named_modules`. Parameters that are constant, such
    as a bias of zeros, stay as they are.

    Args:
        module: the module to copy; it is not changed.
        order: "cascade" or "independent".
        seed: random seed; both orders sample the same values.

    Yields:
        The name of the layer randomised last, and the copy: the same object each time, modified in place.

    Raises:
        ValueError: an unknown order.
    """
    if order not in get_args(Order):
        raise unknown_name("order", order, get_args(Order))
    changed = copy.deepcopy(module, _without_graphs(module))
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, part) for name, part in changed.named_modules() if list(part.parameters(recurse=False))]
    for name, part in reversed(layers):
        learned = [(parameter, parameter.detach().clone()) for parameter in part.parameters(recurse=False)]
        with torch.no_grad():
            for parameter, _ in learned:
                mean = parameter.mean()
                std = parameter.std() if parameter.numel() > 1 else torch.zeros_like(mean)
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(mean + std * noise)
        yield name or type(module).__name__, changed
        if order == "independent":
            with torch.no_grad():
                for parameter, before in learned:
                    parameter.copy_(before)


def _without_graphs(module: nn.Module) -> dict[int, Any]:
    """Find the tensors with an autograd graph that a module keeps, which `copy.deepcopy` refuses.

    They are results of its last call, such as the noise matrices and the distribution of a policy of
    Stable-Baselines3.

    Returns:
        A memo for `copy.deepcopy` with a detached copy of each.
    """
    memo: dict[int, Any] = {}
    visited: set[int] = set()
    left: list[Any] = [module]
    while left:
        value = left.pop()
        if id(value) in visited or isinstance(value, type):
            continue
        visited.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                memo[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
        elif hasattr(value, "__dict__"):
            left += vars(value).values()
    return memo
