"""What every mechanism demands of its queries, keys, values and masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robot_attn.frames import recording


def check_attention(query: Tensor, key: Tensor, value: Tensor) -> None:
    """ValueError unless query [B, h, q, d], key [B, h, n, e] and value [B, h, n, v] go together.

    Keys and values may be shared by the heads, [B, 1, n, .]; n is at least 1, and all numbers are finite.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(
                f"{name} must be [batch, heads, tokens, size]; its shape is {list(tensor.shape)}."
            )
    batch, heads = query.shape[:2]
    shared = all(tensor.shape[0] == batch and tensor.shape[1] in (1, heads) for tensor in (key, value))
    if not shared or key.shape[2] != value.shape[2]:
        raise ValueError(
            "query [B, h, q, d], key [B, h, n, d] and value [B, h, n, v] must agree on B, h (or 1) and n; "
            f"their shapes are {list(query.shape)}, {list(key.shape)} and {list(value.shape)}."
        )
    if key.shape[2] == 0:
        raise ValueError(f"there must be a key to look at; the shape of key is {list(key.shape)}.")
    check_finite(query=query, key=key, value=value)


def check_tokens(query: Tensor, key: Tensor) -> None:
    """ValueError unless query [B, q, d] and key [B, n, d], of one head, go together, with a token each."""
    for name, tokens in (("query", query), ("key", key)):
        if tokens.ndim != 3 or tokens.shape[1] == 0:
            raise ValueError(
                f"{name} must be [B, n, d] with at least 1 token; its shape is {list(tokens.shape)}."
            )
    if len(query) != len(key):
        raise ValueError(f"query and key must have one batch; theirs are of {len(query)} and {len(key)}.")
    check_finite(query=query, key=key)


def check_finite(**tensors: Tensor) -> None:
    """ValueError that names the first of the tensors to hold NaN or infinity, unless a graph is recorded."""
    if recording():
        return
    for name, tensor in tensors.items():
        # One pass and no copy: what is not finite stays so in a sum. Half precision is summed in float32.
        total = tensor.detach().sum(dtype=torch.float32 if tensor.element_size() < 4 else None)
        if not math.isfinite(total.item()):
            raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity.")


def check_mask(mask: Tensor, shape: torch.Size, axes: str = "[B, h, q, n]") -> None:
    """ValueError unless mask is bool and broadcasts to `shape`, whose axes are called so."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True where a query may look; its dtype is {mask.dtype}.")
    try:
        fits = mask.expand(shape).shape == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"mask must broadcast to {axes} = {list(shape)}; its shape is {list(mask.shape)}.")
