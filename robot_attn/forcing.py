"""Force a module's attention weights inside its forward pass, to see what depends on them.

Jain & Wallace 2019, https://arxiv.org/abs/1902.10186, ask whether other attention weights would give the
same output. Vig et al. 2020, https://arxiv.org/abs/2004.12265, hold a part of a network at the value that it
has for another input, and so measure how much of the input's effect passes through it. A map that decides
changes the features when it is forced. A map that is only shown does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from robot_attn.compat.torch import after_each_operation, is_compiled
from robot_attn.frames import recording
from robot_attn.percept import Percept

if TYPE_CHECKING:
    from robot_attn.perception import Perception

__all__ = ["Change", "Forcing", "Point", "forceable"]

Change: TypeAlias = Callable[[Tensor], Tensor]
"""Attention weights [B, heads, rows, cols] that a module computed -> those that it uses instead."""
Point: TypeAlias = Literal["declared", "found", "none"]

TOLERANCE = 1e-5
"""Largest difference, relative to a map's maximum, of two tensors that hold the same map."""


@dataclass
class Forcing:
    """What `Perception.attention_forced` did so far.

    Attributes:
        passes: number of forward passes whose weights were forced.
        point: where: "declared" by the module, by `forceable`; "found" as the output of operations with the
            values of the map; "none" where no operation of the forward pass has them, so that nothing could
            be forced; None before the first pass.
        weights: float [B, heads, rows, cols], what the module computed in the last pass, detached; None
            before.
    """

    change: Change = field(repr=False)
    passes: int = 0
    point: Point | None = None
    weights: Tensor | None = field(default=None, repr=False)


@dataclass
class _Pass:
    """One forward pass of a module whose attention is forced."""

    module: Perception
    forcing: Forcing
    batch: int
    maps_left: int


_FORCINGS: ContextVar[Mapping[int, tuple[Perception, Forcing]]] = ContextVar(
    "_FORCINGS", default=MappingProxyType({})
)
"""The forcings that are active in this thread, by the id of the module."""
_PASS: ContextVar[_Pass | None] = ContextVar("_PASS", default=None)
"""The forward pass that runs in this thread, if its attention is forced."""


def forceable(weights: Tensor) -> Tensor:
    """Declare the attention weights with which a module computes its features, so that they can be forced.

    A family calls it once in `perceive`, on the weights that its map shows, and goes on with what it returns:

        weights = forceable(weights)

    Args:
        weights: float, the weights in any shape that holds [B, heads, rows, cols] in this order.

    Returns:
        `weights` itself, or what `Perception.attention_forced` puts in its place, of the same shape.

    Raises:
        ValueError: forced weights of another shape or dtype, or that are no distribution; a shape that is not
            that of the module's map; or a second call in one forward pass.
    """
    if (
        torch.compiler.is_compiling()
    ):  # a compiled graph cannot ask; `attention_forced` refuses a compiled module
        return weights
    running = _PASS.get()
    if running is None:
        return weights
    name = type(running.module).__name__
    if running.maps_left == 0:
        raise ValueError(
            f"expected {name} to declare its attention weights once in a forward pass, got a second call of "
            "forceable: declare those that the map shows"
        )
    running.maps_left -= 1
    shape = (running.batch, running.module.num_heads, *running.module.grid.shape)
    if weights.numel() != math.prod(shape):
        raise ValueError(
            f"expected attention weights {list(shape)} of {name}, in any shape, got {list(weights.shape)}: "
            "declare one weight for each cell of the map"
        )
    running.forcing.point = "declared"
    return _changed(running.forcing, weights.reshape(shape)).reshape(weights.shape)


@contextmanager
def forced(module: Perception, change: Change) -> Iterator[Forcing]:
    """Force the attention of a module while the context is active; see `Perception.attention_forced`."""
    name = type(module).__name__
    if module.uniform:
        raise ValueError(
            f"expected a module with attention weights, got {name}, whose map is uniform whatever the frame: "
            "there is nothing to force"
        )
    if is_compiled(module):
        raise ValueError(
            f"expected {name} as it was built, got it compiled: force the attention before compile()"
        )
    if id(module) in _FORCINGS.get():
        raise ValueError(f"expected a module whose attention is not forced, got {name} with forced attention")
    forcing = Forcing(change)
    token = _FORCINGS.set({**_FORCINGS.get(), id(module): (module, forcing)})
    try:
        yield forcing
    finally:
        _FORCINGS.reset(token)


@contextmanager
def forced_pass(module: Perception, batch: int, maps: int = 1) -> Iterator[Forcing | None]:
    """Run a forward pass of a module in this context, so that its weights are forced if they are to be.

    Args:
        module: the module.
        batch: B, number of frames whose weights it declares at a time.
        maps: how often it does so.

    Yields:
        The forcing; None if this module's attention is not forced.
    """
    _, forcing = _FORCINGS.get().get(id(module), (module, None))
    # Within a pass of another module, what this one declares is not that one's.
    token = _PASS.set(None if forcing is None else _Pass(module, forcing, batch, maps))
    try:
        yield forcing
    finally:
        _PASS.reset(token)


def run_forced(module: Perception, perceive: Callable[[], Percept], batch: int) -> Percept:
    """Run `perceive`, the forward pass of a module, with its attention forced, if it is to be."""
    state = torch.get_rng_state()
    with forced_pass(module, batch) as forcing:
        passes = 0 if forcing is None else forcing.passes
        percept = perceive()
    if forcing is None or forcing.passes > passes:
        return percept
    # The random numbers of the first pass are those of the second, and torch's state moves on as by one.
    torch.set_rng_state(state)
    return _replaced(forcing, percept, perceive)


def is_forced() -> bool:
    """Whether any module's attention is forced in this thread."""
    return not torch.compiler.is_compiling() and bool(_FORCINGS.get())


def _changed(forcing: Forcing, weights: Tensor) -> Tensor:
    """Return what is used in place of the weights [B, heads, rows, cols]."""
    forcing.passes += 1
    forcing.weights = weights.detach()
    changed = forcing.change(weights)
    if not isinstance(changed, Tensor) or changed.shape != weights.shape or changed.dtype != weights.dtype:
        got = (
            f"{changed.dtype} {list(changed.shape)}"
            if isinstance(changed, Tensor)
            else type(changed).__name__
        )
        raise ValueError(
            f"expected forced attention {weights.dtype} {list(weights.shape)}, got {got}: return a tensor "
            "like the one given"
        )
    if changed is weights or recording():
        return changed
    total = changed.sum(dim=(2, 3))
    # Half precision sums up to a cell's rounding, whatever the number of cells.
    if not bool((changed >= 0).all()) or not bool(((total - 1).abs() <= 1e-2).all()):
        raise ValueError(
            "expected forced attention of at least 0 with sum 1 over the cells of each map, got other "
            "numbers: divide each map by its sum"
        )
    return changed


def _replaced(forcing: Forcing, percept: Percept, perceive: Callable[[], Percept]) -> Percept:
    """Run the forward pass again, with the forced weights wherever an operation returns those of the map.

    The forward pass is without gradients, since an operation whose output was replaced has none.
    """
    shown = percept.attention.detach()
    target = _changed(forcing, shown).detach().flatten(2)
    found = False
    created: set[int] = set()
    outputs: list[Tensor] = []  # kept, so that no memory is used twice

    def replace(inputs: list[Tensor], output: Tensor) -> Tensor:
        nonlocal found
        outputs.append(output)
        address = output.untyped_storage().data_ptr()
        if address not in {each.untyped_storage().data_ptr() for each in inputs}:
            created.add(address)
        rows = _Rows.of(output, shown.flatten(2))
        if rows is None:
            return output
        found = True
        # In place, so that views of the same memory change too; but never a parameter or a buffer.
        inside = output if address in created else output.clone()
        rows.write(inside, target)
        return inside

    with torch.no_grad(), after_each_operation(replace):
        percept = perceive()
    forcing.point = "found" if found else "none"
    return percept


@dataclass(frozen=True)
class _Rows:
    """Where a tensor holds maps [B, h, n]: its axes are batch, heads and cells, or batch, cells and heads."""

    same: Tensor
    """bool [h, H], for each map and each of the tensor's H rows, whether they are equal."""
    cells_last: bool

    @classmethod
    def of(cls, tensor: Tensor, maps: Tensor) -> _Rows | None:
        """Find the maps in a tensor; None if they are not all there."""
        (batch, _, count), size = maps.shape, tensor.numel()
        if tensor.dtype != maps.dtype or size < maps.numel() or size % (batch * count):
            return None
        tolerance = TOLERANCE * float(maps.max())
        for cells_last in (True, False):
            rows = _as_rows(tensor, batch, count, cells_last)
            if rows is None:
                continue
            same = torch.stack(
                [((rows - each[:, None]).abs() <= tolerance).all(dim=2).all(dim=0) for each in maps.unbind(1)]
            )
            if bool(same.any(dim=1).all()):
                return cls(same, cells_last)
        return None

    def write(self, tensor: Tensor, maps: Tensor) -> None:
        """Put other maps [B, h, n] where those are."""
        rows = _as_rows(tensor, maps.shape[0], maps.shape[2], self.cells_last)
        assert rows is not None
        for same, each in zip(self.same, maps.unbind(1), strict=True):
            rows[:, same] = each[:, None]


def _as_rows(tensor: Tensor, batch: int, count: int, cells_last: bool) -> Tensor | None:
    """View a tensor as [batch, rows, count]; None if its memory has another order."""
    try:
        return tensor.view(batch, -1, count) if cells_last else tensor.view(batch, count, -1).transpose(1, 2)
    except RuntimeError:
        return None
