"""Scaled dot-product attention, and attention with any other score, as one function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_attn.attention._checks import check_attention, check_mask
from robot_attn.attention._scores import Score, matmul_heads, resolve_score


class Attended(NamedTuple):
    """The output of an attention mechanism.

    Attributes:
        values: float [B, h, q, v], the weighted mean of the values.
        weights: float [B, h, q, n], the attention weights; each row sums to 1, or is all 0 for a query whose
            keys are all masked out.
    """

    values: Tensor
    weights: Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """Compute attention and return its weights: softmax over the keys of score(query, key), applied to value.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]. Keys, values or both may be shared by the heads, [B, 1, n, .] (multi-query
            attention, Shazeer 2019, https://arxiv.org/abs/1911.02150, section 3).
        score: a name in `SCORES`, or a function (query, key) -> logits [B, h, q, n]. With half-precision
            inputs it is called in float32.
        mask: bool, True where a query may attend (the convention of `scaled_dot_product_attention`),
            broadcast to [B, h, q, n]. A fully masked query gets weights 0 and values 0; its gradients are
            finite.

    Returns:
        Values [B, h, q, v] and weights [B, h, q, n].

    Raises:
        ValueError: an unknown score, incompatible shapes, no key, non-finite numbers, or a mask that is not
            bool.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1: query, key, value are its Q, K, V.
    Cost: 2 B h q n (d + v) FLOPs, and B h q n numbers for the weights, twice that with a gradient.
    """
    check_attention(query, key, value)
    score = resolve_score(score, query, key)
    # The largest float16 is 65,504, which a dot product easily exceeds: compute logits in float32.
    half = query.dtype in (torch.float16, torch.bfloat16)
    logits = score(query.float(), key.float()) if half else score(query, key)
    if mask is None:
        weights = logits.softmax(dim=-1)
    else:
        check_mask(mask, logits.shape)
        # The lowest finite number, not -inf: with -inf a fully masked row would be 0 / 0. Here it is uniform
        # until the second fill zeroes it, and neither fill passes a gradient to masked logits.
        hidden = ~mask
        lowest = torch.finfo(logits.dtype).min
        weights = logits.masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0.0)
    weights = weights.to(value.dtype)
    return Attended(matmul_heads(weights, value), weights)
