"""The base class of all perception modules."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from robot_attn.forcing import Change, Forcing, forced, is_forced, run_forced
from robot_attn.frames import check_context, check_image_shape, prepare_frames
from robot_attn.head_inputs import HeadInputs
from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept


class Perception(nn.Module):
    """Base class of perception modules: frames [B, C, H, W] and an optional context -> `Percept`.

    A family sets `features_dim`, `num_heads` and `grid` in its constructor and implements `perceive`.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context that comes with each frame (joint positions, a goal), 0 for
            none. The context enters the features.

    Attributes:
        features_dim: F, dimension of the features.
        num_heads: number of attention maps.

    Raises:
        ValueError: an image_shape or context_dim out of range.
    """

    uniform: ClassVar[bool] = False
    """True if the attention is uniform whatever the frame, and so carries no information."""

    good_for: ClassVar[str] = ""
    """When to use this family, in a few words; a column of `robot-attn families`."""

    reads_tokens: ClassVar[bool] = False
    """True if, with the option `instruction=None`, the context ends in the token ids of an instruction."""

    features_dim: int
    num_heads: int
    grid: AttentionGrid
    """Positions of the attention's cells in a frame of (H, W) pixels."""

    def __init__(self, image_shape: tuple[int, int, int], context_dim: int = 0) -> None:
        super().__init__()
        check_context_dim(context_dim)
        self.image_shape = check_image_shape(image_shape)
        self.context_dim = int(context_dim)

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Percept:
        """Compute features and attention maps.

        Args:
            frames: uint8 [B, C, H, W] in [0, 255], or float of the module's dtype in [0, 1].
            context: float [B, context_dim] of the module's dtype; None for a module without context.

        Returns:
            Features [B, features_dim] and attention [B, heads, *grid.shape].

        Raises:
            ValueError: frames or a context of another shape or dtype, out of range or not finite. Values are
                not checked while a graph is recorded (compile, export, trace) or a function is transformed
                (`torch.func`).
        """
        dtype = next(self.parameters()).dtype
        frames = prepare_frames(frames, self.image_shape, dtype)
        check_context(context, frames.shape[0], self.context_dim, dtype)
        context = context if self.context_dim else None
        if is_forced():
            return run_forced(self, lambda: self.perceive(frames, context), frames.shape[0])
        return self.perceive(frames, context)

    if TYPE_CHECKING:  # nn.Module's own __call__ returns Any

        def __call__(self, frames: Tensor, context: Tensor | None = None) -> Percept: ...

    @abstractmethod
    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        """Compute the percept of checked inputs; the method that a family implements.

        Args:
            frames: float [B, C, H, W] in [0, 1], a channel-first view of [B, H, W, C] memory: torch's
                `channels_last`, which `flatten` and `reshape` take and `view` does not.
            context: float [B, context_dim], or None where context_dim is 0.

        Returns:
            Features [B, features_dim] and attention [B, heads, *grid.shape].
        """

    def attention_forced(self, change: Change) -> AbstractContextManager[Forcing]:
        """Force the attention weights in every forward pass of this module while the context is active.

        It shows whether the features depend on the map:

            with perception.attention_forced(lambda weights: weights.flip(2)):
                mirrored = perception(frames)

        The weights that the module declares by `robot_attn.forceable` are replaced, and all that depends on
        them is computed from the new ones. In a module that declares none, the outputs of all operations that
        have the map's values are replaced, in a forward pass without gradients. If there are none, or if the
        features do not depend on them, the map has no path to the features, and they stay as they are. A map
        that is computed from the weights only for display needs the declaration.

        Other threads, and other modules, are not affected.

        Args:
            change: maps the weights that the module computed, float [B, heads, rows, cols], to those that it
                uses: a tensor of the same shape and dtype, at least 0, with sum 1 for each head. It is called
                once in a forward pass.

        Returns:
            A context manager that gives a `Forcing`: what was forced, and where.

        Raises:
            ValueError: a family whose map is uniform, a module that is compiled or whose attention is forced
                already; from the forward pass, what `forceable` raises.
        """
        return forced(self, change)

    def head_inputs(self) -> HeadInputs:
        """Describe what each head contributes to the last layer, so that single heads can be ablated.

        A family with several heads overrides it; families that end in a `Readout` return its `head_inputs()`.
        Without it, explanations omit the contribution of each head.

        Raises:
            ValueError: a family with a single head, or whose heads' contributions cannot be separated.
        """
        name = type(self).__name__
        if self.num_heads == 1:
            raise ValueError(f"expected a family with at least two heads to ablate one, got {name} with one")
        raise ValueError(
            f"expected {name} to separate its {self.num_heads} heads, got no head_inputs: override it to "
            "ablate one"
        )


def is_whole_number(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy; bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_context_dim(context_dim: int) -> None:
    """Check that context_dim is a whole number of at least 0.

    Raises:
        ValueError: it is not.
    """
    if not is_whole_number(context_dim) or context_dim < 0:
        raise ValueError(f"expected context_dim as a whole number of at least 0, got {context_dim!r}")


def check_sizes(**sizes: int) -> None:
    """Check that each option is a whole number of at least 1.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, size in sizes.items():
        if not is_whole_number(size) or size < 1:
            raise ValueError(f"expected {name} as a whole number of at least 1, got {size!r}")
