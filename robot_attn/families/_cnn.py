"""The family "cnn": the control, which looks everywhere alike."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.maps import AttentionGrid
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

SMALLEST = 36
"""The smallest side, in pixels, that the three convolutions leave something of."""


class Cnn(Perception):
    """NatureCNN, layer for layer that of Stable-Baselines3: the control that attention is measured against.

    Mnih et al. 2015, https://doi.org/10.1038/nature14236, methods, "Model architecture". Its attention is
    uniform over the grid of the last convolution, and says nothing (`uniform` is True). A context is joined
    to the flat map before the last layer. A side below 36 pixels, of which the convolutions would leave
    nothing, is padded to 36 with black.

    features_dim: F.
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
        self.pad = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        rows, cols = (((max(side, SMALLEST) - 8) // 4 + 1 - 4) // 2 + 1 - 2 for side in (height, width))
        # Equal boxes that tile the frame: the last layer sees all of it.
        self.grid = AttentionGrid.even((rows, cols), (height, width))
        self.project = nn.Linear(64 * rows * cols + self.context_dim, features_dim)

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        flat = self.cnn(F.pad(frames, self.pad) if any(self.pad) else frames)
        seen = flat if context is None else torch.cat([flat, context], dim=1)
        rows, cols = self.grid.shape
        attention = frames.new_full((frames.shape[0], 1, rows, cols), 1 / (rows * cols))
        return Percept(F.relu_(self.project(seen)), attention)
