"""Uses of private interfaces of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def transforming() -> bool:
    """Whether a transform of `torch.func` (vmap, grad, jvp, ...) is active.

    torch has no public function for this. In a version of torch without the private one the result is False:
    then only `torch.func` over a perception module fails, so the supported range of torch is not limited.
    """
    functorch = getattr(torch._C, "_functorch", None)
    peek = getattr(functorch, "peek_interpreter_stack", None)
    return peek is not None and peek() is not None


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called, so that calls of the module run a compiled graph."""
    return getattr(module, "_compiled_call_impl", None) is not None


@contextmanager
def after_each_operation(replace: Callable[[list[Tensor], Tensor], Tensor]) -> Iterator[None]:
    """Replace the outputs of torch's operations while the context is active, in this thread.

    Attention is not fused with the projections around it, so that its weights are an operation's output where
    the caller asked for them.

    Args:
        replace: called with an operation's tensors and each of its outputs; returns what to use in its place.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _AfterEachOperation(replace):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class _AfterEachOperation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, replace: Callable[[list[Tensor], Tensor], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.replace = replace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        inputs = list(_tensors([args, kwargs]))
        if isinstance(outputs, tuple | list):
            return type(outputs)(
                self.replace(inputs, each) if isinstance(each, Tensor) else each for each in outputs
            )
        return self.replace(inputs, outputs) if isinstance(outputs, Tensor) else outputs


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in an operation's arguments, which may be in lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
