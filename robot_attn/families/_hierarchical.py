"""The family "hierarchical": a coarse look over the frame, then a fine one inside the places it chose."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend
from robot_attn.attention._hierarchical import attend_inside, choose, places
from robot_attn.families._patches import MID_GREY, PATCH, STRIDE, Patches
from robot_attn.families._readout import Readout
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

INNER, STEP = 6, 2
"""Side of a fine patch and distance between two, in pixels: 2 x 2 of them fill a coarse one."""
SPLIT = STRIDE // STEP
"""Fine cells along the side of a coarse one, of which the frame has one every STRIDE pixels."""


class Hierarchical(Perception):
    """Learned queries on two levels: which patches to look into, and where to look inside them.

    The coarse look attends to the patches that the other families have, 8 x 8 pixels every 4. Of each of the
    `top` patches it gives the most weight, the fine look takes the pixels from the frame and sees in them
    2 x 2 smaller patches, of 6 x 6 pixels every 2, to which it attends in turn. So the map has four cells for
    each patch, 30 x 30 for a frame of 64 x 64, while what is seen finely does not grow with the frame. A
    cell's weight is its patch's, renormalised over the chosen ones, times its own in the patch
    (`attend_hierarchical`). The fine patches are the values. Coarse to fine by learned queries on each level:
    Yang et al. 2016, https://aclanthology.org/N16-1174, section 2.2; pixels taken from the frame where one
    looks: Mnih et al. 2014, https://arxiv.org/abs/1406.6247, section 3.

    features_dim: F. num_heads: h, how many queries. patch_dim: S, how many numbers a patch, coarse or fine,
    is seen as. top: how many patches a head looks into (all, where the frame has fewer). score: a name that
    `robot_attn.build_score` knows, for both levels. For C channels and N patches: 2 N S (64 C + h) FLOPs a
    frame for the coarse look, 8 h top S (36 C + 2) for the fine one.
    """

    good_for: ClassVar[str] = "small things: a map twice as fine, at less than a NatureCNN"

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
        # No bias in the queries: what is looked for is a kind of patch, however bright.
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
            looks.weight[None, :, None].expand(batch, -1, -1, -1)
            for looks in (self.queries, self.inner_queries)
        )
        tokens = self.patches(frames).flatten(2).transpose(1, 2)[:, None]
        # Values of no size: only the weights are wanted.
        coarse = attend(query, tokens, tokens[..., :0], score=score).weights
        share, chosen = choose(coarse, self.top)
        fine = self._look_into(frames, chosen)
        table, _ = places(self.grid.shape, SPLIT, frames.device)
        count = self.grid.shape[0] * self.grid.shape[1]
        seen = attend_inside(inner_query, fine, fine, share, table[chosen], count, score=score)
        return self.readout.percept(seen.values[:, :, 0], seen.weights[:, :, 0], context)

    def _look_into(self, frames: Tensor, chosen: Tensor) -> Tensor:
        """frames [B, C, H, W], chosen patches int64 [B, 1, top, h] -> fine ones [B, 1, top, h, 4, S]."""
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

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
