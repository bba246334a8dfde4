"""Scores: how well a key answers a query. Functions, and modules for those that learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.errors import unknown_name

Score = Callable[[Tensor, Tensor], Tensor]
"""query [B, h, q, d], key [B, h, n, d] or, shared by the heads, [B, 1, n, d] -> logits [B, h, q, n]."""
EPSILON = 1e-5
"""Added to the variance of logits: where all keys are alike, all are looked at evenly."""


def dot(query: Tensor, key: Tensor) -> Tensor:
    """q . k (Luong et al. 2015, https://arxiv.org/abs/1508.04025, eq. 8, "dot")."""
    return matmul_heads(query, key.transpose(-2, -1))


def matmul_heads(left: Tensor, right: Tensor) -> Tensor:
    """left [B, h, i, j] @ right [B, h, j, k], where a right of [B, 1, j, k] is shared by the heads.

    torch's own broadcasting would copy what is shared for every head.
    """
    if right.ndim == 4 and right.shape[1] == 1 < left.shape[1]:
        return (left.flatten(1, 2) @ right[:, 0]).view(*left.shape[:3], right.shape[-1])
    return left @ right


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """q . k / sqrt(d) (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1)."""
    # Scaling the query, which is smaller than the logits, touches fewer bytes.
    return dot(query * query.shape[-1] ** -0.5, key)


def cosine(query: Tensor, key: Tensor) -> Tensor:
    """The cosine of the angle between q and k, in [-1, 1]; 0 where either is zero.

    Graves et al. 2014, https://arxiv.org/abs/1410.5401, eq. 6.
    """
    return dot(F.normalize(query, dim=-1), F.normalize(key, dim=-1))


def standardized(query: Tensor, key: Tensor) -> Tensor:
    """q . k brought to mean 0 and variance 1 over the keys; 0 where all keys score alike.

    Layer normalisation (Ba et al. 2016, https://arxiv.org/abs/1607.06450, eq. 3) of each row of logits.
    Whatever the scale of queries and keys, the softmax starts neither flat nor saturated.
    """
    logits = dot(query, key)
    return F.layer_norm(logits, logits.shape[-1:], eps=EPSILON)


def additive(query: Tensor, key: Tensor, to_query: Tensor, to_key: Tensor, weight: Tensor) -> Tensor:
    """v . tanh(W q + U k) (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2).

    query: float [B, h, q, d]; key: float [B, h, n, e]; to_query (the paper's W): [h, a, d]; to_key (its U):
    [h, a, e]; weight (its v): [h, a]. Returns logits [B, h, q, n].
    Makes a tensor [B, h, q, n, a]: a times the bytes of the other scores.
    """
    by_query = query @ to_query.transpose(-2, -1)
    by_key = key @ to_key.transpose(-2, -1)
    both = torch.tanh(by_query[..., :, None, :] + by_key[..., None, :, :])
    return (both @ weight[:, None, :, None]).squeeze(-1)


SCORES: Mapping[str, Score] = MappingProxyType(
    {"cosine": cosine, "dot": dot, "scaled_dot": scaled_dot, "standardized": standardized}
)
"""The scores that learn nothing, by name."""


class Scaled(nn.Module):
    """A score times a temperature that each head learns: without it a bounded score stays flat.

    Around `cosine` it is Graves et al. 2014, https://arxiv.org/abs/1410.5401, eq. 5, whose key strength beta
    is the temperature; starting it at 10 is from Liu et al. 2022, https://arxiv.org/abs/2111.09883, eq. 2.
    """

    def __init__(self, score: Score, num_heads: int, temperature: float) -> None:
        super().__init__()
        self.score = score
        self.log_temperature = nn.Parameter(torch.full((num_heads,), float(temperature)).log())

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """query [B, h, q, d], key [B, h, n, d] -> logits [B, h, q, n]."""
        logits = self.score(query, key)
        return logits * self.log_temperature.exp()[:, None, None].to(logits.dtype)


class Additive(nn.Module):
    """`additive` with its weights, a set for each head, with as many hidden units as a query has numbers."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        bound = size**-0.5  # nn.Linear's
        self.to_query = nn.Parameter(torch.empty(num_heads, size, size).uniform_(-bound, bound))
        self.to_key = nn.Parameter(torch.empty(num_heads, size, size).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(num_heads, size).uniform_(-bound, bound))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """query [B, h, q, d], key [B, h, n, d] -> logits [B, h, q, n]."""
        weights = (weight.to(query.dtype) for weight in (self.to_query, self.to_key, self.weight))
        return additive(query, key, *weights)


LEARNED_SCORES: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {
        "additive": Additive,
        "cosine": lambda size, num_heads: Scaled(cosine, num_heads, 10.0),
        "standardized": lambda size, num_heads: Scaled(standardized, num_heads, 1.0),
    }
)
"""The scores that learn, by name: (size of a query, heads) -> module."""


def build_score(name: str, size: int, num_heads: int) -> Score:
    """The score of a module with `num_heads` heads of queries [size]: with what it learns, where it does.

    name: additive, cosine, dot, scaled_dot or standardized. Assigned to a module, a score that learns brings
    its parameters. Raises ValueError for an unknown name (it gives the nearest).
    """
    if name in LEARNED_SCORES:
        return LEARNED_SCORES[name](size, num_heads)
    if name in SCORES:
        return SCORES[name]
    raise unknown_name("score", name, sorted({*SCORES, *LEARNED_SCORES}))


def find_score(score: str | Score) -> Score:
    """The score of a name in `SCORES`, or the score itself.

    Raises ValueError for an unknown name (it gives the nearest), and for one that has weights of its own.
    """
    if not isinstance(score, str):
        return score
    if score in SCORES:
        return SCORES[score]
    if score in LEARNED_SCORES:
        raise ValueError(
            f"score {score!r} has weights of its own: "
            f"pass score=robot_attn.build_score({score!r}, size, heads)."
        )
    raise unknown_name("score", score, SCORES)


def score_of(score: str | Score, query: Tensor, key: Tensor) -> Score:
    """`find_score`, for these queries [..., d] and keys [..., d].

    Raises ValueError as `find_score` does, and where a score with a name is to compare different sizes.
    """
    found = find_score(score)
    if isinstance(score, str) and query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"score {score!r} compares queries and keys of one size; "
            f"theirs are {query.shape[-1]} and {key.shape[-1]}."
        )
    return found


def check_pairwise(score: Score) -> None:
    """ValueError for a score that normalises over all keys, where no more than a part of them is seen."""
    if score is standardized or (isinstance(score, Scaled) and score.score is standardized):
        raise ValueError(
            "a standardized score needs all keys at once, and here a part of them is seen at a time; "
            "choose another, such as 'scaled_dot'."
        )
