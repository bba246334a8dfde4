"""What the families that look share: a frame as a grid of patches, and where on the frame a map looks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.maps import AttentionGrid

PATCH, STRIDE = 8, 4
"""Side of a patch and distance between two, in pixels: those of NatureCNN's first layer too."""
MID_GREY = 0.5


class Patches(nn.Module):
    """frames [B, C, H, W] in [0, 1] -> [B, size, rows, cols]: a linear look at each 8 x 8 patch, then ReLU.

    rows = (H - 8) // 4 + 1, cols alike: 15 x 15 patches of a 64 x 64 frame.

    Weights act on the difference from mid-grey and start at half of nn.Conv2d's range. In trials on coloured
    targets among distractors both sped up learning. Orthogonal weights as SB3 sets them, which are larger,
    slowed it; SB3 sets them in every nn.Conv2d, so this is none.
    """

    def __init__(self, image_shape: tuple[int, int, int], size: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        first = (PATCH - 1) / 2
        ys, xs = (
            first + STRIDE * np.arange((side - PATCH) // STRIDE + 1, dtype=np.float32)
            for side in (height, width)
        )
        self.grid = AttentionGrid(ys, xs, (height, width))
        bound = 0.5 * (channels * PATCH**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(size, channels, PATCH, PATCH).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound))

    def forward(self, frames: Tensor) -> Tensor:
        # The look at frames - MID_GREY, whose subtraction would be a pass over all of them.
        bias = self.bias - MID_GREY * self.weight.sum(dim=(1, 2, 3))
        return F.relu_(F.conv2d(frames, self.weight, bias, STRIDE))


def frame_coordinates(grid: AttentionGrid) -> Tensor:
    """Give the cells' centres as float32 [2, rows * cols]: x, then y, the frame's edges at -1 and 1."""
    return scaled_places(torch.tensor(grid.ys), torch.tensor(grid.xs), grid.image_size)


def scaled_places(ys: Tensor, xs: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`frame_coordinates` of any places in pixels, ys [rows] and xs [cols], in or beyond a frame (H, W)."""
    height, width = image_size
    x, y = (2 * xs + 1) / width - 1, (2 * ys + 1) / height - 1
    return torch.stack([x.expand(len(ys), -1), y[:, None].expand(-1, len(xs))]).flatten(1)
