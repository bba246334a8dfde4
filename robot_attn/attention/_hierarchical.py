"""Two-level attention: coarse to the blocks of a grid, fine inside the selected blocks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_attention
from robot_attn.attention._scores import Score
from robot_attn.perception import check_sizes, is_whole_number


def attend_hierarchical(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: tuple[int, int],
    *,
    cell: int,
    top: int,
    coarse_query: Tensor | None = None,
    coarse_key: Tensor | None = None,
    score: str | Score = "scaled_dot",
) -> Attended:
    """Attend to the blocks of a grid of keys, then to the keys inside the `top` blocks of highest weight.

    Args:
        query: float [B, h, q, d].
        key: float [B, h, n, d]; the n tokens are a grid in row-major order.
        value: float [B, h, n, v]; keys, values or both may be shared by the heads, [B, 1, n, .].
        grid: (rows, cols), rows * cols = n.
        cell: side of a block in tokens. Blocks tile the grid from its first row and column; where the cell
            does not divide a side, the last blocks hold fewer tokens.
        top: number of blocks that each query selects, from 1 to m, the number of blocks.
        coarse_query: float [B, h, q, e], the queries of the coarse level; None for `query`.
        coarse_key: float [B, h, m, e] or [B, 1, m, e], the keys of the blocks; None for the mean of each
            block's keys.
        score: as in `attend`, for both levels. A score that normalises over the keys does so over blocks, and
            over the cell * cell positions of a block, where those beyond the grid repeat the keys at its
            border.

    Returns:
        Values [B, h, q, v] and weights [B, h, q, n], which are 0 outside the selected blocks: a token's
        weight is its block's, renormalised over the selected blocks, times its own within the block. The
        selection has no gradient; the weights do, on both levels.

    Raises:
        ValueError: as `attend`; a grid of another number of tokens; cell or top out of range; coarse queries
            or keys of another shape.

    Weights within a group times the weight of the group: Yang et al. 2016, https://aclanthology.org/N16-1174,
    section 2.2, whose words and sentences are tokens and blocks here (there all are read, and a sentence's
    key is computed from its words' values). Mean keys that select blocks: Zhu et al. 2023 (BiFormer),
    https://arxiv.org/abs/2303.08810, section 3.2 (there one softmax runs over the tokens of all selected
    blocks, without the coarse weights). Cost: 2 B h q (m e + top cell^2 (d + v)) FLOPs, B h q n numbers for
    the weights, B h q top cell^2 (d + v) for the gathered tokens, and one copy of keys and values; least with
    a cell of (n / top)^(1/4) tokens.
    """
    check_attention(query, key, value)
    (batch, heads, queries, _), count = query.shape, key.shape[2]
    rows, cols = grid
    if min(rows, cols) < 1 or rows * cols != count:
        raise ValueError(f"expected a grid of {count} cells, one for each key, got {rows} x {cols}")
    check_sizes(cell=cell)
    blocks = -(-rows // cell) * -(-cols // cell)
    if not is_whole_number(top) or not 1 <= top <= blocks:
        raise ValueError(f"expected top as a whole number from 1 to the {blocks} blocks, got {top!r}")

    if coarse_query is None:
        coarse_query = query
    if coarse_key is None:
        coarse_key = pool_blocks(key, grid, cell)
    # Values of dimension 0: only the weights are needed.
    coarse = attend(coarse_query, coarse_key, coarse_key[..., :0], score=score).weights
    if coarse.shape != (batch, heads, queries, blocks):
        raise ValueError(
            f"expected coarse_query [{batch}, {heads}, {queries}, e] and coarse_key of {blocks} blocks, "
            f"got shapes {list(coarse_query.shape)} and {list(coarse_key.shape)}"
        )
    share, chosen = choose(coarse, top)
    table, inside = places(grid, cell, key.device)
    tokens = table[chosen]
    near = _gather(key, tokens)
    return attend_inside(
        query,
        near,
        near if value is key else _gather(value, tokens),
        share,
        tokens,
        count,
        score=score,
        mask=None if inside is None else inside[chosen],
    )


def choose(weights: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Select the `top` blocks with the highest weights for each query and head.

    Args:
        weights: float [B, h, q, m], attention weights of the blocks.
        top: number of blocks to select.

    Returns:
        Their weights, renormalised to sum 1, float [B, q, top, h], and their indices, int64 [B, q, top, h].
    """
    share, chosen = weights.topk(top, dim=-1, sorted=False)
    share = share / share.sum(dim=-1, keepdim=True)
    return share.permute(0, 2, 3, 1), chosen.permute(0, 2, 3, 1)


def attend_inside(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    share: Tensor,
    tokens: Tensor,
    count: int,
    *,
    score: str | Score,
    mask: Tensor | None = None,
) -> Attended:
    """Fine level: attend inside each of the selected blocks and combine the results by the blocks' weights.

    Args:
        query: float [B, h, q, d].
        key: float [B, q, top, h, c, d].
        value: float [B, q, top, h, c, v].
        share: float [B, q, top, h], weights of the selected blocks.
        tokens: int64 [B, q, top, h, c], indices of the keys among the `count` tokens.
        count: n, number of tokens.
        score: as in `attend`.
        mask: bool [B, q, top, h, c], False at positions that hold no key; None if all do.

    Returns:
        Values [B, h, q, v] and weights [B, h, q, n].
    """
    batch, queries, top, heads, size = tokens.shape
    # Each (query, selected block) pair is one item of a batch of B q top, with one query per head.
    items = batch * queries * top
    repeated = query.transpose(1, 2)[:, :, None].expand(-1, -1, top, -1, -1)
    fine = attend(
        repeated.reshape(items, heads, 1, query.shape[-1]),
        key.reshape(items, heads, size, key.shape[-1]),
        value.reshape(items, heads, size, value.shape[-1]),
        score=score,
        mask=None if mask is None else mask.reshape(items, heads, 1, size),
    )
    share = share[..., None]
    values = (fine.values.view(batch, queries, top, heads, value.shape[-1]) * share).sum(dim=2)
    weights = fine.weights.view(tokens.shape) * share
    tokens, weights = (each.permute(0, 3, 1, 2, 4).flatten(3) for each in (tokens, weights))
    # Added rather than assigned: positions beyond the grid have weight 0 but share the index of a real token.
    scattered = weights.new_zeros(batch, heads, queries, count).scatter_add(3, tokens, weights)
    return Attended(values.transpose(1, 2), scattered)


def pool_blocks(tokens: Tensor, grid: tuple[int, int], cell: int) -> Tensor:
    """Average the tokens [B, h, rows * cols, d] of each block of the grid -> [B, h, blocks, d]."""
    rows, cols = grid
    down, across = -(-rows // cell), -(-cols // cell)
    batch, heads, _, size = tokens.shape
    cells = tokens.reshape(batch, heads, rows, cols, size)
    if rows % cell or cols % cell:
        cells = F.pad(cells, (0, 0, 0, across * cell - cols, 0, down * cell - rows))
    cells = cells.view(batch, heads, down, cell, across, cell, size)
    # One axis at a time: torch's sum over both at once takes ten times as long on a CPU. Half precision is
    # summed in float32.
    total = cells.sum(dim=5, dtype=torch.promote_types(tokens.dtype, torch.float32)).sum(dim=3)
    heights, widths = (
        (side - torch.arange(0, side, cell, device=tokens.device)).clamp(max=cell) for side in grid
    )
    return (total / (heights[:, None] * widths)[..., None]).flatten(2, 3).to(tokens.dtype)


def places(grid: tuple[int, int], cell: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Token indices of each block of the grid; positions beyond the grid get the nearest token at its border.

    Returns:
        int64 [blocks, cell * cell], and bool [blocks, cell * cell], True inside the grid; None if all are.
    """
    rows, cols = grid
    ys, xs = (torch.arange(-(-side // cell) * cell, device=device) for side in grid)
    ys, xs = ys.view(-1, 1, cell, 1), xs.view(1, -1, 1, cell)
    table = ys.clamp(max=rows - 1) * cols + xs.clamp(max=cols - 1)
    if not (rows % cell or cols % cell):
        return table.flatten(2).flatten(0, 1), None
    return table.flatten(2).flatten(0, 1), ((ys < rows) & (xs < cols)).flatten(2).flatten(0, 1)


def _gather(tokens: Tensor, which: Tensor) -> Tensor:
    """Gather tokens [B, h or 1, n, d] by indices int64 [B, q, top, h, c] -> [B, q, top, h, c, d]."""
    batch, heads, count = tokens.shape[:3]
    first = torch.arange(batch * heads, device=tokens.device) * count
    # The gradient of an embedding adds whole rows, that of gather single numbers.
    return F.embedding(which + first.view(batch, 1, 1, heads, 1), tokens.flatten(0, 2))
