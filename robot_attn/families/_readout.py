"""Readout block of the families that attend with queries: from tokens and queries to a percept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import Attended, attend, build_score
from robot_attn.attention._scores import matmul_heads
from robot_attn.families._patches import frame_coordinates
from robot_attn.forcing import forceable
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept


class Readout(nn.Module):
    """Attend with queries over a grid of tokens, and compute features from values, positions and context.

    The features are a linear map, then ReLU, of each head's attended values, its expected position (x, y) in
    [-1, 1] (Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1), and the context.

    Args:
        grid: positions of the tokens in the frame.
        num_heads: h, number of heads.
        key_dim: d, dimension of queries and keys.
        value_dim: v, dimension of the values.
        context_dim: c, dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        score: a name that `robot_attn.build_score` accepts.
    """

    def __init__(
        self,
        grid: AttentionGrid,
        *,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        context_dim: int,
        features_dim: int,
        score: str,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.num_heads, self.value_dim = num_heads, value_dim
        self.score = build_score(score, key_dim, num_heads)
        self.project = nn.Linear(num_heads * (value_dim + 2) + context_dim, features_dim)
        self.register_buffer("coordinates", frame_coordinates(grid), persistent=False)
        self.coordinates: Tensor

    def forward(self, query: Tensor, key: Tensor, value: Tensor, context: Tensor | None) -> Percept:
        """Attend once with each head, and compute the percept.

        Args:
            query: float [B, h, d], or [1, h, d] shared by all frames.
            key: float [B, n, d], shared by the heads, or [B, h, n, d].
            value: float [B, n, v], shared by the heads, or [B, h, n, v].
            context: float [B, c], or None where c is 0.

        Returns:
            Features [B, F] and attention [B, h, rows, cols].
        """
        key, value = (tokens if tokens.ndim == 4 else tokens[:, None] for tokens in (key, value))
        query = query.expand(key.shape[0], -1, -1)[:, :, None]
        attended = forced_values(attend(query, key, value, score=self.score), value)
        return self.percept(attended.values[:, :, 0], attended.weights[:, :, 0], context)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, query: Tensor, key: Tensor, value: Tensor, context: Tensor | None) -> Percept: ...

    def head_inputs(self) -> HeadInputs:
        """Describe each head's contribution to the features: its attended values and expected position.

        Raises:
            ValueError: there is a single head.
        """
        return HeadInputs.values_then_places(self.project, self.num_heads, self.value_dim)

    def percept(self, values: Tensor, weights: Tensor, context: Tensor | None) -> Percept:
        """Compute the percept from attended values [B, h, v] and their weights [B, h, n], which sum to 1.

        Args:
            values: float [B, h, v].
            weights: float [B, h, n].
            context: float [B, c], or None where c is 0.
        """
        places = F.linear(weights, self.coordinates)
        inputs = [values.flatten(1), places.flatten(1)]
        if context is not None:
            inputs.append(context)
        features = F.relu_(self.project(torch.cat(inputs, dim=1)))
        return Percept(features, weights.view(*weights.shape[:2], *self.grid.shape))


def forced_values(attended: Attended, value: Tensor) -> Attended:
    """Declare the weights of `attend` by `forceable`, and average the values again if they are forced.

    Args:
        attended: values [B, h, q, v] and weights [B, h, q, n].
        value: float [B, h, n, v] or [B, 1, n, v].
    """
    weights = forceable(attended.weights)
    if weights is attended.weights:
        return attended
    return Attended(matmul_heads(weights, value), weights)
