"""The family "keypoints": where each channel of a convolutional map is high."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend, build_score
from robot_attn.attention._scores import Scaled, dot
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

FIRST_TEMPERATURE = 0.1
"""The maps start within a few tenths of 0; at 1 the softmax would start flat, and learning start late."""


class Keypoints(Perception):
    """Expected image coordinates of the channels of a convolutional map: where things are, nothing of what.

    Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1: a softmax over the frame of each
    channel, s_cij = exp(a_cij) / sum exp(a_ci'j'), and the mean of (x, y) under it. That is attention: the
    last 1 x 1 convolution's weights are queries, its input holds the keys, and the values are the cells'
    coordinates. The temperature is learned, as in Finn et al. 2016, https://arxiv.org/abs/1509.06113, section
    IV; here each channel has its own. Two objects that look alike become one point midway between them. A
    context is joined to the coordinates before the last layer.

    features_dim: F. num_heads: how many channels, so keypoints. patch_dim: channels of the layers before
    them.
    score: a name that `robot_attn.build_score` knows; "dot" is the paper's. 2 N S (9 S + h) FLOPs a frame
    after the patches.
    """

    good_for: ClassVar[str] = "reaching and pushing: where things are, and nothing of what they are"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        num_heads: int = 32,
        patch_dim: int = 16,
        score: str = "dot",
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, num_heads=num_heads, patch_dim=patch_dim)
        self.features_dim = features_dim
        self.num_heads = num_heads
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        self.around = nn.Conv2d(patch_dim, patch_dim, 3, padding=1)
        # No bias: what is added to all of a channel leaves its softmax as it was.
        self.maps = nn.Linear(patch_dim, num_heads, bias=False)
        learned = Scaled(dot, num_heads, 1 / FIRST_TEMPERATURE)
        self.score = learned if score == "dot" else build_score(score, patch_dim, num_heads)
        self.project = nn.Linear(2 * num_heads + self.context_dim, features_dim)
        self.register_buffer("coordinates", frame_coordinates(self.grid), persistent=False)
        self.coordinates: Tensor

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        around = F.relu_(self.around(self.patches(frames))).flatten(2)
        batch = frames.shape[0]
        query = self.maps.weight[None, :, None].expand(batch, -1, -1, -1)
        coordinates = self.coordinates.t().expand(batch, 1, -1, -1)
        points, weights = attend(query, around.transpose(1, 2)[:, None], coordinates, score=self.score)
        seen = points.flatten(1) if context is None else torch.cat([points.flatten(1), context], dim=1)
        return Percept(F.relu_(self.project(seen)), weights.view(batch, self.num_heads, *self.grid.shape))

    def head_inputs(self) -> HeadInputs:
        return HeadInputs.values_then_places(self.project, self.num_heads, 0)
