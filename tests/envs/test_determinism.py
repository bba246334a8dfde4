"""Determinism: the same bits at any number of worlds and threads, after a reset, and from a saved state."""

from functools import cache

import gymnasium
import numpy as np
import pytest

from robot_attn_envs import TASKS

# Every source of randomness: none may depend on the number of worlds or threads.
ALL = {"suite": "hard", "instruction": True, "occluders": 2, "masks": True, "image_size": 32}
STEPS, RESET_AT = 14, 6


def actions(envs: int, size: int) -> np.ndarray:
    """Actions from one random stream per world, float32 [STEPS, envs, size]."""
    streams = [np.random.default_rng(world).uniform(-1, 1, (STEPS, size)) for world in range(envs)]
    return np.stack(streams, axis=1).astype(np.float32)


Trace = list[dict[str, np.ndarray]]


@cache
def trace(task: str, envs: int, threads: int) -> Trace:
    """Outputs of a batch in STEPS steps, with new episodes (and no new seed) after RESET_AT."""
    env = gymnasium.make_vec(task, num_envs=envs, threads=threads, **ALL)
    observation, infos = env.reset(seed=3)
    outputs = [{**observation, "mask": infos["target_mask"]}]
    for step, action in enumerate(actions(envs, env.single_action_space.shape[0])):
        if step == RESET_AT:
            observation, infos = env.reset()
            outputs.append({**observation, "mask": infos["target_mask"]})
        observation, reward, terminated, truncated, infos = env.step(action)
        rest = {"reward": reward, "terminated": terminated, "truncated": truncated}
        outputs.append({**observation, "mask": infos["target_mask"], **rest})
    env.close()
    return outputs


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
def test_a_saved_state_restores_the_bits(task: str) -> None:
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
    # On past the end of the episode: the state has what the next one is sampled from.
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
    outputs = [{**observation, "mask": info["target_mask"]}]
    for step, action in enumerate(actions(1, env.action_space.shape[0])[:, 0]):
        if step == RESET_AT:
            observation, info = env.reset()
            outputs.append({**observation, "mask": info["target_mask"]})
        observation, reward, terminated, truncated, info = env.step(action)
        rest = {"reward": reward, "terminated": terminated, "truncated": truncated}
        outputs.append({**observation, "mask": info["target_mask"], **rest})
    for ours, theirs in zip(outputs, trace(task, 64, 4), strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name][0], name)
    env.close()
