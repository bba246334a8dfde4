"""The family "keypoints": spatial softmax, the expected coordinates of the channels of a feature map."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention import attend, build_score
from robot_attn.attention._scores import Scaled, dot
from robot_attn.families._patches import Patches, frame_coordinates
from robot_attn.families._readout import forced_values
from robot_attn.head_inputs import HeadInputs
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes

INITIAL_TEMPERATURE = 0.1
"""Initial temperature. The maps start within a few tenths of 0; at 1 the initial softmax is nearly uniform,
which delays learning.
"""


class Keypoints(Perception):
    """Spatial softmax: expected image coordinates of the channels of a convolutional map, without appearance.

    Levine et al. 2016, https://arxiv.org/abs/1504.00702, section 5.1: a softmax over the frame of each
    channel, s_cij = exp(a_cij) / sum exp(a_ci'j'), and the mean of (x, y) under it. This is attention whose
    queries are the weights of the last 1 x 1 convolution, whose keys are its input, and whose values are the
    cells' coordinates. The temperature is learned, as in Finn et al. 2016, https://arxiv.org/abs/1509.06113,
    section IV; here each channel has its own. Two identical objects give one keypoint midway between them.
    The context is concatenated to the coordinates before the last layer.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        num_heads: h, number of channels, each of which gives one keypoint.
        patch_dim: S, channels of the layers before them.
        score: a name that `robot_attn.build_score` accepts; "dot" is the paper's.

    Raises:
        ValueError: an image_shape or size out of range, or an unknown score.

    Cost: 2 N S (9 S + h) FLOPs per frame after the N patches.
    """

    good_for: ClassVar[str] = "reaching and pushing: object locations without appearance"

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
        # No bias: a constant added to a channel does not change its softmax.
        self.maps = nn.Linear(patch_dim, num_heads, bias=False)
        learned = Scaled(dot, num_heads, 1 / INITIAL_TEMPERATURE)
        self.score = learned if score == "dot" else build_score(score, patch_dim, num_heads)
        self.project = nn.Linear(2 * num_heads + self.context_dim, features_dim)
        self.register_buffer("coordinates", frame_coordinates(self.grid), persistent=False)
        self.coordinates: Tensor

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        around = F.relu_(self.around(self.patches(frames))).flatten(2)
        batch = frames.shape[0]
        query = self.maps.weight[None, :, None].expand(batch, -1, -1, -1)
        coordinates = self.coordinates.t().expand(batch, 1, -1, -1)
        attended = attend(query, around.transpose(1, 2)[:, None], coordinates, score=self.score)
        points, weights = forced_values(attended, coordinates)
        inputs = points.flatten(1) if context is None else torch.cat([points.flatten(1), context], dim=1)
        return Percept(F.relu_(self.project(inputs)), weights.view(batch, self.num_heads, *self.grid.shape))

    def head_inputs(self) -> HeadInputs:
        return HeadInputs.values_then_places(self.project, self.num_heads, 0)
