"""What holds for every task: the checkers' word, the same bits, random near 0 and the oracle near 1."""

import warnings
from functools import cache
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
# Everything that draws: none of it may depend on how many worlds or threads there are.
ALL = {"suite": "hard", "instruction": True, "occluders": 2, "masks": True}
STEPS, RESET_AT = 14, 6


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_no_checker_complains(task: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(task, render_mode="rgb_array", **options)
        check_env(env.unwrapped)
        sb3_check_env(env)
        env.close()


@pytest.mark.parametrize("task", TASKS)
def test_depth_passes_gymnasiums_checker(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(task, depth=True)
        check_env(env.unwrapped, skip_render_check=True)
        env.close()


def actions(envs: int, size: int) -> np.ndarray:
    """Actions of each world from a stream of its own, float32 [STEPS, envs, size]."""
    streams = [np.random.default_rng(world).uniform(-1, 1, (STEPS, size)) for world in range(envs)]
    return np.stack(streams, axis=1).astype(np.float32)


Trace = list[dict[str, np.ndarray]]


@cache
def trace(task: str, envs: int, threads: int) -> Trace:
    """What a batch gives in STEPS steps, with new episodes (the generators go on) after RESET_AT."""
    env = gymnasium.make_vec(task, num_envs=envs, threads=threads, **ALL)
    observation, infos = env.reset(seed=3)
    seen = [{**observation, "mask": infos["target_mask"]}]
    for step, action in enumerate(actions(envs, env.single_action_space.shape[0])):
        if step == RESET_AT:
            observation, infos = env.reset()
            seen.append({**observation, "mask": infos["target_mask"]})
        observation, reward, terminated, truncated, infos = env.step(action)
        rest = {"reward": reward, "terminated": terminated, "truncated": truncated}
        seen.append({**observation, "mask": infos["target_mask"], **rest})
    env.close()
    return seen


def assert_same(found: Trace, expected: Trace, worlds: int) -> None:
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name][:worlds], theirs[name][:worlds], f"{name}, {step}")


@pytest.mark.parametrize(("envs", "threads"), [(1, 1), (7, 1), (7, 2), (7, 3), (7, 4), (64, 1)])
@pytest.mark.parametrize("task", TASKS)
def test_bits_do_not_depend_on_environments_or_threads(task: str, envs: int, threads: int) -> None:
    assert_same(trace(task, envs, threads), trace(task, 64, 4), envs)


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_state_brings_back_the_bits(task: str) -> None:
    first = gymnasium.make_vec(task, num_envs=3, threads=2, **ALL)
    other = gymnasium.make_vec(task, num_envs=3, threads=1, **ALL)
    size = first.single_action_space.shape[0]
    first.reset(seed=9)
    other.reset(seed=1)
    for action in actions(3, size):
        first.step(action)
        other.step(-action)
    state = {name: value.copy() for name, value in first.unwrapped.get_state().items()}
    assert all(value.dtype != object for value in state.values())
    other.unwrapped.set_state(state)
    for name, value in first.unwrapped.observe().items():
        np.testing.assert_array_equal(other.unwrapped.observe()[name], value, name)
    # On through the end of the episode: what is drawn next is in the state too.
    for _ in range(first.unwrapped.horizon + 2 - STEPS):
        action = first.unwrapped.oracle_actions()
        ours, theirs = first.step(action), other.step(action)
        for name in first.single_observation_space.spaces:
            np.testing.assert_array_equal(ours[0][name], theirs[0][name], name)
        for mine, its in zip(ours[1:4], theirs[1:4], strict=True):
            np.testing.assert_array_equal(mine, its)
        np.testing.assert_array_equal(ours[4]["target_mask"], theirs[4]["target_mask"])
    first.close()
    other.close()


@pytest.mark.parametrize("task", TASKS)
def test_one_environment_gives_the_bits_of_the_batch(task: str) -> None:
    env = gymnasium.make(task, **ALL)
    observation, info = env.reset(seed=3)
    seen = [{**observation, "mask": info["target_mask"]}]
    for step, action in enumerate(actions(1, env.action_space.shape[0])[:, 0]):
        if step == RESET_AT:
            observation, info = env.reset()
            seen.append({**observation, "mask": info["target_mask"]})
        observation, reward, terminated, truncated, info = env.step(action)
        rest = {"reward": reward, "terminated": terminated, "truncated": truncated}
        seen.append({**observation, "mask": info["target_mask"], **rest})
    for ours, theirs in zip(seen, trace(task, 64, 4), strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name][0], name)
    env.close()


def play(task: str, kind: str, envs: int, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First episodes: returns [envs], successes [envs], and why each ended."""
    env = gymnasium.make_vec(task, num_envs=envs, image_size=32, **options)
    env.reset(seed=40)
    rng, total = np.random.default_rng(0), np.zeros(envs)
    running, success, why = np.ones(envs, bool), np.zeros(envs, bool), np.full(envs, "", object)
    for _ in range(env.unwrapped.horizon):
        act = (
            env.unwrapped.oracle_actions() if kind == "oracle" else rng.uniform(-1, 1, env.action_space.shape)
        )
        _, reward, terminated, truncated, infos = env.step(act.astype(np.float32))
        total[running] += reward[running]
        ended = (terminated | truncated) & running
        if ended.any():
            success[ended] = infos["final_info"]["success"][ended]
            why[ended] = infos["final_info"]["end"][ended]
        running &= ~ended
        if not running.any():
            break
    env.close()
    assert not running.any()
    return total, success, why


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"instruction": True}, {"instruction": "held_out"}], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_succeeds_and_chance_does_not(task: str, options: dict[str, Any]) -> None:
    best, success, why = play(task, "oracle", 100, **options)
    worst, luck, _ = play(task, "random", 100, **options)
    assert success.mean() >= 0.95
    assert luck.mean() <= 0.05
    assert best.mean() > 2 * worst.mean()
    assert set(why) <= {"success", "failure", "time limit"}


@pytest.mark.parametrize("task", TASKS)
def test_an_instruction_comes_as_text_and_as_tokens(task: str) -> None:
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
