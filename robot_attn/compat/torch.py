"""The private parts of torch that are needed, under public names."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """Whether a transform of `torch.func` (vmap, grad, jvp, ...) is at work on what is computed now."""
    return torch._C._functorch.peek_interpreter_stack() is not None
