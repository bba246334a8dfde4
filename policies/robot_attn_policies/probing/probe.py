"""What a Stable-Baselines3 policy does and where it looks: its attention, or gradients where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor
from torch.nn import functional as F

from robot_attn import AttentionGrid, Percept, to_float
from robot_attn.explain import gradient_length
from robot_attn.frames import channel_axis, channels_to_back, channels_to_front
from robot_attn_policies.compat.stable_baselines3 import greedy_actions
from robot_attn_policies.rollouts.rollout import Actor, ObservationBatch, policy_actor
from robot_attn_policies.sb3.act import Memory, act
from robot_attn_policies.sb3.extractor import PerceptionExtractor, find_extractor
from robot_attn_policies.sb3.policy import PerceptionPolicy

MapKind: TypeAlias = Literal["attention", "gradient", "uniform"]
MAP_KINDS: dict[MapKind, str] = {
    "attention": "attention",
    "gradient": "gradient of the action: this policy has no attention",
    "uniform": "uniform: this policy does not say where it looks",
}
"""What maps are, in words."""

GRID = 16
"""Rows and columns of gradient maps, or one a pixel in frames smaller than that."""


@dataclass(frozen=True)
class PolicyProbe:
    """A policy, as everything that watches it wants it."""

    policy: BasePolicy
    act: Actor
    """Without exploration noise."""
    grid: AttentionGrid
    """Where the cells of its maps lie."""
    image: str | None
    """The key of the frames where observations have keys."""
    num_heads: int
    kind: MapKind
    """What its maps are."""

    @property
    def uniform(self) -> bool:
        """Its maps say nothing."""
        return self.kind == "uniform"

    def values(self, observation: ObservationBatch) -> NDArray[np.float64] | None:
        """What the policy expects to earn from here on, [B]; None where it does not say."""
        tensors, _ = self.policy.obs_to_tensor(cast(Any, observation))
        with torch.no_grad():
            values = _values(self.policy, tensors)
        return None if values is None else values.reshape(-1).double().numpy(force=True)


def probe_policy(source: BaseAlgorithm | BasePolicy, *, gradients: bool = True) -> PolicyProbe:
    """The eyes of any policy that sees images.

    Those of a policy without attention are `action_gradient_maps`: they say which cells of the frame would
    change the action, not what the policy attends to.

    Args:
        source: an algorithm or its policy; channel-first frames, as Stable-Baselines3 makes them.
        gradients: whether to give gradients in place of attention that is uniform by construction, as that
            of the family "cnn".

    Raises:
        ValueError: a policy that sees no images.
    """
    policy = source.policy if isinstance(source, BaseAlgorithm) else source
    try:
        extractor = find_extractor(policy)
    except ValueError:
        return _gradient_probe(policy, *_image(policy.observation_space))
    if extractor.perception.uniform and gradients:
        return _gradient_probe(policy, extractor.image_key, extractor.perception.image_shape[1:])
    return _attention_probe(policy, extractor)


def _attention_probe(policy: BasePolicy, extractor: PerceptionExtractor) -> PolicyProbe:
    perception = extractor.perception
    return PolicyProbe(
        policy,
        policy_actor(policy),
        perception.grid,
        extractor.image_key,
        perception.num_heads,
        "uniform" if perception.uniform else "attention",
    )


def _gradient_probe(policy: BasePolicy, image: str | None, image_size: tuple[int, int]) -> PolicyProbe:
    def act(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        actions, _ = policy.predict(cast(Any, observation), deterministic=True)
        return actions, _percept(action_gradient_maps(policy, observation, image))

    ys, xs = (_centers(length) for length in image_size)
    return PolicyProbe(policy, act, AttentionGrid(ys, xs, image_size), image, 1, "gradient")


def _percept(maps: Tensor) -> Percept:
    """Maps [B, rows, cols] as what one head looked at, without features."""
    return Percept(maps.new_empty((len(maps), 0)), maps[:, None])


def frames_of(observation: ObservationBatch, image: str, grid: AttentionGrid) -> NDArray[Any]:
    """The observation's frames as [B, H, W, C], whichever way round it has them."""
    frames, axis = _stored(observation, image, grid)
    return frames if axis == -1 else channels_to_back(frames)


def with_frames(
    observation: ObservationBatch, image: str, grid: AttentionGrid, frames: NDArray[Any]
) -> ObservationBatch:
    """The observation with these frames [B, H, W, C] replacing its frames."""
    _, axis = _stored(observation, image, grid)
    frames = frames if axis == -1 else channels_to_front(frames)
    return {**observation, image: frames} if isinstance(observation, Mapping) else frames


def _stored(observation: ObservationBatch, image: str, grid: AttentionGrid) -> tuple[NDArray[Any], int]:
    """The observation's frames as they are, and which of their axes is that of the channels."""
    if not isinstance(observation, Mapping):
        frames = observation
    elif image in observation:
        frames = observation[image]
    else:
        raise ValueError(f"the observation has no frames by the name {image!r}, only {sorted(observation)}")
    axis = channel_axis(frames.shape, grid.image_size) if frames.ndim == 4 else None
    if axis is None:
        raise ValueError(
            f"expected frames of {grid.image_size} pixels, as the maps, got {list(frames.shape)}"
        )
    return frames, axis


def remembering(probe: PolicyProbe) -> Actor:
    """Act through one episode, with what a recurrent policy remembers carried from step to step.

    `eyes.act` itself meets every observation as an episode's first. For a policy that remembers nothing it is
    the same.
    """
    policy = probe.policy
    memory: Memory | None = None
    if not hasattr(policy, "lstm_actor"):
        return probe.act

    def attentive(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        nonlocal memory
        actions, percept, memory = act(policy, observation, memory)
        return actions, percept

    def differentiated(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        nonlocal memory
        before = memory
        actions, after = policy.predict(cast(Any, observation), state=before, deterministic=True)
        memory = cast(Memory, after)
        return actions, _percept(action_gradient_maps(policy, observation, probe.image, memory=before))

    return differentiated if probe.kind == "gradient" else attentive


def action_gradient_maps(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, *, memory: Memory | None = None
) -> Tensor:
    """How much each cell of the frame would change the action, [B, rows, cols], each with sum 1.

    The length of the gradient of `decision` with respect to a pixel, over actions and colours (Simonyan et
    al. 2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034, section 3), averaged
    over each cell. A policy that the frame does not move at all gets a uniform map.
    """
    frames, decide = decision(policy, observation, image, memory=memory)
    frames.requires_grad_()
    length = gradient_length(decide(frames), frames, dtype=frames.dtype)
    height, width = frames.shape[2:]
    cells = F.adaptive_avg_pool2d(length[:, None], (min(GRID, height), min(GRID, width)))[:, 0]
    total = cells.sum(dim=(1, 2), keepdim=True)
    return torch.where(
        total > 0, cells / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / cells[0].numel()
    )


def decision(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, *, memory: Memory | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What a policy is about to do, as a function of its frames that can be differentiated.

    Of continuous actions it is their means [B, A] (before SAC's tanh). Of choices it is how far the score of
    the chosen one (its logit, or its Q-value) is above the mean of all, [B, 1], or [B, choices] of several
    at once.

    Args:
        policy: the policy.
        observation: a batch as the environment gives it, or one observation.
        image: the key of the frames, None where the observation is the frames.
        memory: what a recurrent policy remembers, as its `predict` gives it; by default it decides as at an
            episode's start.

    Returns:
        The frames, float [B, C, H, W] in [0, 1], and the function. It takes n B frames too: the observation's
        other entries are repeated n times over.

    Raises:
        ValueError: a policy whose kind of action is not known.
    """
    policy.set_training_mode(False)
    tensors, _ = policy.obs_to_tensor(cast(Any, observation))
    seen = cast(Any, tensors) if image is None else cast(Any, tensors)[image]
    whole = seen.dtype == torch.uint8
    frames = to_float(seen, torch.float32) if whole else seen.detach().clone()
    # Stable-Baselines3 divides what its space says are bytes, whatever they come as; ours does not.
    divides = whole and policy.normalize_images and not isinstance(policy, PerceptionPolicy)

    def decide(frames: Tensor) -> Tensor:
        given = frames * 255 if divides else frames
        count = len(frames) // len(seen)
        if image is None:
            return _scores(policy, given, memory, count)
        others = {
            name: entry.repeat(count, *[1] * (entry.ndim - 1)) if count > 1 else entry
            for name, entry in cast(Mapping[str, Tensor], tensors).items()
            if name != image
        }
        return _scores(policy, {**others, image: given}, memory, count)

    return frames, decide


def _scores(policy: Any, observation: Any, memory: Memory | None, count: int) -> Tensor:
    """`decision`, of an observation as tensors, which holds what the memory goes with `count` times."""
    if hasattr(policy, "lstm_actor"):
        return _of_distribution(_recurrent_distribution(policy, observation, memory, count))
    if isinstance(policy, ActorCriticPolicy):
        return _of_distribution(policy.get_distribution(observation))
    actor = getattr(policy, "actor", None)
    if actor is not None:
        squashed = hasattr(actor, "get_action_dist_params")
        return cast(Tensor, actor.get_action_dist_params(observation)[0] if squashed else actor(observation))
    if hasattr(policy, "q_net"):
        return _margin(policy.q_net(observation))
    if hasattr(policy, "quantile_net"):
        return _margin(policy.quantile_net(observation).mean(dim=1))
    raise ValueError(
        f"{type(policy).__name__} has no actor, no distribution and no Q-network: what it decides cannot be "
        "differentiated"
    )


def _recurrent_distribution(policy: Any, observation: Any, memory: Memory | None, count: int) -> Any:
    frames = observation if isinstance(observation, Tensor) else next(iter(observation.values()))
    layers, _, size = policy.lstm_hidden_state_shape
    if memory is None:
        memory = (np.zeros((layers, len(frames) // count, size), dtype=np.float32),) * 2
    state = tuple(
        torch.as_tensor(part, dtype=torch.float32, device=policy.device).repeat(1, count, 1)
        for part in memory
    )
    starts = torch.zeros(len(frames), device=policy.device)
    return policy.get_distribution(observation, state, starts)[0]


def _of_distribution(distribution: Any) -> Tensor:
    inner = distribution.distribution
    if isinstance(inner, list):  # several choices at once
        return torch.cat([_margin(part.logits) for part in inner], dim=1)
    if isinstance(inner, torch.distributions.Categorical):
        return _margin(inner.logits)
    if isinstance(inner, torch.distributions.Bernoulli):
        return inner.logits
    return cast(Tensor, inner.mean)


def _margin(scores: Tensor) -> Tensor:
    return (scores.amax(dim=1) - scores.mean(dim=1))[:, None]


def _values(policy: Any, observation: Any) -> Tensor | None:
    if hasattr(policy, "lstm_actor"):
        return None  # its value depends on what it remembers
    if isinstance(policy, ActorCriticPolicy):
        return policy.predict_values(observation)
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


def _image(space: spaces.Space[Any]) -> tuple[str | None, tuple[int, int]]:
    """The key of the first image of a space, and the size of its frames."""
    entries = list(space.spaces.items()) if isinstance(space, spaces.Dict) else [(None, space)]
    for key, entry in entries:
        if is_image_space(entry) or (isinstance(entry, spaces.Box) and len(entry.shape) == 3):
            assert entry.shape is not None
            return key, (entry.shape[1], entry.shape[2])
    raise ValueError(f"expected a policy that sees images, got one that observes {space}")


def _centers(length: int) -> NDArray[np.float32]:
    """The centres in pixels of the cells that `adaptive_avg_pool2d` makes of an axis."""
    cells = min(GRID, length)
    i = np.arange(cells)
    return ((i * length // cells + -(-(i + 1) * length // cells) - 1) / 2).astype(np.float32)
