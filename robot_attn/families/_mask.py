"""The family "mask": a learned mask selects the few patches that an encoder processes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention._checks import check_finite
from robot_attn.attention._scores import EPSILON
from robot_attn.families._patches import Patches
from robot_attn.forcing import forceable
from robot_attn.frames import prepare_frames
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes


def gate(logits: Tensor, temperature: Tensor, budget: float) -> tuple[Tensor, Tensor]:
    """Turn logits into a mask that cannot be open everywhere, and into weights that sum to 1.

    A plain sigmoid can saturate at 1 for every cell, where the mask is uninformative and gets no gradient.
    Here the logits are first standardised to mean 0 and variance 1 over the cells, z, and the mask is
    sigmoid(temperature (z - c)) with c = sqrt(1 / budget - 1). By Cantelli's inequality at most 1 / (1 + c^2)
    of any numbers lie c or more standard deviations above their mean: whatever the logits, at most a fraction
    `budget` of the cells has a mask of 0.5 or more. Equal cells are all equally closed. The weights are
    computed from the logarithm of the mask, and so are accurate where the whole mask underflows to 0.

    Args:
        logits: float [B, n].
        temperature: float [], positive.
        budget: fraction of the cells, in (0, 1).

    Returns:
        The mask in [0, 1] and the weights, mask / sum of mask, both [B, n].

    Raises:
        ValueError: other shapes, no cell, non-finite logits, or a budget out of range.

    Cost: about 20 B n FLOPs, and 4 B n numbers, 7 with a gradient.
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"expected logits [B, n] with at least 1 cell, got shape {list(logits.shape)}")
    _check_budget(budget)
    check_finite(logits=logits)
    # In float32, since the variance of large logits would overflow in float16.
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    standard = F.layer_norm(wide, wide.shape[-1:], eps=EPSILON)
    opening = (standard - math.sqrt(1 / budget - 1)) * temperature.to(wide.dtype)
    weights = F.logsigmoid(opening).softmax(dim=-1)
    return opening.sigmoid().to(logits.dtype), weights.to(logits.dtype)


class Mask(Perception):
    """A soft mask in [0, 1] for each patch, multiplied with the patches before an encoder processes them.

    Grooten et al. 2024, "MaDi", https://arxiv.org/abs/2312.15339: a Masker, a small convolutional network
    that ends in a sigmoid, multiplies the observation before actor and critic, and learns from their loss
    alone. Here too masked content does not reach the features, and no auxiliary loss is needed. There are
    three differences: the mask multiplies patches, shared by Masker and encoder, rather than pixels; it is
    the same for all channels, so for all frames of a stack; and it has a budget (`gate`), without which it
    may end up open everywhere. Its temperature is 1 + exp(learned number): the sigmoid's input keeps a
    standard deviation of at least 1 over the frame, so the map cannot become uniform either.

    The attention is the mask divided by its sum. The encoder is two 3 x 3 convolutions of stride 2 with 32
    channels, then a linear map of these and the context, then ReLU.

    Args:
        image_shape: (channels, height, width), height and width from 32 to 2048 pixels.
        context_dim: dimension of the context, 0 for none.
        features_dim: F, dimension of the features.
        patch_dim: S, dimension of a patch embedding.
        hidden_dim: D, hidden units between a patch and its logit.
        budget: largest fraction of the patches with a mask of 0.5 or more, in (0, 1).

    Raises:
        ValueError: an image_shape, size or budget out of range.

    Cost: 2 N (S D + D + 72 S + 576) FLOPs per frame after the N patches, and 4 N (2 S + D + 10) bytes in
    float32.
    """

    good_for: ClassVar[str] = "distracting backgrounds: it hides what the task does not need"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        context_dim: int = 0,
        *,
        features_dim: int = 128,
        patch_dim: int = 16,
        hidden_dim: int = 32,
        budget: float = 0.2,
    ) -> None:
        super().__init__(image_shape, context_dim)
        check_sizes(features_dim=features_dim, patch_dim=patch_dim, hidden_dim=hidden_dim)
        _check_budget(budget)
        self.features_dim = features_dim
        self.num_heads = 1
        self.budget = budget
        self.patches = Patches(self.image_shape, patch_dim)
        self.grid = self.patches.grid
        # No bias in either layer: the gate subtracts the mean of the logits.
        self.hidden = nn.Linear(patch_dim, hidden_dim, bias=False)
        self.logit = nn.Linear(hidden_dim, 1, bias=False)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.encoder = nn.Sequential(
            nn.Conv2d(patch_dim, 32, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        rows, cols = (-(-cells // 4) for cells in self.grid.shape)
        self.project = nn.Linear(32 * rows * cols + self.context_dim, features_dim)

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        patches = self.patches(frames)
        mask, weights = self._gate(patches)
        used = forceable(weights)
        if used is not weights:
            # As open in all as the mask is, and as any mask open by 1 at most.
            mask, weights = (used * mask.sum(dim=(2, 3), keepdim=True)).clamp(max=1), used
        encoded = self.encoder(patches * mask)
        if context is not None:
            encoded = torch.cat([encoded, context], dim=1)
        return Percept(F.relu_(self.project(encoded)), weights)

    def mask(self, frames: Tensor) -> Tensor:
        """Compute the mask, float [B, 1, rows, cols] in [0, 1].

        Args:
            frames: as in `forward`.

        Raises:
            ValueError: as `forward`.
        """
        frames = prepare_frames(frames, self.image_shape, self.log_temperature.dtype)
        return self._gate(self.patches(frames))[0]

    def _gate(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mask and weights, [B, 1, rows, cols], of patches [B, S, rows, cols]."""
        hidden = F.relu_(self.hidden(patches.flatten(2).transpose(1, 2)))
        logits = self.logit(hidden).squeeze(2)
        mask, weights = gate(logits, 1 + self.log_temperature.exp(), self.budget)
        shape = (-1, 1, *self.grid.shape)
        return mask.view(shape), weights.view(shape)


def _check_budget(budget: float) -> None:
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget < 1:
        raise ValueError(f"expected budget as a fraction of the cells between 0 and 1, got {budget!r}")
