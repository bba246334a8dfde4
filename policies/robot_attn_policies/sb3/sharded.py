"""A perception over the shards of a batch, a Python thread each, as one differentiable call.

torch's own threads split each operation, which for the small operations of a perception on a CPU costs about
what it gains. Threads that each take a share of the batch through all of them wait for each other once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALLEST_SHARD = 32
"""Frames for which another thread is worth its while."""


class Sharded:
    """Calls a module on `threads` shards of its input at once.

    The result is deterministic: of the threads only their number has a part in it, by rounding.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # torch's number of threads belongs to the thread that sets it.
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, module: nn.Module, observation: Any) -> Tensor:
        """`module(observation)`, a tensor [B, F]; observation is a tensor [B, ...] or a dict of such."""
        batch = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        count = min(self._threads, batch // SMALLEST_SHARD)
        if count <= 1 or not torch.is_grad_enabled():
            features: Tensor = module(observation)
            return features
        edges = [batch * i // count for i in range(count + 1)]
        shards = [_rows(observation, start, stop) for start, stop in itertools.pairwise(edges)]
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        seen: Tensor = _Shards.apply(self._map, module, shards, *parameters)  # type: ignore[no-untyped-call]
        return seen

    def _map(self, work: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        return list(self._pool.map(work, *arguments))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()


class _Shards(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., list[Any]], module: nn.Module, shards: Sequence[Any], *parameters: Tensor
    ) -> Tensor:
        # The threads of the pool record a graph each: gradients are off in this thread alone.
        ctx.run, ctx.outputs, ctx.parameters = run, run(module, shards), parameters
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        def backward(output: Tensor, part: Tensor) -> tuple[Tensor | None, ...]:
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                output, ctx.parameters, part, allow_unused=True
            )
            return found

        parts = torch.split(gradient, [len(output) for output in ctx.outputs])
        gradients = ctx.run(backward, ctx.outputs, parts)
        ctx.outputs = None
        # Summed in the order of the shards, whichever came first.
        return None, None, None, *map(_sum, zip(*gradients, strict=True))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    total: Tensor | None = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total


def _rows(observation: Any, start: int, stop: int) -> Any:
    if isinstance(observation, dict):
        return {key: value[start:stop] for key, value in observation.items()}
    return observation[start:stop]
