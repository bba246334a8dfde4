"""The face that every family of perception modules shows."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from robot_attn._frames import check_context, check_frames, check_image_shape, to_float
from robot_attn._percept import Percept


class Perception(nn.Module):
    """Frames [B, C, H, W] (and a context [B, context_size]) -> Percept: features, and where it looked.

    The base of every family, which sets `features_size`, `heads` and `attention_grid`, and writes `perceive`
    and `token_centers`.

    image_shape: (channels, height, width), height and width from 32 to 512 pixels.
    context_size: numbers a frame comes with (joint positions, a goal); 0 for none. They enter the features.
    """

    uniform: ClassVar[bool] = False
    """True where the attention says nothing: it is the same over the whole frame, whatever the frame."""

    good_for: ClassVar[str] = ""
    """When to take this family, in a few words: a column of `robot-attn families`."""

    reads_tokens: ClassVar[bool] = False
    """True where, with the option `instruction=None`, the context ends in the tokens of an instruction."""

    features_size: int
    heads: int
    attention_grid: tuple[int, int]

    def __init__(self, image_shape: tuple[int, int, int], context_size: int = 0) -> None:
        super().__init__()
        check_context_size(context_size)
        self.image_shape = check_image_shape(image_shape)
        self.context_size = context_size

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Percept:
        """Look at frames: uint8 [B, C, H, W], or float (the module's dtype) in [0, 1].

        context: float [B, context_size]; None where the module was built with none.
        Returns features [B, features_size] and attention [B, heads, *attention_grid].
        Raises ValueError for frames or a context of another shape or dtype, or that are not finite.
        """
        dtype = next(self.parameters()).dtype
        check_frames(frames, self.image_shape, dtype)
        check_context(context, frames.shape[0], self.context_size, dtype)
        if frames.dtype == torch.uint8:
            frames = to_float(frames, dtype)
        return self.perceive(frames, context if self.context_size else None)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, frames: Tensor, context: Tensor | None = None) -> Percept: ...

    @abstractmethod
    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        """`forward`, once all is checked: frames are float [B, C, H, W] in [0, 1].

        context is [B, context_size], or None where context_size is 0.
        """

    @abstractmethod
    def token_centers(self) -> tuple[Tensor, Tensor]:
        """Where the cells of `attention` look: ys float32 [rows], xs float32 [cols], in pixels, rising.

        0 is the centre of the first pixel, so the frame spans -0.5 to H - 0.5 and -0.5 to W - 0.5.
        """


def check_context_size(context_size: int) -> None:
    """ValueError unless context_size is a whole number of at least 0."""
    if isinstance(context_size, bool) or not isinstance(context_size, int) or context_size < 0:
        raise ValueError(f"context_size must be a whole number of at least 0; it is {context_size!r}.")


def check_sizes(**sizes: int) -> None:
    """ValueError unless each of a family's options is a whole number of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; it is {size!r}.")
