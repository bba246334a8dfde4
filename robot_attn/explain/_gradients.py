"""Maps of which pixels an output depends on, by its gradients; some through Captum (the extra "explain").

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
STEPS = 16
"""Of the path of integrated gradients."""
PIXELS = 2**20
"""Of the frames that go through a function at once on that path, unless the batch alone has more."""


def gradient_maps(
    function: Callable[[Tensor], Tensor],
    frames: Tensor,
    method: Method,
    *,
    module: nn.Module | None = None,
    steps: int = STEPS,
) -> NDArray[np.float64]:
    """How much the outputs of a function depend on each pixel of its frames.

    - "saliency": `gradient_length`, the one that needs no Captum.
    - "integrated": gradients along the way from the frame's blurred self, times the difference (Sundararajan
      et al. 2017, https://arxiv.org/abs/1703.01365, equation 1). A black frame would say that what is dark
      does not matter.
    - "grad_cam": the last feature map of `module`, weighted by the mean gradient of its channels, where
      positive (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2).

    Of several outputs the maps' squares are added up; of colours too.

    Args:
        function: frames float [B, C, H, W] -> outputs [B] or [B, K], each row of its own frame alone; for
            "integrated" also of up to `steps` times as many frames, all of them over and over.
        frames: float [B, C, H, W] in [0, 1], at least one.
        method: of `METHODS`.
        module: for "grad_cam", what `function` runs the frames through.
        steps: of "integrated".

    Returns:
        [B, H, W], each with sum 1; all 0 where nothing depends on the frame, and all NaN where the gradient
        is not finite.

    Raises:
        ValueError: an unknown method; frames of another kind; no `module`, or none that gives feature maps.
        ModuleNotFoundError: Captum is not installed.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, METHODS)
    _check_frames(frames)

    def rows(part: Tensor) -> Tensor:
        return function(part).reshape(len(part), -1)

    frames = frames.detach()
    if method == "saliency":
        with torch.enable_grad():
            given = frames.clone().requires_grad_()
            return _sum_to_one(gradient_length(rows(given), given))
    attribute = _attribution(rows, frames, method, module, steps)
    with torch.no_grad():
        outputs = rows(frames).shape[1]
    squares = torch.zeros(len(frames), *frames.shape[2:], dtype=torch.float64, device=frames.device)
    for k in range(outputs):
        squares += attribute(frames.clone().requires_grad_(), k).detach().double().square().sum(dim=1)
    return _sum_to_one(squares.sqrt())


def gradient_length(outputs: Tensor, frames: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """How much outputs depend on each pixel: the length of the gradient, over outputs and colours.

    Simonyan et al. 2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034, section 3.

    Args:
        outputs: float [B, K], each row of its own frame alone.
        frames: float [B, C, H, W], which require gradients.
        dtype: what is summed up in.

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
            f"expected float frames [B, C, H, W] in [0, 1], got {frames.dtype} {list(frames.shape)}; "
            "`robot_attn.to_float` makes them of uint8"
        )


def _sum_to_one(maps: Tensor) -> NDArray[np.float64]:
    """Maps [..., H, W] over their sum: 0 where that is 0, and NaN as a whole where it is not finite."""
    values = maps.numpy(force=True)
    total = values.sum(axis=(-2, -1), keepdims=True)
    shares = np.divide(values, total, out=np.zeros_like(values), where=(total > 0) & np.isfinite(total))
    return np.asarray(np.where(np.isfinite(total), shares, np.nan))


def _attribution(
    function: Callable[[Tensor], Tensor], frames: Tensor, method: Method, module: nn.Module | None, steps: int
) -> Callable[[Tensor, int], Tensor]:
    """(frames, which output) -> attributions [B, C or 1, H, W]."""
    attr = import_optional("captum.attr", needs=f"maps of {METHODS[method]} need captum", extra="explain")
    if method == "integrated":
        # Some steps of all frames at once, never some of the frames: a row may have more to it than a frame.
        at_once = max(len(frames), PIXELS // (frames.shape[2] * frames.shape[3]))
        return lambda part, k: cast(
            Tensor,
            attr.IntegratedGradients(function).attribute(
                part, baselines=blurred(part), target=k, n_steps=steps, internal_batch_size=at_once
            ),
        )
    if module is None:
        raise ValueError("Grad-CAM looks into a network: name the module that the frames go through")
    cam = attr.LayerGradCam(function, last_feature_map(function, module, frames))
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


@torch.enable_grad()  # where a caller has them off, every map would come out as moved by nothing
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
        to 0 where no pixel moves the map; all NaN where the gradient is not finite.

    Raises:
        ValueError: frames or a context that the perception does not take.
    """
    _check_frames(frames)
    coordinates = frame_coordinates(perception.grid)
    given = frames.detach().clone().requires_grad_()
    attention = perception(given, context).attention
    places = attention.flatten(2) @ coordinates.T.to(attention)  # [B, heads, 2]
    lengths = [gradient_length(places[:, head], given) for head in range(places.shape[1])]
    return _sum_to_one(torch.stack(lengths, dim=1))


def rank_agreement(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of two maps a frame, in [-1, 1].

    NaN where one of the two is constant, which ranks nothing, or holds a NaN.

    Args:
        maps: [B, rows, cols].
        others: [B, rows, cols]; ties get the mean of their ranks.

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
    """How much of the highest `share` of the cells two maps have in common, a frame, in [0, 1].

    Two maps that have nothing to do with each other share `share` of them. Of cells that tie for the last
    places each counts as much as the lot would give it on average. NaN as for `rank_agreement`.

    Args:
        maps: [B, rows, cols].
        others: [B, rows, cols].
        share: of the cells, in (0, 1); at least one cell is taken.

    Raises:
        ValueError: maps of different shapes; a share outside (0, 1).
    """
    _check_pair(maps, others)
    if not 0 < share < 1:
        raise ValueError(f"a share of the cells lies between 0 and 1, such as 0.1, got {share}")
    ours, theirs = (_in_top(batch.reshape(len(batch), -1), share) for batch in (maps, others))
    return np.asarray((ours * theirs).sum(axis=1) / ours.sum(axis=1))


def _check_pair(maps: NDArray[np.floating], others: NDArray[np.floating]) -> None:
    if maps.shape != others.shape or maps.ndim != 3:
        raise ValueError(
            f"expected two batches of maps [B, rows, cols], got {list(maps.shape)} and {list(others.shape)}"
        )


def _ranks(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 0 within each row [B, N], ties averaged; NaN in a row that holds one."""
    ranks = np.empty(rows.shape)
    for row, rank in zip(rows, ranks, strict=True):
        _, which, count = np.unique(row, return_inverse=True, return_counts=True)
        rank[:] = (np.cumsum(count) - (count + 1) / 2)[which]
    ranks[np.isnan(rows).any(axis=1)] = np.nan
    return ranks


def _in_top(rows: NDArray[np.floating], share: float) -> NDArray[np.float64]:
    """How far each cell of rows [B, N] is among the highest, in [0, 1]; NaN where a row ranks nothing."""
    count = max(1, round(share * rows.shape[1]))
    least = np.sort(rows, axis=1)[:, -count, None]
    above, tied = rows > least, rows == least
    places = (count - above.sum(axis=1, keepdims=True)) / np.maximum(tied.sum(axis=1, keepdims=True), 1)
    says = rows.max(axis=1) > rows.min(axis=1)  # a NaN is the maximum and the minimum, and above nothing
    return np.where(says[:, None], above + tied * places, np.nan)
