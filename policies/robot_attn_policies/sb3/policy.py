"""The actor-critic policy of training and of run folders: SB3's, with uint8 frames as input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from robot_attn_policies.compat.stable_baselines3 import distribution_of
from robot_attn_policies.sb3.adam import Adam
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.images import fit_observation
from robot_attn_policies.sb3.sharded import Sharded
from robot_attn_policies.training.presets import TrainConfig


class PerceptionPolicy(ActorCriticPolicy):
    """`ActorCriticPolicy` that passes images to its extractor as uint8.

    SB3 converts a minibatch of frames to float before the extractor and divides it in a second pass. The
    perception does both in one pass, with the same bits (`robot_attn.to_float`).
    """

    sharded: Sharded | None = None
    """If set, extractors are applied by its threads when gradients are needed."""

    def extract_features(self, obs: PyTorchObs, features_extractor: nn.Module | None = None) -> Any:
        """Extract features from observations.

        Args:
            obs: observations as SB3 passes them, channel-first.
            features_extractor: the extractor to use; None for the policy's.

        Returns:
            Features [B, F]; the actor's and the critic's as a tuple if they have separate extractors.
        """
        prepared = self.prepare(obs)
        if features_extractor is not None:
            return self._extract(features_extractor, prepared)
        if self.share_features_extractor:
            return self._extract(self.features_extractor, prepared)
        return self._extract(self.pi_features_extractor, prepared), self._extract(
            self.vf_features_extractor, prepared
        )

    def prepare(self, obs: PyTorchObs) -> Any:
        """Prepare observations for the extractor, as SB3's `preprocess_obs` but with images as uint8."""
        return _prepare(obs, self.observation_space)

    def _extract(self, extractor: nn.Module, prepared: Any) -> Any:
        return extractor(prepared) if self.sharded is None else self.sharded(extractor, prepared)

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:
        """Convert an observation or a batch to tensors, images of any axes to those of the policy's space.

        Args:
            observation: as an environment returns it.

        Returns:
            The tensors, with a batch axis, and whether the observation had one.
        """
        return super().obs_to_tensor(fit_observation(observation, self.observation_space))

    # SB3's versions of the next two bypass `extract_features`.

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The distribution of the actions for observations."""
        features = self.extract_features(obs, self.pi_features_extractor)
        return distribution_of(self, self.mlp_extractor.forward_actor(features))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """The critic's values of observations, [B, 1]."""
        features = self.extract_features(obs, self.vf_features_extractor)
        return cast(Tensor, self.value_net(self.mlp_extractor.forward_critic(features)))


def _prepare(observation: PyTorchObs, space: spaces.Space[Any]) -> Any:
    """SB3's `preprocess_obs`, except that uint8 images stay uint8."""
    if isinstance(observation, Tensor):
        return observation if is_image_space(space) else preprocess_obs(observation, space)
    assert isinstance(space, spaces.Dict)
    return {key: _prepare(value, space[key]) for key, value in observation.items()}


def policy_kwargs(config: TrainConfig) -> dict[str, Any]:
    """SB3's `policy_kwargs` for a configuration."""
    return {
        "net_arch": {"pi": list(config.ppo.net_arch), "vf": list(config.ppo.net_arch)},
        "log_std_init": config.ppo.log_std_init,
        "ortho_init": config.ppo.ortho_init,
        "share_features_extractor": config.ppo.share_features_extractor,
        "features_extractor_class": PerceptionExtractor,
        "features_extractor_kwargs": {"perception": config.perception, **config.options},
        "optimizer_class": Adam,
        "optimizer_kwargs": {"eps": config.ppo.adam_eps},
    }


def build_policy(
    config: TrainConfig,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    init: bool = True,
) -> PerceptionPolicy:
    """Build the policy of a configuration, with new weights.

    Args:
        config: the configuration.
        observation_space: the policy's observation space, with channel-first images.
        action_space: the policy's action space.
        init: False for a policy that weights are loaded into: it skips SB3's orthogonal initialisation and
            the optimiser.

    Raises:
        ValueError: an unknown perception family, or an option that it does not have.
    """
    kwargs = policy_kwargs(config)
    if not init:
        kwargs |= {"ortho_init": False, "optimizer_class": _NoOptimizer, "optimizer_kwargs": {}}
    return PerceptionPolicy(observation_space, action_space, lambda _: config.ppo.learning_rate, **kwargs)


class _NoOptimizer:
    """Placeholder where SB3 requires an optimiser: a loaded policy acts and is not trained."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None: ...


def policy_weights(policy: nn.Module) -> dict[str, Tensor]:
    """A policy's parameters and buffers by name, each once, detached.

    SB3's `state_dict` has a shared extractor three times.
    """
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in policy.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor))
    return {name: tensor.detach() for name, tensor in named.values()}


def fill_policy(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a policy of the same architecture.

    Args:
        policy: the policy to fill.
        weights: tensors by name, as from `policy_weights`.

    Raises:
        ValueError: a name, a shape or a dtype differs.
    """
    own = policy_weights(policy)
    for name in sorted(own.keys() | weights.keys()):
        expected, found = (_describe(tensors.get(name)) for tensors in (own, weights))
        if expected != found:
            raise ValueError(f"expected weights {name} {expected}, got {found}")
    for name, tensor in own.items():
        tensor.copy_(weights[name])


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
