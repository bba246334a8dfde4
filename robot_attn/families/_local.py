"""The family "local": every patch looks at those around it, then learned queries pool them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention._local import attend_local_grid
from robot_attn.families._mixing import Mixing
from robot_attn.perception import check_sizes


class LocalAttention(Mixing):
    """Patches that look at the patches near them, pooled by learned queries: what a thing is, its parts say.

    As `SelfAttention`, but a patch looks only at a window around it, as in Ramachandran et al. 2019,
    https://arxiv.org/abs/1906.05909, section 2.2: time and memory are linear in the number of patches, so
    that none has to be made coarser in a large frame.

    The map is the pooling weights, rolled out over the patches unless rollout is False: here that costs
    little, moves no weight by more than layers (window - 1) / 2 patches, and is needed. A patch near a thing
    knows of the thing, and a query may read it there: in each of four trials in which only the features were
    supervised, the rolled-out map peaked on the target more often than the weights.

    window: side of the square of patches that a patch looks at, an odd number. features_dim, heads,
    embed_dim, layers, num_layer_heads, score, rollout: as in `SelfAttention`.
    Cost: layers (16 N E^2 + 4 N m E) FLOPs a frame of N patches after the patches, where m is at most
    4 window^2 (16 for a window of 1), and layers num_layer_heads N m numbers.
    """

    good_for: ClassVar[str] = "surroundings that matter, in large frames: a cost linear in their size"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        num_heads: int = 8,
        embed_dim: int = 16,
        layers: int = 1,
        num_layer_heads: int = 1,
        window: int = 3,
        score: str = "standardized",
        rollout: bool = True,
    ) -> None:
        check_sizes(window=window)
        if window % 2 == 0:
            raise ValueError(f"window must be an odd number, as many on each side; it is {window}.")
        super().__init__(
            image_shape,
            context_dim,
            features_dim=features_dim,
            num_heads=num_heads,
            embed_dim=embed_dim,
            layers=layers,
            num_layer_heads=num_layer_heads,
            score=score,
            rollout=rollout,
        )
        self.window = (window, window)

    def look(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, heads, _, size = query.shape
        grids = (tokens.reshape(batch, heads, *self.grid.shape, size) for tokens in (query, key, value))
        values, weights = attend_local_grid(*grids, window=self.window)
        return values.flatten(2, 3), weights if self.rollout else None

    def roll_back(self, maps: Tensor, weights: Tensor) -> Tensor:
        # Each cell hands its mass on to those of its window; `fold` adds up what a cell is handed.
        mean = weights.mean(dim=1).flatten(1, 2).transpose(1, 2)
        handed = (maps[:, :, None] * mean[:, None]).flatten(0, 1)
        border = (self.window[0] // 2, self.window[1] // 2)
        return F.fold(handed, self.grid.shape, self.window, padding=border).view_as(maps)
