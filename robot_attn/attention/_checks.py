"""Input checks shared by the attention mechanisms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robot_attn.frames import recording


def check_attention(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check that query [B, h, q, d], key [B, h, n, e] and value [B, h, n, v] are compatible.

    Keys and values may be shared by the heads, [B, 1, n, .].

    Raises:
        ValueError: incompatible shapes, no key (n = 0), or non-finite numbers.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(f"expected {name} [batch, heads, tokens, dim], got shape {list(tensor.shape)}")
    batch, heads = query.shape[:2]
    shared = all(tensor.shape[0] == batch and tensor.shape[1] in (1, heads) for tensor in (key, value))
    if not shared or key.shape[2] != value.shape[2]:
        raise ValueError(
            "expected query [B, h, q, d], key [B, h, n, d] and value [B, h, n, v] that agree on B, h (or 1) "
            f"and n, got shapes {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    if key.shape[2] == 0:
        raise ValueError(f"expected at least 1 key, got key of shape {list(key.shape)}")
    check_finite(query=query, key=key, value=value)


def check_tokens(query: Tensor, key: Tensor) -> None:
    """Check that query [B, q, d] and key [B, n, d], of a single head, are compatible.

    Raises:
        ValueError: another rank, no token, different batches, or non-finite numbers.
    """
    for name, tokens in (("query", query), ("key", key)):
        if tokens.ndim != 3 or tokens.shape[1] == 0:
            raise ValueError(
                f"expected {name} [B, n, d] with at least 1 token, got shape {list(tokens.shape)}"
            )
    if len(query) != len(key):
        raise ValueError(f"expected query and key of the same batch size, got {len(query)} and {len(key)}")
    check_finite(query=query, key=key)


def check_finite(**tensors: Tensor) -> None:
    """Check that all tensors hold finite numbers; skipped while a graph is recorded (compile, export, trace).

    Raises:
        ValueError: a tensor holds NaN or infinity; the message names the first such tensor.
    """
    if recording():
        return
    for name, tensor in tensors.items():
        # One pass and no copy: a sum over NaN or infinity is not finite. Half precision is summed in float32.
        total = tensor.detach().sum(dtype=torch.float32 if tensor.element_size() < 4 else None)
        if not math.isfinite(total.item()):
            raise ValueError(
                f"expected {name} of finite numbers, got NaN or infinity: check what computes it"
            )


def check_mask(mask: Tensor, shape: torch.Size, axes: str = "[B, h, q, n]") -> None:
    """Check that mask is bool and broadcasts to `shape`; `axes` names the axes in the error message.

    Raises:
        ValueError: another dtype, or a shape that does not broadcast.
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"expected mask of bool, True where a query may attend, got {mask.dtype}: convert it by "
            "mask.bool()"
        )
    try:
        fits = mask.expand(shape).shape == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"expected mask that broadcasts to {axes} = {list(shape)}, got shape {list(mask.shape)}"
        )
