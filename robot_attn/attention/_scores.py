"""Attention scores: functions (query, key) -> logits, and modules for the scores with parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention._backward import DotProducts, by_hand
from robot_attn.errors import unknown_name

Score = Callable[[Tensor, Tensor], Tensor]
"""(query [B, h, q, d], key [B, h, n, d] or, shared by the heads, [B, 1, n, d]) -> logits [B, h, q, n]."""
EPSILON = 1e-5
"""Added to the variance of the logits, so that identical keys get uniform weights instead of 0 / 0."""


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Dot product q . k (Luong et al. 2015, https://arxiv.org/abs/1508.04025, eq. 8, "dot")."""
    if query.ndim == key.ndim == 4 and torch.is_grad_enabled() and by_hand(query, key):
        shared = key.shape[1] == 1 < query.shape[1]
        flat = (query.flatten(1, 2), key[:, 0]) if shared else (query.flatten(0, 1), key.flatten(0, 1))
        products: Tensor = DotProducts.apply(*flat)  # type: ignore[no-untyped-call]
        return products.view(*query.shape[:3], key.shape[2])
    return matmul_heads(query, key.transpose(-2, -1))


def matmul_heads(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product left [B, h, i, j] @ right [B, h, j, k]; the heads may share right, [B, 1, j, k].

    torch's own broadcasting would copy a shared operand once per head.
    """
    if right.ndim == 4 and right.shape[1] == 1 < left.shape[1]:
        return (left.flatten(1, 2) @ right[:, 0]).view(*left.shape[:3], right.shape[-1])
    return left @ right


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """Scaled dot product q . k / sqrt(d) (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1)."""
    # The query is smaller than the logits: scaling it touches fewer bytes.
    return dot(query * query.shape[-1] ** -0.5, key)


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """Cosine similarity of q and k, in [-1, 1]; 0 where either is the zero vector.

    Graves et al. 2014, https://arxiv.org/abs/1410.5401, eq. 6.
    """
    return dot(F.normalize(query, dim=-1), F.normalize(key, dim=-1))


def standardized(query: Tensor, key: Tensor) -> Tensor:
    """Dot products standardised to mean 0 and variance 1 over the keys; 0 where all keys score the same.

    Layer normalisation (Ba et al. 2016, https://arxiv.org/abs/1607.06450, eq. 3) of each row of logits.
    Whatever the scale of queries and keys, the softmax starts neither flat nor saturated.
    """
    logits = dot(query, key)
    return F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)


def additive(query: Tensor, key: Tensor, to_query: Tensor, to_key: Tensor, weight: Tensor) -> Tensor:
    """Additive score v . tanh(W q + U k) (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, app. A.1.2).

    Allocates a tensor [B, h, q, n, a]: a times the memory of the other scores.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, e].
        to_query: float [h, a, d], the paper's W.
        to_key: float [h, a, e], its U.
        weight: float [h, a], its v.

    Returns:
        Logits [B, h, q, n].
    """
    by_query = query @ to_query.transpose(-2, -1)
    by_key = key @ to_key.transpose(-2, -1)
    both = torch.tanh(by_query[..., :, None, :] + by_key[..., None, :, :])
    return (both @ weight[:, None, :, None]).squeeze(-1)


SCORES: Mapping[str, Score] = MappingProxyType(
    {"cosine": cosine, "dot": dot, "scaled_dot": scaled_dot, "standardized": standardized}
)
"""The scores without parameters, by name."""


class Scaled(nn.Module):
    """A score multiplied by a learned temperature per head; without it a bounded score gives a flat softmax.

    With `cosine` it is Graves et al. 2014, https://arxiv.org/abs/1410.5401, eq. 5, whose key strength beta is
    the temperature; the initial value of 10 is from Liu et al. 2022, https://arxiv.org/abs/2111.09883, eq. 2.

    Args:
        score: the score to scale.
        num_heads: number of heads h, each with its own temperature.
        temperature: initial value, positive; its logarithm is the parameter.
    """

    def __init__(self, score: Score, num_heads: int, temperature: float) -> None:
        super().__init__()
        self.score = score
        self.log_temperature = nn.Parameter(torch.full((num_heads,), float(temperature)).log())

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute logits [B, h, q, n] from query [B, h, q, d] and key [B, h, n, d]."""
        logits = self.score(query, key)
        return logits * self.log_temperature.exp()[:, None, None].to(logits.dtype)


class Additive(nn.Module):
    """`additive` with learned weights for each head.

    Args:
        size: dimension d of queries and keys; also the number of hidden units a.
        num_heads: number of heads h.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        bound = size**-0.5  # the initialisation of nn.Linear
        self.to_query = nn.Parameter(torch.empty(num_heads, size, size).uniform_(-bound, bound))
        self.to_key = nn.Parameter(torch.empty(num_heads, size, size).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(num_heads, size).uniform_(-bound, bound))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute logits [B, h, q, n] from query [B, h, q, d] and key [B, h, n, d]."""
        weights = (weight.to(query.dtype) for weight in (self.to_query, self.to_key, self.weight))
        return additive(query, key, *weights)


LEARNED_SCORES: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {
        "additive": Additive,
        "cosine": lambda size, num_heads: Scaled(cosine, num_heads, 10.0),
        "standardized": lambda size, num_heads: Scaled(standardized, num_heads, 1.0),
    }
)
"""The scores with parameters, by name: (dimension of a query, number of heads) -> module."""


def build_score(name: str, size: int, num_heads: int) -> Score:
    """Build a score for queries of dimension `size` and `num_heads` heads, with its parameters if it has any.

    Assign the result to an attribute of a module, so that its parameters are registered.

    Args:
        name: "additive", "cosine", "dot", "scaled_dot" or "standardized".
        size: dimension d of queries and keys.
        num_heads: number of heads h.

    Returns:
        A module for the scores in `LEARNED_SCORES`, else the function in `SCORES`.

    Raises:
        ValueError: an unknown name; the message suggests the nearest.
    """
    if name in LEARNED_SCORES:
        return LEARNED_SCORES[name](size, num_heads)
    if name in SCORES:
        return SCORES[name]
    raise unknown_name("score", name, sorted({*SCORES, *LEARNED_SCORES}))


def find_score(score: str | Score) -> Score:
    """Return the score of a name in `SCORES`; a function or module is returned as it is.

    Raises:
        ValueError: an unknown name (the message suggests the nearest), or the name of a score that has
            parameters and must be built.
    """
    if not isinstance(score, str):
        return score
    if score in SCORES:
        return SCORES[score]
    if score in LEARNED_SCORES:
        raise ValueError(
            f"expected a score without parameters, got {score!r}, which has some: "
            f"pass score=robot_attn.build_score({score!r}, size, num_heads)"
        )
    raise unknown_name("score", score, SCORES)


def resolve_score(score: str | Score, query: Tensor, key: Tensor) -> Score:
    """`find_score`, checked against these queries [..., d] and keys [..., d].

    Raises:
        ValueError: as `find_score`, and if a named score gets queries and keys of different dimensions.
    """
    found = find_score(score)
    if isinstance(score, str) and query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"expected queries and keys of the same dimension for score {score!r}, "
            f"got {query.shape[-1]} and {key.shape[-1]}"
        )
    return found


def check_pairwise(score: Score) -> None:
    """Check that a score does not normalise over the keys, for mechanisms that see only some of them at once.

    Raises:
        ValueError: "standardized", with or without a learned temperature.
    """
    if score is standardized or (isinstance(score, Scaled) and score.score is standardized):
        raise ValueError(
            "expected a score that judges each key by itself, got 'standardized', which needs all keys at "
            "once: choose another, such as 'scaled_dot'"
        )
