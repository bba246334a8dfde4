"""Attention to a few stand-ins for many keys: Linformer's projections, and Nystrom's landmarks."""

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
    """Attend to r mixtures of the n keys, which the projections make of them.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v]; keys, values or both may be
        shared by the heads, [B, 1, n, .].
    project_key: float [r, n], or [h, r, n] for one a head; project_value alike, None for the same.
    score: as in `attend`.

    Returns values [B, h, q, v] and weights [B, h, q, r] over the mixtures. As a mixture may take keys away,
    these say nothing of single keys: weights @ project_key may be negative. Half precision is computed in
    float32, as a sum over many keys leaves its range.
    Raises ValueError as `attend` does, and for projections of other shapes or that are not finite.

    Wang et al. 2020, https://arxiv.org/abs/2006.04768, eq. 7: `project_key` is E_i, `project_value` F_i, r
    is k. Cost: 2 B h r (n + q) (d + v) FLOPs, and B h q r numbers for the weights.
    """
    check_attention(query, key, value)
    project_value = project_key if project_value is None else project_value
    heads, count = query.shape[1], key.shape[2]
    for name, projection in (("project_key", project_key), ("project_value", project_value)):
        fits = projection.ndim in (2, 3) and projection.shape[-1] == count and projection.shape[-2] > 0
        if not fits or (projection.ndim == 3 and projection.shape[0] != heads):
            raise ValueError(
                f"{name} must be [r, {count}] or [{heads}, r, {count}], with r of at least 1; "
                f"its shape is {list(projection.shape)}."
            )
    if project_key.shape[-2] != project_value.shape[-2]:
        raise ValueError(
            "project_key and project_value must make as many mixtures; they make "
            f"{project_key.shape[-2]} and {project_value.shape[-2]}."
        )
    check_finite(project_key=project_key, project_value=project_value)
    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
        project_key, project_value = project_key.float(), project_value.float()
    seen = attend(query, project_key @ key, project_value @ value, score=score)
    return Attended(seen.values.to(dtype), seen.weights.to(dtype))


class Linformer(nn.Module):
    """`attend_linformer` with learned projections, one of keys and one of values, for all heads.

    tokens: n, which the projections fix. rank: r. score: a name in `robot_attn.SCORES`; another is a
        ValueError.
    Wang et al. 2020, https://arxiv.org/abs/2006.04768, section 4, "headwise sharing"; projections start as
    there, with normal numbers of variance 1 / r.
    """

    def __init__(self, tokens: int, rank: int, *, score: str = "scaled_dot") -> None:
        super().__init__()
        check_sizes(tokens=tokens, rank=rank)
        find_score(score)
        self.score = score
        self.project_key = nn.Parameter(torch.randn(rank, tokens) * rank**-0.5)
        self.project_value = nn.Parameter(torch.randn(rank, tokens) * rank**-0.5)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Attended:
        """query [B, h, q, d], key [B, h, n, d], value [B, h, n, v] -> as `attend_linformer`."""
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
    """Attend through landmarks: a product of three small softmaxes in place of the large one.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v]; keys, values or both may be
        shared by the heads, [B, 1, n, .].
    landmarks: m, how many means of neighbouring queries, and of keys, stand in for them: 1 to min(q, n).
    rows: int64 [r], indices of the queries whose weights are wanted; None for none.

    Returns values [B, h, q, v] and the approximate weights of those rows, [B, h, r, n]. They sum to about 1,
    and may be negative. With m = q = n they are those of `attend`, to `_pinv`'s precision. The approximation
    is for tokens that change slowly along their order; where landmarks miss most of it, it can be far off.
    Raises ValueError as `attend` does, and for landmarks or rows out of range.

    Xiong et al. 2021, https://arxiv.org/abs/2102.03902: softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V,
    with landmarks Q~ and K~ that are means of segments (section "Landmarks selection"; a last segment may be
    shorter here) and every product over sqrt(d). The pseudoinverse is exact but for rounding (`_pinv`),
    where the paper iterates six times.
    Cost: 2 B h m (q + n) (d + v) FLOPs and O(B h m^3) for the pseudoinverse; B h m (q + n) numbers.
    """
    check_attention(query, key, value)
    queries, count = query.shape[2], key.shape[2]
    fewest = min(queries, count)
    if not is_whole_number(landmarks) or not 1 <= landmarks <= fewest:
        raise ValueError(f"landmarks must be a whole number from 1 to {fewest}; it is {landmarks!r}.")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"queries and keys must be of one size; theirs are {query.shape[-1]} and {key.shape[-1]}."
        )
    if rows is not None:
        check_rows(rows, queries)
    dtype = value.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    few_queries, few_keys = _segment_means(query, landmarks), _segment_means(key, landmarks)
    to_few = scaled_dot(query, few_keys).softmax(dim=-1)
    between = _pinv(scaled_dot(few_queries, few_keys).softmax(dim=-1))
    from_few = scaled_dot(few_queries, key).softmax(dim=-1)
    # From the right: nothing of q x n is ever made.
    values = to_few @ (between @ (from_few @ value))
    if rows is None:
        weights = query.new_zeros(*query.shape[:2], 0, count)
    else:
        weights = (to_few[:, :, rows] @ between) @ from_few
    return Attended(values.to(dtype), weights.to(dtype))


def _pinv(matrix: Tensor) -> Tensor:
    """Give the pseudoinverse of [..., m, m] with each singular value s inverted as s / (s^2 + eps).

    eps is the dtype's. Landmarks are much alike, the more so on a plain frame, and what is left of their
    smallest singular values is rounding, of the order of eps: its inverse would drown the values and more so
    the gradient. Values of sqrt(eps), 3e-4 in float32, are halved, so no error of weights from this is
    larger than half of that.
    """
    size = matrix.shape[-1]
    damping = torch.eye(size, dtype=matrix.dtype, device=matrix.device) * torch.finfo(matrix.dtype).eps ** 0.5
    # The first columns of the pseudoinverse of this taller matrix, which has full rank, are what we want.
    taller = torch.cat([matrix, damping.expand_as(matrix)], dim=-2)
    inverse: Tensor = torch.linalg.pinv(taller)
    return inverse[..., :size]


def _segment_means(tokens: Tensor, segments: int) -> Tensor:
    """[B, h, n, d] -> [B, h, segments, d]: the means of n tokens cut into segments as even as can be."""
    count = tokens.shape[2]
    edges = torch.arange(segments + 1, device=tokens.device) * count // segments
    place = torch.arange(count, device=tokens.device)
    inside = (place >= edges[:-1, None]) & (place < edges[1:, None])
    share = inside.to(tokens.dtype) / inside.sum(dim=1, keepdim=True)
    return share @ tokens
