"""Does a map depend on what was learned? Weights are drawn anew, layer by layer, and the map must change.

The sanity check of Adebayo et al. 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292,
section 4: a map that stays as it is when the weights go was never about them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from robot_attn.errors import unknown_name

Order: TypeAlias = Literal["cascade", "independent"]


def randomised(
    module: nn.Module, *, order: Order = "cascade", seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """A copy of a module with its layers drawn anew, one after the other, from the output back to the input.

    In "cascade" those that were drawn stay so, until none is left. In "independent" each is put back before
    the next is drawn: what the map owes to that layer alone.

    The parameters of a layer are drawn from a normal distribution with their own mean and standard deviation,
    so that only what they say is lost and not how large they are. A layer is a module with parameters of its
    own; layers go in the reverse of the order in which the module names them. Those whose weights are all
    alike, such as a bias of zeros, have nothing to lose and stay.

    Args:
        module: stays as it is.
        order: what becomes of the layers that were drawn before.
        seed: of the draws, which are the same in either order.

    Yields:
        The name of the layer that was drawn anew last, and the copy: the same one each time, changed further.

    Raises:
        ValueError: an unknown order.
    """
    if order not in get_args(Order):
        raise unknown_name("order", order, get_args(Order))
    changed = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, part) for name, part in changed.named_modules() if list(part.parameters(recurse=False))]
    for name, part in reversed(layers):
        learned = [(parameter, parameter.detach().clone()) for parameter in part.parameters(recurse=False)]
        with torch.no_grad():
            for parameter, _ in learned:
                mean = parameter.mean()
                spread = parameter.std() if parameter.numel() > 1 else torch.zeros_like(mean)
                drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(mean + spread * drawn)
        yield name or type(module).__name__, changed
        if order == "independent":
            with torch.no_grad():
                for parameter, before in learned:
                    parameter.copy_(before)
