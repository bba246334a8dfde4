"""A policy from a .zip of Stable-Baselines3, and environments with the spaces of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from robot_attn_scripts import _loaded_run
from robot_attn_scripts._loaded_run import LoadedPolicy
from robot_attn_scripts._player import check_fit

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecNormalize

    from robot_attn_policies.probing.probe import MapChoice, PolicyProbe
    from robot_attn_policies.training.presets import Json


@dataclass(frozen=True)
class ZipSetting:
    """What a zip does not hold, and is given beside it.

    Attributes:
        task: task to run the policy in.
        perception: name of its features extractor, for titles.
        env: options of the environment.
    """

    task: str
    perception: str
    env: Mapping[str, Json]


@dataclass(frozen=True)
class LoadedZip(LoadedPolicy):
    """A policy from a zip.

    Attributes:
        statistics: what normalises its observations, or None.
    """

    statistics: VecNormalize | None = None

    def make_env(self, task: str, options: Mapping[str, Json], num_envs: int) -> Any:
        """Create environments with the policy's actions, and with normalised observations if it needs them.

        Raises:
            ValueError: an error of `_loaded_run.make_env`, or the environments do not fit the policy.
        """
        policy = self.policy
        env = _loaded_run.make_env(task, options, num_envs, scale_actions=False)
        try:
            if _is_scaled(policy.action_space, env.single_action_space):
                env.close()
                env = _loaded_run.make_env(task, options, num_envs)
            if self.statistics is not None:
                from robot_attn_policies.sb3.normalised_batch import NormalisedBatch

                env = NormalisedBatch(env, self.statistics)
            check_fit(policy.observation_space, policy.action_space, env, task)
            _check_bounds(policy.action_space, env.single_action_space, task)
        except ValueError:
            env.close()
            raise
        return env


def load_zip(
    path: Path,
    setting: tuple[str, Mapping[str, Json]],
    *,
    trust: bool,
    vecnormalize: Path | None = None,
    algorithm: str | None = None,
    maps: MapChoice | None = "attention",
) -> LoadedZip:
    """Load the policy of a zip, and the statistics beside it.

    Args:
        path: the zip.
        setting: task, and options of its environment.
        trust: whether the files are trusted, since opening them runs the code in them.
        vecnormalize: file of the statistics of VecNormalize, or None.
        algorithm: algorithm of the zip; None to read it from the zip.
        maps: kind of the maps, as for `_loaded_run.load`.

    Raises:
        ValueError: an error of `load_zip` and `load_vecnormalize` in `robot_attn_policies.sb3.zip_file`, or
            the policy observes no images.
    """
    from robot_attn_policies.probing.probe import probe_cameras
    from robot_attn_policies.sb3 import zip_file

    model = zip_file.load_zip(path, trust=trust, algorithm=algorithm)
    statistics = None if vecnormalize is None else zip_file.load_vecnormalize(vecnormalize, trust=trust)
    name = type(model).__name__
    probes = probe_cameras(model, maps=maps)
    task, options = setting
    config = ZipSetting(task, _perception_name(next(iter(probes.values()))), options)
    return LoadedZip(probes, config, f"{path} ({name})", name, name, statistics)


def _perception_name(probe: PolicyProbe) -> str:
    from robot_attn_policies.sb3.extractor import features_extractor_of, find_extractor

    try:
        module: Any = find_extractor(probe.policy).perception_of(probe.image)
    except ValueError:
        module = features_extractor_of(probe.policy)
    return type(module).__name__


def _is_scaled(policy: spaces.Space[Any], env: spaces.Space[Any]) -> bool:
    """Whether a policy acts in [-1, 1], as with `RescaleAction`, where the task has other bounds."""
    if not isinstance(policy, spaces.Box) or not isinstance(env, spaces.Box) or policy.shape != env.shape:
        return False
    unit = bool((policy.low == -1).all() and (policy.high == 1).all())
    return unit and not (np.array_equal(env.low, policy.low) and np.array_equal(env.high, policy.high))


def _check_bounds(policy: spaces.Space[Any], env: spaces.Space[Any], task: str) -> None:
    """Check that actions have the same bounds: other ones would be scaled or clipped."""
    if not isinstance(policy, spaces.Box) or not isinstance(env, spaces.Box):
        return
    if not (np.allclose(env.low, policy.low) and np.allclose(env.high, policy.high)):
        raise ValueError(
            f"expected a task with the policy's actions {policy}, got {task} with {env}: wrap it as in "
            "training, in a module that registers it, and name that with --module"
        )
