"""Attention as one function: queries look at keys and read values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_attn.attention._checks import check_attention, check_mask
from robot_attn.attention._scores import Score, matmul_heads, score_of


class Attended(NamedTuple):
    """What was read, and where from.

    values: float [B, h, q, v].
    weights: float [B, h, q, n]; each row sums to 1, or is all 0 where the query may look nowhere.
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
    """Attention with its weights: softmax over the keys of score(query, key), then that mixture of values.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v]. Keys, values or both may be
        shared by the heads, [B, 1, n, d] (Shazeer 2019, https://arxiv.org/abs/1911.02150, section 3).
    score: a name in `SCORES`, or a function of (query, key) that gives logits [B, h, q, n]; in half precision
        it is given float32.
    mask: bool, True where a query may look (the convention of `scaled_dot_product_attention`), broadcast
        to [B, h, q, n]. A query that may look nowhere gets weights 0 and values 0; its gradients are finite.

    Returns values [B, h, q, v] and weights [B, h, q, n].
    Raises ValueError for an unknown score, shapes that do not go together, no key, numbers that are not
    finite, or a mask that is not bool.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1: query, key, value are its Q, K, V.
    Cost: 2 B h q n (d + v) FLOPs, and B h q n numbers for the weights, twice that with a gradient.
    """
    check_attention(query, key, value)
    score = score_of(score, query, key)
    # Float16 ends at 65,504, which a product of two vectors passes soon: half precision is scored in float32.
    half = query.dtype in (torch.float16, torch.bfloat16)
    logits = score(query.float(), key.float()) if half else score(query, key)
    if mask is None:
        weights = logits.softmax(dim=-1)
    else:
        check_mask(mask, logits.shape)
        # The lowest finite number, not -inf: a row that is hidden whole would be 0 / 0 with -inf. Here it is
        # uniform until the second fill clears it, and both fills pass no gradient to what they hide.
        hidden = ~mask
        lowest = torch.finfo(logits.dtype).min
        weights = logits.masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0.0)
    weights = weights.to(value.dtype)
    return Attended(matmul_heads(weights, value), weights)
