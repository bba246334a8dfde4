"""Actions and maps of a Stable-Baselines3 policy: its attention, or gradients if it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor, nn
from torch.nn import functional as F

from robot_attn import AttentionGrid, Percept, Perception, to_float
from robot_attn.explain import gradient_length
from robot_attn.layout import ImageLayout, image_layout
from robot_attn_policies.compat.stable_baselines3 import greedy_actions
from robot_attn_policies.rollouts.actor import Actor, ObservationBatch
from robot_attn_policies.rollouts.policy_actor import PolicyActor, policy_actor
from robot_attn_policies.sb3.context import (
    NO_CONTEXT,
    Context,
    Memory,
    empty_memory,
    is_recurrent,
    predict,
)
from robot_attn_policies.sb3.extractor import PerceptionExtractor, features_extractor_of, find_extractor
from robot_attn_policies.sb3.images import entries_of, fit_observation, image_entries, pixel_range
from robot_attn_policies.sb3.policy import PerceptionPolicy

MapKind: TypeAlias = Literal["attention", "gradient", "uniform"]
MAP_KINDS: dict[MapKind, str] = {
    "attention": "attention",
    "gradient": "gradient of the action: this policy has no attention",
    "uniform": "uniform: this policy has no attention",
}
"""The kinds of maps, with a description of each."""

GRID = 16
"""Rows and columns of gradient maps; in smaller frames, one for each pixel."""


@dataclass(frozen=True)
class PolicyProbe:
    """Access to a policy's actions, maps and values, whatever its algorithm.

    Attributes:
        policy: the policy.
        act: maps observations to deterministic actions and a `Percept`; as `policy_actor`, in a rollout it
            carries a recurrent policy's memory and applies action masks.
        grid: positions of the maps' cells in the frame.
        image: key of the frames in dict observations, or None where the observation is the frame.
        num_heads: number of maps per frame.
        kind: kind of the maps.
    """

    policy: BasePolicy
    act: Actor
    grid: AttentionGrid
    image: str | None
    num_heads: int
    kind: MapKind

    @property
    def _space(self) -> spaces.Space[Any]:
        return self.policy.observation_space

    @property
    def only_camera(self) -> bool:
        """Whether the policy uses no other camera."""
        return len(camera_names(self.policy)) == 1

    @property
    def uniform(self) -> bool:
        """Whether the maps are uniform by construction."""
        return self.kind == "uniform"

    def values(self, observation: ObservationBatch) -> NDArray[np.float64] | None:
        """Return the policy's value estimates, float64 [B], or None where it has no value function."""
        tensors, _ = self.policy.obs_to_tensor(fit_observation(cast(Any, observation), self._space))
        with torch.no_grad():
            values = _values(self.policy, tensors)
        return None if values is None else values.reshape(-1).double().numpy(force=True)


def probe_policy(
    source: BaseAlgorithm | BasePolicy, *, image: str | None = None, gradients: bool = True
) -> PolicyProbe:
    """Probe any policy that observes images, at one of its cameras.

    The maps of a policy without attention are `action_gradient_maps`: they show which cells of the frame
    would change the action, not what the policy attends to.

    Args:
        source: an algorithm or its policy.
        image: key of the camera's image; None for a policy with one camera. `probe_cameras` returns a probe
            of each.
        gradients: whether to return gradients instead of attention that is uniform by construction, as that
            of the family "cnn" is.

    Returns:
        The probe.

    Raises:
        ValueError: the policy observes no images, not that image, or several if `image` is None.
    """
    policy = source.policy if isinstance(source, BaseAlgorithm) else source
    cameras = camera_names(policy)
    if image is None and len(cameras) > 1:
        raise ValueError(
            f"expected the name of one of the policy's cameras {list(cameras)}, got none: choose one, such "
            f"as image={cameras[0]!r}, or take all of them, as probe_cameras and record_cameras do"
        )
    if image is not None and image not in cameras:
        raise ValueError(
            f"expected one of the images that the policy observes, {list(cameras)}, got {image!r}: name one "
            "of them"
        )
    key = cameras[0] if image is None else image
    try:
        extractor = find_extractor(policy)
    except ValueError:
        return _gradient_probe(policy, key, image_entries(policy.observation_space)[key].image_size)
    perception = extractor.perception_of(key)
    if perception.uniform and gradients:
        return _gradient_probe(policy, key, perception.image_shape[1:])
    return _attention_probe(policy, perception, key)


def probe_cameras(
    source: BaseAlgorithm | BasePolicy, *, gradients: bool = True
) -> dict[str | None, PolicyProbe]:
    """Probe every camera of a policy.

    Args:
        source: an algorithm or its policy.
        gradients: as for `probe_policy`.

    Returns:
        A probe for each camera by the key of its image, in the policy's order; the key is None for a policy
        whose observation is the image.

    Raises:
        ValueError: the policy observes no images.
    """
    policy = source.policy if isinstance(source, BaseAlgorithm) else source
    return {key: probe_policy(policy, image=key, gradients=gradients) for key in camera_names(policy)}


def camera_names(policy: BasePolicy) -> tuple[str | None, ...]:
    """Return the keys of the images that a policy uses; (None,) if its observation is the image.

    Raises:
        ValueError: the policy observes no images.
    """
    try:
        return find_extractor(policy).image_keys
    except ValueError:
        keys = tuple(image_entries(policy.observation_space))
    if not keys:
        raise ValueError(
            f"expected a policy that observes images, got one that observes {policy.observation_space}: "
            "train it on frames"
        )
    return keys


def image_module(probe: PolicyProbe) -> nn.Module:
    """Return the smallest module of a policy that has the feature maps of the probe's camera, and no others.

    It is the camera's perception, its entry of SB3's `CombinedExtractor`, or the policy.
    """
    found = features_extractor_of(probe.policy)
    if isinstance(found, PerceptionExtractor):
        return found.perception_of(probe.image)
    extractors = getattr(found, "extractors", None)
    return extractors[str(probe.image)] if isinstance(extractors, nn.ModuleDict) else probe.policy


def _attention_probe(policy: BasePolicy, perception: Perception, image: str | None) -> PolicyProbe:
    return PolicyProbe(
        policy,
        policy_actor(policy, image=image),
        perception.grid,
        image,
        perception.num_heads,
        "uniform" if perception.uniform else "attention",
    )


def _gradient_probe(policy: BasePolicy, image: str | None, image_size: tuple[int, int]) -> PolicyProbe:
    def acting(
        observation: ObservationBatch, context: Context
    ) -> tuple[NDArray[Any], Percept, Memory | None]:
        actions, memory = predict(policy, observation, context)
        maps = action_gradient_maps(policy, observation, image, context=context)
        return actions, Percept(maps.new_empty((len(maps), 0)), maps[:, None]), memory

    ys, xs = (_centers(length) for length in image_size)
    grid = AttentionGrid(ys, xs, image_size)
    return PolicyProbe(policy, PolicyActor(policy, acting), grid, image, 1, "gradient")


def frames_of(observation: ObservationBatch, image: str, grid: AttentionGrid) -> NDArray[Any]:
    """Return the frames of an observation, channels last.

    Args:
        observation: a batch of frames, or a mapping with one, channels first or last.
        image: key of the frames in a mapping.
        grid: the grid of the policy's maps.

    Returns:
        [B, H, W, C].

    Raises:
        ValueError: no such key, or frames of another size than the grid's.
    """
    frames, layout = _frames_and_layout(observation, image, grid)
    return layout.to_channels_last(frames)


def with_frames(
    observation: ObservationBatch, image: str, grid: AttentionGrid, frames: NDArray[Any]
) -> ObservationBatch:
    """Return the observation with its frames replaced by `frames` [B, H, W, C]; arguments as `frames_of`."""
    _, layout = _frames_and_layout(observation, image, grid)
    frames = layout.from_channels_last(frames)
    return {**observation, image: frames} if isinstance(observation, Mapping) else frames


def _frames_and_layout(
    observation: ObservationBatch, image: str, grid: AttentionGrid
) -> tuple[NDArray[Any], ImageLayout]:
    """Return the frames as the observation has them, and the axes of one."""
    if not isinstance(observation, Mapping):
        frames = observation
    elif image in observation:
        frames = observation[image]
    else:
        raise ValueError(
            f"expected an observation with {image!r}, got the entries {sorted(observation)}: name the entry "
            "with the frames"
        )
    layout = image_layout(frames.shape[1:], grid.image_size)
    if layout is None:
        raise ValueError(
            f"expected frames of {grid.image_size} pixels, as the maps, got {list(frames.shape)}: "
            "resize them as in training"
        )
    return frames, layout


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
    cells = F.adaptive_avg_pool2d(length[:, None], (min(GRID, height), min(GRID, width)))[:, 0]
    total = cells.sum(dim=(1, 2), keepdim=True)
    return torch.where(
        total > 0, cells / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / cells[0].numel()
    )


def decision(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, *, context: Context = NO_CONTEXT
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return a policy's decision as a differentiable function of its frames.

    For continuous actions, the decision is their means [B, A] (before SAC's tanh). For a discrete action, it
    is the highest score (logit or Q-value) minus the mean of all, [B, 1]; for several, [B, actions]. Actions
    that are not allowed are left out. For binary actions it is their logits [B, actions].

    Args:
        policy: the policy.
        observation: a batch of observations as the environment returns them, or a single one.
        image: key of the frames, or None where the observation is the frames.
        context: memory of a recurrent policy, which stays as it is whatever the frames, and action masks.

    Returns:
        The frames, float [B, C, H, W] in [0, 1], and the function. The function also takes n x B frames; it
        then repeats the observation's other entries n times.

    Raises:
        ValueError: a policy with neither a distribution, an actor nor a Q-network.
    """
    policy.set_training_mode(False)
    space = policy.observation_space
    tensors, _ = policy.obs_to_tensor(fit_observation(cast(Any, observation), space))
    observed = cast(Any, tensors) if image is None else cast(Any, tensors)[image]
    layout, entry = image_entries(space)[image], entries_of(space)[image]
    is_uint8 = observed.dtype == torch.uint8
    low, high = (0.0, 255.0) if is_uint8 else pixel_range(entry, image)
    unit = to_float(observed, torch.float32) if is_uint8 else (observed.detach() - low) / (high - low)
    frames = layout.to_channels_first(unit)
    # A policy takes the values of its space; `PerceptionPolicy` takes images that it leaves undivided.
    if isinstance(policy, PerceptionPolicy) and is_image_space(entry):
        low, high = 0.0, 1.0

    def decide(frames: Tensor) -> Tensor:
        scaled = layout.from_channels_first(frames if (low, high) == (0, 1) else frames * (high - low) + low)
        count = len(frames) // len(observed)
        if image is None:
            return _scores(policy, scaled, context.repeat(count))
        others = {
            name: entry.repeat(count, *[1] * (entry.ndim - 1)) if count > 1 else entry
            for name, entry in cast(Mapping[str, Tensor], tensors).items()
            if name != image
        }
        return _scores(policy, {**others, image: scaled}, context.repeat(count))

    return frames, decide


def _scores(policy: Any, observation: Any, context: Context) -> Tensor:
    """Compute `decision` for observations as tensors [B, ...], and their context."""
    if is_recurrent(policy):
        return _of_distribution(_recurrent_distribution(policy, observation, context))
    if hasattr(policy, "get_distribution"):
        return _of_distribution(policy.get_distribution(observation), context.action_masks)
    actor = getattr(policy, "actor", None)
    if actor is not None:
        squashed = hasattr(actor, "get_action_dist_params")
        return cast(Tensor, actor.get_action_dist_params(observation)[0] if squashed else actor(observation))
    if hasattr(policy, "q_net"):
        return _margin(policy.q_net(observation))
    if hasattr(policy, "quantile_net"):
        return _margin(policy.quantile_net(observation).mean(dim=1))
    if hasattr(policy, "action_net"):  # of ARS
        outputs = policy.action_net(policy.extract_features(observation, policy.features_extractor))
        return _margin(outputs) if isinstance(policy.action_space, spaces.Discrete) else cast(Tensor, outputs)
    raise ValueError(
        f"expected a policy with an actor, a distribution or a Q-network, got {type(policy).__name__}: "
        "its decision cannot be differentiated"
    )


def _recurrent_distribution(policy: Any, observation: Any, context: Context) -> Any:
    frames = observation if isinstance(observation, Tensor) else next(iter(observation.values()))
    memory = context.memory or empty_memory(policy, len(frames))
    state = tuple(torch.as_tensor(part, dtype=torch.float32, device=policy.device) for part in memory)
    starts = torch.zeros(len(frames), device=policy.device)
    return policy.get_distribution(observation, state, starts)[0]


def _of_distribution(distribution: Any, action_masks: NDArray[np.bool_] | None = None) -> Tensor:
    inner = getattr(distribution, "distributions", distribution.distribution)  # the first of MaskablePPO
    parts = inner if isinstance(inner, list) else [inner]
    if all(isinstance(part, torch.distributions.Categorical) for part in parts):
        logits = [part.logits for part in parts]
        if action_masks is None:
            return torch.cat([_margin(scores) for scores in logits], dim=1)
        masks = torch.as_tensor(action_masks, device=logits[0].device)
        allowed = torch.split(masks, [scores.shape[1] for scores in logits], dim=1)
        return torch.cat([_margin(*pair) for pair in zip(logits, allowed, strict=True)], dim=1)
    return cast(Tensor, inner.logits if isinstance(inner, torch.distributions.Bernoulli) else inner.mean)


def _margin(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The highest of the scores [B, A] that are allowed, bool [B, A], minus their mean: [B, 1]."""
    if allowed is None:
        return (scores.amax(dim=1) - scores.mean(dim=1))[:, None]
    highest = scores.masked_fill(~allowed, -torch.inf).amax(dim=1)
    return (highest - (scores * allowed).sum(dim=1) / allowed.sum(dim=1))[:, None]


def _values(policy: Any, observation: Any) -> Tensor | None:
    if is_recurrent(policy):
        return None  # its value depends on its state
    if hasattr(policy, "predict_values"):
        return cast(Tensor, policy.predict_values(observation))
    if hasattr(policy, "critic"):
        critics = policy.critic(observation, greedy_actions(policy, observation))
        if isinstance(critics, Tensor):  # sb3-contrib's TQC: [B, critics, quantiles]
            return critics.mean(dim=(1, 2))
        return torch.cat(critics, dim=1).amin(dim=1)
    if hasattr(policy, "q_net"):
        return cast(Tensor, policy.q_net(observation)).amax(dim=1)
    if hasattr(policy, "quantile_net"):
        return cast(Tensor, policy.quantile_net(observation)).mean(dim=1).amax(dim=1)
    return None


def _centers(length: int) -> NDArray[np.float32]:
    """Centres, in pixels, of the cells of `adaptive_avg_pool2d` along an axis of `length` pixels."""
    cells = min(GRID, length)
    i = np.arange(cells)
    return ((i * length // cells + -(-(i + 1) * length // cells) - 1) / 2).astype(np.float32)
