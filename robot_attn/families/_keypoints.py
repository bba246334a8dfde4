"""The family "keypoints": where each channel of a convolutional map is high."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn._percept import Percept
from robot_attn._perception import Perception, check_sizes
from robot_attn.families._patches import Patches, frame_coordinates

FIRST_TEMPERATURE = 0.1
"""The maps start within a few tenths of 0; at 1 the softmax would start flat, and learning start late."""


def spatial_softmax(maps: Tensor, temperature: Tensor) -> Tensor:
    """Give each channel's map as a distribution over the frame: softmax(maps / temperature) over rows x cols.

    maps: float [B, K, rows, cols]; temperature: float [K], positive. Returns float [B, K, rows, cols].
    Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1: s_cij = exp(a_cij) / sum exp(a_ci'j').
    """
    return (maps / temperature[:, None, None]).flatten(2).softmax(dim=-1).view(maps.shape)


class Keypoints(Perception):
    """Expected image coordinates of the channels of a convolutional map: where things are, nothing of what.

    Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1. The temperature is learned, as in Finn
    et al. 2016, https://arxiv.org/abs/1509.06113, section IV; here each channel has its own. Two objects that
    look alike become one point midway between them. A context is joined to the coordinates before the last
    layer.

    features_size: F. heads: how many channels, so keypoints. patch_size: channels of the layers before them.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_size: int = 0,
        *,
        features_size: int = 128,
        heads: int = 32,
        patch_size: int = 32,
    ) -> None:
        super().__init__(image_shape, context_size)
        check_sizes(features_size=features_size, heads=heads, patch_size=patch_size)
        self.features_size = features_size
        self.heads = heads
        self.patches = Patches(self.image_shape, patch_size)
        self.attention_grid = self.patches.grid
        self.around = nn.Conv2d(patch_size, patch_size, 3, padding=1)
        self.maps = nn.Conv2d(patch_size, heads, 1)
        self.log_temperature = nn.Parameter(torch.full((heads,), math.log(FIRST_TEMPERATURE)))
        self.project = nn.Linear(2 * heads + self.context_size, features_size)
        coordinates = frame_coordinates(*self.token_centers(), self.image_shape[1:])
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.coordinates: Tensor

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        maps = self.maps(F.relu_(self.around(self.patches(frames))))
        attention = spatial_softmax(maps, self.log_temperature.exp())
        points = F.linear(attention.flatten(2), self.coordinates).flatten(1)
        seen = points if context is None else torch.cat([points, context], dim=1)
        return Percept(F.relu_(self.project(seen)), attention)

    def token_centers(self) -> tuple[Tensor, Tensor]:
        return self.patches.centers()
