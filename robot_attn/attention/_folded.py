"""Attention with learned queries and folded projections: keys and values are never computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._attend import Attended
from robot_attn.attention._backward import by_hand, softmax_backward_, standardized_backward_
from robot_attn.attention._checks import check_finite, check_mask
from robot_attn.attention._scores import EPSILON
from robot_attn.errors import unknown_name

FOLDED_SCORES = ("dot", "scaled_dot", "standardized")
"""Scores whose logits are linear in the key, up to a normalisation over all keys of a query."""


def attend_folded(
    tokens: Tensor,
    query: Tensor,
    to_key: Tensor,
    to_value: Tensor,
    *,
    score: str = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """Attend to tokens with one learned query per head; equal to `attend` on the projected keys and values.

    Args:
        tokens: float [B, n, s].
        query: float [h, k], learned queries shared by the whole batch.
        to_key: float [h, k, s], each head's key projection K: a token p has the key K p.
        to_value: float [h, v, s], each head's value projection V.
        score: "dot", "scaled_dot" or "standardized", as in `robot_attn.SCORES`.
        mask: bool, True where a head may attend, broadcast to [B, h, n]. A fully masked head gets weights 0
            and values 0; its gradients are finite.

    Returns:
        Values [B, h, v] and weights [B, h, n]. Half precision is computed in float32.

    Raises:
        ValueError: an unknown score, incompatible shapes, no token, non-finite numbers, or a mask that is not
            bool.

    Attention: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1, with one row of Q per head, K and
    V the projections of section 3.2.2. Pooling by learned queries: Lee et al. 2019,
    https://arxiv.org/abs/1810.00825, section 3.2. Since q . (K p) = (K^T q) . p, the query and the key
    projection fold into one vector [s] per head, whatever the frame; since the output is linear in the
    values, sum_i w_i V p_i is V sum_i w_i p_i. Such absorption of projections: DeepSeek-AI 2024,
    https://arxiv.org/abs/2405.04434, section 2.1.2. A bias in the key projection would add the same number to
    all logits of a head and so change nothing; one in the value projection adds to the values of every head
    that is not fully masked.

    Cost: 4 B h n s FLOPs and B h n numbers for the weights. Unfolded it is 2 B h n (k + v)(s + 1) FLOPs and
    B h n (k + v) numbers more for keys and values: with k = v = s / h, s / h times the FLOPs. On a CPU the
    backward pass reads the tokens twice and writes their gradient once.
    """
    _check(tokens, query, to_key, to_value, score)
    dtype = tokens.dtype
    if dtype in (torch.float16, torch.bfloat16):
        tokens, query, to_key, to_value = (each.float() for each in (tokens, query, to_key, to_value))
    if score == "scaled_dot":
        query = query * query.shape[-1] ** -0.5
    folded_query = torch.einsum("hk,hks->hs", query, to_key)
    masked = None
    if mask is not None:
        check_mask(mask, torch.Size((tokens.shape[0], folded_query.shape[0], tokens.shape[1])), "[B, h, n]")
        masked = ~mask
    pool = _Pool.apply if torch.is_grad_enabled() and by_hand(tokens, folded_query) else _pool
    pooled, weights = pool(tokens, folded_query, masked, score == "standardized")
    values = torch.einsum("bhs,hvs->bhv", pooled, to_value)
    return Attended(values.to(dtype), weights.to(dtype))


def _check(tokens: Tensor, query: Tensor, to_key: Tensor, to_value: Tensor, score: str) -> None:
    if score not in FOLDED_SCORES:
        raise unknown_name("score that can be folded", score, FOLDED_SCORES)
    if tokens.ndim != 3 or tokens.shape[1] == 0:
        raise ValueError(
            f"expected tokens [batch, tokens, dim] with at least 1 token, got shape {list(tokens.shape)}"
        )
    size = tokens.shape[2]
    fits = query.ndim == 2 and to_key.shape == (*query.shape, size)
    if not fits or to_value.ndim != 3 or to_value.shape[::2] != (len(query), size):
        raise ValueError(
            "expected query [h, k], to_key [h, k, s] and to_value [h, v, s] that agree on h, k and "
            f"the tokens' s = {size}, got shapes {list(query.shape)}, {list(to_key.shape)} "
            f"and {list(to_value.shape)}"
        )
    check_finite(tokens=tokens, query=query, to_key=to_key, to_value=to_value)


def _pool(
    tokens: Tensor, folded_query: Tensor, masked: Tensor | None, standardize: bool
) -> tuple[Tensor, Tensor]:
    """Pool tokens [B, n, s] by queries [h, s] -> [B, h, s], weights [B, h, n]; masked is bool [B, h, n]."""
    logits = folded_query @ tokens.transpose(1, 2)
    if standardize:
        logits = F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)
    weights = _weigh(logits, masked)
    return weights @ tokens, weights


def _weigh(logits: Tensor, masked: Tensor | None) -> Tensor:
    if masked is None:
        return logits.softmax(dim=-1)
    # As in `attend`: the lowest number instead of -inf keeps a fully masked row from becoming NaN.
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(masked, lowest).softmax(dim=-1).masked_fill(masked, 0.0)


class _Pool(torch.autograd.Function):
    """`_pool` with a backward pass written for a CPU, where passes over the tokens dominate.

    The tokens act as keys and as values. Autograd would compute two gradients of their size and add them;
    here both are a single matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, folded_query: Tensor, masked: Tensor | None, standardize: bool
    ) -> tuple[Tensor, Tensor]:
        logits = torch.bmm(folded_query.expand(len(tokens), -1, -1), tokens.transpose(1, 2))
        scale = None
        if standardize:
            logits, _, scale = torch.native_layer_norm(logits, logits.shape[-1:], None, None, EPSILON)
        weights = _weigh(logits, masked)
        ctx.save_for_backward(tokens, folded_query, weights, logits if standardize else None, scale)
        return torch.bmm(weights, tokens), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        tokens, folded_query, weights, logits, scale = ctx.saved_tensors
        d_logits = torch.baddbmm(d_weights, d_pooled, tokens.transpose(1, 2))
        spare = softmax_backward_(d_logits, weights)
        if scale is not None:
            standardized_backward_(d_logits, logits, scale, spare)
        d_folded_query = torch.bmm(d_logits, tokens).sum(dim=0)
        if not ctx.needs_input_grad[0]:
            return None, d_folded_query, None, None
        both = torch.cat([weights, d_logits], dim=1).transpose(1, 2)
        d_tokens = torch.bmm(both, torch.cat([d_pooled, folded_query.expand_as(d_pooled)], dim=1))
        return d_tokens, d_folded_query, None, None
