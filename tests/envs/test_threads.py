"""Environments in several threads of one process, and in a forked process."""

import os
import subprocess
import sys
import threading

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401, registers the environments

ID = "RobotAttn/Track-v0"


def frames(size: int, seed: int) -> np.ndarray:
    """The frames of five steps of two worlds with seeded actions, uint8 [6, 2, size, size, 3]."""
    env = gymnasium.make_vec(ID, num_envs=2, threads=1, image_size=size)
    actions = np.random.default_rng(seed).uniform(-1, 1, (5, 2, *env.single_action_space.shape))
    kept = [env.reset(seed=seed)[0]["image"]]
    kept += [env.step(action.astype(np.float32))[0]["image"] for action in actions]
    env.close()
    return np.stack(kept)


def test_environments_are_made_and_drawn_in_several_threads_at_once() -> None:
    sizes = (40, 64, 84, 96)
    found: dict[int, np.ndarray] = {}
    together = threading.Barrier(len(sizes))

    def work(size: int) -> None:
        together.wait()
        found[size] = frames(size, seed=size)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(sizes)
    for size in sizes:
        np.testing.assert_array_equal(found[size], frames(size, seed=size))


FORK = """
import os, signal, sys
import gymnasium, numpy as np
import robot_attn_envs

threads, what = int(sys.argv[1]), sys.argv[2]
env = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=8, threads=threads)
env.reset(seed=0)
action = np.zeros((8, *env.single_action_space.shape), np.float32)
env.step(action)
if os.fork() == 0:
    signal.alarm(60)
    try:
        if what == "new":
            env = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=8, threads=threads)
            env.reset(seed=1)
        elif what == "reset":
            env.reset(seed=1)
        env.step(action) if what != "view" else env.unwrapped.view()
        print("works", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
status = os.wait()[1]
env.step(action)
env.close()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("threads", "what", "works"),
    [(1, "step", True), (2, "step", False), (2, "reset", False), (2, "new", True)],
)
def test_a_forked_process_uses_an_environment_or_is_told_at_once(
    threads: int, what: str, works: bool
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(threads), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    told, status = done.stdout.splitlines()
    assert status == "0"
    expected = "works" if works else "got a fork of it, in which its threads are gone: make the environment"
    assert expected in told
