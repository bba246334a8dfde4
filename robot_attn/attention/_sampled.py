"""Attention to a random sample of the keys, weighted so that on average it is attention to all."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention
from robot_attn.attention._scores import Score, check_pairwise, score_of
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
    """Attend to keys drawn at random, with replacement, the same for all queries of a frame and a head.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v]; keys, values or both may be
        shared by the heads, [B, 1, n, .].
    samples: s, how many keys are drawn, at least 1.
    probabilities: float [n] or [B, h, n], of each key at each draw, positive where attention may be, up to a
        factor; None for even ones. No gradient goes to them.
    generator: of the drawing; None for torch's default. score: as in `attend`, but none that normalises over
        the keys.

    Returns values [B, h, q, v] and weights [B, h, q, n], which sum to 1 and are 0 for keys not drawn.
    Raises ValueError as `attend` does, and for probabilities that are negative, none, or of another shape.

    Self-normalised importance sampling (Owen 2013, https://artowen.su.domains/mc/, section 9.2): attention is
    an expectation of values under softmax(score), known up to its factor; with keys j from p, each counts
    exp(score_j) / p_j, and all are divided by their sum. The error falls as 1 / sqrt(s), its bias as 1 / s.
    Cost: 2 B h q s (d + v) FLOPs; B h q s numbers, and B h q n for the weights, which are mostly zeros.
    """
    check_attention(query, key, value)
    (batch, heads, queries, _), count = query.shape, key.shape[2]
    check_sizes(samples=samples)
    pairwise = score_of(score, query, key)
    check_pairwise(pairwise)
    if probabilities is None:
        chances = query.new_ones(batch, heads, count)
    else:
        if probabilities.shape not in ((count,), (batch, heads, count)):
            raise ValueError(
                f"probabilities must be [{count}] or [{batch}, {heads}, {count}]; "
                f"their shape is {list(probabilities.shape)}."
            )
        chances = probabilities.detach().expand(batch, heads, count)
        if not bool(((chances >= 0) & chances.isfinite()).all() and (chances > 0).any(-1).all()):
            raise ValueError("probabilities must be finite, 0 or more, and not all 0; some are not.")
        # Only ratios matter, and these are in the range of float32, whatever the probabilities.
        chances = chances / chances.amax(dim=-1, keepdim=True)
    drawn = torch.multinomial(chances.reshape(-1, count).float(), samples, True, generator=generator)
    drawn = drawn.view(batch, heads, samples)

    picked = [
        tensor.expand(-1, heads, -1, -1).gather(2, drawn[..., None].expand(-1, -1, -1, tensor.shape[-1]))
        for tensor in (key, value)
    ]
    chance = chances.gather(2, drawn)[:, :, None]
    seen = attend(
        query, *picked, score=lambda asked, met: pairwise(asked, met) - chance.to(asked.dtype).log()
    )
    weights = seen.weights.new_zeros(batch, heads, queries, count)
    # A key that was drawn twice counts twice.
    weights = weights.scatter_add(3, drawn[:, :, None].expand(-1, -1, queries, -1), seen.weights)
    return Attended(seen.values, weights)
