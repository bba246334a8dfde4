"""Attention with learned queries, folded: no key and no value is ever made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._attend import Attended
from robot_attn.attention._backward import softmax_backward_, standardized_backward_
from robot_attn.attention._checks import check_finite, check_mask
from robot_attn.attention._scores import EPSILON
from robot_attn.errors import unknown_name
from robot_attn.frames import recording

FOLDED_SCORES = ("dot", "scaled_dot", "standardized")
"""The scores that are linear in the key, up to what is done to all logits of a query together."""


def attend_folded(
    tokens: Tensor,
    query: Tensor,
    to_key: Tensor,
    to_value: Tensor,
    *,
    score: str = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """Attend to tokens with one learned query a head, as `attend` would to keys and values made of them.

    tokens: float [B, n, s]; query: float [h, k], the same for the whole batch; to_key: float [h, k, s] and
        to_value: float [h, v, s], each head's maps from a token p to its key K p and its value V p.
    score: dot, scaled_dot or standardized, as `robot_attn.SCORES` has them.
    mask: bool, True where a head may look, broadcast to [B, h, n]. A head that may look nowhere gets weights
        0 and values 0; its gradients are finite.

    Returns values [B, h, v] and weights [B, h, n]. Half precision is computed in float32.
    Raises ValueError for an unknown score, shapes that do not go together, no token, numbers that are not
    finite, or a mask that is not bool.

    Attention: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1, with Q one row a head, K and V
    the projections of section 3.2.2. Learned queries that pool: Lee et al. 2019,
    https://arxiv.org/abs/1810.00825, section 3.2. As q . (K p) = (K^T q) . p, the query and the key's map are
    one vector [s] a head, whatever the frame; as weights are linear in values, sum_i w_i V p_i is
    V sum_i w_i p_i. Projections folded into their neighbours so: DeepSeek-AI 2024,
    https://arxiv.org/abs/2405.04434, section 2.1.2. A bias in the key's map would add the same to all logits
    of a head, and so nothing; one in the value's map adds to the values wherever anything is seen.

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
    looks = torch.einsum("hk,hks->hs", query, to_key)
    hidden = None
    if mask is not None:
        check_mask(mask, torch.Size((tokens.shape[0], looks.shape[0], tokens.shape[1])), "[B, h, n]")
        hidden = ~mask
    plain = recording() or torch.is_autocast_enabled("cpu") or tokens.dtype != looks.dtype
    pool = _pool if plain or tokens.device.type != "cpu" or not torch.is_grad_enabled() else _Pool.apply
    pooled, weights = pool(tokens, looks, hidden, score == "standardized")
    values = torch.einsum("bhs,hvs->bhv", pooled, to_value)
    return Attended(values.to(dtype), weights.to(dtype))


def _check(tokens: Tensor, query: Tensor, to_key: Tensor, to_value: Tensor, score: str) -> None:
    if score not in FOLDED_SCORES:
        raise unknown_name("score that can be folded", score, FOLDED_SCORES)
    if tokens.ndim != 3 or tokens.shape[1] == 0:
        raise ValueError(
            "tokens must be [batch, tokens, size], with a token to look at; "
            f"their shape is {list(tokens.shape)}."
        )
    size = tokens.shape[2]
    fits = query.ndim == 2 and to_key.shape == (*query.shape, size)
    if not fits or to_value.ndim != 3 or to_value.shape[::2] != (len(query), size):
        raise ValueError(
            "query [h, k], to_key [h, k, s] and to_value [h, v, s] must agree on h, k and "
            f"the tokens' s = {size}; their shapes are {list(query.shape)}, {list(to_key.shape)} "
            f"and {list(to_value.shape)}."
        )
    check_finite(tokens=tokens, query=query, to_key=to_key, to_value=to_value)


def _pool(tokens: Tensor, looks: Tensor, hidden: Tensor | None, standardize: bool) -> tuple[Tensor, Tensor]:
    """tokens [B, n, s], looks [h, s], hidden bool [B, h, n] -> the pooled [B, h, s] and weights [B, h, n]."""
    logits = looks @ tokens.transpose(1, 2)
    if standardize:
        logits = F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)
    weights = _weigh(logits, hidden)
    return weights @ tokens, weights


def _weigh(logits: Tensor, hidden: Tensor | None) -> Tensor:
    if hidden is None:
        return logits.softmax(dim=-1)
    # As in `attend`: where all is hidden, the lowest number gives an even row and not NaN, and then zeros.
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0.0)


class _Pool(torch.autograd.Function):
    """`_pool` with a backward pass written for a CPU, where passes over the tokens are what costs.

    The tokens are in it twice, as keys and as values. Autograd would make two gradients of their size and
    add them up; here both are one product.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, looks: Tensor, hidden: Tensor | None, standardize: bool
    ) -> tuple[Tensor, Tensor]:
        logits = torch.bmm(looks.expand(len(tokens), -1, -1), tokens.transpose(1, 2))
        scale = None
        if standardize:
            logits, _, scale = torch.native_layer_norm(logits, logits.shape[-1:], None, None, EPSILON)
        weights = _weigh(logits, hidden)
        ctx.save_for_backward(tokens, looks, weights, logits if standardize else None, scale)
        return torch.bmm(weights, tokens), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pooled: Tensor, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        tokens, looks, weights, logits, scale = ctx.saved_tensors
        d_logits = torch.baddbmm(d_weights, d_pooled, tokens.transpose(1, 2))
        spare = softmax_backward_(d_logits, weights)
        if scale is not None:
            standardized_backward_(d_logits, logits, scale, spare)
        d_looks = torch.bmm(d_logits, tokens).sum(dim=0)
        if not ctx.needs_input_grad[0]:
            return None, d_looks, None, None
        both = torch.cat([weights, d_logits], dim=1).transpose(1, 2)
        d_tokens = torch.bmm(both, torch.cat([d_pooled, looks.expand_as(d_pooled)], dim=1))
        return d_tokens, d_looks, None, None
