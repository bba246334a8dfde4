"""Local (sliding-window) attention to the keys in a window around each query; linear in their number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robot_attn.attention._attend import Attended, attend
from robot_attn.attention._checks import check_mask
from robot_attn.attention._scores import Score, check_pairwise, find_score
from robot_attn.frames import recording
from robot_attn.perception import is_whole_number

MIN_SEQUENCE_BLOCK, MIN_GRID_BLOCK = 16, 4
"""Smallest number of queries per block, along a sequence and along each axis of a grid. In smaller blocks the
overhead of many small matrix products exceeds what is saved on shared keys."""


def attend_local(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """Attention from each position of a sequence to the positions at most (window - 1) / 2 away.

    Equal to `attend` with a band-shaped mask, but neither the n x n matrix nor its gradient is computed.
    `spread_local` scatters the weights of chosen queries to the full sequence.

    Args:
        query: float [B, h, n, d].
        key: float [B, h, n, d].
        value: float [B, h, n, v]. Keys, values or both may be shared by the heads, [B, 1, n, d].
        window: w, odd number of keys per query: its own, and as many before as after. Windows are truncated
            at the ends of the sequence, not shifted.
        score: as in `attend`, except a score that normalises over the keys ("standardized").
        mask: bool, True where a query may attend, broadcast to [B, h, n, w]: entry j of query i's window is
            key i + j - (w - 1) / 2. A fully masked query gets weights 0 and values 0.

    Returns:
        Values [B, h, n, v] and weights [B, h, n, w], 0 outside the sequence.

    Raises:
        ValueError: as `attend`; a window that is not odd; queries and keys of different lengths; the score
            "standardized".

    Luong et al. 2015, https://arxiv.org/abs/1508.04025, section 3.2, "local-m" with its D = (w - 1) / 2;
    Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1, "sliding window". Cost: 2 B h n m (d +
    v) FLOPs with m = w + b - 1 keys for each block of b <= max(w, 16) queries, and B h n m numbers; b is
    smaller where that divides the sequence into equal blocks.
    """
    _check_tokens(("tokens",), query, key, value)
    _check_window(window=window)
    query, key, value = (tokens[:, :, None] for tokens in (query, key, value))
    if mask is not None:
        check_mask(mask, torch.Size([*query.shape[:2], query.shape[3], window]), "[B, h, n, window]")
        mask = mask.expand(*query.shape[:2], query.shape[3], window)[:, :, None]
    attended = _attend_in_blocks(query, key, value, (1, window), (1, MIN_SEQUENCE_BLOCK), score, mask)
    return Attended(attended.values[:, :, 0], attended.weights[:, :, 0])


def attend_local_grid(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: tuple[int, int],
    score: str | Score = "scaled_dot",
    mask: Tensor | None = None,
) -> Attended:
    """`attend_local` on a grid: attention from each cell to the cells in a rectangle around it.

    Args:
        query: float [B, h, rows, cols, d].
        key: float [B, h, rows, cols, d].
        value: float [B, h, rows, cols, v]. Keys, values or both may be shared by the heads,
            [B, 1, rows, cols, d].
        window: (wr, wc), odd numbers of rows and columns of the rectangle, truncated at the grid's border.
        score: as in `attend_local`.
        mask: bool, True where a query may attend, broadcast to [B, h, rows, cols, wr * wc], the window in
            row-major order.

    Returns:
        Values [B, h, rows, cols, v] and weights [B, h, rows, cols, wr * wc], 0 outside the grid.

    Raises:
        ValueError: as `attend_local`.

    Ramachandran et al. 2019, https://arxiv.org/abs/1906.05909, eq. 2, with wr = wc = its k. Computed in
    blocks of queries with a halo of keys around each: Vaswani et al. 2021, https://arxiv.org/abs/2103.12731.
    Cost: 2 B h rows cols m (d + v) FLOPs with m = (wr + br - 1) (wc + bc - 1) keys for each block of br x bc
    queries, at most max(wr, 4) x max(wc, 4), and B h rows cols m numbers.
    """
    _check_tokens(("rows", "columns"), query, key, value)
    _check_window(rows=window[0], columns=window[1])
    if mask is not None:
        shape = torch.Size([*query.shape[:4], window[0] * window[1]])
        check_mask(mask, shape, "[B, h, rows, columns, window]")
        mask = mask.expand(shape)
    return _attend_in_blocks(query, key, value, window, (MIN_GRID_BLOCK, MIN_GRID_BLOCK), score, mask)


def spread_local(weights: Tensor, places: Tensor) -> Tensor:
    """Scatter the window weights of chosen queries to the full sequence.

    Args:
        weights: float [B, h, n, w], as returned by `attend_local`.
        places: int64 [m], indices of the chosen queries.

    Returns:
        float [B, h, m, n], rows of the n x n attention matrix.

    Raises:
        ValueError: other shapes or dtypes, or indices outside the sequence.

    Cost: no FLOPs, and 2 B h m n numbers.
    """
    if weights.ndim != 4 or places.ndim != 1 or places.dtype != torch.int64:
        raise ValueError(
            f"expected weights [B, h, n, w] and places int64 [m], got shape {list(weights.shape)}, "
            f"and places {places.dtype} {list(places.shape)}"
        )
    cells = torch.stack([torch.zeros_like(places), places], dim=1)
    return spread_local_grid(weights[:, :, None], cells, window=(1, weights.shape[-1]))[:, :, :, 0]


def spread_local_grid(weights: Tensor, cells: Tensor, *, window: tuple[int, int]) -> Tensor:
    """`spread_local` on a grid: scatter the window weights of chosen queries to all cells.

    Args:
        weights: float [B, h, rows, cols, wr * wc], as returned by `attend_local_grid` with this window.
        cells: int64 [m, 2], row and column of each chosen query.
        window: (wr, wc), rows and columns of the window.

    Returns:
        float [B, h, m, rows, cols].

    Raises:
        ValueError: other shapes or dtypes, or cells outside the grid.

    Cost: no FLOPs, and 2 B h m rows cols numbers.
    """
    _check_window(rows=window[0], columns=window[1])
    if weights.ndim != 5 or weights.shape[-1] != window[0] * window[1]:
        raise ValueError(
            f"expected weights [B, h, rows, columns, {window[0] * window[1]}], of windows of "
            f"{window[0]} x {window[1]}, got shape {list(weights.shape)}"
        )
    if cells.ndim != 2 or cells.shape[1] != 2 or cells.dtype != torch.int64:
        raise ValueError(
            f"expected cells int64 [m, 2], rows and columns, got {cells.dtype} {list(cells.shape)}"
        )
    grid = torch.tensor(weights.shape[2:4], device=cells.device)
    if not recording() and not bool(((cells >= 0) & (cells < grid)).all()):
        raise ValueError(
            f"expected cells inside the grid of {weights.shape[2]} x {weights.shape[3]}, got {cells.tolist()}"
        )
    batch, heads, rows, cols, _ = weights.shape
    tall, wide = rows + window[0] - 1, cols + window[1] - 1
    at_row = cells[:, 0, None] + torch.arange(window[0], device=cells.device)
    at_col = cells[:, 1, None] + torch.arange(window[1], device=cells.device)
    at = (at_row[:, :, None] * wide + at_col[:, None, :]).flatten(1)
    chosen = weights[:, :, cells[:, 0], cells[:, 1]]
    bordered = chosen.new_zeros(batch, heads, len(cells), tall * wide)
    bordered = bordered.scatter(3, at.expand_as(chosen), chosen)
    top, left = window[0] // 2, window[1] // 2
    return bordered.view(*bordered.shape[:3], tall, wide)[..., top : top + rows, left : left + cols]


class _Axis(NamedTuple):
    """One axis of the grid, cut into blocks of queries, each with the halo of keys that its windows reach."""

    query: Tensor  # int64 [blocks, b]: positions of the queries
    key: Tensor  # int64 [blocks, b + w - 1]: positions of the keys of the halo, clamped to the axis
    past: Tensor  # int64 [blocks, b + w - 1]: distance beyond the border; 0 inside
    within: Tensor  # int64 [b, w]: positions of each query's window in the halo


def _axis(length: int, window: int, smallest: int, device: torch.device) -> _Axis:
    blocks = -(-length // max(window, smallest))
    size = -(-length // blocks)  # equal blocks, as small as possible: few padding queries beyond the end
    first = size * torch.arange(blocks, device=device)[:, None]
    query = torch.arange(size, device=device)
    halo = first + torch.arange(size + window - 1, device=device) - window // 2
    key = halo.clamp(0, length - 1)
    within = query[:, None] + torch.arange(window, device=device)
    return _Axis((first + query).clamp(max=length - 1), key, (halo - key).abs(), within)


def _cells(down: Tensor, across: Tensor) -> Tensor:
    """Sums of all pairs of indices: [p, s] and [q, t] -> [p * q, s * t]."""
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
    """`attend_local_grid` without its checks: `attend` with the blocks as batch and a band as mask.

    Neighbouring windows overlap, so the halo of a block holds few more keys than one window: keys are copied
    few times, and the matrix products are large enough to be fast.
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

    windows = inside.new_ones(1, 1, *within.shape) if mask is None else cut(mask, queries)
    band = windows.new_zeros(*windows.shape[:3], keys.shape[1])
    band = band.scatter(3, within.expand_as(windows), windows)
    values, weights = attend(
        cut(query, queries), cut(key, keys), cut(value, keys), score=score, mask=band & inside
    )
    weights = weights.gather(3, within.expand(*weights.shape[:2], *within.shape))
    return Attended(join(values), join(weights))


def _check_tokens(axes: tuple[str, ...], query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check that query, key and value are [B, h or 1, *axes, .], equal on the axes and not empty.

    Raises:
        ValueError: other ranks, sizes that differ, or an axis of length 0.
    """
    form = ", ".join(["batch", "heads", *axes, "dim"])
    shapes = [list(tensor.shape) for tensor in (query, key, value)]
    for name, shape in zip(("query", "key", "value"), shapes, strict=True):
        if len(shape) != len(axes) + 3:
            raise ValueError(f"expected {name} [{form}], got shape {shape}")
    batch, heads, *places = shapes[0][:-1]
    if any(shape[0] != batch or shape[1] not in (1, heads) or shape[2:-1] != places for shape in shapes):
        raise ValueError(
            f"expected query, key and value [{form}] that agree in all but heads (or 1) and dim, "
            f"got shapes {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if 0 in places:
        raise ValueError(f"expected at least 1 key, got key of shape {shapes[1]}")


def _check_window(**window: int) -> None:
    for name, size in window.items():
        if not is_whole_number(size) or size < 1 or size % 2 == 0:
            of = "" if name == "window" else f" of {name}"
            raise ValueError(f"expected a window of an odd number{of}, got {size!r}")
