"""Attention on two levels: coarsely to the blocks of a grid, finely inside the blocks that were chosen."""

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
    """Attend to the blocks of a grid of keys, then to the keys inside the `top` blocks of most weight.

    query: float [B, h, q, d]; key: float [B, h, n, d]; value: float [B, h, n, v], where keys, values or both
        may be shared by the heads, [B, 1, n, .]. The n tokens are a grid, row after row.
    grid: (rows, cols), rows * cols = n. cell: a block's side in tokens. Blocks lie side by side from the
        first row and column; where the cell does not divide a side, the last of them hold fewer tokens.
    top: how many blocks a query looks into, from 1 to m, the number of blocks.
    coarse_query: float [B, h, q, e], what is asked of blocks; the query if None. coarse_key: float
        [B, h, m, e] or [B, 1, m, e], what answers; the mean of a block's keys if None.
    score: as in `attend`, for both levels; a score that normalises over the keys does so over blocks, and
        over the cell * cell places of a block, where those past the grid's edge repeat the keys at it.

    Returns values [B, h, q, v] and weights [B, h, q, n], which are 0 outside the chosen blocks: a token's
    weight is its block's, renormalised over the chosen ones, times its own within the block.
    Which blocks are chosen has no gradient; their weights do, and so have both levels.
    Raises ValueError for what `attend` refuses, a grid that has not n tokens, and a cell or top out of range.

    Weights inside a group times the weight of the group: Yang et al. 2016,
    https://aclanthology.org/N16-1174, section 2.2, whose words and sentences are our tokens and blocks (there
    all are read, and a sentence's key is made of what its words gave). Means of keys that choose which
    blocks are looked into: Zhu et al. 2023, https://arxiv.org/abs/2303.08810, section 3.2 (there one softmax
    runs over all of the chosen blocks' tokens, without the coarse weights).
    Cost: 2 B h q (m e + top cell^2 (d + v)) FLOPs, B h q n numbers for the weights, B h q top cell^2 (d + v)
    for what is gathered, and one copy of keys and values; least with a cell of (n / top)^(1/4) tokens.
    """
    check_attention(query, key, value)
    (batch, heads, queries, _), count = query.shape, key.shape[2]
    rows, cols = grid
    if min(rows, cols) < 1 or rows * cols != count:
        raise ValueError(f"grid must have as many cells as there are keys, {count}; it is {rows} x {cols}.")
    check_sizes(cell=cell)
    blocks = -(-rows // cell) * -(-cols // cell)
    if not is_whole_number(top) or not 1 <= top <= blocks:
        raise ValueError(f"top must be a whole number from 1 to the {blocks} blocks; it is {top!r}.")

    if coarse_query is None:
        coarse_query = query
    if coarse_key is None:
        coarse_key = pool_blocks(key, grid, cell)
    # Values of no size: only the weights are wanted.
    coarse = attend(coarse_query, coarse_key, coarse_key[..., :0], score=score).weights
    if coarse.shape != (batch, heads, queries, blocks):
        raise ValueError(
            f"coarse_query must be [{batch}, {heads}, {queries}, e] and coarse_key hold {blocks} blocks; "
            f"their shapes are {list(coarse_query.shape)} and {list(coarse_key.shape)}."
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
    """Weights of blocks [B, h, q, m] -> those of the `top` highest, summing to 1, and which they are.

    Returns float and int64, both [B, q, top, h].
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
    """The fine level: attend inside each of the blocks that a query looks into, with weights that add up.

    query: float [B, h, q, d]; key: float [B, q, top, h, c, d]; value: float [B, q, top, h, c, v];
    share: float [B, q, top, h], the weights of the blocks; tokens: int64 [B, q, top, h, c], which of the
    `count` tokens the keys are; mask: bool [B, q, top, h, c], False where a key is none, or None.
    Returns values [B, h, q, v] and weights [B, h, q, count].
    """
    batch, queries, top, heads, size = tokens.shape
    # Each block that a query looks into is an item of one batch, of B q top; there it has one query a head.
    items = batch * queries * top
    asked = query.transpose(1, 2)[:, :, None].expand(-1, -1, top, -1, -1)
    fine = attend(
        asked.reshape(items, heads, 1, query.shape[-1]),
        key.reshape(items, heads, size, key.shape[-1]),
        value.reshape(items, heads, size, value.shape[-1]),
        score=score,
        mask=None if mask is None else mask.reshape(items, heads, 1, size),
    )
    share = share[..., None]
    values = (fine.values.view(batch, queries, top, heads, value.shape[-1]) * share).sum(dim=2)
    weights = fine.weights.view(tokens.shape) * share
    tokens, weights = (each.permute(0, 3, 1, 2, 4).flatten(3) for each in (tokens, weights))
    # Added, as the places past a grid's edges, whose weights are 0, are given tokens that have a place.
    spread = weights.new_zeros(batch, heads, queries, count).scatter_add(3, tokens, weights)
    return Attended(values.transpose(1, 2), spread)


def pool_blocks(tokens: Tensor, grid: tuple[int, int], cell: int) -> Tensor:
    """tokens [B, h, rows * cols, d] -> [B, h, blocks, d]: the mean of the tokens that each block holds."""
    rows, cols = grid
    down, across = -(-rows // cell), -(-cols // cell)
    batch, heads, _, size = tokens.shape
    laid = tokens.reshape(batch, heads, rows, cols, size)
    if rows % cell or cols % cell:
        laid = F.pad(laid, (0, 0, 0, across * cell - cols, 0, down * cell - rows))
    laid = laid.view(batch, heads, down, cell, across, cell, size)
    # One axis at a time: torch's sum over both at once takes ten times as long on a CPU. Half precision is
    # summed in float32.
    total = laid.sum(dim=5, dtype=torch.promote_types(tokens.dtype, torch.float32)).sum(dim=3)
    heights, widths = (
        (side - torch.arange(0, side, cell, device=tokens.device)).clamp(max=cell) for side in grid
    )
    return (total / (heights[:, None] * widths)[..., None]).flatten(2, 3).to(tokens.dtype)


def places(grid: tuple[int, int], cell: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Tokens of each block, int64 [blocks, cell * cell], and which of them are in the grid; None for all.

    A place past the grid's edge is given the token at the edge.
    """
    rows, cols = grid
    ys, xs = (torch.arange(-(-side // cell) * cell, device=device) for side in grid)
    ys, xs = ys.view(-1, 1, cell, 1), xs.view(1, -1, 1, cell)
    table = ys.clamp(max=rows - 1) * cols + xs.clamp(max=cols - 1)
    if not (rows % cell or cols % cell):
        return table.flatten(2).flatten(0, 1), None
    return table.flatten(2).flatten(0, 1), ((ys < rows) & (xs < cols)).flatten(2).flatten(0, 1)


def _gather(tokens: Tensor, which: Tensor) -> Tensor:
    """tokens [B, h or 1, n, d], which int64 [B, q, top, h, c], below n -> [B, q, top, h, c, d]."""
    batch, heads, count = tokens.shape[:3]
    first = torch.arange(batch * heads, device=tokens.device) * count
    # An embedding's gradient adds whole rows, where that of gather adds number by number.
    return F.embedding(which + first.view(batch, 1, 1, heads, 1), tokens.flatten(0, 2))
