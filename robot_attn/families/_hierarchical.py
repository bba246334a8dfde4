"""The family "hierarchical": coarse attention over the frame, then fine attention inside selected patches."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend
from robot_attn.attention._hierarchical import attend_inside, choose, places
from robot_attn.attention._scores import matmul_heads
from robot_attn.families._patches import MID_GREY, PATCH, STRIDE, Patches
from robot_attn.families._readout import Readout
from robot_attn.forcing import forceable
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

INNER, STEP = 6, 2
"""Kernel size and stride of the fine patches, in pixels: 2 x 2 of them cover a coarse patch."""
SPLIT = STRIDE // STEP
"""Fine cells along the side of a coarse cell; coarse patches have a stride of STRIDE pixels."""


class Hierarchical(Perception):
    """Two-level attention with learned queries: select patches, then attend inside them.

    The coarse level attends to the patches of the other families, 8 x 8 pixels with stride 4. For each of the
    `top` patches with the highest weights the fine level crops the pixels from the frame, embeds 2 x 2
    smaller patches of 6 x 6 pixels with stride 2, and attends to them. So the map has four cells per patch,
    30 x 30 for a frame of 64 x 64, while the number of fine patches does not grow with the frame. A cell's
    weight is its patch's, renormalised over the selected ones, times its own within the patch
    (`attend_hierarchical`). The fine patches are the values. Coarse-to-fine attention with learned queries on
    each level: Yang et al. 2016, https://aclanthology.org/N16-1174, section 2.2; cropping pixels at the
    attended location: Mnih et al. 2014, https://arxiv.org/abs/1406.6247, section 3.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: h, number of queries per level.
        patch_dim: S, dimension of a patch embedding, coarse or fine.
        top: number of patches that each head selects (all, if the frame has fewer).
        score: a name that `robot_attn.build_score` accepts, for both levels.

    Raises:
        ValueError: an image_shape or size out of range, or an unknown score.

    Cost, for C channels and N patches: 2 N S (64 C + h) FLOPs per frame for the coarse level, 8 h top S (36 C
    + 2) for the fine level.
    """

    good_for: ClassVar[str] = "small objects: a map twice as fine, cheaper than NatureCNN"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        num_heads: int = 4,
        patch_dim: int = 16,
        top: int = 4,
        score: str = "standardized",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, num_heads=num_heads, patch_dim=patch_dim, top=top)
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        rows, cols = self.patches.grid.shape
        self.top = min(top, rows * cols)
        first = (INNER - 1) / 2
        ys, xs = (first + STEP * np.arange(SPLIT * cells, dtype=np.float32) for cells in (rows, cols))
        self.grid = AttentionGrid(ys, xs, self.image_shape[1:])
        self.inner = nn.Conv2d(self.image_shape[0], patch_dim, INNER, STEP)
        # No bias: queries should match a kind of patch regardless of its brightness.
        self.queries = nn.Linear(patch_dim, num_heads, bias=False)
        self.inner_queries = nn.Linear(patch_dim, num_heads, bias=False)
        self.readout = Readout(
            self.grid,
            num_heads=num_heads,
            key_dim=patch_dim,
            value_dim=patch_dim,
            context_dim=self.context_dim,
            features_dim=features_dim,
            score=score,
        )

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        batch, score = frames.shape[0], self.readout.score
        query, inner_query = (
            queries.weight[None, :, None].expand(batch, -1, -1, -1)
            for queries in (self.queries, self.inner_queries)
        )
        tokens = self.patches(frames).flatten(2).transpose(1, 2)[:, None]
        # Values of dimension 0: only the weights are needed.
        coarse = attend(query, tokens, tokens[..., :0], score=score).weights
        share, chosen = choose(coarse, self.top)
        fine = self._fine_patches(frames, chosen)
        table, _ = places(self.grid.shape, SPLIT, frames.device)
        count = self.grid.shape[0] * self.grid.shape[1]
        values, weights = attend_inside(inner_query, fine, fine, share, table[chosen], count, score=score)
        used = forceable(weights)
        if used is not weights:  # to any fine patch of the frame, selected or not
            values, weights = matmul_heads(used, self._all_fine_patches(frames)[:, None]), used
        return self.readout.percept(values[:, :, 0], weights[:, :, 0], context)

    def _fine_patches(self, frames: Tensor, chosen: Tensor) -> Tensor:
        """Embed fine patches: frames [B, C, H, W], patches int64 [B, 1, top, h] -> [B, 1, top, h, 4, S]."""
        batch, channels, _, width = frames.shape
        count = self.top * self.num_heads
        cols = self.patches.grid.shape[1]
        side = torch.arange(PATCH, device=frames.device)
        corner = STRIDE * (chosen // cols * width + chosen % cols)
        pixels = corner[..., None] + (side[:, None] * width + side).flatten()
        pixels = pixels.flatten(1)[:, None].expand(-1, channels, -1)
        windows = frames.flatten(2).gather(2, pixels) - MID_GREY
        windows = windows.view(batch, channels, count, PATCH, PATCH).transpose(1, 2).flatten(0, 1)
        fine = F.relu_(self.inner(windows)).flatten(2).transpose(1, 2)
        return fine.reshape(*chosen.shape, SPLIT**2, fine.shape[-1])

    def _all_fine_patches(self, frames: Tensor) -> Tensor:
        """Embed the fine patches of whole frames: [B, C, H, W] -> [B, cells, S]."""
        rows, cols = self.grid.shape
        fine = F.relu_(self.inner(frames - MID_GREY))[:, :, :rows, :cols]
        return fine.flatten(2).transpose(1, 2)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
