"""The backward pass of attention's weights, written for a CPU: in place, as new memory is what costs."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_backward_(gradient: Tensor, weights: Tensor) -> Tensor:
    """Bring a gradient of the weights to one of the logits, in place.

    Args:
        gradient: float [..., n], of the weights; becomes that of the logits. Its sum over n is 0.
        weights: float [..., n], the softmax of the logits over n. What is hidden has weight 0, and so no
            gradient.

    Returns:
        Memory of the same shape that may be written to.
    """
    spare = gradient * weights
    gradient.sub_(spare.sum(dim=-1, keepdim=True)).mul_(weights)
    return spare


def standardized_backward_(
    gradient: Tensor, logits: Tensor, scale: Tensor, spare: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Bring a gradient of scaled, standardised logits to one of the logits before, in place.

    The mean that standardising takes away needs no term of its own: a softmax's gradients sum to 0.

    Args:
        gradient: float [..., n], as `softmax_backward_` left it; becomes that of the logits before.
        logits: float [..., n], with mean 0 and variance 1 over n.
        scale: float [..., 1], 1 over the standard deviation that was taken away.
        spare: float [..., n], memory that is written to.
        temperature: what the standardised logits were multiplied by.

    Returns:
        The gradient of the temperature [..., 1], before it is summed up.
    """
    along = torch.mul(gradient, logits, out=spare).sum(dim=-1, keepdim=True)
    gradient.addcmul_(logits, along, value=-1 / logits.shape[-1]).mul_(scale * temperature)
    return along
