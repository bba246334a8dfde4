"""The family "self": self-attention among all patches, pooled by learned queries."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention import attend
from robot_attn.families._mixing import Mixing
from robot_attn.perception import check_sizes


class SelfAttention(Mixing):
    """A small vision transformer pooled by learned queries: each token has context from the whole frame.

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eqs. 1 to 3, with `num_heads` learned queries
    in place of the class token. The context is concatenated to the pooled values before the last layer.

    By default the map is the weights with which the queries pool the tokens of the last layer. They are
    exact, and by the residual connections a token mostly represents its own patch, but it also mixes in
    others. With `rollout` it is a map over the patches themselves by attention rollout (Abnar & Zuidema 2020,
    https://arxiv.org/abs/2005.00928, eq. 1): the pooling weights times 0.5 W + 0.5 I of each layer, where W
    is the mean over its heads. Rollout ignores the layers' MLPs and projections, assumes the residual weight
    of 0.5, needs the weights of every layer, which fused attention does not compute, and localised no better
    in trials. The features are the same either way.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: number of pooling queries.
        embed_dim: E, dimension of a token, a multiple of `num_layer_heads`.
        layers: number of transformer layers.
        num_layer_heads: number of heads within a layer.
        score: score of the pooling queries, a name that `robot_attn.build_score` accepts; within the layers
            it is the paper's "scaled_dot".
        rollout: return the map of attention rollout.
        max_tokens: N, largest number of tokens. For frames with more patches, k x k of them are max-pooled
            into one token, with k as small as possible.

    Raises:
        ValueError: an image_shape or option out of range, or an unknown score.

    Cost: layers (16 N E^2 + 4 N^2 E) FLOPs per frame after the patches; memory linear in N, but with rollout
    layers num_layer_heads N^2 numbers.
    """

    good_for: ClassVar[str] = "scenes in which the relevance of an object depends on its surroundings"

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
        score: str = "standardized",
        rollout: bool = False,
        max_tokens: int = 1024,
    ) -> None:
        check_sizes(max_tokens=max_tokens)
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
            max_tokens=max_tokens,
        )

    def attend_tokens(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.rollout:
            return attend(query, key, value)
        return F.scaled_dot_product_attention(query, key, value), None

    def propagate(self, maps: Tensor, weights: Tensor) -> Tensor:
        return maps @ weights.mean(dim=1)
