"""Gradient-based saliency: which pixels an output depends on. Some methods use Captum (the extra "explain").

It complements attention: an attended pixel need not influence the output, and an influential one need not be
attended. `rank_agreement` measures whether the two agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn.errors import unknown_name
from robot_attn.families import frame_coordinates
from robot_attn.optional import import_optional
from robot_attn.perception import Perception

Method: TypeAlias = Literal["saliency", "integrated", "grad_cam"]
METHODS: dict[Method, str] = {
    "saliency": "saliency",
    "integrated": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
"""The methods, with their names in text."""
STEPS = 16
"""Number of steps on the path of integrated gradients."""
MAX_PIXELS = 2**20
"""Largest number of pixels per call on that path, unless the batch alone has more."""


@torch.enable_grad()  # whatever the caller has set
def gradient_maps(
    function: Callable[[Tensor], Tensor],
    frames: Tensor,
    method: Method,
    *,
    module: nn.Module | None = None,
    steps: int = STEPS,
) -> NDArray[np.float64]:
    """Compute saliency maps: how much the outputs of a function depend on each pixel of its frames.

    - "saliency": the norm of the gradient, `gradient_length`; does not need Captum.
    - "integrated": integrated gradients along the path from the blurred frame, times the difference
      (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365, equation 1). With a black baseline dark
      pixels would count as irrelevant.
    - "grad_cam": the last feature map of `module`, weighted by the mean gradient of its channels, positive
      part (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2).

    Maps of several outputs and colour channels are combined as the root of the sum of squares.

    Args:
        function: frames float [B, C, H, W] -> outputs [B] or [B, K], each row depending on its own frame
            only; for "integrated" also for up to `steps` times as many frames, the batch repeated.
        frames: float [B, C, H, W] in [0, 1], B of at least 1.
        method: a key of `METHODS`.
        module: for "grad_cam", the module that `function` passes the frames through.
        steps: number of steps of "integrated".

    Returns:
        float64 [B, H, W], each of sum 1; all 0 where nothing depends on the frame, all NaN where the gradient
        is not finite.

    Raises:
        ValueError: an unknown method, frames of another dtype or shape, or "grad_cam" without a module that
            has feature maps on which the outputs depend.
        ModuleNotFoundError: Captum is not installed.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, METHODS)
    _check_frames(frames)

    def rows(part: Tensor) -> Tensor:
        return function(part).reshape(len(part), -1)

    frames = frames.detach()
    given = frames.clone().requires_grad_()
    outputs = rows(given)
    if method == "saliency":
        return _sum_to_one(gradient_length(outputs, given))
    if not _depend(outputs, given):
        return np.zeros((len(frames), *frames.shape[2:]))
    attribute = _attribution(rows, frames, method, module, steps)
    squares = torch.zeros(len(frames), *frames.shape[2:], dtype=torch.float64, device=frames.device)
    for k in range(outputs.shape[1]):
        squares += attribute(frames.clone().requires_grad_(), k).detach().double().square().sum(dim=1)
    return _sum_to_one(squares.sqrt())


def gradient_length(outputs: Tensor, frames: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Norm of the gradient with respect to each pixel, over outputs and colour channels.

    Simonyan et al. 2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034, section 3.

    Args:
        outputs: float [B, K], each row depending on its own frame only.
        frames: float [B, C, H, W] that require gradients.
        dtype: dtype of the sums.

    Returns:
        [B, H, W] of that dtype, 0 where nothing depends on the frame.
    """
    squares = torch.zeros_like(frames, dtype=dtype)
    for k in range(outputs.shape[1] if outputs.requires_grad else 0):
        (slope,) = torch.autograd.grad(outputs[:, k].sum(), frames, retain_graph=True, allow_unused=True)
        if slope is not None:
            squares += slope.to(dtype).square()
    return squares.sum(dim=1).sqrt()


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or not len(frames) or not frames.is_floating_point():
        raise ValueError(
            f"expected float frames [B, C, H, W] in [0, 1], got {frames.dtype} {list(frames.shape)}: "
            "convert uint8 frames by robot_attn.to_float"
        )


def _sum_to_one(maps: Tensor) -> NDArray[np.float64]:
    """Normalise maps [..., H, W] to sum 1: 0 where the sum is 0, all NaN where it is not finite."""
    values = maps.numpy(force=True)
    total = values.sum(axis=(-2, -1), keepdims=True)
    shares = np.divide(values, total, out=np.zeros_like(values), where=(total > 0) & np.isfinite(total))
    return np.asarray(np.where(np.isfinite(total), shares, np.nan))


def _attribution(
    function: Callable[[Tensor], Tensor], frames: Tensor, method: Method, module: nn.Module | None, steps: int
) -> Callable[[Tensor, int], Tensor]:
    """Build the Captum attribution: (frames, index of the output) -> attributions [B, C or 1, H, W]."""
    attr = import_optional("captum.attr", needs=f"maps of {METHODS[method]} need captum", extra="explain")
    if method == "integrated":
        # Some steps of all frames at once, never some of the frames: a row may have more to it than a frame.
        at_once = max(len(frames), MAX_PIXELS // (frames.shape[2] * frames.shape[3]))
        return lambda part, k: cast(
            Tensor,
            attr.IntegratedGradients(function).attribute(
                part, baselines=blurred(part), target=k, n_steps=steps, internal_batch_size=at_once
            ),
        )
    if module is None:
        raise ValueError("expected a module for Grad-CAM, got None: pass the one that processes the frames")
    cam = attr.LayerGradCam(function, last_feature_map(function, module, frames))
    size = (frames.shape[2], frames.shape[3])

    def attribute(part: Tensor, k: int) -> Tensor:
        coarse = cast(Tensor, cam.attribute(part, target=k, relu_attributions=True))
        return F.interpolate(coarse.detach(), size, mode="bilinear", align_corners=False)

    return attribute


def blurred(frames: Tensor, share: float = 0.25) -> Tensor:
    """Blur frames [B, C, H, W] twice with a box filter of `share` of the shorter side."""
    size = max(3, round(share * min(frames.shape[2:]))) | 1
    for _ in range(2):
        for kernel, padding in (((size, 1), (size // 2, 0)), ((1, size), (0, size // 2))):
            frames = F.avg_pool2d(frames, kernel, stride=1, padding=padding, count_include_pad=False)
    return frames.detach()


def _depend(outputs: Tensor, given: Tensor) -> bool:
    """Whether outputs depend on a tensor that requires gradients."""
    if not outputs.requires_grad:
        return False
    return torch.autograd.grad(outputs.sum(), given, retain_graph=True, allow_unused=True)[0] is not None


@torch.enable_grad()
def last_feature_map(function: Callable[[Tensor], Tensor], module: nn.Module, frames: Tensor) -> nn.Module:
    """Find the last layer of `module` with several feature maps of several cells that the outputs depend on.

    A branch that runs in `forward` and feeds nothing, such as a mask head or a decoder, has feature maps too:
    the gradient of the outputs with respect to them does not exist.

    Args:
        function: frames -> outputs, as `gradient_maps` takes it.
        module: the module that `function` passes the frames through.
        frames: float [B, C, H, W].

    Raises:
        ValueError: there is none.
    """
    found: list[tuple[nn.Module, Tensor]] = []

    def record(part: nn.Module, inputs: Any, output: Any) -> None:
        # One row per frame: feature maps of crops have no position in the frame.
        several = isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[1:]) > 1
        if several and len(output) == len(frames) and output.requires_grad:
            found.append((part, output))

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    handles = [part.register_forward_hook(record) for part in leaves]
    try:
        outputs = function(frames.detach().clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    for part, features in reversed(found):
        if _depend(outputs, features):
            return part
    raise ValueError(
        f"expected a module with a layer of feature maps [B, C, rows, cols] that the outputs depend on, got "
        f"{type(module).__name__}: use another method"
    )


@torch.enable_grad()  # under torch.no_grad() every map would be zero
def attention_gradient(
    perception: Perception, frames: Tensor, context: Tensor | None = None
) -> NDArray[np.float64]:
    """Gradient of each head's expected position with respect to the frame: which pixels move the attention.

    A head that attends to an object depends on the object's pixels; a head with a fixed map on none.
    Selections without a gradient (the patches of "patches") have no effect here.

    Args:
        perception: a module of any family.
        frames: float [B, C, H, W] in [0, 1].
        context: float [B, C], as the family takes it.

    Returns:
        float64 [B, heads, H, W]: for each head the norm of the gradient over x, y and colour channels. Each
        sums to 1, or to 0 where the map depends on no pixel; all NaN where the gradient is not finite.

    Raises:
        ValueError: frames or a context that the perception does not accept.
    """
    _check_frames(frames)
    coordinates = frame_coordinates(perception.grid)
    given = frames.detach().clone().requires_grad_()
    attention = perception(given, context).attention
    places = attention.flatten(2) @ coordinates.T.to(attention)  # [B, heads, 2]
    lengths = [gradient_length(places[:, head], given) for head in range(places.shape[1])]
    return _sum_to_one(torch.stack(lengths, dim=1))


def rank_agreement(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of two maps for each frame.

    Args:
        maps: float [B, rows, cols].
        others: float [B, rows, cols]. Ties get the mean of their ranks.

    Returns:
        float64 [B], in [-1, 1]; NaN where one of the maps is constant or contains NaN.

    Raises:
        ValueError: maps of different shapes.
    """
    _check_pair(maps, others)
    ours, theirs = (_ranks(batch.reshape(len(batch), -1)) for batch in (maps, others))
    ours -= ours.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    scale = np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    agreement = np.full(len(maps), np.nan)
    return np.asarray(np.divide((ours * theirs).sum(axis=1), scale, out=agreement, where=scale > 0))


def top_agreement(
    maps: NDArray[np.floating], others: NDArray[np.floating], share: float = 0.1
) -> NDArray[np.float64]:
    """Overlap of the highest `share` of the cells of two maps, for each frame.

    Independent maps overlap by `share`. Cells that tie for the last places count with their expected value
    under random tie-breaking.

    Args:
        maps: float [B, rows, cols].
        others: float [B, rows, cols].
        share: fraction of the cells, in (0, 1); at least one cell is taken.

    Returns:
        float64 [B], in [0, 1]; NaN as for `rank_agreement`.

    Raises:
        ValueError: maps of different shapes, or a share outside (0, 1).
    """
    _check_pair(maps, others)
    if not 0 < share < 1:
        raise ValueError(f"expected a share of the cells between 0 and 1, such as 0.1, got {share}")
    ours, theirs = (_in_top(batch.reshape(len(batch), -1), share) for batch in (maps, others))
    return np.asarray((ours * theirs).sum(axis=1) / ours.sum(axis=1))


def _check_pair(maps: NDArray[np.floating], others: NDArray[np.floating]) -> None:
    if maps.shape != others.shape or maps.ndim != 3:
        raise ValueError(
            f"expected two batches of maps [B, rows, cols], got {list(maps.shape)} and {list(others.shape)}"
        )


def _ranks(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank each row [B, N] from 0, ties averaged; all NaN in a row that contains one."""
    ranks = np.empty(rows.shape)
    for row, rank in zip(rows, ranks, strict=True):
        _, which, count = np.unique(row, return_inverse=True, return_counts=True)
        rank[:] = (np.cumsum(count) - (count + 1) / 2)[which]
    ranks[np.isnan(rows).any(axis=1)] = np.nan
    return ranks


def _in_top(rows: NDArray[np.floating], share: float) -> NDArray[np.float64]:
    """Membership of each cell of rows [B, N] in the top `share`, in [0, 1]; NaN where a row is constant."""
    count = max(1, round(share * rows.shape[1]))
    threshold = np.sort(rows, axis=1)[:, -count, None]
    above, tied = rows > threshold, rows == threshold
    places = (count - above.sum(axis=1, keepdims=True)) / np.maximum(tied.sum(axis=1, keepdims=True), 1)
    varies = rows.max(axis=1) > rows.min(axis=1)  # False with a NaN, which is both maximum and minimum
    return np.where(varies[:, None], above + tied * places, np.nan)
