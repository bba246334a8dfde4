"""Attention as one function: queries look at keys and read values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from robot_attn._names import unknown_name

Score = Callable[[Tensor, Tensor], Tensor]
"""query [B, h, q, d], key [B, h, n, d] -> logits [B, h, q, n]."""


class Attended(NamedTuple):
    """What was read, and where from.

    values: float [B, h, q, v].
    weights: float [B, h, q, n]; each row sums to 1, or is all 0 where the query may look nowhere.
    """

    values: Tensor
    weights: Tensor


def dot(query: Tensor, key: Tensor) -> Tensor:
    """q . k (Luong et al. 2015, https://arxiv.org/abs/1508.04025, eq. 8, "dot")."""
    return query @ key.transpose(-2, -1)


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """q . k / sqrt(d) (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1)."""
    # Scaling the query, which is smaller than the logits, touches fewer bytes.
    return dot(query * query.shape[-1] ** -0.5, key)


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """The cosine of the angle between q and k, in [-1, 1]; 0 where either is zero.

    Graves et al. 2014, https://arxiv.org/abs/1410.5401, eq. 6.
    """
    return dot(F.normalize(query, dim=-1), F.normalize(key, dim=-1))


SCORES: Mapping[str, Score] = MappingProxyType({"cosine": cosine, "dot": dot, "scaled_dot": scaled_dot})
"""Every score `attend` knows by name. A new one is a function and a line here."""


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
