"""Maps of which pixels an output depends on, by its gradients, through Captum (the extra "explain").

They ask what attention does not say: a pixel that is looked at need not matter, and one that matters need not
be looked at. Whether the two agree is `rank_agreement`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn._perception import Perception
from robot_attn.families._patches import frame_coordinates

Method: TypeAlias = Literal["saliency", "integrated", "grad_cam"]
METHODS: dict[Method, str] = {
    "saliency": "saliency",
    "integrated": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
STEPS = 16
"""Of the path of integrated gradients."""


def gradient_maps(
    function: Callable[[Tensor], Tensor],
    frames: Tensor,
    method: Method,
    *,
    module: nn.Module | None = None,
    steps: int = STEPS,
) -> NDArray[np.float64]:
    """How much the outputs of a function depend on each pixel of its frames.

    - "saliency": the length of the gradient (Simonyan et al. 2013, https://arxiv.org/abs/1312.6034, section
      3).
    - "integrated": gradients along the way from the frame's blurred self, times the difference (Sundararajan
      et al. 2017, https://arxiv.org/abs/1703.01365, equation 1). A black frame would say that what is dark
      does not matter.
    - "grad_cam": the last feature map of `module`, weighted by the mean gradient of its channels, where
      positive (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2).

    Of several outputs the maps' squares are added up; of colours too.

    Args:
        function: frames float [B, C, H, W] -> outputs [B, K], each row of its own frame alone; for
            "integrated" also of `steps` times as many frames, all of them over and over.
        frames: float [B, C, H, W] in [0, 1].
        method: of `METHODS`.
        module: for "grad_cam", what `function` runs the frames through.
        steps: of "integrated".

    Returns:
        [B, H, W], each with sum 1, or all 0 where nothing depends on the frame.

    Raises:
        ValueError: an unknown method; no `module`, or none that gives feature maps.
        ModuleNotFoundError: Captum is not installed.
    """
    if method not in get_args(Method):
        raise ValueError(f"expected a method of {list(METHODS)}, got {method!r}")
    attribute = _attribution(function, frames, method, module, steps)
    frames = frames.detach()
    with torch.no_grad():
        outputs = function(frames).shape[1]
    squares = torch.zeros(len(frames), *frames.shape[2:], dtype=torch.float64)
    for k in range(outputs):
        squares += attribute(frames.clone().requires_grad_(), k).detach().double().square().sum(dim=1)
    maps = squares.sqrt().numpy(force=True)
    total = maps.sum(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(maps, total, out=np.zeros_like(maps), where=total > 0))


def _attribution(
    function: Callable[[Tensor], Tensor], frames: Tensor, method: Method, module: nn.Module | None, steps: int
) -> Callable[[Tensor, int], Tensor]:
    """(frames, which output) -> attributions [B, C or 1, H, W]."""
    try:
        from captum.attr import IntegratedGradients, LayerGradCam, Saliency
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'gradients need captum, which is not installed; run pip install "robot-attn[explain]"',
            name=error.name,
        ) from error
    if method == "saliency":
        return lambda part, k: cast(Tensor, Saliency(function).attribute(part, target=k))
    if method == "integrated":
        return lambda part, k: cast(
            Tensor,
            IntegratedGradients(function).attribute(part, baselines=blurred(part), target=k, n_steps=steps),
        )
    if module is None:
        raise ValueError("Grad-CAM looks into a network: name the module that the frames go through")
    cam = LayerGradCam(function, last_feature_map(function, module, frames))
    size = (frames.shape[2], frames.shape[3])

    def attribute(part: Tensor, k: int) -> Tensor:
        coarse = cast(Tensor, cam.attribute(part, target=k, relu_attributions=True))
        return F.interpolate(coarse.detach(), size, mode="bilinear", align_corners=False)

    return attribute


def blurred(frames: Tensor, share: float = 0.25) -> Tensor:
    """Frames [B, C, H, W] without their detail: means over `share` of the shorter side, twice."""
    size = max(3, round(share * min(frames.shape[2:]))) | 1
    for _ in range(2):
        for kernel, padding in (((size, 1), (size // 2, 0)), ((1, size), (0, size // 2))):
            frames = F.avg_pool2d(frames, kernel, stride=1, padding=padding, count_include_pad=False)
    return frames.detach()


def last_feature_map(function: Callable[[Tensor], Tensor], module: nn.Module, frames: Tensor) -> nn.Module:
    """The last part of `module` that gives several feature maps of several cells as `function` runs.

    Raises:
        ValueError: there is none.
    """
    found: list[nn.Module] = []

    def watch(part: nn.Module, given: Any, output: Any) -> None:
        # One row a frame: what a network makes of parts of a frame has no place in the whole.
        several = isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[1:]) > 1
        if several and len(output) == len(frames):
            found.append(part)

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    handles = [part.register_forward_hook(watch) for part in leaves]
    try:
        with torch.no_grad():
            function(frames)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"{type(module).__name__} has no layer that gives feature maps [B, C, rows, cols]")
    return found[-1]


def attention_gradient(
    perception: Perception, frames: Tensor, context: Tensor | None = None
) -> NDArray[np.float64]:
    """Which pixels move the map: the gradient of the heads' expected places with respect to the frame.

    A head that looks at something is moved by that thing's pixels; one whose map is fixed by none. What a
    family chooses without a gradient (the patches of "patches") moves nothing here.

    Args:
        perception: of any family.
        frames: float [B, C, H, W] in [0, 1].
        context: float [B, C], as the family takes it.

    Returns:
        [B, heads, H, W]: of each head the length of the gradient over x, y and colours. Each sums to 1, or
        to 0 where no pixel moves the map.
    """
    coordinates = frame_coordinates(*perception.token_centers(), perception.image_shape[1:])
    given = frames.detach().clone().requires_grad_()
    attention = perception(given, context).attention
    places = attention.flatten(2) @ coordinates.T.to(attention)  # [B, heads, 2]
    maps = torch.zeros(*attention.shape[:2], *frames.shape[2:], dtype=torch.float64)
    for head in range(places.shape[1] if places.requires_grad else 0):
        for axis in range(2):
            (slope,) = torch.autograd.grad(
                places[:, head, axis].sum(), given, retain_graph=True, allow_unused=True
            )
            if slope is not None:
                maps[:, head] += slope.double().square().sum(dim=1)
    maps = maps.sqrt()
    total = maps.sum(dim=(2, 3), keepdim=True)
    return torch.where(total > 0, maps / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0).numpy()


def rank_agreement(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of two maps a frame, in [-1, 1]; NaN where one of the two is constant.

    Args:
        maps: [B, rows, cols].
        others: [B, rows, cols]; ties get the mean of their ranks.

    Raises:
        ValueError: maps of different shapes.
    """
    if maps.shape != others.shape or maps.ndim != 3:
        raise ValueError(
            f"expected two batches of maps [B, rows, cols], got {list(maps.shape)} and {list(others.shape)}"
        )
    ours, theirs = (_ranks(batch.reshape(len(batch), -1)) for batch in (maps, others))
    ours -= ours.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    scale = np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    agreement = np.full(len(maps), np.nan)
    return np.asarray(np.divide((ours * theirs).sum(axis=1), scale, out=agreement, where=scale > 0))


def _ranks(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 0 within each row [B, N], ties averaged."""
    ranks = np.empty(rows.shape)
    for row, rank in zip(rows, ranks, strict=True):
        _, which, count = np.unique(row, return_inverse=True, return_counts=True)
        rank[:] = (np.cumsum(count) - (count + 1) / 2)[which]
    return ranks
