"""SB3's rollout buffer with frames in the camera's memory order, and minibatches gathered in place."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.preprocessing import get_obs_shape, is_image_space
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples, RolloutBufferSamples
from torch import Tensor

from robot_attn.frames import channels_to_back, channels_to_front

_PER_FRAME = ("values", "log_probs", "advantages", "returns")


class FrameRolloutBuffer(RolloutBuffer):
    """`RolloutBuffer` and `DictRolloutBuffer` in one, with the same samples in the same order.

    SB3 allocates its arrays for every rollout, copies all frames to reorder them, and indexes each minibatch.
    Here the arrays are allocated once and minibatches are gathered directly from them. Images are
    channel-first views of [steps, envs, H, W, C] memory, the order in which the camera returns them and a
    perception reads them, so that they are never transposed.

    Attributes:
        observations: an array [steps, envs, ...], or a dict of such arrays.
    """

    observations: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arrays: dict[str | None, NDArray[Any]] = {}
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Start a new rollout, which overwrites the arrays."""
        self.pos, self.full = 0, False
        if self._arrays:
            return
        steps, envs = self.buffer_size, self.n_envs
        self._arrays = {
            key: _empty((steps, envs), space) for key, space in _entries(self.observation_space).items()
        }
        single = not isinstance(self.observation_space, spaces.Dict)
        self.observations = self._arrays[None] if single else self._arrays
        self.actions = np.zeros((steps, envs, self.action_dim), self.action_space.dtype)
        self.rewards, self.episode_starts = (np.zeros((steps, envs), np.float32) for _ in range(2))
        for name in _PER_FRAME:
            setattr(self, name, np.zeros((steps, envs), np.float32))

    def add(
        self,
        obs: Any,
        action: NDArray[Any],
        reward: NDArray[Any],
        episode_start: NDArray[Any],
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Add a step of all environments.

        Args:
            obs: observations, an array [envs, ...] or a dict of such arrays.
            action: [envs, ...].
            reward: [envs].
            episode_start: whether the observations are the first of an episode, [envs].
            value: the critic's values of the observations, [envs, 1].
            log_prob: logarithm of the actions' probability, [envs].
        """
        for key, array in self._arrays.items():
            values = obs if key is None else obs[key]
            array[self.pos] = values.reshape(array.shape[1:])
        self.actions[self.pos] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.flatten().cpu().numpy()
        self.log_probs[self.pos] = log_prob.flatten().cpu().numpy()
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the samples of a full buffer in random order, in minibatches.

        Args:
            batch_size: samples in a minibatch; None for all. The last one may be smaller.
        """
        assert self.full, "expected a full rollout buffer"
        steps, envs = self.buffer_size, self.n_envs
        # SB3 numbers samples environment by environment; the arrays are stored step by step.
        order = np.random.permutation(steps * envs)
        rows = torch.from_numpy((order % steps) * envs + order // steps)
        actions = torch.from_numpy(self.actions).flatten(0, 1).float()
        per_frame = torch.from_numpy(np.stack([getattr(self, name).flatten() for name in _PER_FRAME], 1))
        entries = _entries(self.observation_space)
        memory = {
            key: torch.from_numpy(_in_memory(array, entries[key])).flatten(0, 1)
            for key, array in self._arrays.items()
        }
        for chosen in torch.split(rows, batch_size or steps * envs):
            # `index_select` copies whole rows; indexing with a tensor takes five times as long for frames.
            observations: Any = {}
            for key, values in memory.items():
                gathered = values.index_select(0, chosen).to(self.device)
                observations[key] = channels_to_front(gathered) if is_image_space(entries[key]) else gathered
            parts = (
                actions.index_select(0, chosen).to(self.device),
                *per_frame.index_select(0, chosen).to(self.device).unbind(1),
            )
            if None in observations:
                yield RolloutBufferSamples(observations[None], *parts)
            else:
                yield DictRolloutBufferSamples(observations, *parts)  # type: ignore[misc]


def _entries(space: spaces.Space[Any]) -> Mapping[str | None, spaces.Space[Any]]:
    return dict(space.spaces.items()) if isinstance(space, spaces.Dict) else {None: space}


def _empty(batch: tuple[int, int], space: spaces.Space[Any]) -> NDArray[Any]:
    """Zeros [*batch, ...] for observations of a space; a channel-first view for an image."""
    shape: Any = get_obs_shape(space)
    if not is_image_space(space):
        return np.zeros((*batch, *shape), np.dtype(space.dtype))
    channels, height, width = shape
    return channels_to_front(np.zeros((*batch, height, width, channels), np.dtype(space.dtype)))


def _in_memory(array: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Return the array with its axes in memory order."""
    return channels_to_back(array) if is_image_space(space) else array
