"""What a policy decides as a function of its frames: actions, probabilities and values of any algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor

from robot_attn import to_float
from robot_attn.errors import unknown_name
from robot_attn_policies.compat.stable_baselines3 import greedy_actions
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.sb3.context import NO_CONTEXT, Context, empty_memory, is_recurrent, predict
from robot_attn_policies.sb3.images import entries_of, fit_observation, image_entries, pixel_range
from robot_attn_policies.sb3.policy import PerceptionPolicy

Response: TypeAlias = Literal["action", "log_probability", "value"]
RESPONSES: dict[Response, str] = {
    "action": "the action",
    "log_probability": "the log-probability of the action",
    "value": "the value",
}
"""What a causal map can measure the change of, with its name in text."""

Output: TypeAlias = Callable[[Any, Context], Tensor]
"""Maps a policy's observation as tensors [N, ...], and its context, to outputs [N, K]."""


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

    def scores(observed: Any, context: Context) -> Tensor:
        parts = _scores(policy, observed, context)
        return torch.cat([_margin(*part) for part in parts] if isinstance(parts, list) else [parts], dim=1)

    return _as_function(policy, observation, image, context, scores)


def response(
    policy: BasePolicy,
    observation: ObservationBatch,
    image: str | None,
    kind: Response = "action",
    *,
    context: Context = NO_CONTEXT,
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return what a causal map measures the change of, as a function of the frames.

    - "action": means of continuous actions, as in `decision`. For a discrete action, the score of the action
      that is chosen for the unchanged frames, minus the mean of all: a change of the frame may be so large
      that another action has the highest score.
    - "log_probability": of the action for the unchanged frames.
    - "value": the value estimate.

    Args:
        policy: the policy.
        observation: a batch of observations as the environment returns them, or a single one.
        image: key of the frames, or None where the observation is the frames.
        kind: a key of `RESPONSES`.
        context: memory and action masks, as `decision` takes them.

    Returns:
        The frames and the function, as `decision` returns them.

    Raises:
        ValueError: an unknown kind, an error of `decision`, or a policy without probabilities or values.
    """
    if kind not in RESPONSES:
        raise unknown_name("response", kind, RESPONSES)
    chosen: list[Tensor] | None = None

    def scores(observed: Any, context: Context) -> Tensor:
        nonlocal chosen
        parts = _scores(policy, observed, context)
        if not isinstance(parts, list):
            return parts
        if chosen is None:  # by the first call, with the unchanged frames
            chosen = [_highest(*part) for part in parts]
        margins = [
            _margin(*part, chosen=each.repeat(len(part[0]) // len(each)))
            for part, each in zip(parts, chosen, strict=True)
        ]
        return torch.cat(margins, dim=1)

    def log_probability(observed: Any, context: Context) -> Tensor:
        return _log_probability(policy, taken, observed, context)

    taken = torch.as_tensor(predict(policy, observation, context)[0], device=policy.device)
    output: dict[Response, Output] = {
        "action": scores,
        "log_probability": log_probability,
        "value": lambda observed, context: _value(policy, observed),
    }
    frames, function = _as_function(policy, observation, image, context, output[kind])
    with torch.no_grad():
        function(frames)  # raises here rather than after the masks are made
    return frames, function


def value(policy: BasePolicy, observation: ObservationBatch) -> NDArray[np.float64] | None:
    """Return a policy's value estimates, float64 [B], or None where it has no value function."""
    tensors, _ = policy.obs_to_tensor(fit_observation(cast(Any, observation), policy.observation_space))
    with torch.no_grad():
        values = _values(policy, tensors)
    return None if values is None else values.reshape(-1).double().numpy(force=True)


def _as_function(
    policy: BasePolicy, observation: ObservationBatch, image: str | None, context: Context, output: Output
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the frames of an observation, and an output as a function of them, as `decision` does."""
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

    def function(frames: Tensor) -> Tensor:
        scaled = layout.from_channels_first(frames if (low, high) == (0, 1) else frames * (high - low) + low)
        count = len(frames) // len(observed)
        if image is None:
            return output(scaled, context.repeat(count))
        others = {
            name: entry.repeat(count, *[1] * (entry.ndim - 1)) if count > 1 else entry
            for name, entry in cast(Mapping[str, Tensor], tensors).items()
            if name != image
        }
        return output({**others, image: scaled}, context.repeat(count))

    return frames, function


Part: TypeAlias = "tuple[Tensor, Tensor | None]"
"""Scores [B, A] of the choices of a discrete action, and which of them are allowed, bool [B, A], or None."""


def _scores(policy: Any, observation: Any, context: Context) -> Tensor | list[Part]:
    """Compute the continuous actions or the logits of binary ones [B, A], or the scores of discrete ones."""
    if is_recurrent(policy) or hasattr(policy, "get_distribution"):
        return _of_distribution(_distribution(policy, observation, context), context.action_masks)
    actor = getattr(policy, "actor", None)
    if actor is not None:
        squashed = hasattr(actor, "get_action_dist_params")
        return cast(Tensor, actor.get_action_dist_params(observation)[0] if squashed else actor(observation))
    if hasattr(policy, "q_net"):
        return [(policy.q_net(observation), None)]
    if hasattr(policy, "quantile_net"):
        return [(policy.quantile_net(observation).mean(dim=1), None)]
    if hasattr(policy, "action_net"):  # of ARS
        outputs = policy.action_net(policy.extract_features(observation, policy.features_extractor))
        return (
            [(outputs, None)] if isinstance(policy.action_space, spaces.Discrete) else cast(Tensor, outputs)
        )
    raise ValueError(
        f"expected a policy with an actor, a distribution or a Q-network, got {type(policy).__name__}: "
        "its decision cannot be differentiated"
    )


def _distribution(policy: Any, observation: Any, context: Context) -> Any:
    if not is_recurrent(policy):
        return policy.get_distribution(observation)
    frames = observation if isinstance(observation, Tensor) else next(iter(observation.values()))
    memory = context.memory or empty_memory(policy, len(frames))
    state = tuple(torch.as_tensor(part, dtype=torch.float32, device=policy.device) for part in memory)
    starts = torch.zeros(len(frames), device=policy.device)
    return policy.get_distribution(observation, state, starts)[0]


def _of_distribution(distribution: Any, action_masks: NDArray[np.bool_] | None) -> Tensor | list[Part]:
    inner = getattr(distribution, "distributions", distribution.distribution)  # the first of MaskablePPO
    parts = inner if isinstance(inner, list) else [inner]
    if all(isinstance(part, torch.distributions.Categorical) for part in parts):
        logits = [part.logits for part in parts]
        if action_masks is None:
            return [(scores, None) for scores in logits]
        masks = torch.as_tensor(action_masks, device=logits[0].device)
        allowed = torch.split(masks, [scores.shape[1] for scores in logits], dim=1)
        return list(zip(logits, allowed, strict=True))
    return cast(Tensor, inner.logits if isinstance(inner, torch.distributions.Bernoulli) else inner.mean)


def _highest(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Find the choice with the highest of the scores that are allowed, int64 [B]."""
    return (scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)).argmax(dim=1)


def _margin(scores: Tensor, allowed: Tensor | None, *, chosen: Tensor | None = None) -> Tensor:
    """Compute a score minus the mean of those that are allowed, [B, 1].

    Args:
        scores: [B, A].
        allowed: bool [B, A]; None for all.
        chosen: int64 [B], the choice whose score to take; None for the highest of those that are allowed.
    """
    if chosen is None:
        chosen = _highest(scores, allowed)
    score = scores.gather(1, chosen[:, None])
    if allowed is None:
        return score - scores.mean(dim=1, keepdim=True)
    return score - ((scores * allowed).sum(dim=1) / allowed.sum(dim=1))[:, None]


def _log_probability(policy: Any, actions: Tensor, observation: Any, context: Context) -> Tensor:
    """Compute the log-probability [N, 1] of actions [B, ...], repeated for N observations."""
    if not (is_recurrent(policy) or hasattr(policy, "get_distribution")):
        raise ValueError(
            f"expected a policy with a distribution over actions for a map of the log-probability, got "
            f"{type(policy).__name__}: measure the change of the action"
        )
    distribution = _distribution(policy, observation, context)
    if context.action_masks is not None:
        distribution.apply_masking(context.action_masks)
    rows = len(observation if isinstance(observation, Tensor) else next(iter(observation.values())))
    repeated = actions.repeat(rows // len(actions), *[1] * (actions.ndim - 1))
    return cast(Tensor, distribution.log_prob(repeated))[:, None]


def _value(policy: BasePolicy, observation: Any) -> Tensor:
    values = _values(policy, observation)
    if values is None:
        raise ValueError(
            f"expected a policy with a value function of single observations, got {type(policy).__name__}: "
            "measure the change of the action"
        )
    return values.reshape(-1, 1)


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
