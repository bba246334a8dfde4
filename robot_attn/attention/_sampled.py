"""Attention to a random sample of the keys, an importance-sampling estimate of attention to all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention
from robot_attn.attention._scores import Score, check_pairwise, resolve_score
from robot_attn.perception import check_sizes


def attend_sampled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    samples: int,
    probabilities: Tensor | None = None,
    generator: torch.Generator | None = None,
    score: str | Score = "scaled_dot",
) -> Attended:
    """Attend to keys sampled with replacement, the same sample for all queries of a frame and head.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]; keys, values or both may be shared by the heads, [B, 1, n, .].
        samples: s, number of keys to sample, at least 1.
        probabilities: float [n] or [B, h, n], unnormalised sampling probability of each key, positive
            wherever the attention may be; None for uniform. They receive no gradient.
        generator: random generator of the sample; None for torch's default.
        score: as in `attend`, except a score that normalises over the keys.

    Returns:
        Values [B, h, q, v] and weights [B, h, q, n], which sum to 1 and are 0 for keys that were not sampled.

    Raises:
        ValueError: as `attend`; probabilities that are negative, not finite, all zero, or of another shape.

    Self-normalised importance sampling (Owen 2013, https://artowen.su.domains/mc/, section 9.2): attention is
    the expectation of the values under softmax(score), known up to a constant; with keys j sampled from p,
    each has the importance weight exp(score_j) / p_j, normalised by their sum. The error falls as 1 /
    sqrt(s), the bias as 1 / s. Cost: 2 B h q s (d + v) FLOPs; B h q s numbers, and B h q n for the weights,
    which are mostly zeros.
    """
    check_attention(query, key, value)
    (batch, heads, queries, _), count = query.shape, key.shape[2]
    check_sizes(samples=samples)
    pairwise = resolve_score(score, query, key)
    check_pairwise(pairwise)
    if probabilities is None:
        proposal = query.new_ones(batch, heads, count)
    else:
        if probabilities.shape not in ((count,), (batch, heads, count)):
            raise ValueError(
                f"expected probabilities [{count}] or [{batch}, {heads}, {count}], "
                f"got shape {list(probabilities.shape)}"
            )
        proposal = probabilities.detach().expand(batch, heads, count)
        if not bool(((proposal >= 0) & proposal.isfinite()).all() and (proposal > 0).any(-1).all()):
            raise ValueError(
                "expected finite probabilities of at least 0, not all 0, got some that are negative, not "
                "finite or all 0"
            )
        # Only ratios matter: divided by the largest they fit float32, whatever the scale of the input.
        proposal = proposal / proposal.amax(dim=-1, keepdim=True)
    sampled = torch.multinomial(proposal.reshape(-1, count).float(), samples, True, generator=generator)
    sampled = sampled.view(batch, heads, samples)

    picked = [
        tensor.expand(-1, heads, -1, -1).gather(2, sampled[..., None].expand(-1, -1, -1, tensor.shape[-1]))
        for tensor in (key, value)
    ]
    probability = proposal.gather(2, sampled)[:, :, None]
    attended = attend(
        query, *picked, score=lambda query, key: pairwise(query, key) - probability.to(query.dtype).log()
    )
    weights = attended.weights.new_zeros(batch, heads, queries, count)
    # A key that was sampled twice counts twice.
    weights = weights.scatter_add(3, sampled[:, :, None].expand(-1, -1, queries, -1), attended.weights)
    return Attended(attended.values, weights)
