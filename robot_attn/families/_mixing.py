"""What the families whose tokens look at each other share: patches that mix, then queries that pool."""

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

FIRST_POSITIONS = 0.02
"""The spread that the positions' vectors start with."""

Look = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""query, key, value [B, h, N, d] -> values [B, h, N, d], and the weights where they are asked for."""


class Layer(nn.Module):
    """A transformer's layer, its normalisations before what they are for, its attention given from outside.

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eqs. 2 and 3, with 2 E hidden units.
    Queries, keys and values have no bias: one on the keys would change no softmax.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before_looking = nn.LayerNorm(size)
        self.to_look = nn.Linear(size, 3 * size, bias=False)
        self.from_look = nn.Linear(size, size)
        self.before_thinking = nn.LayerNorm(size)
        self.think = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, tokens: Tensor, look: Look) -> tuple[Tensor, Tensor | None]:
        """tokens [B, N, E] -> tokens [B, N, E], and what `look` gives as weights."""
        batch, count, size = tokens.shape
        looking = self.to_look(self.before_looking(tokens))
        parts = looking.view(batch, count, 3, self.num_heads, size // self.num_heads).permute(2, 0, 3, 1, 4)
        seen, weights = look(*parts.unbind())
        tokens = tokens + self.from_look(seen.transpose(1, 2).flatten(2))
        return tokens + self.think(self.before_thinking(tokens)), weights


class Mixing(Perception):
    """The base of the families `self` and `local`, which write `look` and `roll_back`.

    Tokens are patches, `embed_dim` numbers each, plus a learned vector for their row and one for their
    column (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eq. 1 and appendix D.4). Where there
    are more than `max_tokens` of them, the largest numbers of k x k patches are one token, k as small as may
    be: the largest, as a mean would hide a small thing. `layers` layers mix the tokens, and a `Readout` pools
    them with learned queries.
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
                f"embed_dim must be a multiple of num_layer_heads; they are {embed_dim} and "
                f"{num_layer_heads}."
            )
        if not isinstance(rollout, bool):
            raise ValueError(f"rollout must be True or False; it is {rollout!r}.")
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
        self.rows = nn.Parameter(torch.randn(rows, 1, embed_dim) * FIRST_POSITIONS)
        self.cols = nn.Parameter(torch.randn(cols, embed_dim) * FIRST_POSITIONS)
        self.layers = nn.ModuleList(Layer(embed_dim, num_layer_heads) for _ in range(layers))
        self.before_pooling = nn.LayerNorm(embed_dim)
        # No bias: one on all logits of a query would change no softmax.
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
    def look(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """query, key, value [B, h, N, d] -> values [B, h, N, d], and the weights if `rollout`, or None."""

    @abstractmethod
    def roll_back(self, maps: Tensor, weights: Tensor) -> Tensor:
        """Maps over what a layer gives, [B, heads, N] -> maps over what it took, by the weights of `look`."""

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        patches = self.patches(frames)
        if self.pool > 1:
            patches = F.max_pool2d(patches, self.pool, ceil_mode=True)
        tokens = patches.flatten(2).transpose(1, 2) + (self.rows + self.cols).flatten(0, 1)
        layers = []
        for layer in self.layers:
            tokens, weights = layer(tokens, self.look)
            layers.append(weights)
        tokens = self.before_pooling(tokens)
        features, attention = self.readout(self.queries.weight[None], tokens, tokens, context)
        if self.rollout:
            maps = attention.flatten(2)
            for weights in reversed(layers):
                maps = (maps + self.roll_back(maps, weights)) / 2
            attention = maps.view_as(attention)
        return Percept(features, attention)

    def head_inputs(self) -> HeadInputs:
        return self.readout.head_inputs()
