"""The family "patches": patches vote for patches, and only where the winners are goes on."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from robot_attn.attention import build_score
from robot_attn.attention._checks import check_tokens
from robot_attn.attention._scores import Score
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.frames import recording
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

CHUNK = 1 << 19
"""Weights made at a time: few enough to stay in cache, and to make them again for the gradient is cheaper
than to keep them in memory."""


def votes(query: Tensor, key: Tensor, score: Score) -> Tensor:
    """How much every query looks at each key, on average: softmax over the keys, then a mean over queries.

    query: float [B, q, d]; key: float [B, n, d]; score: as `robot_attn.build_score` gives it, for one head;
    in half precision it is given float32. Returns the votes, float [B, n]; each row sums to 1.
    Raises ValueError for other shapes, no query, no key, or numbers that are not finite.

    Tang, Nguyen & Ha 2020, https://arxiv.org/abs/2003.08165: the sum over each column of the matrix of
    self-attention, here divided by the number of rows.
    Cost: 2 B q n d FLOPs, twice that with a gradient, which makes the weights again; not B q n numbers are
    held but `CHUNK`, or n where that is more.
    """
    check_tokens(query, key)
    rows, count = query.shape[1], key.shape[1]
    if recording():
        return _add_votes(query, key, score) / rows
    at_a_time = max(1, CHUNK // count)
    frames = max(1, at_a_time // rows)
    parts = []
    for some, keys in zip(torch.split(query, frames), torch.split(key, frames), strict=True):
        added = [
            checkpoint(_add_votes, part, keys, score, use_reentrant=False, preserve_rng_state=False)
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


def choose(votes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` patches with the most votes, most first, and each one's share of the votes for these.

    votes: float [B, n], each row with a sum of 1. Returns indices int64 [B, count] and shares float
    [B, count], which sum to 1. Raises ValueError where count is not from 1 to n.

    The choice itself has no gradient; the shares have theirs, exact as long as the choice stays the same: a
    softmax over the largest logits alone, Shazeer et al. 2017, https://arxiv.org/abs/1701.06538, section 2.1.
    Cost: about n log(count) comparisons a row, and 2 count numbers.
    """
    if votes.ndim != 2 or not 1 <= count <= votes.shape[1]:
        raise ValueError(
            f"of votes [B, n], 1 to n can be chosen; their shape is {list(votes.shape)}, count is {count}."
        )
    most, chosen = votes.topk(count, dim=1)
    return chosen, most / most.sum(dim=1, keepdim=True)


class HardPatches(Perception):
    """Hard attention: self-attention over the patches elects a few, and all others are dropped.

    AttentionAgent, Tang, Nguyen & Ha 2020, https://arxiv.org/abs/2003.08165: each patch gives its attention
    to all patches; the sums over the columns are votes; of the K patches with the most votes, in their order,
    the centres go to the controller, and nothing of what the patches show.

    The paper evolves its weights, as the choice has no gradient. For training by gradient, here each centre
    (x, y) in [-1, 1] is multiplied by K times the patch's share of the votes that the chosen got
    (`choose`): where these are even, the features are made of the paper's centres. A patch that was not
    chosen is learned about from the votes that it took from others, and from frames where its like was
    chosen; where K is small beside the number of patches that can be never, and learning may not start.
    A patch is seen as S numbers rather than as all its pixels. The paper's LSTM is left to the policy: the
    features are a linear map, then ReLU, of the K centres and the context.

    The attention is the shares, 0 at all patches that were not chosen. Nothing is drawn by chance.

    features_dim: F. chosen: K. patch_dim: S. key_dim: numbers of a query and of a key. score: a name that
    `robot_attn.build_score` knows; "scaled_dot" is close to the paper's, whose scale is that of a patch.
    Raises ValueError as every family does, and where a frame has fewer patches than are to be chosen.
    2 N^2 d + 4 N S d FLOPs a frame after N patches; memory as `votes` says.
    """

    good_for: ClassVar[str] = "hard choices: the policy gets the chosen patches' places and nothing else"

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
            raise ValueError(f"chosen must be at most the frame's {rows * cols} patches; it is {chosen}.")
        self.query = nn.Linear(patch_dim, key_dim)
        # No bias: what is added to all keys leaves the softmax over them as it was.
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
        seen = (self.places[chosen] * (self.chosen * shares)[:, :, None]).flatten(1)
        if context is not None:
            seen = torch.cat([seen, context], dim=1)
        weights = torch.zeros_like(cast).scatter(1, chosen, shares)
        return Percept(F.relu_(self.project(seen)), weights.view(-1, 1, *self.grid.shape))
