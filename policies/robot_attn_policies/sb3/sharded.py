"""Data parallelism on a CPU: apply a perception to shards of a batch, one Python thread per shard.

torch's own threads split every operation, which gains little for the small operations of a perception. Here
each thread takes its shard through all operations, so the threads synchronise only once.
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
"""Smallest number of frames for which another thread pays off."""


class Sharded:
    """Apply a module to `threads` shards of its input in parallel, as one differentiable call.

    The result is deterministic. It depends on the number of threads, by rounding, but not on their timing.

    Args:
        threads: number of threads, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # torch's number of threads is a setting of each thread.
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, module: nn.Module, observation: Any) -> Tensor:
        """Compute `module(observation)`.

        Args:
            module: maps an observation to features [B, F].
            observation: a tensor [B, ...], or a dict of such tensors.

        Returns:
            Features [B, F]. Without gradients, or with a small batch, the module is simply called.
        """
        batch = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        count = min(self._threads, batch // SMALLEST_SHARD)
        if count <= 1 or not torch.is_grad_enabled():
            features: Tensor = module(observation)
            return features
        edges = [batch * i // count for i in range(count + 1)]
        shards = [_rows(observation, start, stop) for start, stop in itertools.pairwise(edges)]
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        joined: Tensor = _Shards.apply(self._map, module, shards, *parameters)  # type: ignore[no-untyped-call]
        return joined

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
        # Gradients are disabled in this thread only: each thread of the pool records its own graph.
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
        # Summed in the order of the shards, whichever finished first.
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
