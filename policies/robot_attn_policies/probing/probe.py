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
        act: maps observations to deterministic actions and a `Percept`.
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
    def uniform(self) -> bool:
        """Whether the maps are uniform by construction."""
        return self.kind == "uniform"

    def values(self, observation: ObservationBatch) -> NDArray[np.float64] | None:
        """Return the policy's value estimates, float64 [B], or None where it has no value function."""
        tensors, _ = self.policy.obs_to_tensor(cast(Any, observation))
        with torch.no_grad():
            values = _values(self.policy, tensors)
        return None if values is None else values.reshape(-1).double().numpy(force=True)


def probe_policy(source: BaseAlgorithm | BasePolicy, *, gradients: bool = True) -> PolicyProbe:
    """Probe any policy that observes images.

    The maps of a policy without attention are `action_gradient_maps`: they show which cells of the frame
    would change the action, not what the policy attends to.

    Args:
        source: an algorithm or its policy, with channel-first frames as Stable-Baselines3 makes them.
        gradients: whether to return gradients instead of attention that is uniform by construction, as that
            of the family "cnn" is.

    Returns:
        The probe.

    Raises:
        ValueError: the policy observes no images.
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
    """Wrap maps [B, rows, cols] as the attention of one head, without features."""
    return Percept(maps.new_empty((len(maps), 0)), maps[:, None])


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
    frames, axis = _frames_and_axis(observation, image, grid)
    return frames if axis == -1 else channels_to_back(frames)


def with_frames(
    observation: ObservationBatch, image: str, grid: AttentionGrid, frames: NDArray[Any]
) -> ObservationBatch:
    """Return the observation with its frames replaced by `frames` [B, H, W, C]; arguments as `frames_of`."""
    _, axis = _frames_and_axis(observation, image, grid)
    frames = frames if axis == -1 else channels_to_front(frames)
    return {**observation, image: frames} if isinstance(observation, Mapping) else frames


def _frames_and_axis(
    observation: ObservationBatch, image: str, grid: AttentionGrid
) -> tuple[NDArray[Any], int]:
    """Return the frames as the observation has them, and the axis of their channels."""
    if not isinstance(observation, Mapping):
        frames = observation
    elif image in observation:
        frames = observation[image]
    else:
        raise ValueError(
            f"expected an observation with {image!r}, got the entries {sorted(observation)}: name the entry "
            "with the frames"
        )
    axis = channel_axis(frames.shape, grid.image_size) if frames.ndim == 4 else None
    if axis is None:
        raise ValueError(
            f"expected frames of {grid.image_size} pixels, as the maps, got {list(frames.shape)}: "
            "resize them as in training"
        )
    return frames, axis


def stateful_actor(probe: PolicyProbe) -> Actor:
    """Return an actor for one episode, which carries a recurrent policy's state from step to step.

    `probe.act` treats every observation as the first of an episode. For a policy without state, the two are
    the same.
    """
    policy = probe.policy
    state: Memory | None = None
    if not hasattr(policy, "lstm_actor"):
        return probe.act

    def act_with_attention(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        nonlocal state
        actions, percept, state = act(policy, observation, state)
        return actions, percept

    def act_with_gradients(observation: ObservationBatch) -> tuple[NDArray[Any], Percept]:
        nonlocal state
        before = state
        actions, after = policy.predict(cast(Any, observation), state=before, deterministic=True)
        state = cast(Memory, after)
        return actions, _percept(action_gradient_maps(policy, observation, probe.image, memory=before))

    return act_with_gradients if probe.kind == "gradient" else act_with_attention


def action_gradient_maps(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, *, memory: Memory | None = None
) -> Tensor:
    """Measure how much each cell of the frame would change the action.

    The norm of the gradient of `decision` with respect to a pixel, over actions and colours (Simonyan et al.
    2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034, section 3), averaged over
    each cell. A policy that ignores the frame gets a uniform map.

    Args:
        policy: the policy.
        observation: a batch of observations as the environment returns them.
        image: key of the frames, or None where the observation is the frames.
        memory: state of a recurrent policy, as `decision` takes it.

    Returns:
        [B, rows, cols], each of sum 1, with at most `GRID` rows and columns.

    Raises:
        ValueError: an error of `decision`.
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
    """Return a policy's decision as a differentiable function of its frames.

    For continuous actions, the decision is their means [B, A] (before SAC's tanh). For a discrete action, it
    is the highest score (logit or Q-value) minus the mean of all, [B, 1]; for several, [B, actions]. For
    binary actions it is their logits [B, actions].

    Args:
        policy: the policy.
        observation: a batch of observations as the environment returns them, or a single one.
        image: key of the frames, or None where the observation is the frames.
        memory: state of a recurrent policy, as its `predict` returns it; None for the start of an episode.

    Returns:
        The frames, float [B, C, H, W] in [0, 1], and the function. The function also takes n x B frames; it
        then repeats the observation's other entries n times.

    Raises:
        ValueError: a policy with neither a distribution, an actor nor a Q-network.
    """
    policy.set_training_mode(False)
    tensors, _ = policy.obs_to_tensor(cast(Any, observation))
    observed = cast(Any, tensors) if image is None else cast(Any, tensors)[image]
    is_uint8 = observed.dtype == torch.uint8
    frames = to_float(observed, torch.float32) if is_uint8 else observed.detach().clone()
    # Stable-Baselines3 divides by 255 if the space is uint8, whatever the dtype; `PerceptionPolicy` does not.
    divides = is_uint8 and policy.normalize_images and not isinstance(policy, PerceptionPolicy)

    def decide(frames: Tensor) -> Tensor:
        scaled = frames * 255 if divides else frames
        count = len(frames) // len(observed)
        if image is None:
            return _scores(policy, scaled, memory, count)
        others = {
            name: entry.repeat(count, *[1] * (entry.ndim - 1)) if count > 1 else entry
            for name, entry in cast(Mapping[str, Tensor], tensors).items()
            if name != image
        }
        return _scores(policy, {**others, image: scaled}, memory, count)

    return frames, decide


def _scores(policy: Any, observation: Any, memory: Memory | None, count: int) -> Tensor:
    """Compute `decision` for tensors that repeat the observations of `memory` `count` times."""
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
        f"expected a policy with an actor, a distribution or a Q-network, got {type(policy).__name__}: "
        "its decision cannot be differentiated"
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
    if isinstance(inner, list):  # MultiDiscrete
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
        return None  # its value depends on its state
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
    """Return the key of a space's first image, and the (H, W) of its frames."""
    entries = list(space.spaces.items()) if isinstance(space, spaces.Dict) else [(None, space)]
    for key, entry in entries:
        if is_image_space(entry) or (isinstance(entry, spaces.Box) and len(entry.shape) == 3):
            assert entry.shape is not None
            return key, (entry.shape[1], entry.shape[2])
    raise ValueError(
        f"expected a policy that observes images, got one that observes {space}: train it on frames"
    )


def _centers(length: int) -> NDArray[np.float32]:
    """Centres, in pixels, of the cells of `adaptive_avg_pool2d` along an axis of `length` pixels."""
    cells = min(GRID, length)
    i = np.arange(cells)
    return ((i * length // cells + -(-(i + 1) * length // cells) - 1) / 2).astype(np.float32)
