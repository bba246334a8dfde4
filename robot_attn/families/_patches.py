"""Blocks shared by the families: frames as a grid of patches, and the coordinates of its cells."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.maps import AttentionGrid

PATCH, STRIDE = 8, 4
"""Kernel size and stride of the patches, in pixels, as in NatureCNN's first layer."""
MID_GREY = 0.5
"""Value subtracted from the frames, in [0, 1]."""


class Patches(nn.Module):
    """Patch embedding of 8 x 8 pixels, linear then ReLU: frames [B, C, H, W] -> [B, size, rows, cols].

    Frames are in [0, 1]; rows = (H - 8) // 4 + 1 and cols = (W - 8) // 4 + 1: 15 x 15 patches for a frame of
    64 x 64.

    The weights act on the difference from mid-grey and start at half of nn.Conv2d's range. In trials on
    coloured targets among distractors both sped up learning. The larger orthogonal weights that SB3 sets
    slowed it down; SB3 sets them in every nn.Conv2d, which is why this module is not one.

    Args:
        image_shape: (channels, height, width) in pixels.
        size: dimension of a patch, `patch_dim` of the families.

    Attributes:
        grid: positions of the patches in the frame.
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
        # Subtracts MID_GREY from the frames by way of the bias, which saves a pass over the frames.
        bias = self.bias - MID_GREY * self.weight.sum(dim=(1, 2, 3))
        return F.relu_(F.conv2d(frames, self.weight, bias, STRIDE))


def frame_coordinates(grid: AttentionGrid) -> Tensor:
    """Compute the cells' centres, float32 [2, rows * cols]: x, then y, with the frame's edges at -1 and 1."""
    return scaled_places(torch.tensor(grid.ys), torch.tensor(grid.xs), grid.image_size)


def scaled_places(ys: Tensor, xs: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Scale positions in pixels to [-1, 1], as `frame_coordinates` does; they may lie beyond the frame.

    Args:
        ys: float [rows], in pixels.
        xs: float [cols], in pixels.
        image_size: (H, W) of the frame in pixels.

    Returns:
        float [2, rows * cols]: x, then y.
    """
    height, width = image_size
    x, y = (2 * xs + 1) / width - 1, (2 * ys + 1) / height - 1
    return torch.stack([x.expand(len(ys), -1), y[:, None].expand(-1, len(xs))]).flatten(1)
