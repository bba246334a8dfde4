"""Every task and option: environment checkers pass, and instructions are well-formed."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from robot_attn_envs import TASKS
from robot_attn_envs.shifts import SHIFTS, SUITES

OPTIONS: list[dict[str, Any]] = [
    {},
    {"instruction": True},
    {"instruction": "held_out"},
    {"occluders": 2},
    {"distractors": 2},
    {"image_size": (48, 64)},
    *({"shift": name, "intensity": 1.0} for name in SHIFTS),
    *({"suite": name} for name in SUITES),
    {"suite": "hard", "instruction": True, "occluders": 1, "masks": True},
]


OWN: list[tuple[str, dict[str, Any]]] = [
    ("RobotAttn/Track-v0", {"out_of_view": 1.0}),
    ("RobotAttn/Navigate-v0", {"start_in_view": False}),
    ("RobotAttn/Navigate-v0", {"obstacles": 0}),
    ("RobotAttn/Reach-v0", {"view": "wrist"}),
]


@pytest.mark.parametrize(
    ("task", "options"), [*((task, options) for task in TASKS for options in OPTIONS), *OWN], ids=str
)
def test_the_environment_checkers_pass(task: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(task, render_mode="rgb_array", **options)
        # Its render checks make further environments; their outcome depends on the image size alone.
        check_env(env.unwrapped, skip_render_check=bool(options) and "image_size" not in options)
        sb3_check_env(env)
        assert env.render().dtype == np.uint8
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_depth_passes_gymnasiums_checker(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(task, depth=True)
        check_env(env.unwrapped, skip_render_check=True)
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_an_instruction_is_given_as_text_and_as_tokens(task: str) -> None:
    env = gymnasium.make_vec(task, num_envs=16, instruction=True)
    observation, infos = env.reset(seed=0)
    assert observation["tokens"].shape == (16, 16) and observation["tokens"].dtype == np.int64
    words = [text.split() for text in infos["instruction"]]
    assert all(len(text) == 3 and text[0] == "the" for text in words)
    assert len({tuple(text) for text in words}) > 4
    assert ((observation["tokens"] > 0).sum(axis=1) == 3).all()
    _, _, _, _, infos = env.step(np.zeros(env.action_space.shape, np.float32))
    assert [text.split() for text in infos["instruction"]] == words
    env.close()


def test_render_fps_is_the_control_rate_of_the_task() -> None:
    for task, fps in (("RobotAttn/Track-v0", 20), ("RobotAttn/Navigate-v0", 10)):
        for env in (gymnasium.make(task), gymnasium.make_vec(task, num_envs=1)):
            assert env.metadata["render_fps"] == fps
            env.close()
