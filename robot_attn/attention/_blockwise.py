"""Exact attention in memory that is linear in the tokens: all of its weights are never there at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention, check_mask
from robot_attn.attention._scores import Score, check_pairwise, cosine, scaled_dot, score_of

BLOCK_NUMBERS = 1 << 18
"""Logits computed at a time: 1 MiB in float32, about a core's cache."""


def attend_blockwise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
    rows: Tensor | None = None,
) -> Attended:
    """Attend exactly, as `attend` does, in memory linear in the tokens, forward and backward.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v]; keys, values or both may be
        shared by the heads, [B, 1, n, .].
    score: as in `attend`, but none that normalises over the keys: a block does not see all of them. To learn
        weights of its own it must be a module (`build_score`).
    mask: bool, True where a query may look, broadcast to [B, h, q, n]. A query that may look nowhere gets
        weights 0 and values 0; its gradients are finite. Torch's kernel wants it in floats of its own shape:
        linear in the tokens is a mask of keys, [B, 1, 1, n], and no mask of queries and keys can be.
    rows: int64 [r], indices of the queries whose weights are wanted; None for none.

    Returns values [B, h, q, v] and the weights of those rows, [B, h, r, n]. Half precision is computed in
    float32.
    Raises ValueError as `attend` does, for "standardized", for a function that holds tensors in need of a
    gradient, which would get none, and for rows that are no such indices.

    The scores that have a name go to torch's `scaled_dot_product_attention`, whose kernels do the same in
    fused code; a module or a function goes block by block through Python. The online softmax:
    Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, algorithm 3, whose m and d are `highest` and
    `total`. Values with it, and blocks made anew for the gradient from the logarithm of each row's sum of
    exponentials: Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithms 1 and 4.
    Cost: 2 B h q n (d + v) FLOPs forward, 2.5 times that backward; B h (q + n) (d + v) numbers and a block.
    """
    check_attention(query, key, value)
    batch, heads, queries, _ = query.shape
    count = key.shape[2]
    if mask is not None:
        check_mask(mask, torch.Size((batch, heads, queries, count)))
    by_name = score_of(score, query, key)
    check_pairwise(by_name)

    weights = query.new_zeros(batch, heads, 0, count)
    if rows is not None:
        check_rows(rows, queries)
        may_look = None if mask is None else mask.expand(batch, heads, queries, count)[:, :, rows]
        weights = attend(query[:, :, rows], key, value[..., :0], score=score, mask=may_look).weights

    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if isinstance(score, str):
        return Attended(_fused(query, key, value, by_name, mask).to(dtype), weights)
    learned: list[nn.Parameter] = []
    if isinstance(by_name, nn.Module):
        learned = [weight for weight in by_name.parameters() if weight.requires_grad]
    elif by_name(query[:, :, :1].detach(), key[:, :, :1].detach()).requires_grad:
        raise ValueError(
            "score is a function that holds tensors in need of a gradient, which would get none here; "
            "make it an nn.Module with parameters."
        )
    values: Tensor = _Blockwise.apply(  # type: ignore[no-untyped-call]
        by_name, mask, query, key, value, *learned
    )
    return Attended(values.to(dtype), weights)


def check_rows(rows: Tensor, queries: int) -> None:
    """ValueError unless rows are int64 [r], each the index of one of so many queries."""
    whole = rows.ndim == 1 and rows.dtype == torch.int64
    if not whole or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < queries):
        raise ValueError(
            f"rows must be int64 [r], indices of the {queries} queries; they are {rows.dtype} "
            f"{list(rows.shape)}" + (f" from {int(rows.min())} to {int(rows.max())}." if whole else ".")
        )


def _fused(query: Tensor, key: Tensor, value: Tensor, score: Score, mask: Tensor | None) -> Tensor:
    """Give the values [B, h, q, v] of a score in `SCORES`, but standardized, by torch's kernel."""
    scale = query.shape[-1] ** -0.5 if score is scaled_dot else 1.0
    if score is cosine:
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    # The kernel takes one size for all, as many heads, and numbers side by side (a transposed tensor's are
    # not); for others torch would make all the weights. What is there already is left alone: with few tokens
    # each operation shows.
    heads, size = query.shape[1], value.shape[-1]
    largest = max(query.shape[-1], size)
    query, key, value = (
        tensor if tensor.shape[-1] == largest else F.pad(tensor, (0, largest - tensor.shape[-1]))
        for tensor in (query, key, value)
    )
    query, key, value = (
        tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key, value)
    )
    key, value = (
        tensor if tensor.shape[1] == heads else tensor.expand(-1, heads, -1, -1) for tensor in (key, value)
    )
    nothing = None
    if mask is not None:
        # The kernel has no answer where nothing may be seen: such a row looks at all, and is then cleared.
        mask = mask.view((1,) * (4 - mask.ndim) + mask.shape)
        nothing = ~mask.any(dim=-1, keepdim=True)
        mask = mask | nothing
    values = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    values = values if size == largest else values[..., :size]
    return values if nothing is None else values.masked_fill(nothing, 0.0)


def _blocks(length: int, side: int) -> Iterator[slice]:
    return (slice(start, min(start + side, length)) for start in range(0, length, side))


class _Blockwise(torch.autograd.Function):
    """softmax(score(query, key)) value, over blocks of queries and keys."""

    @staticmethod
    def forward(
        ctx: Any,
        score: Score,
        mask: Tensor | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *learned: Tensor,
    ) -> Tensor:
        batch, heads, queries, _ = query.shape
        shape = (batch, heads, queries, key.shape[2])
        mask = None if mask is None else mask.expand(shape)
        side = max(16, int((BLOCK_NUMBERS / max(1, batch * heads)) ** 0.5))
        values = query.new_zeros(*shape[:3], value.shape[-1])
        log_total = query.new_zeros(*shape[:3], 1)
        for row in _blocks(queries, side):
            highest = query.new_full((batch, heads, row.stop - row.start, 1), torch.finfo(query.dtype).min)
            total, read = torch.zeros_like(highest), values[:, :, row]
            for column in _blocks(key.shape[2], side):
                logits = score(query[:, :, row], key[:, :, column])
                if mask is not None:
                    logits = logits.masked_fill(~mask[:, :, row, column], -torch.inf)
                rising = torch.maximum(highest, logits.amax(dim=-1, keepdim=True))
                weights = (logits - rising).exp_()
                shrink = (highest - rising).exp_()
                total = total * shrink + weights.sum(dim=-1, keepdim=True)
                read.mul_(shrink).add_(weights @ value[:, :, column])
                highest = rising
            # A row that may look nowhere has a total of 0, and gets weights of exp(-inf) = 0 again.
            read.div_(total.clamp(min=torch.finfo(total.dtype).tiny))
            log_total[:, :, row] = torch.where(total > 0, highest + total.log(), torch.inf)
        ctx.score, ctx.mask, ctx.side = score, mask, side
        ctx.save_for_backward(query, key, value, values, log_total, *learned)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, values, log_total, *learned = ctx.saved_tensors
        d_query, d_key, d_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        d_learned = [torch.zeros_like(weight) for weight in learned]
        along = (d_values * values).sum(dim=-1, keepdim=True)
        for row in _blocks(query.shape[2], ctx.side):
            d_read = d_values[:, :, row]
            for column in _blocks(key.shape[2], ctx.side):
                asked, met = (
                    tensor.detach().requires_grad_() for tensor in (query[:, :, row], key[:, :, column])
                )
                with torch.enable_grad():
                    logits = ctx.score(asked, met)
                    if not logits.requires_grad:  # a score that depends on nothing that learns
                        logits = logits.clone().requires_grad_()
                weights = (logits.detach() - log_total[:, :, row]).exp_()
                if ctx.mask is not None:
                    weights.masked_fill_(~ctx.mask[:, :, row, column], 0.0)
                read = weights.transpose(2, 3) @ d_read
                d_value[:, :, column] += read.sum_to_size(d_value[:, :, column].shape)
                d_logits = (d_read @ value[:, :, column].transpose(2, 3) - along[:, :, row]).mul_(weights)
                d_asked, d_met, *d_weights = torch.autograd.grad(
                    logits, [asked, met, *learned], d_logits, allow_unused=True, materialize_grads=True
                )
                d_query[:, :, row] += d_asked
                d_key[:, :, column] += d_met
                for whole, part in zip(d_learned, d_weights, strict=True):
                    whole += part
        return None, None, d_query, d_key, d_value, *d_learned
