"""The family "dynamic": recurrent attention, whose queries depend on earlier glimpses and frames."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention._dynamic import DynamicAttention
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.forcing import forceable, forced_pass, is_forced
from robot_attn.frames import check_context, prepare_frames
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes


class Dynamic(Perception):
    """Recurrent attention, `DynamicAttention`, over a grid of patches with `glimpses` glimpses per frame.

    A token is a hidden layer of `hidden_dim` units over a patch, and the patch's position as x, y, x^2 + y^2,
    with which attention to any place of any width is linear in the token. Tokens are read whole, so the state
    has both content and position of what was attended, and can attend there again. The features are a linear
    map, then ReLU, of the values of the last glimpse, the state after it, and the context. The attention is
    that of the last glimpse.

    There are three ways to call it, with the same result:

    - `module(frames)`, for policies without memory: each frame is the first of an episode, and only the
      glimpses at that frame influence the attention. It equals `step` without a state.
    - `step`, for a robot: one frame at a time, with the state after the previous frame.
    - `sequence`, for training: T frames at once, with gradients through all of them. It equals T steps.

    No policy of this project carries the state from step to step yet: trained with `robot-attn train` or as
    the features extractor of Stable-Baselines3, the module is called the first way and has no memory of
    earlier frames. It has one where your own code calls `step` or `sequence`.

    The context enters the state with the last glimpse at a frame, so it influences the attention from the
    next frame on.

    The sources are those of `DynamicAttention`; positions concatenated to keys and values are from Mott et
    al. 2019, https://arxiv.org/abs/1906.02500, section 2, which uses a basis of cosines. Cost: 2 N S D FLOPs
    per frame after the patches, and those of `DynamicAttention`.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: number of queries per glimpse.
        patch_dim: S, dimension of a patch embedding.
        hidden_dim: D, dimension of a token without its position.
        state_dim: s, dimension of the recurrent state.
        glimpses: number of glimpses per frame.
        score: a name that `robot_attn.build_score` accepts.

    Raises:
        ValueError: an image_shape or size out of range, or an unknown score.
    """

    good_for: ClassVar[str] = (
        "several glimpses per frame, each guided by the last; no policy here uses its memory yet"
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
        percept, _ = self._run(frames[None], None, None if context is None else context[None], None)
        return Percept(percept.features[0], percept.attention[0])

    def step(
        self, frames: Tensor, state: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Percept, Tensor]:
        """Process the next frame of each of B robots.

        Args:
            frames: as in `forward`.
            state: float [B, s] after the previous frame, or None at the beginning of an episode.
            context: as in `forward`.

        Returns:
            The percept, and the state [B, s] for the next frame.

        Raises:
            ValueError: as `forward`, or a state of another shape.
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
        """Process T frames of each of B robots; equal to T calls of `step`.

        Args:
            frames: [T, B, C, H, W], T of at least 1, otherwise as in `forward`.
            state: float [B, s] before the first frame, or None for the initial state.
            context: float [T, B, context_dim], or None where context_dim is 0.
            starts: bool [T, B], True where an episode begins: the state is reset to the initial one there.

        Returns:
            Features [T, B, F] and attention [T, B, heads, rows, cols]; and the state [B, s] after the last
            frame.

        Raises:
            ValueError: as `forward`, or a state or starts of another shape or dtype.
        """
        if frames.ndim != 5 or len(frames) == 0 or tuple(frames.shape[2:]) != self.image_shape:
            raise ValueError(
                f"expected frames [T, B, {', '.join(map(str, self.image_shape))}] (channel-first) "
                f"with T of at least 1, got shape {list(frames.shape)}"
            )
        if context is not None and context.shape[:-1] != frames.shape[:2]:
            raise ValueError(
                f"expected context {[*frames.shape[:2], self.context_dim]}, as the frames, "
                f"got shape {list(context.shape)}"
            )
        dtype = next(self.parameters()).dtype
        flat = prepare_frames(frames.flatten(0, 1), self.image_shape, dtype)
        flat_context = None if context is None else context.flatten(0, 1)
        check_context(flat_context, len(flat), self.context_dim, dtype)
        frames = flat.view(frames.shape)
        context = context if self.context_dim else None
        if is_forced():
            with forced_pass(self, frames.shape[1], len(frames)):
                return self._run(frames, state, context, starts)
        return self._run(frames, state, context, starts)

    def _run(
        self, frames: Tensor, state: Tensor | None, context: Tensor | None, starts: Tensor | None
    ) -> tuple[Percept, Tensor]:
        """Compute the percept of checked frames and context; see `sequence`."""
        sizes = frames.shape[:2]
        patches = self.patches(frames.flatten(0, 1)).flatten(2).transpose(1, 2)
        hidden = F.relu_(self.hidden(patches))
        tokens = torch.cat([hidden, self.places.expand(hidden.shape[0], -1, -1)], dim=2)
        tokens = tokens.view(*sizes, *tokens.shape[1:])
        glimpses, states = self.attention(tokens, state, context=context, starts=starts, force=forceable)
        inputs = [glimpses.values[..., -1, :].flatten(2), states]
        if context is not None:
            inputs.append(context)
        features = F.relu_(self.project(torch.cat(inputs, dim=2)))
        last = glimpses.weights[..., -1, :]
        return Percept(features, last.reshape(*last.shape[:-1], *self.grid.shape)), states[-1]

    def head_inputs(self) -> HeadInputs:
        raise ValueError(
            "expected heads that can be ablated alone, got heads that share a state (Dynamic): "
            "test another family"
        )
