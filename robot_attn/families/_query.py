"""The family "query": learned queries over a grid of patches."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._backward import by_hand, softmax_backward_, standardized_backward_
from robot_attn.attention._scores import EPSILON, Scaled, standardized
from robot_attn.families._patches import Patches
from robot_attn.families._readout import Readout
from robot_attn.forcing import forceable
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

CHUNK_BYTES = 1 << 21
"""Memory of the hidden activations computed at a time: small enough for the cache, and large enough that
threads that share a batch rarely contend for Python's lock.
"""


def pool_patches(
    patches: Tensor, hidden: Tensor, folded_query: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Attend to patches with folded queries: the attention weights and the weighted mean of the patches.

    Written out, head i has a query q_i [d], and a patch p has the key K_i relu(hidden p) [d]. The query and
    K_i are learned and do not depend on the frame, so q_i . K_i relu(hidden p) is linear in relu(hidden p):
    row i of `folded_query` is K_i^T q_i. Neither keys nor values are computed: pooling patches and projecting
    the result, as the caller does, equals projecting and then pooling. The logits are standardised to mean 0
    and variance 1 over the patches and multiplied by the head's temperature: whatever the weights, the
    softmax starts neither flat nor saturated. Attention: Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, eq. 1. Pooling by learned queries: Lee et al. 2019,
    https://arxiv.org/abs/1810.00825, section 3.2.

    Args:
        patches: float [B, N, S].
        hidden: float [D, S], weights of the hidden layer.
        folded_query: float [h, D].
        temperature: float [h], positive.

    Returns:
        Values [B, h, S], and weights [B, h, N] that sum to 1 over the N patches.
    """
    if by_hand(patches, hidden):
        pooled: tuple[Tensor, Tensor] = _PoolPatches.apply(  # type: ignore[no-untyped-call]
            patches, hidden, folded_query, temperature
        )
        return pooled
    logits = folded_query @ F.relu(F.linear(patches, hidden)).transpose(1, 2)
    logits = F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)
    weights = (logits * temperature[:, None]).softmax(dim=-1)
    return weights @ patches, weights


class _PoolPatches(torch.autograd.Function):
    """`pool_patches` with a backward pass written for a CPU, where memory traffic dominates.

    The hidden activations [B, N, D] are by far the largest tensor. They are computed for a few frames at a
    time in one buffer that stays in cache, and recomputed for the gradient, which autograd would not do.
    """

    @staticmethod
    def forward(
        ctx: Any, patches: Tensor, hidden: Tensor, folded_query: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        patches = patches.contiguous()
        batch, count, _ = patches.shape
        chunk = _chunk(patches, hidden)
        active = patches.new_empty(chunk, count, len(hidden))
        logits = patches.new_empty(batch, len(folded_query), count)
        for start in range(0, batch, chunk):
            part = patches[start : start + chunk]
            part_active = _activate(part, hidden, active[: len(part)])
            torch.bmm(
                folded_query.expand(len(part), -1, -1),
                part_active.transpose(1, 2),
                out=logits[start : start + chunk],
            )
        logits, _, scale = torch.native_layer_norm(logits, (count,), None, None, EPSILON)
        weights = (logits * temperature[:, None]).softmax(dim=-1)
        ctx.save_for_backward(patches, hidden, folded_query, temperature, logits, scale, weights)
        ctx.set_materialize_grads(False)
        return torch.bmm(weights, patches), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor | None, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        patches, hidden, folded_query, temperature, logits, scale, weights = ctx.saved_tensors
        batch, count, _ = patches.shape
        if d_values is None:
            d_patches = torch.zeros_like(patches)
            d_logits = torch.zeros_like(weights)
        else:
            d_patches = torch.bmm(weights.transpose(1, 2), d_values)
            d_logits = torch.bmm(d_values, patches.transpose(1, 2))
        if d_weights is not None:
            d_logits += d_weights

        spare = softmax_backward_(d_logits, weights)
        d_temperature = standardized_backward_(d_logits, logits, scale, spare, temperature[:, None])

        chunk = _chunk(patches, hidden)
        active = patches.new_empty(chunk, count, len(hidden))
        d_active = torch.empty_like(active)
        d_hidden = torch.zeros_like(hidden)
        # One sum per index in a chunk, added up at the end: no reduction over the batch inside the loop.
        d_folded_query = patches.new_zeros(chunk, *folded_query.shape)
        for start in range(0, batch, chunk):
            part, d_part = patches[start : start + chunk], d_logits[start : start + chunk]
            size = len(part)
            part_active = _activate(part, hidden, active[:size])
            d_folded_query[:size].baddbmm_(d_part, part_active)
            d_part_active = torch.bmm(
                d_part.transpose(1, 2), folded_query.expand(size, -1, -1), out=d_active[:size]
            )
            torch.ops.aten.threshold_backward.grad_input(
                d_part_active, part_active, 0, grad_input=d_part_active
            )
            flat = d_part_active.flatten(0, 1)
            d_hidden.addmm_(flat.t(), part.flatten(0, 1))
            d_patches[start : start + chunk].flatten(0, 1).addmm_(flat, hidden)
        return d_patches, d_hidden, d_folded_query.sum(dim=0), d_temperature.sum(dim=(0, 2))


def _chunk(patches: Tensor, hidden: Tensor) -> int:
    """Number of frames whose hidden activations fill CHUNK_BYTES, at least 1."""
    batch, count, _ = patches.shape
    return max(1, min(batch, CHUNK_BYTES // (len(hidden) * count * patches.element_size())))


def _activate(patches: Tensor, hidden: Tensor, out: Tensor) -> Tensor:
    """relu(hidden p) of patches [b, N, S], into `out` [b, N, D]."""
    # All patches in one product: a product a frame is slower.
    torch.mm(patches.flatten(0, 1), hidden.t(), out=out.flatten(0, 1))
    return out.relu_()


class Query(Perception):
    """Learned queries over a grid of patches: attended patches and their expected positions.

    Queries and keys are compared after a hidden layer of `hidden_dim` units over the patches; the values are
    the patches. The features are those of `Readout`, whose linear map combines attention's value and output
    projections. Queries are independent of position: they match their kind of patch anywhere in the frame.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: h, number of queries.
        patch_dim: S, dimension of a patch embedding.
        hidden_dim: D, hidden units between a patch and its logits.
        score: a name that `robot_attn.build_score` accepts; "standardized" uses folded queries
            (`pool_patches`), the others explicit keys.

    Raises:
        ValueError: an image_shape or size out of range, or an unknown score.
    """

    good_for: ClassVar[str] = "most tasks: the cheapest map, with one head for each kind of object"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        num_heads: int = 8,
        patch_dim: int = 16,
        hidden_dim: int = 32,
        score: str = "standardized",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(
            features_dim=features_dim, num_heads=num_heads, patch_dim=patch_dim, hidden_dim=hidden_dim
        )
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        # No bias in either layer: queries should match a kind of patch regardless of its brightness.
        self.hidden = nn.Linear(patch_dim, hidden_dim, bias=False)
        self.queries = nn.Linear(hidden_dim, num_heads, bias=False)
        self.readout = Readout(
            self.grid,
            num_heads=num_heads,
            key_dim=hidden_dim,
            value_dim=patch_dim,
            context_dim=self.context_dim,
            features_dim=features_dim,
            score=score,
        )

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        patches, score = self.patches(frames).flatten(2).transpose(1, 2), self.readout.score
        if isinstance(score, Scaled) and score.score is standardized:
            temperature = score.log_temperature.exp()
            values, weights = pool_patches(patches, self.hidden.weight, self.queries.weight, temperature)
            used = forceable(weights)
            if used is not weights:
                values, weights = used @ patches, used
            return self.readout.percept(values, weights, context)
        return self.readout(self.queries.weight[None], F.relu(self.hidden(patches)), patches, context)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
