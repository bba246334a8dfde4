"""The family "cnn": the control without attention, whose map is uniform."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

MIN_INPUT_SIDE = 36
"""Smallest height and width, in pixels, for which the three convolutions have an output."""


class Cnn(Perception):
    """NatureCNN, layer for layer that of Stable-Baselines3: the control without attention.

    Mnih et al. 2015, https://doi.org/10.1038/nature14236, methods, "Model architecture". Its attention is
    uniform over the grid of the last convolution and carries no information (`uniform` is True). The context
    is concatenated to the flattened map before the last layer. Frames with a side below 36 pixels, for which
    the convolutions would have no output, are padded to 36 with black.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.

    Raises:
        ValueError: an image_shape or size out of range.
    """

    good_for: ClassVar[str] = "a control: how far a policy gets without attention"

    uniform: ClassVar[bool] = True

    def __init__(
        self, image_shape: tuple[int, int, int], context_dim: int = 0, *, features_dim: int = 512
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim)
        channels, height, width = self.image_shape
        self.features_dim = features_dim
        self.num_heads = 1
        self.cnn = nn.Sequential(
            nn.Conv2d(channels, 32, 8, 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.pad = (0, max(0, MIN_INPUT_SIDE - width), 0, max(0, MIN_INPUT_SIDE - height))
        rows, cols = (((max(side, MIN_INPUT_SIDE) - 8) // 4 + 1 - 4) // 2 + 1 - 2 for side in (height, width))
        # Equal boxes that tile the frame, since the last layer depends on all of it.
        self.grid = AttentionGrid.even((rows, cols), (height, width))
        self.project = nn.Linear(64 * rows * cols + self.context_dim, features_dim)

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        flat = self.cnn(F.pad(frames, self.pad) if any(self.pad) else frames)
        inputs = flat if context is None else torch.cat([flat, context], dim=1)
        rows, cols = self.grid.shape
        attention = frames.new_full((frames.shape[0], 1, rows, cols), 1 / (rows * cols))
        return Percept(F.relu_(self.project(inputs)), attention)
