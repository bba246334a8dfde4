"""The family "query": a few learned queries, each of which looks for one kind of thing."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention._backward import softmax_backward_, standardized_backward_
from robot_attn.attention._scores import EPSILON, Scaled, standardized
from robot_attn.families._patches import Patches
from robot_attn.families._readout import Readout
from robot_attn.frames import recording
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

CHUNK_BYTES = 1 << 21
"""Hidden activations computed at a time: few enough to stay in cache, and enough that threads which share a
batch meet seldom at Python's lock."""


def look(patches: Tensor, hidden: Tensor, looks: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Attend with folded queries: where each of them looks, and the mixture of patches that it sees there.

    patches: float [B, S, N]; hidden: float [D, S]; looks: float [h, D]; temperature: float [h], positive.
    Returns values [B, h, S] and weights [B, h, N], which sum to 1 over the N patches.

    Written out, head i has a query q_i [d], and for a patch p the key K_i relu(hidden p) [d]. Query and K_i
    are learned and do not depend on the frame, so q_i . K_i relu(hidden p) is one linear map: row i of
    `looks` is K_i^T q_i. No key is ever made, and no value either: to pool the patches and then project them,
    as the caller does, is to project them and then pool. The logits get mean 0 and variance 1 over the
    patches and are then multiplied by the head's temperature: whatever the weights, the softmax starts
    neither flat nor saturated. Attention: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1.
    Learned queries that pool: Lee et al. 2019, https://arxiv.org/abs/1810.00825, section 3.2.
    """
    by_hand = torch.is_grad_enabled() and patches.device.type == "cpu" and patches.dtype == hidden.dtype
    if by_hand and not recording():
        seen: tuple[Tensor, Tensor] = _Look.apply(  # type: ignore[no-untyped-call]
            patches, hidden, looks, temperature
        )
        return seen
    logits = looks @ F.relu(hidden @ patches)
    logits = F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)
    weights = (logits * temperature[:, None]).softmax(dim=-1)
    return weights @ patches.transpose(1, 2), weights


class _Look(torch.autograd.Function):
    """`look` with a backward pass written for a CPU, where memory costs more than arithmetic.

    The hidden activations [B, D, N] are the largest tensor by far. They are made for a few frames at a time,
    in one buffer that stays in cache, and made again for the gradient, which autograd would not do.
    """

    @staticmethod
    def forward(
        ctx: Any, patches: Tensor, hidden: Tensor, looks: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, _, count = patches.shape
        chunk = _chunk(patches, hidden)
        active = patches.new_empty(chunk, len(hidden), count)
        logits = patches.new_empty(batch, len(looks), count)
        for start in range(0, batch, chunk):
            part = patches[start : start + chunk]
            part_active = _activate(part, hidden, active[: len(part)])
            torch.bmm(looks.expand(len(part), -1, -1), part_active, out=logits[start : start + chunk])
        logits, _, scale = torch.native_layer_norm(logits, (count,), None, None, EPSILON)
        weights = (logits * temperature[:, None]).softmax(dim=-1)
        ctx.save_for_backward(patches, hidden, looks, temperature, logits, scale, weights)
        ctx.set_materialize_grads(False)
        return torch.bmm(weights, patches.transpose(1, 2)), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor | None, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        patches, hidden, looks, temperature, logits, scale, weights = ctx.saved_tensors
        batch, _, count = patches.shape
        if d_values is None:
            d_patches = torch.zeros_like(patches)
            d_logits = torch.zeros_like(weights)
        else:
            d_patches = torch.bmm(d_values.transpose(1, 2), weights)
            d_logits = torch.bmm(d_values, patches)
        if d_weights is not None:
            d_logits += d_weights

        spare = softmax_backward_(d_logits, weights)
        along = standardized_backward_(d_logits, logits, scale, spare, temperature[:, None])

        chunk = _chunk(patches, hidden)
        active = patches.new_empty(chunk, len(hidden), count)
        d_active = torch.empty_like(active)
        # One sum for each place in a chunk, added up at the end: no reduction over the batch inside the loop.
        d_hidden = patches.new_zeros(chunk, *hidden.shape)
        d_looks = patches.new_zeros(chunk, *looks.shape)
        for start in range(0, batch, chunk):
            part, d_part = patches[start : start + chunk], d_logits[start : start + chunk]
            size = len(part)
            part_active = _activate(part, hidden, active[:size])
            d_looks[:size].baddbmm_(d_part, part_active.transpose(1, 2))
            d_part_active = torch.bmm(looks.t().expand(size, -1, -1), d_part, out=d_active[:size])
            torch.ops.aten.threshold_backward.grad_input(
                d_part_active, part_active, 0, grad_input=d_part_active
            )
            d_hidden[:size].baddbmm_(d_part_active, part.transpose(1, 2))
            d_patches[start : start + chunk].baddbmm_(hidden.t().expand(size, -1, -1), d_part_active)
        return d_patches, d_hidden.sum(dim=0), d_looks.sum(dim=0), along.sum(dim=(0, 2))


def _chunk(patches: Tensor, hidden: Tensor) -> int:
    """Frames whose hidden activations fill CHUNK_BYTES, at least 1."""
    batch, _, count = patches.shape
    return max(1, min(batch, CHUNK_BYTES // (len(hidden) * count * patches.element_size())))


def _activate(patches: Tensor, hidden: Tensor, out: Tensor) -> Tensor:
    return torch.bmm(hidden.expand(len(patches), -1, -1), patches, out=out).relu_()


class Query(Perception):
    """Learned queries over a grid of patches: for each, the patches it attends to and their expected place.

    Queries and keys are compared where a layer of `hidden_dim` units sees the patches; the values are the
    patches. The features are those of `Readout`, whose linear map is attention's projection of values and its
    projection of outputs in one. A query knows no position: it looks for its kind of thing everywhere.

    features_dim: F. num_heads: how many queries. patch_dim: how many numbers a patch is seen as. hidden_dim:
    units of the layer between a patch and its logits. score: a name that `robot_attn.build_score` knows; with
    "standardized" the queries are folded (`look`), with the others keys are made.
    """

    good_for: ClassVar[str] = "most tasks: the cheapest map, with a head for each kind of thing"

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
        # No bias in either layer: what is looked for is a kind of patch, however bright.
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
        patches, score = self.patches(frames).flatten(2), self.readout.score
        if isinstance(score, Scaled) and score.score is standardized:
            temperature = score.log_temperature.exp()
            values, weights = look(patches, self.hidden.weight, self.queries.weight, temperature)
            return self.readout.percept(values, weights, context)
        tokens = patches.transpose(1, 2)
        return self.readout(self.queries.weight[None], F.relu(self.hidden(tokens)), tokens, context)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
