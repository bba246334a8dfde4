"""Presets: a task's training settings on top of the defaults."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from robot_attn_policies.training.presets import (
    PPOPreset,
    TaskPreset,
    TrainConfig,
    changed_preset,
    task_preset,
)


def test_a_task_without_settings_has_the_defaults() -> None:
    assert task_preset({}) == TaskPreset(PPOPreset(), {})
    few = PPOPreset(n_envs=3)
    assert task_preset({}, few).ppo == few


def test_a_tasks_settings_override_the_base() -> None:
    training = {"ppo": {"gamma": 0.5, "net_arch": [3, 4]}, "train_env": {"a": 1, "b": [2.5, None]}}
    preset = task_preset(training, PPOPreset(n_envs=3))
    assert preset.ppo == PPOPreset(n_envs=3, gamma=0.5, net_arch=(3, 4))
    assert preset.train_env == {"a": 1, "b": [2.5, None]}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"ppp": {}}, "an entry of a task's training among ppo, train_env, got 'ppp': did you mean 'ppo'"),
        ({"ppo": {"gama": 0.9}}, "got 'gama': did you mean 'gamma'"),
        ({"ppo": {"gamma": 2}}, "gamma from 0 to 1, got 2"),
        ({"ppo": {"gamma": "high"}}, "expected gamma of type float, got 'high'"),
        ({"train_env": {"a": object()}}, "train_env to be plain JSON data, got Object of type object"),
    ],
)
def test_invalid_settings_raise(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_preset(training)


def test_fields_by_name() -> None:
    assert changed_preset(PPOPreset(), {"n_steps": 7}) == PPOPreset(n_steps=7)
    assert changed_preset(PPOPreset(net_arch=(5,)), {}) == PPOPreset(net_arch=(5,))


def test_numbers_of_numpy_and_tuples_become_those_of_json() -> None:
    ppo = PPOPreset(n_envs=np.int64(2), net_arch=(np.int64(8),), gamma=np.float32(0.5))  # type: ignore[arg-type]
    options: Any = {"num_heads": np.int64(2), "image": ("left", "wrist")}
    config = TrainConfig("toy", options=options, env={"sizes": np.arange(2)}, ppo=ppo, seed=np.int32(3))  # type: ignore[dict-item,arg-type]
    assert config.options == {"num_heads": 2, "image": ["left", "wrist"]}
    assert config.env == {"sizes": [0, 1]}
    numbers = (config.seed, config.options["num_heads"], config.ppo.n_envs, config.ppo.net_arch[0])
    assert [type(number) for number in numbers] == [int] * 4
    assert (config.ppo.net_arch, type(config.ppo.gamma), config.ppo.gamma) == ((8,), float, 0.5)
    json.dumps(asdict(config))
