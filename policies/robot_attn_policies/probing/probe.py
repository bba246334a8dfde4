"""Actions and maps of a Stable-Baselines3 policy: its attention, or causal maps or gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from robot_attn import AttentionGrid, Percept, Perception
from robot_attn.errors import unknown_name
from robot_attn.layout import ImageLayout, image_layout
from robot_attn_policies.probing.decision import value
from robot_attn_policies.probing.policy_maps import (
    FAST,
    PRECISE,
    Sampling,
    action_gradient_maps,
    causal_cells,
    pixel_grid,
    policy_causal_maps,
)
from robot_attn_policies.rollouts.actor import Actor, ObservationBatch
from robot_attn_policies.rollouts.policy_actor import PolicyActor, policy_actor
from robot_attn_policies.sb3.context import Context, Memory, predict
from robot_attn_policies.sb3.extractor import PerceptionExtractor, features_extractor_of, find_extractor
from robot_attn_policies.sb3.images import image_entries

MapKind: TypeAlias = Literal["attention", "causal", "gradient", "uniform"]
MAP_KINDS: dict[MapKind, str] = {
    "attention": "attention",
    "causal": "causal: how much the action changes when pixels are removed",
    "gradient": "gradient of the action",
    "uniform": "uniform: this policy has no attention",
}
"""The kinds of maps, with a description of each."""

MapChoice: TypeAlias = Literal["attention", "causal", "gradient"]
"""The maps that can be asked for. "attention" is uniform for a policy that has none."""


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
    def only_camera(self) -> bool:
        """Whether the policy uses no other camera."""
        return len(camera_names(self.policy)) == 1

    @property
    def uniform(self) -> bool:
        """Whether the maps are uniform by construction."""
        return self.kind == "uniform"

    def values(self, observation: ObservationBatch) -> NDArray[np.float64] | None:
        """Return the policy's value estimates, float64 [B], or None where it has no value function."""
        return value(self.policy, observation)

    def with_fast_maps(self) -> PolicyProbe:
        """Return the probe for rollouts that need a map at every step: causal maps of fewer masks."""
        if self.kind != "causal":
            return self
        return _computed_probe(self.policy, self.image, self.grid.image_size, "causal", FAST)


def probe_policy(
    source: BaseAlgorithm | BasePolicy, *, image: str | None = None, maps: MapChoice | None = None
) -> PolicyProbe:
    """Probe any policy that observes images, at one of its cameras.

    A policy without attention has causal maps, which are measured: how much the action changes when pixels
    are removed (`policy_causal_maps`). They take about 100 forward passes for each frame. Gradients
    (`action_gradient_maps`) take one, and show which cells would change the action by an infinitesimal
    amount.

    Args:
        source: an algorithm or its policy.
        image: key of the camera's image; None for a policy with one camera. `probe_cameras` returns a probe
            of each.
        maps: kind of the maps. "causal" and "gradient" are also possible for a policy with attention;
            "attention" is uniform for a policy without, and costs nothing. None is attention where there is
            any, otherwise "causal".

    Returns:
        The probe.

    Raises:
        ValueError: an unknown kind of maps, or the policy observes no images, not that image, or several if
            `image` is None.
    """
    choices = get_args(MapChoice)
    if maps is not None and maps not in choices:
        raise unknown_name("kind of maps", maps, choices)
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
        perception = None
    else:
        perception = extractor.perception_of(key)
    if perception is not None and (maps == "attention" or (maps is None and not perception.uniform)):
        return _attention_probe(policy, perception, key)
    image_size = image_entries(policy.observation_space)[key].image_size
    return _computed_probe(policy, key, image_size, "uniform" if maps == "attention" else maps or "causal")


def probe_cameras(
    source: BaseAlgorithm | BasePolicy, *, maps: MapChoice | None = None
) -> dict[str | None, PolicyProbe]:
    """Probe every camera of a policy.

    Args:
        source: an algorithm or its policy.
        maps: kind of the maps, as `probe_policy` takes it.

    Returns:
        A probe for each camera by the key of its image, in the policy's order; the key is None for a policy
        whose observation is the image.

    Raises:
        ValueError: the policy observes no images, or an unknown kind of maps.
    """
    policy = source.policy if isinstance(source, BaseAlgorithm) else source
    return {key: probe_policy(policy, image=key, maps=maps) for key in camera_names(policy)}


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


def _computed_probe(
    policy: BasePolicy,
    image: str | None,
    image_size: tuple[int, int],
    kind: MapKind,
    sampling: Sampling = PRECISE,
) -> PolicyProbe:
    """Probe a policy by maps that are computed beside its actions."""
    grid = pixel_grid(image_size)

    def cells(observation: ObservationBatch, context: Context, count: int) -> Tensor:
        if kind == "causal":
            return causal_cells(
                policy_causal_maps(policy, observation, image, context=context, sampling=sampling)
            )
        if kind == "gradient":
            return action_gradient_maps(policy, observation, image, context=context)
        rows, cols = grid.shape
        return torch.full((count, rows, cols), 1 / (rows * cols))

    def acting(
        observation: ObservationBatch, context: Context
    ) -> tuple[NDArray[Any], Percept, Memory | None]:
        actions, memory = predict(policy, observation, context)
        maps = cells(observation, context, len(actions))
        return actions, Percept(maps.new_empty((len(maps), 0)), maps[:, None]), memory

    return PolicyProbe(policy, PolicyActor(policy, acting), grid, image, 1, kind)


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
