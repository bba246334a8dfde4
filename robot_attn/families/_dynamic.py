"""The family "dynamic": what it looks for next depends on what it saw, within a frame and over frames."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention._dynamic import DynamicAttention
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.frames import check_context, prepare_frames
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes


class Dynamic(Perception):
    """Attention with a memory: `DynamicAttention` over a grid of patches, `glimpses` looks at each frame.

    A token is a layer of `hidden_dim` units that sees a patch, and the patch's place as x, y, x^2 + y^2, in
    which a look at any place of any width is linear. As a token is read whole, the state knows what was seen
    and where, and can look there again. The features are a linear map, then ReLU, of what the last look read,
    of the state that it left, and of the context. The attention is that of the last look.

    There are three ways to call it, with the same result:

    - `module(frames)` is for policies without memory: each frame is the first of an episode, and only the
      looks at that frame move the attention. It equals `step` without a state.
    - `step` is for a robot: a frame at a time, with the state that the last frame left.
    - `sequence` is for training: T frames at once, with gradients through all of them. It equals T steps.

    No policy here carries its state from step to step yet: trained with `robot-attn train` or as the features
    extractor of Stable-Baselines3, it is called the first way, and remembers nothing from one frame to the
    next. Over frames it works where your own code calls `step` or `sequence`.

    The context enters the state with a frame's last look: it moves the attention from the next frame on.

    features_dim: F. num_heads: how many queries a look has. patch_dim: how many numbers a patch is seen as.
    hidden_dim: numbers of a token, but for its place. state_dim: s. glimpses: looks at each frame. score: a
    name that `robot_attn.build_score` knows. The sources are those of `DynamicAttention`; places joined to
    keys and values are from Mott et al. 2019, https://arxiv.org/abs/1906.02500, section 2, whose basis is one
    of cosines. 2 N S D FLOPs a frame after the patches, and those of `DynamicAttention`.
    """

    good_for: ClassVar[str] = (
        "several looks at a frame, each led by the last; memory over frames, which no policy here carries yet"
    )

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        num_heads: int = 4,
        patch_dim: int = 32,
        hidden_dim: int = 32,
        state_dim: int = 64,
        glimpses: int = 2,
        score: str = "standardized",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(
            features_dim=features_dim,
            num_heads=num_heads,
            patch_dim=patch_dim,
            hidden_dim=hidden_dim,
            state_dim=state_dim,
            glimpses=glimpses,
        )
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        self.hidden = nn.Linear(patch_dim, hidden_dim)
        coordinates = frame_coordinates(self.grid)
        places = torch.cat([coordinates, coordinates.square().sum(0, keepdim=True)]).t()
        self.register_buffer("places", places.contiguous(), persistent=False)
        self.places: Tensor
        self.attention = DynamicAttention(
            hidden_dim + 3,
            state_dim=state_dim,
            num_heads=num_heads,
            glimpses=glimpses,
            context_dim=self.context_dim,
            score=score,
        )
        self.project = nn.Linear(num_heads * (hidden_dim + 3) + state_dim + self.context_dim, features_dim)

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        percept, _ = self._watch(frames[None], None, None if context is None else context[None], None)
        return Percept(percept.features[0], percept.attention[0])

    def step(
        self, frames: Tensor, state: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Percept, Tensor]:
        """Look at the next frame of each of B robots.

        frames, context and the percept: as in `forward`. state: float [B, s], as the last frame left it, or
        None where an episode begins. Returns the percept and the state for the next frame.
        Raises ValueError as `forward` does, and for a state of another shape.
        """
        percept, state = self.sequence(frames[None], state, None if context is None else context[None])
        return Percept(percept.features[0], percept.attention[0]), state

    def sequence(
        self,
        frames: Tensor,
        state: Tensor | None = None,
        context: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Percept, Tensor]:
        """Look at T frames of each of B robots, the same as T calls of `step`.

        frames: [T, B, C, H, W], T of at least 1, as `forward` takes them. state: float [B, s] before the
        first of them, None for the first state. context: float [T, B, context_dim]. starts: bool [T, B],
        True where a frame begins an episode: there the state is the first one.
        Returns features [T, B, F], attention [T, B, heads, rows, cols], and the state [B, s] that the last
        frame left.
        Raises ValueError as `forward` does, and for a state or starts of another shape or dtype.
        """
        if frames.ndim != 5 or len(frames) == 0 or tuple(frames.shape[2:]) != self.image_shape:
            raise ValueError(
                f"frames must be [T, B, {', '.join(map(str, self.image_shape))}] (channel-first) "
                f"with T of at least 1; their shape is {list(frames.shape)}."
            )
        if context is not None and context.shape[:-1] != frames.shape[:2]:
            raise ValueError(
                f"context must be {[*frames.shape[:2], self.context_dim]}, as the frames; "
                f"its shape is {list(context.shape)}."
            )
        dtype = next(self.parameters()).dtype
        flat = prepare_frames(frames.flatten(0, 1), self.image_shape, dtype)
        told = None if context is None else context.flatten(0, 1)
        check_context(told, len(flat), self.context_dim, dtype)
        frames = flat.view(frames.shape)
        return self._watch(frames, state, context if self.context_dim else None, starts)

    def _watch(
        self, frames: Tensor, state: Tensor | None, context: Tensor | None, starts: Tensor | None
    ) -> tuple[Percept, Tensor]:
        """`sequence`, once frames and context are checked."""
        sizes = frames.shape[:2]
        patches = self.patches(frames.flatten(0, 1)).flatten(2).transpose(1, 2)
        hidden = F.relu_(self.hidden(patches))
        tokens = torch.cat([hidden, self.places.expand(hidden.shape[0], -1, -1)], dim=2)
        tokens = tokens.view(*sizes, *tokens.shape[1:])
        looks, states = self.attention(tokens, state, context=context, starts=starts)
        seen = [looks.values[..., -1, :].flatten(2), states]
        if context is not None:
            seen.append(context)
        features = F.relu_(self.project(torch.cat(seen, dim=2)))
        last = looks.weights[..., -1, :]
        return Percept(features, last.reshape(*last.shape[:-1], *self.grid.shape)), states[-1]

    def head_inputs(self) -> HeadInputs:
        raise ValueError("the heads of Dynamic share a state: none can be silenced alone")
