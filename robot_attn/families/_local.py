"""The family "local": self-attention within windows of patches, pooled by learned queries."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention._local import attend_local_grid
from robot_attn.families._mixing import Mixing
from robot_attn.perception import check_sizes


class LocalAttention(Mixing):
    """A transformer with local attention, pooled by learned queries: each token has context from its window.

    Like `SelfAttention`, but a patch attends only to a window around it, Ramachandran et al. 2019,
    https://arxiv.org/abs/1906.05909, section 2.2: time and memory are linear in the number of patches, so
    that large frames need no pooling of patches.

    The map is the pooling weights propagated to the patches by attention rollout, unless `rollout` is False.
    Here rollout is cheap, moves weight by at most layers (window - 1) / 2 patches, and is needed: a patch
    next to an object has information about it, and a query may read it there. In each of four trials in which
    only the features were supervised, the rollout map peaked on the target more often than the pooling
    weights.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: as for `SelfAttention`; so are num_heads, embed_dim, layers, num_layer_heads and score.
        window: side of the square window in patches, an odd number.
        rollout: return the map of attention rollout instead of the pooling weights.

    Raises:
        ValueError: an image_shape or option out of range, or an unknown score.

    Cost: layers (16 N E^2 + 4 N m E) FLOPs per frame after the N patches, where m is at most 4 window^2 (16
    for a window of 1), and layers num_layer_heads N m numbers.
    """

    good_for: ClassVar[str] = "local context in large frames; cost linear in the number of pixels"

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
            raise ValueError(f"expected window as an odd number of patches, got {window}")
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

    def attend_tokens(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, heads, _, size = query.shape
        grids = (tokens.reshape(batch, heads, *self.grid.shape, size) for tokens in (query, key, value))
        values, weights = attend_local_grid(*grids, window=self.window)
        return values.flatten(2, 3), weights if self.rollout else None

    def propagate(self, maps: Tensor, weights: Tensor) -> Tensor:
        # Each cell distributes its mass over its window; `fold` sums what each cell receives.
        mean = weights.mean(dim=1).flatten(1, 2).transpose(1, 2)
        distributed = (maps[:, :, None] * mean[:, None]).flatten(0, 1)
        border = (self.window[0] // 2, self.window[1] // 2)
        return F.fold(distributed, self.grid.shape, self.window, padding=border).view_as(maps)
