"""Maps that any policy has, with attention or without: causal maps, and gradients of its action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn import functional as F

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import CausalMaps, Respond, causal_map, gradient_length
from robot_attn_policies.probing.decision import Response, decision, response
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.sb3.context import NO_CONTEXT, Context

GRID = 16
"""Rows and columns of these maps; in smaller frames, one for each pixel."""


@dataclass(frozen=True)
class Sampling:
    """How many masks a causal map takes, as the arguments of `robot_attn.explain.causal_map`.

    Attributes:
        error: standard error of the most important pixel, as a share of its importance, at which to stop.
        max_blocks: most blocks of masks.
        masks_per_block: masks in a block.
    """

    error: float
    max_blocks: int
    masks_per_block: int


PRECISE = Sampling(0.15, 40, 12)
"""For maps that are looked at: 96 to 480 masks for each frame."""
FAST = Sampling(0.3, 8, 8)
"""For rollouts that need a map at every step: 64 masks for each frame."""


def policy_causal_maps(
    policy: BasePolicy,
    observation: ObservationBatch,
    image: str | None,
    *,
    context: Context = NO_CONTEXT,
    kind: Response = "action",
    sampling: Sampling = PRECISE,
    seed: int = 0,
) -> CausalMaps:
    """Measure how much a policy's decision changes when random pixels are removed: `causal_map`.

    Only the frames of one camera change. The observation's other entries, the memory of a recurrent policy
    and the actions that are allowed stay as they are.

    Args:
        policy: the policy, of any algorithm, with attention or without.
        observation: a batch of B observations as the environment returns them.
        image: key of the frames, or None where the observation is the frames.
        context: memory and action masks, as `decision` takes them.
        kind: what changes: a key of `RESPONSES`.
        sampling: number of masks.
        seed: random seed of the masks.

    Returns:
        Maps float64 [B, H, W], in units of the response.

    Raises:
        ValueError: an error of `response` or `causal_map`.
    """
    frames, respond = frames_and_response(policy, observation, image, kind, context=context)
    return causal_map(
        respond,
        frames,
        error=sampling.error,
        max_blocks=sampling.max_blocks,
        masks_per_block=sampling.masks_per_block,
        seed=seed,
    )


def frames_and_response(
    policy: BasePolicy,
    observation: ObservationBatch,
    image: str | None,
    kind: Response = "action",
    *,
    context: Context = NO_CONTEXT,
) -> tuple[NDArray[np.float32], Respond]:
    """Return the frames, float32 [B, H, W, C] in [0, 1], and `response` as `causal_map` takes it."""
    frames, function = response(policy, observation, image, kind, context=context)

    def respond(changed: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            given = torch.from_numpy(changed).to(frames).permute(0, 3, 1, 2)
            return function(given).numpy(force=True)

    return np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy(force=True)), respond


def causal_cells(maps: CausalMaps) -> Tensor:
    """Pool the significant part of causal maps to cells.

    Returns:
        float32 [B, rows, cols], each of sum 1, with at most `GRID` rows and columns. It is uniform where no
        pixel is significant, as for a policy that ignores the frame.
    """
    pixels = maps.significant()
    grid = pixel_grid((pixels.shape[1], pixels.shape[2]))
    return _sum_to_one(torch.from_numpy(AttentionMaps.pooled(pixels, grid).weights).float())


def action_gradient_maps(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, *, context: Context = NO_CONTEXT
) -> Tensor:
    """Measure how much each cell of the frame would change the action.

    The norm of the gradient of `decision` with respect to a pixel, over actions and colours (Simonyan et al.
    2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034, section 3), averaged over
    each cell. A policy that ignores the frame gets a uniform map.

    Args:
        policy: the policy.
        observation: a batch of observations as the environment returns them.
        image: key of the frames, or None where the observation is the frames.
        context: memory and action masks, as `decision` takes them.

    Returns:
        [B, rows, cols], each of sum 1, with at most `GRID` rows and columns.

    Raises:
        ValueError: an error of `decision`.
    """
    frames, decide = decision(policy, observation, image, context=context)
    frames.requires_grad_()
    length = gradient_length(decide(frames), frames, dtype=frames.dtype)
    height, width = frames.shape[2:]
    return _sum_to_one(F.adaptive_avg_pool2d(length[:, None], (min(GRID, height), min(GRID, width)))[:, 0])


def pixel_grid(image_size: tuple[int, int]) -> AttentionGrid:
    """Return the grid of these maps for frames of (H, W) pixels."""
    ys, xs = (_centers(length) for length in image_size)
    return AttentionGrid(ys, xs, image_size)


def _sum_to_one(cells: Tensor) -> Tensor:
    """Normalise maps [B, rows, cols] to sum 1; uniform where the sum is 0."""
    total = cells.sum(dim=(1, 2), keepdim=True)
    return torch.where(
        total > 0, cells / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / cells[0].numel()
    )


def _centers(length: int) -> NDArray[np.float32]:
    """Centres, in pixels, of the cells of `adaptive_avg_pool2d` along an axis of `length` pixels."""
    cells = min(GRID, length)
    i = np.arange(cells)
    return ((i * length // cells + -(-(i + 1) * length // cells) - 1) / 2).astype(np.float32)
