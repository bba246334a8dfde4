"""Local attention: each query looks at the keys in a window around it, in time linear in their number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_mask
from robot_attn.attention._scores import Score, check_pairwise, find_score
from robot_attn.frames import recording
from robot_attn.perception import is_whole_number

SHORTEST_BLOCK, SMALLEST_BLOCK = 16, 4
"""Queries that are attended with at a time, at least: of a sequence, and along each axis of a grid. Fewer,
and the many small products cost more than the keys that neighbours share."""


def attend_local(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """Attention of each place of a sequence to the places at most (window - 1) / 2 away from it.

    query: float [B, h, n, d]; key: float [B, h, n, d]; value: float [B, h, n, v]. Keys, values or both may be
        shared by the heads, [B, 1, n, d].
    window: w, how many keys a query sees, an odd number: itself, and as many before it as after it. The
        windows at the ends are cut there; none is moved.
    score: as in `attend`, but it must judge each key by itself, as all do but "standardized".
    mask: bool, True where a query may look, broadcast to [B, h, n, w]: place j of query i's window is key
        i + j - (w - 1) / 2. A query that may look nowhere gets weights 0 and values 0.

    Returns values [B, h, n, v] and weights [B, h, n, w], 0 outside the sequence: what `attend` gives with a
    mask that is a band, but no n x n matrix is made, nor is one for the gradient. `spread_local` lays the
    weights of a few queries out on the sequence.
    Raises ValueError as `attend` does, and for a window that is not odd, queries and keys of two lengths, or
    the score "standardized".

    Luong et al. 2015, https://arxiv.org/abs/1508.04025, section 3.2, "local-m" with its D = (w - 1) / 2;
    Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1, "sliding window".
    Cost: 2 B h n m (d + v) FLOPs with m = w + b - 1 keys for each block of b <= max(w, 16) queries, and
    B h n m numbers; b is less where that cuts the sequence into even blocks.
    """
    _check_tokens(("tokens",), query, key, value)
    _check_window(window=window)
    query, key, value = (tokens[:, :, None] for tokens in (query, key, value))
    if mask is not None:
        check_mask(mask, torch.Size([*query.shape[:2], query.shape[3], window]), "[B, h, n, window]")
        mask = mask.expand(*query.shape[:2], query.shape[3], window)[:, :, None]
    seen = _attend_in_blocks(query, key, value, (1, window), (1, SHORTEST_BLOCK), score, mask)
    return Attended(seen.values[:, :, 0], seen.weights[:, :, 0])


def attend_local_grid(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: tuple[int, int],
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """`attend_local` on a grid: attention of each cell to the cells in a rectangle around it.

    query: float [B, h, rows, cols, d]; key: float [B, h, rows, cols, d]; value: float [B, h, rows, cols, v].
        Keys, values or both may be shared by the heads, [B, 1, rows, cols, d].
    window: (wr, wc), the rectangle's rows and columns, odd numbers. It is cut at the borders of the grid.
    score: as in `attend_local`.
    mask: bool, True where a query may look, broadcast to [B, h, rows, cols, wr * wc], row after row of the
        window.

    Returns values [B, h, rows, cols, v] and weights [B, h, rows, cols, wr * wc], 0 outside the grid.
    Raises ValueError as `attend_local` does.

    Ramachandran et al. 2019, https://arxiv.org/abs/1906.05909, eq. 2, with wr = wc = its k. Computed for
    blocks of queries and the halo of keys around each: Vaswani et al. 2021, https://arxiv.org/abs/2103.12731.
    Cost: 2 B h rows cols m (d + v) FLOPs with m = (wr + br - 1) (wc + bc - 1) keys for each block of br x bc
    queries, at most max(wr, 4) x max(wc, 4), and B h rows cols m numbers.
    """
    _check_tokens(("rows", "columns"), query, key, value)
    _check_window(rows=window[0], columns=window[1])
    if mask is not None:
        shape = torch.Size([*query.shape[:4], window[0] * window[1]])
        check_mask(mask, shape, "[B, h, rows, columns, window]")
        mask = mask.expand(shape)
    return _attend_in_blocks(query, key, value, window, (SMALLEST_BLOCK, SMALLEST_BLOCK), score, mask)


def spread_local(weights: Tensor, places: Tensor) -> Tensor:
    """Lay the windows of the asked-for queries out on the whole sequence.

    weights: float [B, h, n, w], as `attend_local` gives them; places: int64 [m], which queries.
    Returns float [B, h, m, n]: the rows of the n x n matrix that was never made.
    Raises ValueError for other shapes or dtypes, and for places outside the sequence.
    Cost: no FLOPs, and 2 B h m n numbers.
    """
    if weights.ndim != 4 or places.ndim != 1 or places.dtype != torch.int64:
        raise ValueError(
            "weights must be [B, h, n, w] and places int64 [m]; their shapes are "
            f"{list(weights.shape)} and {list(places.shape)}, and places are {places.dtype}."
        )
    cells = torch.stack([torch.zeros_like(places), places], dim=1)
    return spread_local_grid(weights[:, :, None], cells, window=(1, weights.shape[-1]))[:, :, :, 0]


def spread_local_grid(weights: Tensor, cells: Tensor, *, window: tuple[int, int]) -> Tensor:
    """`spread_local` on a grid: lay the windows of the asked-for queries out on all cells.

    weights: float [B, h, rows, cols, wr * wc], as `attend_local_grid` gives them with this window, (wr, wc);
    cells: int64 [m, 2], the row and the column of each query.
    Returns float [B, h, m, rows, cols].
    Raises ValueError for other shapes or dtypes, and for cells outside the grid.
    Cost: no FLOPs, and 2 B h m rows cols numbers.
    """
    _check_window(rows=window[0], columns=window[1])
    if weights.ndim != 5 or weights.shape[-1] != window[0] * window[1]:
        raise ValueError(
            f"weights must be [B, h, rows, columns, {window[0] * window[1]}], of windows of "
            f"{window[0]} x {window[1]}; their shape is {list(weights.shape)}."
        )
    if cells.ndim != 2 or cells.shape[1] != 2 or cells.dtype != torch.int64:
        raise ValueError(
            f"cells must be int64 [m, 2], rows and columns; they are {cells.dtype} {list(cells.shape)}."
        )
    grid = torch.tensor(weights.shape[2:4], device=cells.device)
    if not recording() and not bool(((cells >= 0) & (cells < grid)).all()):
        raise ValueError(
            f"cells must lie in the grid of {weights.shape[2]} x {weights.shape[3]}; "
            f"they are {cells.tolist()}."
        )
    batch, heads, rows, cols, _ = weights.shape
    tall, wide = rows + window[0] - 1, cols + window[1] - 1
    at_row = cells[:, 0, None] + torch.arange(window[0], device=cells.device)
    at_col = cells[:, 1, None] + torch.arange(window[1], device=cells.device)
    at = (at_row[:, :, None] * wide + at_col[:, None, :]).flatten(1)
    asked = weights[:, :, cells[:, 0], cells[:, 1]]
    bordered = asked.new_zeros(batch, heads, len(cells), tall * wide).scatter(3, at.expand_as(asked), asked)
    top, left = window[0] // 2, window[1] // 2
    return bordered.view(*bordered.shape[:3], tall, wide)[..., top : top + rows, left : left + cols]


class _Axis(NamedTuple):
    """An axis of the grid, cut into blocks of queries, each with the halo of keys that its windows reach."""

    query: Tensor  # int64 [blocks, b]: where its queries are
    key: Tensor  # int64 [blocks, b + w - 1]: where the keys of its halo are
    past: Tensor  # int64 [blocks, b + w - 1]: how far past the border, where `key` is the border's instead
    within: Tensor  # int64 [b, w]: where in the halo each query's window is


def _axis(length: int, window: int, smallest: int, device: torch.device) -> _Axis:
    blocks = -(-length // max(window, smallest))
    size = -(-length // blocks)  # all of one size, as small as it may be: few queries stand past the end
    first = size * torch.arange(blocks, device=device)[:, None]
    query = torch.arange(size, device=device)
    halo = first + torch.arange(size + window - 1, device=device) - window // 2
    key = halo.clamp(0, length - 1)
    within = query[:, None] + torch.arange(window, device=device)
    return _Axis((first + query).clamp(max=length - 1), key, (halo - key).abs(), within)


def _cells(down: Tensor, across: Tensor) -> Tensor:
    """Sums of all pairs: [p, s] and [q, t] -> [p * q, s * t]."""
    return (down[:, None, :, None] + across[:, None]).flatten(2).flatten(0, 1)


def _attend_in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: tuple[int, int],
    smallest: tuple[int, int],
    score: str | Score,
    mask: Tensor | None,
) -> Attended:
    """`attend_local_grid`, once all is checked: `attend`, whose batch is the blocks and whose mask is a band.

    Neighbours share most of their windows, so the halo of a block holds few keys more than a window does:
    keys are copied few times, and compared in products large enough to be fast.
    """
    check_pairwise(find_score(score))
    batch, heads, rows, cols, _ = query.shape
    down = _axis(rows, window[0], smallest[0], query.device)
    across = _axis(cols, window[1], smallest[1], query.device)
    queries, keys = (_cells(cols * down[i], across[i]) for i in (0, 1))
    within = _cells(across.key.shape[1] * down.within, across.within)
    inside = (_cells(down.past, across.past) == 0).repeat(batch, 1)[:, None, None]

    def cut(cells: Tensor, places: Tensor) -> Tensor:
        """[B, h, rows, cols, .] -> [B * blocks, h, cells of a block, .]."""
        taken = cells.flatten(2, 3).index_select(2, places.flatten())
        return taken.view(*taken.shape[:2], *places.shape, taken.shape[-1]).transpose(1, 2).flatten(0, 1)

    def join(blocks: Tensor) -> Tensor:
        """[B * blocks, h, cells of a block, .] -> [B, h, rows, cols, .]."""
        (tall, high), (wide, broad) = down.query.shape, across.query.shape
        apart = blocks.reshape(batch, tall, wide, heads, high, broad, blocks.shape[-1])
        return apart.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)[:, :, :rows, :cols]

    seen_from = inside.new_ones(1, 1, *within.shape) if mask is None else cut(mask, queries)
    band = seen_from.new_zeros(*seen_from.shape[:3], keys.shape[1])
    band = band.scatter(3, within.expand_as(seen_from), seen_from)
    values, weights = attend(
        cut(query, queries), cut(key, keys), cut(value, keys), score=score, mask=band & inside
    )
    weights = weights.gather(3, within.expand(*weights.shape[:2], *within.shape))
    return Attended(join(values), join(weights))


def _check_tokens(axes: tuple[str, ...], query: Tensor, key: Tensor, value: Tensor) -> None:
    """ValueError unless query, key and value are [B, h or 1, *axes, .], alike on the axes and not empty."""
    form = ", ".join(["batch", "heads", *axes, "size"])
    shapes = [list(tensor.shape) for tensor in (query, key, value)]
    for name, shape in zip(("query", "key", "value"), shapes, strict=True):
        if len(shape) != len(axes) + 3:
            raise ValueError(f"{name} must be [{form}]; its shape is {shape}.")
    batch, heads, *places = shapes[0][:-1]
    if any(shape[0] != batch or shape[1] not in (1, heads) or shape[2:-1] != places for shape in shapes):
        raise ValueError(
            f"query, key and value must be [{form}] and agree in all but heads (or 1) and size; "
            f"their shapes are {shapes[0]}, {shapes[1]} and {shapes[2]}."
        )
    if 0 in places:
        raise ValueError(f"there must be a key to look at; the shape of key is {shapes[1]}.")


def _check_window(**window: int) -> None:
    for name, size in window.items():
        if not is_whole_number(size) or size < 1 or size % 2 == 0:
            of = "" if name == "window" else f" of {name}"
            raise ValueError(f"a window must be an odd number{of}, as many on each side; it is {size!r}.")
