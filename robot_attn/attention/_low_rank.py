"""Low-rank approximations of attention: Linformer's projections and Nystrom landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._blockwise import check_rows
from robot_attn.attention._checks import check_attention, check_finite
from robot_attn.attention._scores import Score, find_score, scaled_dot
from robot_attn.perception import check_sizes, is_whole_number


def attend_linformer(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    project_key: Tensor,
    project_value: Tensor | None = None,
    *,
    score: str | Score = "scaled_dot",
) -> Attended:
    """Attend to r linear mixtures of the n keys, computed by projections along the token axis.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]; keys, values or both may be shared by the heads, [B, 1, n, .].
        project_key: float [r, n], or [h, r, n] for one per head.
        project_value: same shape; None to use `project_key`.
        score: as in `attend`.

    Returns:
        Values [B, h, q, v] and weights [B, h, q, r] over the mixtures. A mixture may subtract keys, so these
        are not weights of single keys: weights @ project_key may be negative. Half precision is computed in
        float32, since a sum over many keys exceeds its range.

    Raises:
        ValueError: as `attend`; projections of other shapes or with non-finite numbers.

    Wang et al. 2020, https://arxiv.org/abs/2006.04768, eq. 7: `project_key` is E_i, `project_value` F_i, r is
    k. Cost: 2 B h r (n + q) (d + v) FLOPs, and B h q r numbers for the weights.
    """
    check_attention(query, key, value)
    project_value = project_key if project_value is None else project_value
    heads, count = query.shape[1], key.shape[2]
    for name, projection in (("project_key", project_key), ("project_value", project_value)):
        fits = projection.ndim in (2, 3) and projection.shape[-1] == count and projection.shape[-2] > 0
        if not fits or (projection.ndim == 3 and projection.shape[0] != heads):
            raise ValueError(
                f"expected {name} [r, {count}] or [{heads}, r, {count}] with r of at least 1, "
                f"got shape {list(projection.shape)}"
            )
    if project_key.shape[-2] != project_value.shape[-2]:
        raise ValueError(
            "expected project_key and project_value with the same number of mixtures, "
            f"got {project_key.shape[-2]} and {project_value.shape[-2]}"
        )
    check_finite(project_key=project_key, project_value=project_value)
    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
        project_key, project_value = project_key.float(), project_value.float()
    attended = attend(query, project_key @ key, project_value @ value, score=score)
    return Attended(attended.values.to(dtype), attended.weights.to(dtype))


class Linformer(nn.Module):
    """`attend_linformer` with learned projections, one for keys and one for values, shared by all heads.

    Wang et al. 2020, https://arxiv.org/abs/2006.04768, section 4, "headwise sharing"; projections are
    initialised as there, from a normal distribution of variance 1 / r.

    Args:
        tokens: n, the fixed number of tokens.
        rank: r, number of mixtures.
        score: a name in `robot_attn.SCORES`.

    Raises:
        ValueError: sizes that are not positive integers, or an unknown score.
    """

    def __init__(self, tokens: int, rank: int, *, score: str = "scaled_dot") -> None:
        super().__init__()
        check_sizes(tokens=tokens, rank=rank)
        find_score(score)
        self.score = score
        self.project_key = nn.Parameter(torch.randn(rank, tokens) * rank**-0.5)
        self.project_value = nn.Parameter(torch.randn(rank, tokens) * rank**-0.5)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Attended:
        """Attend with query [B, h, q, d], key [B, h, n, d], value [B, h, n, v]; as `attend_linformer`."""
        return attend_linformer(query, key, value, self.project_key, self.project_value, score=self.score)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Attended: ...


def attend_nystrom(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    landmarks: int,
    rows: Tensor | None = None,
) -> Attended:
    """Approximate softmax attention through landmarks, as a product of three small softmax matrices.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]; keys, values or both may be shared by the heads, [B, 1, n, .].
        landmarks: m, number of landmarks (means of neighbouring queries, and of neighbouring keys), from 1 to
            min(q, n).
        rows: int64 [r], indices of the queries whose weights to return; None for none.

    Returns:
        Values [B, h, q, v] and the approximate weights of the queries in `rows`, [B, h, r, n]. They sum to
        about 1 and may be negative. With m = q = n they equal those of `attend`, up to the precision of
        `_pinv`. The approximation suits tokens that vary slowly along their order; elsewhere its error can be
        large.

    Raises:
        ValueError: as `attend`; landmarks or rows out of range.

    Xiong et al. 2021, https://arxiv.org/abs/2102.03902: softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V,
    with landmarks Q~ and K~ that are segment means (section "Landmarks selection"; the last segment may be
    shorter here) and every product divided by sqrt(d). The pseudoinverse is exact up to rounding (`_pinv`),
    where the paper iterates six times. Cost: 2 B h m (q + n) (d + v) FLOPs and O(B h m^3) for the
    pseudoinverse; B h m (q + n) numbers.
    """
    check_attention(query, key, value)
    queries, count = query.shape[2], key.shape[2]
    fewest = min(queries, count)
    if not is_whole_number(landmarks) or not 1 <= landmarks <= fewest:
        raise ValueError(f"expected landmarks as a whole number from 1 to {fewest}, got {landmarks!r}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"expected queries and keys of the same dimension, got {query.shape[-1]} and {key.shape[-1]}"
        )
    if rows is not None:
        check_rows(rows, queries)
    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    query_landmarks, key_landmarks = _segment_means(query, landmarks), _segment_means(key, landmarks)
    to_landmarks = scaled_dot(query, key_landmarks).softmax(dim=-1)
    between = _pinv(scaled_dot(query_landmarks, key_landmarks).softmax(dim=-1))
    from_landmarks = scaled_dot(query_landmarks, key).softmax(dim=-1)
    # Multiplied from the right, so that no q x n matrix is computed.
    values = to_landmarks @ (between @ (from_landmarks @ value))
    if rows is None:
        weights = query.new_zeros(*query.shape[:2], 0, count)
    else:
        weights = (to_landmarks[:, :, rows] @ between) @ from_landmarks
    return Attended(values.to(dtype), weights.to(dtype))


def _pinv(matrix: Tensor) -> Tensor:
    """Pseudoinverse of [..., m, m] in which each singular value s is inverted as s / (s^2 + eps).

    eps is that of the dtype. Landmarks resemble each other, all the more on a uniform frame, and their
    smallest singular values are then rounding errors of the order of eps: their inverses would swamp the
    values, and even more the gradient. Singular values of sqrt(eps), 3e-4 in float32, are halved, so the
    error of the weights is at most half of that.
    """
    size = matrix.shape[-1]
    damping = torch.eye(size, dtype=matrix.dtype, device=matrix.device) * torch.finfo(matrix.dtype).eps ** 0.5
    # Damped inverse: the first columns of the pseudoinverse of this taller matrix of full rank.
    taller = torch.cat([matrix, damping.expand_as(matrix)], dim=-2)
    inverse: Tensor = torch.linalg.pinv(taller)
    return inverse[..., :size]


def _segment_means(tokens: Tensor, segments: int) -> Tensor:
    """Means of n tokens [B, h, n, d] cut into segments of nearly equal length -> [B, h, segments, d]."""
    count = tokens.shape[2]
    edges = torch.arange(segments + 1, device=tokens.device) * count // segments
    place = torch.arange(count, device=tokens.device)
    inside = (place >= edges[:-1, None]) & (place < edges[1:, None])
    share = inside.to(tokens.dtype) / inside.sum(dim=1, keepdim=True)
    return share @ tokens
