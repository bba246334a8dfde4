"""The face that every family of perception modules shows."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from robot_attn.frames import check_context, check_image_shape, prepare_frames
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept


class Perception(nn.Module):
    """Frames [B, C, H, W] (and a context [B, context_dim]) -> Percept: features, and where it looked.

    The base of every family, which sets `features_dim`, `num_heads` and `grid`, and writes `perceive`.

    image_shape: (channels, height, width), height and width from 32 to 512 pixels.
    context_dim: numbers a frame comes with (joint positions, a goal); 0 for none. They enter the features.
    """

    uniform: ClassVar[bool] = False
    """True where the attention says nothing: it is the same over the whole frame, whatever the frame."""

    good_for: ClassVar[str] = ""
    """When to take this family, in a few words: a column of `robot-attn families`."""

    reads_tokens: ClassVar[bool] = False
    """True where, with the option `instruction=None`, the context ends in the tokens of an instruction."""

    features_dim: int
    num_heads: int
    grid: AttentionGrid
    """Where the cells of its attention lie in a frame of (H, W) pixels."""

    def __init__(self, image_shape: tuple[int, int, int], context_dim: int = 0) -> None:
        super().__init__()
        check_context_dim(context_dim)
        self.image_shape = check_image_shape(image_shape)
        self.context_dim = int(context_dim)

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Percept:
        """Look at frames: uint8 [B, C, H, W], or float (the module's dtype) in [0, 1].

        context: float [B, context_dim]; None where the module was built with none.
        Returns features [B, features_dim] and attention [B, heads, *grid.shape].
        Raises ValueError for frames or a context of another shape or dtype, or that are not finite. Values
        are not checked while a graph is recorded (compile, export, trace) or a function is transformed
        (`torch.func`).
        """
        dtype = next(self.parameters()).dtype
        frames = prepare_frames(frames, self.image_shape, dtype)
        check_context(context, frames.shape[0], self.context_dim, dtype)
        return self.perceive(frames, context if self.context_dim else None)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, frames: Tensor, context: Tensor | None = None) -> Percept: ...

    @abstractmethod
    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        """`forward`, once all is checked: frames are float [B, C, H, W] in [0, 1], contiguous.

        context is [B, context_dim], or None where context_dim is 0.
        """

    def head_inputs(self) -> HeadInputs:
        """What each head hands to the layer that features are made in, so that a head can be ablated alone.

        A family with several heads overrides it: those that end in a `Readout` return its `head_inputs()`.
        Without it explanations leave out what each head carries.

        Raises:
            ValueError: there is one head, or what the heads hand on cannot be told apart.
        """
        name = type(self).__name__
        if self.num_heads == 1:
            raise ValueError(f"{name} has one head: there are no others that could do without it")
        raise ValueError(
            f"{name} does not tell its {self.num_heads} heads apart: override head_inputs to ablate one alone"
        )


def is_whole_number(value: object) -> bool:
    """Whether a value is a whole number, of Python or of NumPy; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_context_dim(context_dim: int) -> None:
    """ValueError unless context_dim is a whole number of at least 0."""
    if not is_whole_number(context_dim) or context_dim < 0:
        raise ValueError(f"context_dim must be a whole number of at least 0; it is {context_dim!r}.")


def check_sizes(**sizes: int) -> None:
    """ValueError unless each of a family's options is a whole number of at least 1."""
    for name, size in sizes.items():
        if not is_whole_number(size) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; it is {size!r}.")
