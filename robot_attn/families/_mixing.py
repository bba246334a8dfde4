"""Base class of "self" and "local": transformer layers over patches, pooled by learned queries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.families._patches import Patches
from robot_attn.families._readout import Readout
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

INITIAL_POSITION_STD = 0.02
"""Initial standard deviation of the position embeddings."""

AttendTokens = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""query, key, value [B, h, N, d] -> values [B, h, N, d], and the weights, or None if they are not needed."""


class Layer(nn.Module):
    """Pre-norm transformer layer whose attention function is an argument of `forward`.

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eqs. 2 and 3, with 2 E hidden units. Queries,
    keys and values have no bias: one on the keys would not change the softmax.

    Args:
        size: E, dimension of a token, a multiple of `num_heads`.
        num_heads: h, number of heads.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before_looking = nn.LayerNorm(size)
        self.to_look = nn.Linear(size, 3 * size, bias=False)
        self.from_look = nn.Linear(size, size)
        self.before_thinking = nn.LayerNorm(size)
        self.think = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, tokens: Tensor, attend: AttendTokens) -> tuple[Tensor, Tensor | None]:
        """Transform tokens [B, N, E]; returns tokens [B, N, E], and the weights that `attend` returns."""
        batch, count, size = tokens.shape
        projected = self.to_look(self.before_looking(tokens))
        parts = projected.view(batch, count, 3, self.num_heads, size // self.num_heads).permute(2, 0, 3, 1, 4)
        values, weights = attend(*parts.unbind())
        tokens = tokens + self.from_look(values.transpose(1, 2).flatten(2))
        return tokens + self.think(self.before_thinking(tokens)), weights


class Mixing(Perception):
    """Base class of families whose tokens attend to each other; implement `attend_tokens` and `propagate`.

    Tokens are patch embeddings of dimension `embed_dim` plus a learned embedding of their row and one of
    their column (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eq. 1 and appendix D.4). If there
    are more than `max_tokens`, k x k patches are max-pooled into one token, with k as small as possible; a
    mean would hide small objects. `layers` transformer layers mix the tokens, and a `Readout` pools them with
    learned queries.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: number of pooling queries.
        embed_dim: E, dimension of a token, a multiple of `num_layer_heads`.
        layers: number of transformer layers.
        num_layer_heads: h, number of heads within a layer.
        score: score of the pooling queries, a name that `robot_attn.build_score` accepts.
        rollout: return the map of attention rollout instead of the pooling weights.
        max_tokens: largest number of tokens; None for no limit.

    Raises:
        ValueError: an image_shape or option out of range, or an unknown score.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int,
        *,
        features_dim: int,
        num_heads: int,
        embed_dim: int,
        layers: int,
        num_layer_heads: int,
        score: str,
        rollout: bool,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(
            features_dim=features_dim,
            num_heads=num_heads,
            embed_dim=embed_dim,
            layers=layers,
            num_layer_heads=num_layer_heads,
        )
        if embed_dim % num_layer_heads:
            raise ValueError(
                f"expected embed_dim that is a multiple of num_layer_heads, got {embed_dim} and "
                f"{num_layer_heads}"
            )
        if not isinstance(rollout, bool):
            raise ValueError(f"expected rollout as True or False, got {rollout!r}")
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.rollout = rollout
        self.patches = Patches(self.image_shape, embed_dim)
        self.pool = 1
        rows, cols = self.patches.grid.shape
        while max_tokens is not None and rows * cols > max_tokens:
            self.pool += 1
            rows, cols = (-(-side // self.pool) for side in self.patches.grid.shape)
        ys, xs = (
            F.avg_pool1d(torch.from_numpy(centers.copy())[None], self.pool, ceil_mode=True)[0].numpy()
            for centers in (self.patches.grid.ys, self.patches.grid.xs)
        )
        self.grid = AttentionGrid(ys, xs, self.image_shape[1:])
        self.rows = nn.Parameter(torch.randn(rows, 1, embed_dim) * INITIAL_POSITION_STD)
        self.cols = nn.Parameter(torch.randn(cols, embed_dim) * INITIAL_POSITION_STD)
        self.layers = nn.ModuleList(Layer(embed_dim, num_layer_heads) for _ in range(layers))
        self.before_pooling = nn.LayerNorm(embed_dim)
        # No bias: a constant added to all logits of a query does not change the softmax.
        self.queries = nn.Linear(embed_dim, num_heads, bias=False)
        self.readout = Readout(
            self.grid,
            num_heads=num_heads,
            key_dim=embed_dim,
            value_dim=embed_dim,
            context_dim=self.context_dim,
            features_dim=features_dim,
            score=score,
        )

    @abstractmethod
    def attend_tokens(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """Attend among tokens.

        Args:
            query: float [B, h, N, d].
            key: float [B, h, N, d].
            value: float [B, h, N, d].

        Returns:
            Values [B, h, N, d]; and the weights if `rollout`, else None.
        """

    @abstractmethod
    def propagate(self, maps: Tensor, weights: Tensor) -> Tensor:
        """Propagate maps back through one layer for attention rollout.

        Args:
            maps: float [B, heads, N], over the layer's output tokens.
            weights: the weights of `attend_tokens` in that layer.

        Returns:
            float [B, heads, N], over the layer's input tokens.
        """

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        patches = self.patches(frames)
        if self.pool > 1:
            patches = F.max_pool2d(patches, self.pool, ceil_mode=True)
        tokens = patches.flatten(2).transpose(1, 2) + (self.rows + self.cols).flatten(0, 1)
        layers = []
        for layer in self.layers:
            tokens, weights = layer(tokens, self.attend_tokens)
            layers.append(weights)
        tokens = self.before_pooling(tokens)
        features, attention = self.readout(self.queries.weight[None], tokens, tokens, context)
        if self.rollout:
            maps = attention.flatten(2)
            for weights in reversed(layers):
                maps = (maps + self.propagate(maps, weights)) / 2
            attention = maps.view_as(attention)
        return Percept(features, attention)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
