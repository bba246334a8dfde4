"""Contract test of the private hook of gymnasium-robotics that places what only pictures show."""

import importlib.util
from types import SimpleNamespace

import pytest

from robot_attn_envs.compat.gymnasium_robotics import prepare_frame

PARTS = ("_render_callback",)


@pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is None, reason="gymnasium-robotics is not installed"
)
@pytest.mark.parametrize("part", PARTS)
def test_its_environments_have_the_hook(part: str) -> None:
    from gymnasium_robotics.envs.robot_env import BaseRobotEnv

    assert callable(getattr(BaseRobotEnv, part))


def test_the_hook_is_called_and_others_are_left_as_they_are() -> None:
    placed: list[str] = []
    prepare_frame(SimpleNamespace(_render_callback=lambda: placed.append("goal")))
    prepare_frame(SimpleNamespace())
    assert placed == ["goal"]
