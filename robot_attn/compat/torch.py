"""Uses of private interfaces of torch."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """Whether a transform of `torch.func` (vmap, grad, jvp, ...) is active.

    torch has no public function for this. In a version of torch without the private one the result is False:
    then only `torch.func` over a perception module fails, so the supported range of torch is not limited.
    """
    functorch = getattr(torch._C, "_functorch", None)
    peek = getattr(functorch, "peek_interpreter_stack", None)
    return peek is not None and peek() is not None
