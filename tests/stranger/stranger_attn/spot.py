"""A family: attention with learned queries over linear keys of the patches."""

from __future__ import annotations

from torch import Tensor, nn

from robot_attn import Percept, Perception
from robot_attn.families import HeadInputs, Patches, Readout, check_sizes


class Spot(Perception):
    """`num_heads` queries over a grid of patches."""

    good_for = "showing that a family can come from anywhere"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 16,
        num_heads: int = 2,
        patch_dim: int = 8,
        score: str = "standardized",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, num_heads=num_heads, patch_dim=patch_dim)
        self.features_dim, self.num_heads = features_dim, num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        self.key = nn.Linear(patch_dim, patch_dim, bias=False)
        self.queries = nn.Linear(patch_dim, num_heads, bias=False)
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
        tokens = self.patches(frames).flatten(2).transpose(1, 2)
        return self.readout(self.queries.weight[None], self.key(tokens), tokens, context)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
