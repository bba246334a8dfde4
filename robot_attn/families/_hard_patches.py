"""The family "patches": hard attention to the top-k patches, of which only the locations are used."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from robot_attn.attention import build_score
from robot_attn.attention._checks import check_tokens
from robot_attn.attention._scores import Score
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.forcing import forceable
from robot_attn.frames import recording
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

CHUNK = 1 << 19
"""Attention weights computed at a time. They fit into cache, and recomputing them for the gradient is
cheaper than keeping them in memory.
"""


def votes(query: Tensor, key: Tensor, score: Score) -> Tensor:
    """Compute the mean attention that each key receives: softmax over the keys, mean over the queries.

    Args:
        query: float [B, q, d].
        key: float [B, n, d].
        score: a score for one head, from `robot_attn.build_score`; called in float32 for half-precision
            inputs.

    Returns:
        Votes, float [B, n]; each row sums to 1.

    Raises:
        ValueError: other shapes, no query, no key, or non-finite numbers.

    Tang, Nguyen & Ha 2020, https://arxiv.org/abs/2003.08165: the column sums of the self-attention matrix,
    here divided by the number of rows. Cost: 2 B q n d FLOPs, twice that with a gradient, which recomputes
    the weights; memory for `CHUNK` weights, or n if that is more, instead of B q n.
    """
    check_tokens(query, key)
    rows, count = query.shape[1], key.shape[1]
    if recording():
        return _add_votes(query, key, score) / rows
    parameters = score.parameters() if isinstance(score, nn.Module) else ()
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    at_a_time = max(1, CHUNK // count)
    frames = max(1, at_a_time // rows)
    parts = []
    for some, keys in zip(torch.split(query, frames), torch.split(key, frames), strict=True):
        added = [
            _RecomputedVotes.apply(score, part, keys, *learned)  # type: ignore[no-untyped-call]
            for part in torch.split(some, at_a_time, dim=1)
        ]
        parts.append(torch.stack(added).sum(dim=0))
    return torch.cat(parts) / rows


def _add_votes(query: Tensor, key: Tensor, score: Score) -> Tensor:
    half = query.dtype in (torch.float16, torch.bfloat16)
    logits = (
        score(query[:, None].float(), key[:, None].float()) if half else score(query[:, None], key[:, None])
    )
    return logits.softmax(dim=-1).sum(dim=(1, 2)).to(key.dtype)


class _RecomputedVotes(torch.autograd.Function):
    """`_add_votes` that recomputes the weights for the gradient, as `torch.utils.checkpoint` does.

    torch's imports its compiler, which takes a second, and spends more on a chunk's bookkeeping.
    """

    @staticmethod
    def forward(ctx: Any, score: Score, query: Tensor, key: Tensor, *learned: Tensor) -> Tensor:
        device = query.device.type
        ctx.score, ctx.learned = score, learned
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(query, key)
        return _add_votes(query, key, score)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            again = _add_votes(query, key, ctx.score)
        return None, *torch.autograd.grad(again, (query, key, *ctx.learned), gradient)


def choose(votes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Select the `count` patches with the most votes, and compute each one's share of their votes.

    The selection has no gradient; the shares have the exact gradient as long as the selection is constant: a
    softmax over the largest logits only, Shazeer et al. 2017, https://arxiv.org/abs/1701.06538, section 2.1.

    Args:
        votes: float [B, n], each row of sum 1.
        count: number of patches to select, from 1 to n.

    Returns:
        Indices int64 [B, count], most votes first, and shares float [B, count] of sum 1.

    Raises:
        ValueError: votes of another rank, or count out of range.

    Cost: about n log(count) comparisons per row, and 2 count numbers.
    """
    if votes.ndim != 2 or not 1 <= count <= votes.shape[1]:
        raise ValueError(
            f"expected votes [B, n] and a count from 1 to n, got shape {list(votes.shape)} and {count}"
        )
    most, chosen = votes.topk(count, dim=1)
    return chosen, most / most.sum(dim=1, keepdim=True)


class HardPatches(Perception):
    """Hard attention: self-attention selects the top-k patches; only their locations reach the policy.

    AttentionAgent, Tang, Nguyen & Ha 2020, https://arxiv.org/abs/2003.08165: every patch attends to all
    patches; the column sums are votes; the centres of the K patches with the most votes, in that order, go to
    the controller, and nothing of their content.

    The paper evolves its weights, since the selection has no gradient. For training by gradient descent, each
    centre (x, y) in [-1, 1] is multiplied here by K times the patch's share of the selected patches' votes
    (`choose`): with equal shares the features are computed from the paper's centres. A patch that is not
    selected is learned about through the votes that it takes from others, and from frames in which similar
    patches are selected; if K is small compared with the number of patches that may never happen, and
    learning may not start. A patch is embedded as S numbers rather than all its pixels. The paper's LSTM is
    left to the policy: the features are a linear map, then ReLU, of the K centres and the context.

    The attention is the shares, 0 at all other patches. The module is deterministic.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        chosen: K, number of patches to select.
        patch_dim: S, dimension of a patch embedding.
        key_dim: d, dimension of queries and keys.
        score: a name that `robot_attn.build_score` accepts; "scaled_dot" is close to the paper's, which
            scales by the dimension of a patch.

    Raises:
        ValueError: an image_shape or size out of range, an unknown score, or more patches to select than the
            frame has.

    Cost: 2 N^2 d + 4 N S d FLOPs per frame after the N patches; memory as for `votes`.
    """

    good_for: ClassVar[str] = "hard attention: only the locations of the top-k patches reach the policy"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        chosen: int = 10,
        patch_dim: int = 16,
        key_dim: int = 16,
        score: str = "scaled_dot",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, chosen=chosen, patch_dim=patch_dim, key_dim=key_dim)
        self.features_dim = features_dim
        self.num_heads = 1
        self.chosen = chosen
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        rows, cols = self.grid.shape
        if chosen > rows * cols:
            raise ValueError(f"expected chosen of at most {rows * cols}, the frame's patches, got {chosen}")
        self.query = nn.Linear(patch_dim, key_dim)
        # No bias: the same vector added to all keys does not change the softmax over them.
        self.key = nn.Linear(patch_dim, key_dim, bias=False)
        self.score = build_score(score, key_dim, 1)
        self.project = nn.Linear(2 * chosen + self.context_dim, features_dim)
        coordinates = frame_coordinates(self.grid)
        self.register_buffer("places", coordinates.t().contiguous(), persistent=False)
        self.places: Tensor

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        patches = self.patches(frames).flatten(2).transpose(1, 2)
        cast = votes(self.query(patches), self.key(patches), self.score)
        chosen, shares = choose(cast, self.chosen)
        weights = torch.zeros_like(cast).scatter(1, chosen, shares)
        used = forceable(weights)
        if used is not weights:
            others, other_shares = choose(used, self.chosen)
            # Patches with equal votes may come in another order: where nothing changed, this one stays.
            changed = (used != weights).any(dim=1, keepdim=True)
            chosen, shares = torch.where(changed, others, chosen), torch.where(changed, other_shares, shares)
            weights = torch.zeros_like(cast).scatter(1, chosen, shares)
        inputs = (self.places[chosen] * (self.chosen * shares)[:, :, None]).flatten(1)
        if context is not None:
            inputs = torch.cat([inputs, context], dim=1)
        return Percept(F.relu_(self.project(inputs)), weights.view(-1, 1, *self.grid.shape))
