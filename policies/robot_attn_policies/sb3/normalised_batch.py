"""A batch of environments whose observations are normalised by the stored statistics of `VecNormalize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.vec_env import VecNormalize

from robot_attn_policies.rollouts.protocols import HasInterventions, ability
from robot_attn_policies.sb3.images import entries_of, image_entries


class NormalisedBatch(VectorWrapper[Any, Any, Any, Any, Any]):
    """Normalises observations as `VecNormalize` does, with statistics that never change.

    Rewards stay as the environments give them. Other attributes are those of the batch.

    Args:
        env: the batch.
        statistics: a `VecNormalize` that was trained on such environments, as `load_vecnormalize` returns it.

    Raises:
        ValueError: the statistics are of other observations, or are of images in an environment that renders
            counterfactual frames, which would not be normalised.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], statistics: VecNormalize) -> None:
        super().__init__(env)
        self._statistics = statistics
        space = env.single_observation_space
        entries, means = entries_of(space), _means(statistics)
        for key, mean in means.items():
            expected = None if key not in entries else entries[key].shape
            if mean.shape != expected:
                name = "the observation" if key is None else f"the entry {key!r}"
                has = "none" if expected is None else list(expected)
                raise ValueError(
                    f"expected statistics of the environment's observations, got those of {name} of shape "
                    f"{list(mean.shape)} where the environment has {has}: use the file that was saved beside "
                    "the policy, and the environment of its training"
                )
        images = [key for key in image_entries(space) if key in means]
        if images and ability(env, HasInterventions) is not None:
            raise ValueError(
                "expected statistics of vectors, got those of images, which the environment's counterfactual "
                "frames would lack: train with VecNormalize(norm_obs_keys=[...]) of the vectors alone"
            )
        limit = statistics.clip_obs
        changed = {
            key: spaces.Box(-limit, limit, entries[key].shape, np.float32) if key in images else entry
            for key, entry in entries.items()
        }
        single = spaces.Dict(changed) if isinstance(space, spaces.Dict) else changed[None]  # type: ignore[arg-type]
        self.single_observation_space = single
        self.observation_space = batch_space(single, env.num_envs)

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # not set yet
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment; see `VectorEnv.reset`."""
        observation, info = self.env.reset(**options)
        return self._normalise(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step; see `VectorEnv.step`."""
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        last = info.get("final_obs")
        if last is not None:
            info = {**info, "final_obs": self._normalise_last(last)}
        return self._normalise(observation), rewards, terminated, truncated, info

    def _normalise(self, observation: Any) -> Any:
        return self._statistics.normalize_obs(observation)

    def _normalise_last(self, last: Any) -> Any:
        """Normalise last observations: a batch, or an array of one object for each environment, or None."""
        if isinstance(last, Mapping) or last.dtype != object:
            return self._normalise(last)
        rows = np.empty(len(last), object)
        rows[:] = [None if row is None else self._normalise(row) for row in last]
        return rows


def _means(statistics: VecNormalize) -> dict[str | None, np.ndarray[Any, Any]]:
    """Return the means that observations are normalised by, by key; None for an observation without keys."""
    if not statistics.norm_obs:
        return {}
    running: Any = statistics.obs_rms
    pairs = running.items() if isinstance(running, dict) else [(None, running)]
    return {cast("str | None", key): np.asarray(each.mean) for key, each in pairs}
