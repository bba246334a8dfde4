"""Does a map depend on what was learned? Weights are drawn anew, layer by layer, and the map must change.

The sanity check of Adebayo et al. 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292,
section 4: a map that stays as it is when the weights go was never about them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn


def randomised(module: nn.Module, *, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a module with ever more of its layers drawn anew, from the output back to the input.

    The parameters of a layer are drawn from a normal distribution with their own mean and standard deviation,
    so that only what they say is lost and not how large they are. A layer is a module with parameters of its
    own; layers go in the reverse of the order in which the module names them. Those whose weights are all
    alike, such as a bias of zeros, have nothing to lose and stay.

    Args:
        module: stays as it is.
        seed: of the draws.

    Yields:
        The name of the layer that was drawn anew last, and the copy: the same one each time, changed further.
    """
    changed = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    layers = [(name, part) for name, part in changed.named_modules() if list(part.parameters(recurse=False))]
    for name, part in reversed(layers):
        with torch.no_grad():
            for parameter in part.parameters(recurse=False):
                mean = parameter.mean()
                spread = parameter.std() if parameter.numel() > 1 else torch.zeros_like(mean)
                drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(mean + spread * drawn)
        yield name or type(module).__name__, changed
