"""SB3's PPO with fewer copies of frames in its update, and an update that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import explained_variance, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional as F

from robot_attn_policies.compat.stable_baselines3 import (
    UnwrappingPPO,
    apply_learning_rate,
    count_episodes,
    progress_remaining,
    rollout_start,
    set_updates_done,
    start_rollout_from,
    updates_done,
)
from robot_attn_policies.sb3.rollout_buffer import FrameRolloutBuffer
from robot_attn_policies.sb3.vec_env import BatchVecEnv


class TrainingInterrupted(Exception):
    """`PerceptionPPO.stop` interrupted an update. The weights are from the middle of the update."""


class PerceptionPPO(UnwrappingPPO):
    """`PPO` whose update reads the rollout buffer in place.

    SB3 copies a rollout's frames three times in an update (transposed, gathered, as a tensor) and reads back
    five figures per minibatch. Here each minibatch is gathered once (`FrameRolloutBuffer`) and the figures
    are read once per update. The order of minibatches, the losses (Schulman et al. 2017, equations 7 and 9),
    the optimiser steps and the logged names are SB3's.
    """

    stop: Callable[[], bool] | None = None
    """Called before every minibatch; True interrupts the update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"rollout_buffer_class": FrameRolloutBuffer, **kwargs})

    @classmethod
    def keeps_env(cls, env: GymEnv) -> bool:
        # The channel order of a `BatchVecEnv` is known; SB3 would guess it from the shape.
        return isinstance(env, BatchVecEnv) and env.channels_first

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collect a rollout as SB3 does, but with one call of the critic for all episodes cut off in a step.

        Environments that are stepped together are often cut off together, and SB3 calls the critic for each.

        Returns:
            Whether the rollout was completed; False if the callback ended it.
        """
        if self.use_sde:  # which samples its noise between steps
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        policy, space = self.policy, self.action_space
        policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        observation, episode_starts = rollout_start(self)
        for _ in range(n_rollout_steps):
            with torch.no_grad():
                sampled, values, log_probs = policy(obs_as_tensor(observation, self.device))
            actions = sampled.cpu().numpy()
            following, rewards, dones, infos = env.step(
                actions.clip(space.low, space.high) if isinstance(space, spaces.Box) else actions
            )
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            if dones.any():
                count_episodes(self, infos, dones)
                self._bootstrap(rewards, infos)
            rollout_buffer.add(observation, actions, rewards, episode_starts, values, log_probs)
            observation, episode_starts = following, dones
            start_rollout_from(self, observation, episode_starts)
        with torch.no_grad():
            values = policy.predict_values(obs_as_tensor(observation, self.device))
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _bootstrap(self, rewards: NDArray[Any], infos: list[dict[str, Any]]) -> None:
        """Add the discounted value of the last observation to the rewards of episodes that were cut off."""
        cut_off = [i for i, info in enumerate(infos) if info.get("TimeLimit.truncated", False)]
        if not cut_off:
            return
        last = [infos[i]["terminal_observation"] for i in cut_off]
        stacked = (
            {key: np.stack([one[key] for one in last]) for key in last[0]}
            if isinstance(last[0], dict)
            else np.stack(last)
        )
        with torch.no_grad():
            values = self.policy.predict_values(obs_as_tensor(stacked, self.device))
        rewards[cut_off] += self.gamma * values.flatten().cpu().numpy()

    def train(self) -> None:
        """Update the policy from the rollout buffer.

        Raises:
            TrainingInterrupted: `stop` returned True.
        """
        self.policy.set_training_mode(True)
        apply_learning_rate(self)
        clip_range: float = self.clip_range(progress_remaining(self))  # type: ignore[operator]
        parameters = list(self.policy.parameters())
        figures: list[Tensor] = []
        within_target_kl = True
        for _ in range(self.n_epochs):
            divergences: list[Tensor] = []
            for batch in self.rollout_buffer.get(self.batch_size):
                if self.stop is not None and self.stop():
                    raise TrainingInterrupted
                actions = batch.actions
                if isinstance(self.action_space, spaces.Discrete):
                    actions = actions.long().flatten()
                values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, actions)
                advantages = batch.advantages
                if self.normalize_advantage and len(advantages) > 1:
                    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
                log_ratio = log_prob - batch.old_log_prob
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
                policy_loss = -torch.min(advantages * ratio, advantages * clipped).mean()
                value_loss = F.mse_loss(batch.returns, values.flatten())
                entropy_loss = log_prob.mean() if entropy is None else -entropy.mean()
                loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
                with torch.no_grad():
                    divergence = ((log_ratio.exp() - 1) - log_ratio).mean()
                    clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
                    figures.append(torch.stack([entropy_loss, policy_loss, value_loss, clip_fraction, loss]))
                    divergences.append(divergence)
                if self.target_kl is not None and divergence > 1.5 * self.target_kl:
                    within_target_kl = False
                    break
                self.policy.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                self.policy.optimizer.step()
            set_updates_done(self, updates_done(self) + 1)
            if not within_target_kl:
                break
        means = torch.stack(figures).mean(0).tolist()
        for name, value in zip(
            ("entropy_loss", "policy_gradient_loss", "value_loss", "clip_fraction"), means, strict=False
        ):
            self.logger.record(f"train/{name}", value)
        buffer = self.rollout_buffer
        self.logger.record("train/loss", figures[-1][-1].item())
        self.logger.record("train/approx_kl", torch.stack(divergences).mean().item())
        self.logger.record(
            "train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        )
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.detach().exp().mean().item())
        self.logger.record("train/n_updates", updates_done(self), exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
