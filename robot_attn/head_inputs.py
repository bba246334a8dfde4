"""Contribution of each head to the last layer of a perception module, for ablating single heads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class HeadInputs:
    """Contribution of each head: the inputs of the module's last linear layer that come from it.

    Args:
        layer: the linear layer that computes the features from all heads.
        columns: for each head, the indices of its numbers among the layer's inputs.

    Raises:
        ValueError: fewer than two heads, or an index beyond the layer's inputs.
    """

    layer: nn.Linear
    columns: tuple[tuple[int, ...], ...]
    """For each head, the indices of its values, then of its expected position."""

    def __post_init__(self) -> None:
        if len(self.columns) < 2:
            raise ValueError(f"expected at least two heads to ablate one, got {len(self.columns)}")
        largest = max((column for columns in self.columns for column in columns), default=-1)
        if largest >= self.layer.in_features:
            raise ValueError(
                f"expected columns below the layer's {self.layer.in_features} inputs, got {largest}: name "
                "those that each head fills"
            )

    @classmethod
    def values_then_places(cls, layer: nn.Linear, num_heads: int, size: int) -> HeadInputs:
        """Columns of a layer whose inputs are the values of all heads, then their positions, then others.

        Args:
            layer: the linear layer.
            num_heads: number of heads.
            size: dimension of a head's value; its position (x, y) has two more numbers.

        Raises:
            ValueError: fewer than two heads, or an index beyond the layer's inputs.
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
    def recorded(self) -> Iterator[list[Tensor]]:
        """Record the layer's inputs, float [B, inputs] per call, while the context is active."""
        recorded: list[Tensor] = []

        def record(_: nn.Module, inputs: tuple[Tensor]) -> None:
            recorded.append(inputs[0].detach().clone())

        handle = self.layer.register_forward_pre_hook(record)
        try:
            yield recorded
        finally:
            handle.remove()

    @contextmanager
    def ablated(self, heads: Iterable[int], mean: Tensor) -> Iterator[None]:
        """Ablate heads while the context is active: replace their inputs by the constants in `mean`.

        Args:
            heads: indices of the heads.
            mean: float [inputs], replacement values of the layer's inputs, such as their mean over many
                frames.
        """
        columns = [column for head in heads for column in self.columns[head]]

        def ablate_heads(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            changed = inputs[0].clone()
            changed[:, columns] = mean[columns]
            return (changed,)

        handle = self.layer.register_forward_pre_hook(ablate_heads)
        try:
            yield
        finally:
            handle.remove()
