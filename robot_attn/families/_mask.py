"""The family "mask": a mask lets a few patches through to an encoder, which sees nothing else."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.attention._checks import check_finite
from robot_attn.attention._scores import EPSILON
from robot_attn.families._patches import Patches
from robot_attn.frames import prepare_frames
from robot_attn.percept import Percept
from robot_attn.perception import Perception, check_sizes


def gate(logits: Tensor, temperature: Tensor, budget: float) -> tuple[Tensor, Tensor]:
    """A mask over cells that cannot open everywhere, and the same mask as weights that sum to 1.

    logits: float [B, n]; temperature: float [], positive; budget: a share of the cells, between 0 and 1.
    Returns the mask in [0, 1] and the weights, mask / sum of mask, both [B, n].
    Raises ValueError for other shapes, no cell, logits that are not finite, or another budget.

    A sigmoid alone can end at 1 for every cell, where the mask says nothing and is no longer taught. Here the
    logits are first brought to mean 0 and variance 1 over the cells, z, and the mask is
    sigmoid(temperature (z - c)) with c = sqrt(1 / budget - 1). By Cantelli's inequality at most 1 / (1 + c^2)
    of any numbers lie c or more standard deviations above their mean: whatever the logits, no more than
    `budget` of the cells are open by half or more. Cells that are all alike are closed alike.
    The weights are made from the mask's logarithm, and so are right where all of the mask rounds to 0.
    Cost: about 20 B n FLOPs, and 4 B n numbers, 7 with a gradient.
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(
            f"logits must be [B, n] with at least 1 cell to let through; their shape is {list(logits.shape)}."
        )
    _check_budget(budget)
    check_finite(logits=logits)
    # Half precision: the variance of large logits would overflow in float16.
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    standard = F.layer_norm(wide, wide.shape[-1:], eps=EPSILON)
    opening = (standard - math.sqrt(1 / budget - 1)) * temperature.to(wide.dtype)
    weights = F.logsigmoid(opening).softmax(dim=-1)
    return opening.sigmoid().to(logits.dtype), weights.to(logits.dtype)


class Mask(Perception):
    """A mask in [0, 1] for each patch, by which the patch is multiplied before an encoder sees it.

    Grooten et al. 2024, "MaDi", https://arxiv.org/abs/2312.15339: a Masker, a small convolutional network
    that ends in a sigmoid, is multiplied with the observation before actor and critic see it, and learns from
    their loss alone. Here too what is masked away does not reach the features, and no loss of its own is
    needed. It differs in three ways: the mask is multiplied with patches rather than pixels, which Masker
    and encoder share; it is one for all channels, so for all frames of a stack; and it has a budget (`gate`),
    without which it may end open everywhere. Its temperature is 1 + exp(a learned number): over a frame the
    sigmoid's input keeps a standard deviation of at least 1, so the map cannot fade to a flat one either.

    The attention is the mask divided by its sum. The encoder is two 3 x 3 convolutions of stride 2 with 32
    channels, and a linear map of these and the context, then ReLU.

    features_dim: F. patch_dim: how many numbers a patch is seen as. hidden_dim: units of the layer between
    a patch and its logit. budget: the largest share of the patches that the mask may open by half or more.
    2 N (S D + D + 72 S + 576) FLOPs a frame after N patches of S numbers, D hidden units, and
    4 N (2 S + D + 10) bytes in float32.
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
        # No bias in either layer: the gate takes away what is added to every patch's logit.
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
        seen = self.encoder(patches * mask)
        if context is not None:
            seen = torch.cat([seen, context], dim=1)
        return Percept(F.relu_(self.project(seen)), weights)

    def mask(self, frames: Tensor) -> Tensor:
        """The mask itself, float [B, 1, rows, cols] in [0, 1]; frames and errors as in `forward`."""
        frames = prepare_frames(frames, self.image_shape, self.log_temperature.dtype)
        return self._gate(self.patches(frames))[0]

    def _gate(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and weights, [B, 1, rows, cols], for patches [B, S, rows, cols]."""
        hidden = F.relu(self.hidden.weight @ patches.flatten(2))
        logits = (self.logit.weight @ hidden).squeeze(1)
        mask, weights = gate(logits, 1 + self.log_temperature.exp(), self.budget)
        shape = (-1, 1, *self.grid.shape)
        return mask.view(shape), weights.view(shape)


def _check_budget(budget: float) -> None:
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget < 1:
        raise ValueError(f"budget must be a share of the cells, between 0 and 1; it is {budget!r}.")
