"""Actions and attention of a policy in one call that computes the features once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor

from robot_attn import Percept
from robot_attn_policies.compat.stable_baselines3 import acts_as_published, distribution_of
from robot_attn_policies.sb3.context import (
    Context,
    Memory,
    empty_memory,
    is_recurrent,
    predict,
    takes_masks,
)
from robot_attn_policies.sb3.extractor import find_extractor, perceive
from robot_attn_policies.sb3.images import fit_observation
from robot_attn_policies.sb3.policy import PerceptionPolicy

Head: TypeAlias = Callable[[Tensor, Context], tuple[Tensor, "Memory | None"]]
"""A policy after its extractor: (features [B, F], context) -> (actions [B, ...] before rescaling, memory)."""


def act(
    policy: BasePolicy,
    observation: NDArray[Any] | Mapping[str, NDArray[Any]],
    memory: Memory | None = None,
    *,
    image: str | None = None,
    action_masks: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[Any], Percept, Memory | None]:
    """Return deterministic actions, and the attention on which they are based.

    The actions equal those of `policy.predict(observation, state=memory, deterministic=True)`, bit for bit,
    and are computed from the features of the returned percept. For a policy class that overrides how
    Stable-Baselines3 and sb3-contrib map observations to actions, `predict` is called and the perception runs
    a second time.

    Args:
        policy: a policy of Stable-Baselines3 or sb3-contrib with a `PerceptionExtractor`.
        observation: a batch of observations as the environment returns them, or a single one.
        memory: state of a recurrent policy, as the last call returned it; None at the start of an episode.
        image: key of the camera whose percept to return; None for a policy with one camera.
        action_masks: for a policy of MaskablePPO, bool [B, A] or [A] for a single observation, True for the
            actions that are allowed; None if all are. Other policies ignore it.

    Returns:
        The actions [B, ...], without the batch axis for a single observation; the percept [B, ...], detached;
        and the state for the next call, None for a policy that is not recurrent.

    Raises:
        ValueError: a policy without `PerceptionExtractor`, an observation that does not fit its space, or no
            `image` for a policy with several cameras.
    """
    extractor = find_extractor(policy)
    context = Context(memory, action_masks)
    head = policy_head(policy)
    observation = fit_observation(observation, policy.observation_space)
    if head is None:
        actions, after = predict(policy, observation, context)
        return actions, perceive(policy, observation, image=image), after
    policy.set_training_mode(False)
    tensors, batched = policy.obs_to_tensor(cast(Any, observation))
    with torch.no_grad():
        features, percept = extractor.extract(prepare(policy, tensors), image)
        outputs, after = head(features, context)
    actions = _as_actions(policy, outputs)
    return actions if batched else actions.squeeze(axis=0), percept, after


def prepare(policy: BasePolicy, tensors: Any) -> Any:
    """Prepare observations, as tensors [B, ...], for the policy's features extractor."""
    if isinstance(policy, PerceptionPolicy):
        return policy.prepare(tensors)
    return preprocess_obs(tensors, policy.observation_space, normalize_images=policy.normalize_images)


def _as_actions(policy: BasePolicy, outputs: Tensor) -> NDArray[Any]:
    """Convert outputs to actions [B, ...] within the bounds of their space, as SB3's `predict` does."""
    space = policy.action_space
    actions: NDArray[Any] = outputs.cpu().numpy().reshape((-1, *(space.shape or ())))
    if not isinstance(space, spaces.Box):
        return actions
    return policy.unscale_action(actions) if policy.squash_output else np.clip(actions, space.low, space.high)


def policy_head(policy: BasePolicy) -> Head | None:
    """Return the part of a policy after its extractor, which chooses deterministic actions.

    Returns:
        The head; None if the policy is not a network of Stable-Baselines3 or sb3-contrib, or overrides one of
        their methods.
    """
    if not acts_as_published(policy, also=(PerceptionPolicy.__module__,)):
        return None
    if isinstance(policy, ActorCriticPolicy):
        return _recurrent_head(policy) if is_recurrent(policy) else _actor_critic_head(policy)
    if takes_masks(policy):
        return _masked_head(policy)
    network: Any = next(
        (getattr(policy, name) for name in ("actor", "q_net", "quantile_net") if hasattr(policy, name)), None
    )
    if network is None or not acts_as_published(network):
        return None
    if hasattr(network, "quantile_net"):
        return _quantile_head(network)
    if hasattr(network, "q_net"):
        return _greedy_head(network.q_net)
    if hasattr(network, "get_action_dist_params"):
        return _squashed_head(network)
    return _without_memory(network.mu)


def _without_memory(head: Callable[[Tensor], Tensor]) -> Head:
    return lambda features, context: (head(features), None)


def _actor_critic_head(policy: ActorCriticPolicy) -> Head:
    def mode(features: Tensor) -> Tensor:
        latent = policy.mlp_extractor.forward_actor(features)
        return distribution_of(policy, latent).get_actions(deterministic=True)

    return _without_memory(mode)


def _recurrent_head(policy: Any) -> Head:
    feedforward = _actor_critic_head(policy)

    def mode(features: Tensor, context: Context) -> tuple[Tensor, Memory | None]:
        parts = context.memory or empty_memory(policy, len(features))
        state = tuple(torch.tensor(part, dtype=torch.float32, device=policy.device) for part in parts)
        hidden, state = policy.lstm_actor(features[None], state)  # a sequence of one step
        actions, _ = feedforward(hidden[0], context)
        return actions, (state[0].cpu().numpy(), state[1].cpu().numpy())

    return mode


def _masked_head(policy: Any) -> Head:
    """Head of MaskablePPO."""

    def mode(features: Tensor, context: Context) -> tuple[Tensor, Memory | None]:
        distribution = distribution_of(policy, policy.mlp_extractor.forward_actor(features))
        if context.action_masks is not None:
            cast(Any, distribution).apply_masking(context.action_masks)
        return distribution.get_actions(deterministic=True), None

    return mode


def _greedy_head(values: Callable[[Tensor], Tensor]) -> Head:
    return _without_memory(lambda features: values(features).argmax(dim=1).reshape(-1))


def _quantile_head(network: Any) -> Head:
    choices = int(network.action_space.n)

    def values(features: Tensor) -> Tensor:
        quantiles = network.quantile_net(features).view(-1, network.n_quantiles, choices)
        return cast(Tensor, quantiles.mean(dim=1))

    return _greedy_head(values)


def _squashed_head(actor: Any) -> Head:
    """Head of SAC, TQC and CrossQ."""

    def mode(features: Tensor) -> Tensor:
        latent = actor.latent_pi(features)
        mean = actor.mu(latent)
        noise = {"latent_sde": latent} if actor.use_sde else {}
        # The mode of a squashed Gaussian does not depend on its width.
        log_std = actor.log_std if actor.use_sde else torch.zeros_like(mean)
        return cast(Tensor, actor.action_dist.actions_from_params(mean, log_std, deterministic=True, **noise))

    return _without_memory(mode)
