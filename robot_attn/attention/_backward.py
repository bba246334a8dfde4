"""In-place backward passes of softmax and standardised logits, which save memory traffic on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_backward_(gradient: Tensor, weights: Tensor) -> Tensor:
    """Turn the gradient of softmax weights into that of the logits, in place.

    Args:
        gradient: float [..., n], of the weights; overwritten with that of the logits, whose sum over n is 0.
        weights: float [..., n], softmax of the logits over n. Masked entries have weight 0, and so no
            gradient.

    Returns:
        A buffer of the same shape that the caller may overwrite.
    """
    spare = gradient * weights
    gradient.sub_(spare.sum(dim=-1, keepdim=True)).mul_(weights)
    return spare


def standardized_backward_(
    gradient: Tensor, logits: Tensor, scale: Tensor, spare: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Turn the gradient of scaled, standardised logits into that of the raw logits, in place.

    The gradient of a softmax sums to 0, so the mean subtracted in standardising needs no term.

    Args:
        gradient: float [..., n], as returned by `softmax_backward_`; overwritten with that of the raw logits.
        logits: float [..., n], standardised to mean 0 and variance 1 over n.
        scale: float [..., 1], reciprocal of the standard deviation of the raw logits.
        spare: float [..., n], buffer to overwrite.
        temperature: factor by which the standardised logits were multiplied.

    Returns:
        The gradient of the temperature [..., 1], to be summed by the caller.
    """
    d_temperature = torch.mul(gradient, logits, out=spare).sum(dim=-1, keepdim=True)
    gradient.addcmul_(logits, d_temperature, value=-1 / logits.shape[-1]).mul_(scale * temperature)
    return d_temperature
