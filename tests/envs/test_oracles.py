"""The baselines of every task: the scripted oracle succeeds, a random policy does not."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from robot_attn_envs import TASKS


def play(task: str, kind: str, envs: int, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First episodes: returns [envs], successes [envs], and the reason that each ended."""
    env = gymnasium.make_vec(task, num_envs=envs, image_size=32, **options)
    env.reset(seed=40)
    env.unwrapped.worlds.render = lambda: None  # neither policy uses the frames, which take most of the time
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
def test_the_oracle_succeeds_and_a_random_policy_does_not(task: str, options: dict[str, Any]) -> None:
    best, success, why = play(task, "oracle", 100, **options)
    worst, random_success, _ = play(task, "random", 100, **options)
    assert success.mean() >= 0.95
    assert random_success.mean() <= 0.05
    assert best.mean() > 2 * worst.mean()
    assert set(why) <= {"success", "failure", "time limit"}
