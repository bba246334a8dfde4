"""Presets: a task's training settings on top of the defaults."""

from typing import Any

import pytest

from robot_attn_policies.training.presets import PPOPreset, TaskPreset, changed_preset, task_preset


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
