"""Backward passes written for a CPU, where memory traffic dominates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robot_attn.frames import recording


def by_hand(*tensors: Tensor) -> bool:
    """Whether a gradient written by hand may be used: on a CPU, in one dtype, and nothing is recorded.

    Autocast would compute the forward pass in another dtype than the gradient.
    """
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == tensors[0].dtype for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not recording()
    )


class DotProducts(torch.autograd.Function):
    """query [B, q, d] and key [B, n, d] -> query @ key^T [B, q, n].

    Autograd computes the gradient of key^T, whose numbers lie in memory in another order than the key's.
    Every pass that has both, such as adding the key's other gradients, takes four times as long for it.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor) -> Tensor:
        ctx.save_for_backward(query, key)
        return torch.bmm(query, key.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key = ctx.saved_tensors
        for_query, for_key = ctx.needs_input_grad
        return (
            torch.bmm(gradient, key) if for_query else None,
            torch.bmm(gradient.transpose(1, 2), query) if for_key else None,
        )


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
