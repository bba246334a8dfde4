"""Exact attention in memory linear in the tokens: the full matrix of weights is never allocated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention, check_mask
from robot_attn.attention._scores import Score, check_pairwise, cosine, resolve_score, scaled_dot

BLOCK_LOGITS = 1 << 18
"""Logits computed at a time: 1 MiB in float32, about the cache of a core."""


def attend_blockwise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
    rows: Tensor | None = None,
) -> Attended:
    """Compute attention exactly, as `attend` does, in memory linear in the tokens, forward and backward.

    A named score runs in torch's `scaled_dot_product_attention`, whose kernels do the same in fused code; a
    module or a function is evaluated block by block in Python.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]; keys, values or both may be shared by the heads, [B, 1, n, .].
        score: as in `attend`, except a score that normalises over the keys, since a block holds only some of
            them. A score with parameters must be a module (`build_score`).
        mask: bool, True where a query may attend, broadcast to [B, h, q, n]. A fully masked query gets
            weights 0 and values 0; its gradients are finite. torch's kernel converts it to floats of the same
            shape: memory stays linear with a mask of keys, [B, 1, 1, n], but not with a mask of queries and
            keys.
        rows: int64 [r], indices of the queries whose weights to return; None for none.

    Returns:
        Values [B, h, q, v] and the weights of the queries in `rows`, [B, h, r, n]. Half precision is computed
        in float32.

    Raises:
        ValueError: as `attend`; "standardized"; a function that closes over tensors that require a gradient,
            which would get none; rows of another shape, dtype or range.

    Online softmax: Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, algorithm 3, whose m and d
    are `highest` and `total`. Its extension to the values, and the recomputation of blocks in the backward
    pass from each row's log-sum-exp: Dao et al. 2022 (FlashAttention), https://arxiv.org/abs/2205.14135,
    algorithms 1 and 4. Cost: 2 B h q n (d + v) FLOPs forward, 2.5 times that backward; memory for B h (q + n)
    (d + v) numbers and one block.
    """
    check_attention(query, key, value)
    batch, heads, queries, _ = query.shape
    count = key.shape[2]
    if mask is not None:
        check_mask(mask, torch.Size((batch, heads, queries, count)))
    score_function = resolve_score(score, query, key)
    check_pairwise(score_function)

    weights = query.new_zeros(batch, heads, 0, count)
    if rows is not None:
        check_rows(rows, queries)
        row_mask = None if mask is None else mask.expand(batch, heads, queries, count)[:, :, rows]
        weights = attend(query[:, :, rows], key, value[..., :0], score=score, mask=row_mask).weights

    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if isinstance(score, str):
        return Attended(_fused(query, key, value, score_function, mask).to(dtype), weights)
    learned: list[nn.Parameter] = []
    if isinstance(score_function, nn.Module):
        learned = [weight for weight in score_function.parameters() if weight.requires_grad]
    elif score_function(query[:, :, :1].detach(), key[:, :, :1].detach()).requires_grad:
        raise ValueError(
            "expected a score function without learned tensors, got one that requires a gradient, which it "
            "would not receive here: make it an nn.Module with parameters"
        )
    values: Tensor = _Blockwise.apply(  # type: ignore[no-untyped-call]
        score_function, mask, query, key, value, *learned
    )
    return Attended(values.to(dtype), weights)


def check_rows(rows: Tensor, queries: int) -> None:
    """Check that rows are int64 [r], each the index of one of `queries` queries.

    Raises:
        ValueError: another shape, dtype or range.
    """
    whole = rows.ndim == 1 and rows.dtype == torch.int64
    if not whole or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < queries):
        raise ValueError(
            f"expected rows int64 [r], indices of the {queries} queries, got {rows.dtype} "
            f"{list(rows.shape)}" + (f" from {int(rows.min())} to {int(rows.max())}" if whole else "")
        )


def _fused(query: Tensor, key: Tensor, value: Tensor, score: Score, mask: Tensor | None) -> Tensor:
    """Compute the values [B, h, q, v] of a score in `SCORES` except standardized, with torch's kernel."""
    scale = query.shape[-1] ** -0.5 if score is scaled_dot else 1.0
    if score is cosine:
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    # The memory-efficient kernels need equal dimensions and head counts and a contiguous last axis; otherwise
    # torch falls back to allocating all weights. Tensors that already qualify are left alone: with few tokens
    # every extra operation shows in the time.
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
    fully_masked = None
    if mask is not None:
        # The kernel is undefined for a fully masked row: unmask such a row, and zero its values afterwards.
        mask = mask.view((1,) * (4 - mask.ndim) + mask.shape)
        fully_masked = ~mask.any(dim=-1, keepdim=True)
        mask = mask | fully_masked
    values = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    values = values if size == largest else values[..., :size]
    return values if fully_masked is None else values.masked_fill(fully_masked, 0.0)


def _blocks(length: int, side: int) -> Iterator[slice]:
    return (slice(start, min(start + side, length)) for start in range(0, length, side))


class _Blockwise(torch.autograd.Function):
    """softmax(score(query, key)) @ value, over blocks of queries and keys."""

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
        side = max(16, int((BLOCK_LOGITS / max(1, batch * heads)) ** 0.5))
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
            # A fully masked row has a total of 0: its log total is inf, so backward gets exp(-inf) = 0.
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
        row_dot = (d_values * values).sum(dim=-1, keepdim=True)
        for row in _blocks(query.shape[2], ctx.side):
            d_read = d_values[:, :, row]
            for column in _blocks(key.shape[2], ctx.side):
                query_block, key_block = (
                    tensor.detach().requires_grad_() for tensor in (query[:, :, row], key[:, :, column])
                )
                with torch.enable_grad():
                    logits = ctx.score(query_block, key_block)
                    if not logits.requires_grad:  # a constant score
                        logits = logits.clone().requires_grad_()
                weights = (logits.detach() - log_total[:, :, row]).exp_()
                if ctx.mask is not None:
                    weights.masked_fill_(~ctx.mask[:, :, row, column], 0.0)
                read = weights.transpose(2, 3) @ d_read
                d_value[:, :, column] += read.sum_to_size(d_value[:, :, column].shape)
                d_logits = (d_read @ value[:, :, column].transpose(2, 3) - row_dot[:, :, row]).mul_(weights)
                d_query_block, d_key_block, *d_weights = torch.autograd.grad(
                    logits,
                    [query_block, key_block, *learned],
                    d_logits,
                    allow_unused=True,
                    materialize_grads=True,
                )
                d_query[:, :, row] += d_query_block
                d_key[:, :, column] += d_key_block
                for whole, part in zip(d_learned, d_weights, strict=True):
                    whole += part
        return None, None, d_query, d_key, d_value, *d_learned
