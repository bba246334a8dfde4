"""What each head of a perception hands to its last layer, so that a head can be read and ablated alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class HeadInputs:
    """What each head hands to the decision: which inputs of a perception's last layer come from it.

    Args:
        layer: the linear layer that makes features of what the heads have read.
        columns: for each head, the places of its numbers among the layer's inputs.

    Raises:
        ValueError: fewer than two heads, or columns that the layer does not have.
    """

    layer: nn.Linear
    columns: tuple[tuple[int, ...], ...]
    """Of each head: its values, then its expected place."""

    def __post_init__(self) -> None:
        if len(self.columns) < 2:
            raise ValueError("the family has one head: there are no others that could do without it")
        largest = max((column for columns in self.columns for column in columns), default=-1)
        if largest >= self.layer.in_features:
            raise ValueError(
                f"expected columns below the layer's {self.layer.in_features} inputs, got {largest}: name "
                "those that each head fills"
            )

    @classmethod
    def values_then_places(cls, layer: nn.Linear, num_heads: int, size: int) -> HeadInputs:
        """Those of a layer that reads the values of all heads, then their places, then what is no head's.

        Args:
            layer: the layer.
            num_heads: how many heads.
            size: numbers of a head's value; its place is two more, x and y.

        Raises:
            ValueError: fewer than two heads, or more inputs than the layer has.
        """
        places = num_heads * size
        return cls(
            layer,
            tuple(
                (*range(head * size, (head + 1) * size), places + 2 * head, places + 2 * head + 1)
                for head in range(num_heads)
            ),
        )

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Collects the layer's inputs, [B, inputs] a call, while the context lasts."""
        seen: list[Tensor] = []

        def watch(_: nn.Module, inputs: tuple[Tensor]) -> None:
            seen.append(inputs[0].detach().clone())

        handle = self.layer.register_forward_pre_hook(watch)
        try:
            yield seen
        finally:
            handle.remove()

    @contextmanager
    def silenced(self, heads: Iterable[int], usual: Tensor) -> Iterator[None]:
        """While the context lasts, these heads hand on what is in `usual` [inputs], whatever the frame."""
        columns = [column for head in heads for column in self.columns[head]]

        def ablate_heads(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            changed = inputs[0].clone()
            changed[:, columns] = usual[columns]
            return (changed,)

        handle = self.layer.register_forward_pre_hook(ablate_heads)
        try:
            yield
        finally:
            handle.remove()
