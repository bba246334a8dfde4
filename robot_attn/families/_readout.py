"""What the families that attend with queries share: from tokens and queries to a percept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend, build_score
from robot_attn.families._patches import frame_coordinates
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept


class Readout(nn.Module):
    """Queries over a grid of tokens -> a percept: what each head read, where, and the features of both.

    The features are a linear map, then ReLU, of each head's mixture of values, of its expected (x, y) in
    [-1, 1] (Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1), and of the context.

    grid: where the tokens lie in the frame. score: a name that `robot_attn.build_score` knows.
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
        """Attend once with each head.

        query: float [B, h, d], or [1, h, d] for the same in every frame; key: float [B, n, d], shared by the
        heads, or [B, h, n, d]; value: float [B, n, v] or [B, h, n, v], alike; context: float [B, c] or None.
        Returns features [B, F] and attention [B, h, rows, cols].
        """
        key, value = (tokens if tokens.ndim == 4 else tokens[:, None] for tokens in (key, value))
        query = query.expand(key.shape[0], -1, -1)[:, :, None]
        seen = attend(query, key, value, score=self.score)
        return self.percept(seen.values[:, :, 0], seen.weights[:, :, 0], context)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, query: Tensor, key: Tensor, value: Tensor, context: Tensor | None) -> Percept: ...

    def head_inputs(self) -> HeadInputs:
        """What each head hands to the features: its mixture of values, and its expected place.

        Raises:
            ValueError: there is one head.
        """
        return HeadInputs.values_then_places(self.project, self.num_heads, self.value_dim)

    def percept(self, values: Tensor, weights: Tensor, context: Tensor | None) -> Percept:
        """The percept of what was read already: values [B, h, v] with weights [B, h, n], which sum to 1."""
        places = F.linear(weights, self.coordinates)
        seen = [values.flatten(1), places.flatten(1)]
        if context is not None:
            seen.append(context)
        features = F.relu_(self.project(torch.cat(seen, dim=1)))
        return Percept(features, weights.view(*weights.shape[:2], *self.grid.shape))
