"""Attention parallelised over several processes of torch.distributed, with the result of a single one.

`attend_heads_parallel` splits the heads over the ranks of a group, each of which needs all keys;
`attend_sequence_parallel` splits the keys, so that no rank holds them all. Both run on any backend: gloo on
CPUs, NCCL on GPUs.

Below, a *shared* tensor is the same on every rank: queries, values, and gathered weights. Gradients follow
one rule: a loss computed from shared tensors is computed identically on every rank, **counts once**, and is
followed by `backward()` on every rank. All gradients then equal those of a single process. A loss computed
from local tensors (a rank's slice of the weights) is that rank's part of the whole loss, which is the sum
over the ranks. Gradients of shared tensors are the same on every rank: do not average or sum them again.

The rule is that of Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3, whose conjugate
operators f and g are `_Share` and `_Sum`; each is the other's gradient, and so are `_Split` and `_Gather`.

Before any other communication the ranks exchange descriptions of their inputs. An invalid input on one rank
thus raises a ValueError on every rank, and none is left waiting; this costs two small collectives a call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention, check_mask
from robot_attn.attention._scores import (
    EPSILON,
    Scaled,
    Score,
    dot,
    matmul_heads,
    resolve_score,
    standardized,
)

if TYPE_CHECKING:  # a torch without torch.distributed has no ProcessGroup
    Group = dist.ProcessGroup | None


def attend_heads_parallel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
    group: Group = None,
    gather_weights: bool = True,
) -> Attended:
    """`attend` with the heads split over the ranks: each computes its own heads, and all get the full result.

    Args:
        query: as for `robot_attn.attend`, the full tensor, the same on every rank; so are key, value and
            mask. The first h mod R of R ranks take one head more than the others; where h < R the last ones
            take none.
        key: float [B, h or 1, n, d].
        value: float [B, h or 1, n, v].
        score: a function is called with the heads of one rank; a module, such as one from `build_score`, with
            the rows of each parameter that belong to those heads. The gradient of the full parameter is
            available on every rank.
        mask: bool, True where a query may attend, broadcast to [B, h, q, n].
        group: the process group; None for all processes.
        gather_weights: False leaves each rank only the weights of the heads that it holds, [B, h of this
            rank, q, n].

    Returns:
        Values [B, h, q, v] and weights [B, h, q, n], on every rank.

    Raises:
        ValueError: on every rank, if `attend` would refuse the input of any rank, if shapes, dtypes or
            options differ between ranks, or if a parameter of the score does not have the heads as first
            axis; also if torch.distributed is not initialised.

    Splitting by heads: Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3. Cost per rank: 2 B h
    q n (d + v) / R FLOPs; it receives B h q (v + n) numbers, and in the backward pass the gradients of
    queries, keys and values. Without the weights B h q v.
    """

    def facts() -> dict[str, Any]:
        check_attention(query, key, value)
        _check_leads(score, query.shape[1])
        if mask is not None:
            check_mask(mask, torch.Size((*query.shape[:3], key.shape[2])))
        return {
            "function": "attend_heads_parallel",
            **_describe(query=query, key=key, value=value),
            **_describe_score(score),
            "gather_weights": gather_weights,
        }

    ranks, rank = _place(group)
    _agree(facts, group)
    heads = query.shape[1]
    sizes = [heads // ranks + (other < heads % ranks) for other in range(ranks)]
    start = sum(sizes[:rank])

    def own(tensor: Tensor) -> Tensor:
        if tensor.shape[1] == heads:
            return _apply(_Split, tensor, 1, sizes, group)
        return _apply(_Share, tensor, group)

    if mask is not None and mask.ndim >= 3 and mask.shape[-3] == heads:
        mask = mask.narrow(-3, start, sizes[rank])
    if isinstance(score, nn.Module):
        score = _with_parameters(score, lambda each: _apply(_Split, each, 0, sizes, group))
    values, weights = attend(own(query), own(key), own(value), score=score, mask=mask)
    if gather_weights:
        weights = _apply(_Gather, weights, 1, sizes, group)
    return Attended(_apply(_Gather, values, 1, sizes, group), weights)


def attend_sequence_parallel(
    query: Tensor,
    key_shard: Tensor,
    value_shard: Tensor,
    *,
    score: str | Score = "scaled_dot",
    mask_shard: Tensor | None = None,
    group: Group = None,
    gather_weights: bool = False,
) -> Attended:
    """`attend` with the keys split over the ranks: each holds a slice of the keys, and all get the values.

    Args:
        query: float [B, h, q, d], the same on every rank.
        key_shard: float [B, h or 1, m, d], this rank's slice of the n keys, in the order of the ranks; m is
            at least 1 and may differ between ranks.
        value_shard: float [B, h or 1, m, v], this rank's slice of the values.
        score: a name in `SCORES`, a module from `build_score`, or a function that judges each key by itself,
            since it is called with the keys of one rank. The gradient of a module's parameters is the sum
            over all ranks.
        mask_shard: bool, True where a query may attend, broadcast to [B, h, q, m]; None for no mask. A query
            that is fully masked on every rank gets weights 0 and values 0; its gradients are finite.
        group: the process group; None for all processes.
        gather_weights: True returns the weights of all keys on every rank.

    Returns:
        Values [B, h, q, v], the same bits on every rank, and the weights of this rank's keys, [B, h, q, m],
        which sum to 1 over all ranks; or of all keys, [B, h, q, n].

    Raises:
        ValueError: on every rank, if `attend` would refuse the input of any rank, or if shapes (except m),
            dtypes or options differ between ranks; also if torch.distributed is not initialised.

    A softmax over all keys needs two numbers per query from each rank, the maximum m and the sum d of its
    exponentials: Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, section 3.1. Attention over a
    sequence that no device holds: Liu et al. 2023, https://arxiv.org/abs/2310.01889 (ring attention), which
    splits the queries too and sends keys and values around; here there are few queries, and only their values
    are communicated. Cost per rank: 2 B h q m (d + v) FLOPs; B h q m numbers for the weights, three times
    that with a gradient; an all-reduce of B h q (v + 2) numbers, and of B h q (d + 1) in the backward pass.
    No key or value is sent.
    """

    def facts() -> dict[str, Any]:
        check_attention(query, key_shard, value_shard)
        if mask_shard is not None:
            check_mask(mask_shard, torch.Size((*query.shape[:3], key_shard.shape[2])))
        return {
            "function": "attend_sequence_parallel",
            # Described by a single key: the number of keys may differ between ranks.
            **_describe(query=query, key_shard=key_shard[:, :, :1], value_shard=value_shard[:, :, :1]),
            **_describe_score(score),
            "gather_weights": gather_weights,
            "keys": key_shard.shape[2],
        }

    _place(group)
    sizes = [each["keys"] for each in _agree(facts, group, may_differ="keys")]
    score = resolve_score(score, query, key_shard)
    over_ranks = partial(_standardized_over_ranks, keys=sum(sizes), group=group)
    if score is standardized:
        score = over_ranks
    elif isinstance(score, Scaled) and score.score is standardized:
        score = copy.copy(score)
        score.score = over_ranks
    if isinstance(score, nn.Module):
        score = _with_parameters(score, lambda each: _apply(_Share, each, group))

    query = _apply(_Share, query, group)
    half = query.dtype in (torch.float16, torch.bfloat16)
    logits = score(query.float(), key_shard.float()) if half else score(query, key_shard)
    hidden = None if mask_shard is None else ~mask_shard
    if hidden is not None:
        logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    # Softmax is invariant to a shift of its logits, so no gradient flows through the maximum.
    highest = _all_reduce(logits.detach().amax(-1, keepdim=True), dist.ReduceOp.MAX, group)
    weights = (logits - highest).exp()
    if hidden is not None:
        weights = weights.masked_fill(hidden, 0.0)
    # The highest logit adds 1 to the sum; it is below 1 only for a fully masked query, whose sum is 0.
    weights = weights / _total(weights.sum(-1, keepdim=True), group).clamp(min=1)
    weights = weights.to(value_shard.dtype)
    # Round half precision once, after the sum, as a product in one process does.
    mixture = (weights.float(), value_shard.float()) if half else (weights, value_shard)
    values = _apply(_Sum, matmul_heads(*mixture), group).to(value_shard.dtype)
    return Attended(values, _apply(_Gather, weights, 3, sizes, group) if gather_weights else weights)


def _standardized_over_ranks(query: Tensor, key: Tensor, *, keys: int, group: Group) -> Tensor:
    """`standardized` over all `keys` keys, given those of this rank."""
    logits = dot(query, key)
    logits = logits - _total(logits.sum(-1, keepdim=True), group) / keys
    variance = _total(logits.square().sum(-1, keepdim=True), group) / keys
    return logits * (variance + EPSILON).rsqrt()


def _total(part: Tensor, group: Group) -> Tensor:
    """Sum a local tensor over the ranks, for use in local work: gradients are summed over the ranks too."""
    return _apply(_Share, _apply(_Sum, part, group), group)


def _with_parameters(score: nn.Module, change: Callable[[Tensor], Tensor]) -> Score:
    return partial(_call, score, {name: change(each) for name, each in score.named_parameters()})


def _call(score: nn.Module, parameters: dict[str, Tensor], query: Tensor, key: Tensor) -> Tensor:
    logits: Tensor = functional_call(score, parameters, (query, key))
    return logits


def _place(group: Group) -> tuple[int, int]:
    """Return the number of ranks in the group and the rank of this process."""
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "expected torch.distributed to be initialised, got no process group: "
            "call torch.distributed.init_process_group first, or robot_attn.attend for one process"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("expected a process of the group, got another: call this on the group's ranks only")
    return dist.get_world_size(group), rank


def _agree(
    facts: Callable[[], dict[str, Any]], group: Group, may_differ: str | None = None
) -> list[dict[str, Any]]:
    """Exchange the facts of all ranks, and raise on each rank if any rank refused or if they differ.

    Args:
        facts: runs this rank's own checks and describes its inputs; its exception is sent to the other ranks.
        group: the process group.
        may_differ: name of a fact that may differ between ranks.

    Returns:
        The facts of each rank, in the order of the ranks.
    """
    refusal: Exception | None = None
    mine: dict[str, Any] = {}
    try:
        mine = facts()
    except Exception as error:
        refusal = error
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, (mine, None if refusal is None else str(refusal)), group=group)
    if refusal is not None:
        raise refusal
    for rank, (_, complaint) in enumerate(everyone):
        if complaint is not None:
            raise ValueError(f"expected valid inputs on all ranks, got on rank {rank}: {complaint}")
    all_facts: list[dict[str, Any]] = [each for each, _ in everyone]
    for name in all_facts[0]:
        by_rank = [each.get(name) for each in all_facts]
        if name != may_differ and any(each != by_rank[0] for each in by_rank):
            raise ValueError(
                f"expected the same {name} on all ranks, got in order of rank {', '.join(map(str, by_rank))}"
            )
    return all_facts


def _describe(**tensors: Tensor) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, tensor in tensors.items():
        facts[f"shape of {name}"] = list(tensor.shape)
        facts[f"dtype of {name}"] = str(tensor.dtype)
        # A backward collective needs every rank: all must compute the gradient, or none.
        facts[f"requires_grad of {name}"] = tensor.requires_grad and torch.is_grad_enabled()
    return facts


def _describe_score(score: str | Score) -> dict[str, Any]:
    name = score if isinstance(score, str) else getattr(score, "__qualname__", type(score).__qualname__)
    parameters = dict(score.named_parameters()) if isinstance(score, nn.Module) else {}
    return {"score": name, **_describe(**{f"score.{key}": each for key, each in parameters.items()})}


def _check_leads(score: str | Score, num_heads: int) -> None:
    if isinstance(score, nn.Module):
        for name, parameter in score.named_parameters():
            if parameter.ndim == 0 or len(parameter) != num_heads:
                raise ValueError(
                    f"expected each parameter of the score to be [heads, ...] with {num_heads} heads, "
                    f"so that its heads can be split, got {name} of shape {list(parameter.shape)}"
                )


def _all_reduce(tensor: Tensor, op: Any, group: Group) -> Tensor:
    """Reduce a tensor over the ranks into a new tensor."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if tensor.numel():
        dist.all_reduce(tensor, op, group=group)
    return tensor


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Share(torch.autograd.Function):
    """Pass a shared tensor to local work; the gradients of the ranks are summed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _apply(_Sum, gradient, ctx.group), None


class _Sum(torch.autograd.Function):
    """Sum a local part over the ranks into a shared tensor, whose gradient is that of each part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _all_reduce(part, dist.ReduceOp.SUM, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _apply(_Share, gradient, ctx.group), None


class _Split(torch.autograd.Function):
    """Slice a shared tensor along an axis into this rank's part; the parts' gradients are gathered."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, axis: int, sizes: Sequence[int], group: Group) -> Tensor:
        ctx.rest = axis, sizes, group
        rank = dist.get_rank(group)
        return whole.narrow(axis, sum(sizes[:rank]), sizes[rank])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _apply(_Gather, gradient, *ctx.rest), None, None, None


class _Gather(torch.autograd.Function):
    """Gather the ranks' slices into a shared tensor; a slice's gradient is that slice of the tensor's."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, axis: int, sizes: Sequence[int], group: Group) -> Tensor:
        ctx.rest = axis, sizes, group
        # all_gather needs tensors of the same shape on all ranks.
        shape = list(part.shape)
        shape[axis] = max(sizes)
        padded = part.new_zeros(shape)
        padded.narrow(axis, 0, part.shape[axis]).copy_(part)
        everyone = [torch.empty_like(padded) for _ in sizes]
        if padded.numel():
            dist.all_gather(everyone, padded, group=group)
        slices = [each.narrow(axis, 0, size) for each, size in zip(everyone, sizes, strict=True)]
        return torch.cat(slices, axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _apply(_Split, gradient, *ctx.rest), None, None, None
