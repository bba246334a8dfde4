"""A run folder of an untrained policy for a small real task, registered as `RobotAttn/Toy-v0`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from robot_attn.errors import unknown_name
from robot_attn_policies.sb3.policy import build_policy, policy_weights
from robot_attn_policies.sb3.vec_env import BatchVecEnv
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import describe_run, write_config, write_policy
from robot_attn_scripts._tasks import make_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
from toy_env import HORIZON, ToyEnv

ID = "RobotAttn/Toy-v0"
SUITES = {"easy": 90, "medium": 160, "hard": 250}
"""The grey that everything has."""


class ToyTask(ToyEnv):
    """What a task has beside Gymnasium's interface."""

    horizon = HORIZON
    dt = 0.08
    action_names = ("up", "left")

    def __init__(
        self, num_envs: int, training: bool = False, *, suite: str | None = None, **options: Any
    ) -> None:
        super().__init__(num_envs, training, **options)
        if suite not in (None, *SUITES):
            raise unknown_name("suite", suite, SUITES)
        self.suite = suite

    def observe(self) -> Any:
        observation = super().observe()
        if self.suite is not None:
            observation["image"][:] = SUITES[self.suite]  # all but the target
        observation["image"][..., 1][self._masks()] = (
            40  # one colour, whichever environment of the batch it is
        )
        return observation

    def oracle_actions(self) -> Any:
        return np.clip(-5 * self.positions, -1, 1).astype(np.float32)


def register() -> None:
    if ID not in gymnasium.registry:
        gymnasium.register(ID, vector_entry_point=ToyTask)


def make_run(
    folder: Path, perception: str = "query", task: str = "toy", seed: int = 0, num_heads: int = 3
) -> Path:
    """Write the folder of a policy that has not learned anything, best and last alike."""
    register()
    options = {"options": {"num_heads": num_heads}} if perception == "query" else {}
    ppo = PPOPreset(n_envs=2, n_steps=8, batch_size=8, net_arch=(8,))
    config = TrainConfig(task, perception=perception, ppo=ppo, seed=seed, **options)
    vec_env: VecEnv = BatchVecEnv(ToyTask(2), channels_first=True)
    run = describe_run(config, vec_env.observation_space, vec_env.action_space)
    weights = policy_weights(build_policy(config, run.observation_space, run.action_space))
    write_config(folder, run)
    for path in (folder / "policy.safetensors", folder / "best" / "policy.safetensors"):
        write_policy(path, weights, run, steps=0)
    vec_env.close()
    return folder


def run_of(folder: Path, task: str, **options: Any) -> Path:
    """Write the folder of an untrained policy for any task, with the best checkpoint alone."""
    torch.manual_seed(0)
    ppo = PPOPreset(n_envs=2, n_steps=8, batch_size=8, net_arch=(8,))
    config = TrainConfig(task, ppo=ppo, env=options)
    vec_env = BatchVecEnv(make_batch(task, options, 2), channels_first=True)
    described = describe_run(config, vec_env.observation_space, vec_env.action_space)
    weights = policy_weights(build_policy(config, described.observation_space, described.action_space))
    write_config(folder, described)
    write_policy(folder / "best" / "policy.safetensors", weights, described, steps=0)
    vec_env.close()
    return folder
