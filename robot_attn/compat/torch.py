"""The private parts of torch that are needed, under public names."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """Whether a transform of `torch.func` (vmap, grad, jvp, ...) is active.

    torch has no public way to tell. Where a version of torch lacks the private one, the answer is False: only
    `torch.func` over a perception then fails, so the supported range of torch is not limited by this.
    """
    functorch = getattr(torch._C, "_functorch", None)
    peek = getattr(functorch, "peek_interpreter_stack", None)
    return peek is not None and peek() is not None
