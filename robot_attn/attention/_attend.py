"""Attention as one function: queries look at keys and read values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_attn._names import unknown_name
from robot_attn.attention._scores import LEARNED_SCORES, SCORES, Score


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

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v].
    score: a name in `SCORES`, or a function of (query, key) that gives logits [B, h, q, n].
    mask: bool, True where a query may look (the convention of `scaled_dot_product_attention`), broadcast
        to [B, h, q, n]. A query that may look nowhere gets weights 0 and values 0; its gradients are finite.

    Returns values [B, h, q, v] and weights [B, h, q, n].
    Raises ValueError for an unknown score, shapes that do not go together, or a mask that is not bool.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1: query, key, value are its Q, K, V.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(
                f"{name} must be [batch, heads, tokens, size]; its shape is {list(tensor.shape)}."
            )
    if query.shape[:2] != key.shape[:2] or key.shape[:3] != value.shape[:3]:
        raise ValueError(
            "query [B, h, q, d], key [B, h, n, d] and value [B, h, n, v] must agree on B, h and n; "
            f"their shapes are {list(query.shape)}, {list(key.shape)} and {list(value.shape)}."
        )
    if isinstance(score, str):
        if score not in SCORES:
            if score in LEARNED_SCORES:
                raise ValueError(
                    f"score {score!r} has weights of its own: "
                    f"pass score=robot_attn.build_score({score!r}, size, heads)."
                )
            raise unknown_name("score", score, SCORES)
        if query.shape[-1] != key.shape[-1]:
            raise ValueError(
                f"score {score!r} compares queries and keys of one size; "
                f"theirs are {query.shape[-1]} and {key.shape[-1]}."
            )
        score = SCORES[score]
    logits = score(query, key)
    if mask is None:
        weights = logits.softmax(dim=-1)
    else:
        _check_mask(mask, logits.shape)
        # The lowest finite number, not -inf: a row that is hidden whole would be 0 / 0 with -inf. Here it is
        # uniform until the second fill clears it, and both fills pass no gradient to what they hide.
        hidden = ~mask
        weights = (
            logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(dim=-1).masked_fill(hidden, 0.0)
        )
    return Attended(weights @ value, weights)


def _check_mask(mask: Tensor, shape: torch.Size) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True where a query may look; its dtype is {mask.dtype}.")
    try:
        fits = mask.expand(shape).shape == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"mask must broadcast to [B, h, q, n] = {list(shape)}; its shape is {list(mask.shape)}."
        )
