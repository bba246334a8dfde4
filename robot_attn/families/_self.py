"""The family "self": every patch looks at every other, then learned queries pool them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention import attend
from robot_attn.families._mixing import Mixing
from robot_attn.perception import check_sizes


class SelfAttention(Mixing):
    """A small vision transformer, pooled by learned queries: what a thing is may depend on all around it.

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, eqs. 1 to 3, with `num_heads` learned queries
    for its class token. A context is joined to what they read, before the last layer.

    The map is the weights with which the queries pool the last layer's tokens. They are exact, and through
    the residual connections a token is about its own patch first; but each has mixed in other patches.
    rollout: True for a map over the patches themselves, by attention rollout (Abnar & Zuidema 2020,
    https://arxiv.org/abs/2005.00928, eq. 1): the pooling weights times each layer's 0.5 W + 0.5 I, W being
    the mean of its heads' weights. False unless asked for: rollout leaves out what the layers compute
    besides, takes half of a patch's weight on itself for granted, needs the weights of every layer, which the
    fused attention does not make, and in trials pointed no better. The features are the same either way.

    features_dim: F. num_heads: how many queries pool. embed_dim: E, numbers in a token. layers: how many.
    num_layer_heads: a layer's heads, a divisor of E. score: of the queries that pool, a name that
    `robot_attn.build_score` knows; within the layers it is the paper's, "scaled_dot". max_tokens: N; where
    the frame has more patches, the largest numbers of k x k of them are one token, k as small as may be.
    Cost: layers (16 N E^2 + 4 N^2 E) FLOPs a frame after the patches; numbers linear in N, but with rollout
    layers num_layer_heads N^2.
    """

    good_for: ClassVar[str] = "scenes in which a thing matters by what stands around it"

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

    def look(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.rollout:
            return attend(query, key, value)
        return F.scaled_dot_product_attention(query, key, value), None

    def roll_back(self, maps: Tensor, weights: Tensor) -> Tensor:
        return maps @ weights.mean(dim=1)
