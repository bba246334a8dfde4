"""Processor time of `robot-attn train` in this version and in another one, measured in turns."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from robot_attn_policies.training.presets import PPOPreset

FOLDERS = ("", "envs", "policies", "scripts")
"""Folders of a checkout that Python packages are imported from."""
SAME = ("n_envs", "n_steps", "batch_size", "n_epochs")
"""Hyperparameters that determine the work of a trained frame: both versions get the same."""


def processor_time(
    checkouts: Mapping[str, Path | None],
    *,
    perception: str,
    ppo: PPOPreset,
    rollouts: int,
    rounds: int,
    threads: int,
    seed: int,
) -> dict[str, list[float]]:
    """Measure the processor time of a frame trained on Track, in every round once for each version.

    It is the difference between two trainings, of 1 + `rollouts` rollouts and of 1, so that starting and
    compiling do not count, divided by the frames between. User and system time of all threads are added up,
    which other programs on the machine disturb less than a clock.

    Args:
        checkouts: the folder of each version by name; None for the version that is running.
        perception: the family.
        ppo: hyperparameters, of which `SAME` are passed on.
        rollouts: rollouts to measure.
        rounds: repetitions.
        threads: threads that share an update.
        seed: random seed of the training.

    Returns:
        Processor time by name, for each round, ms a frame.

    Raises:
        ValueError: a version failed, or `rollouts` are too few to measure.
    """
    frames = ppo.n_envs * ppo.n_steps
    arguments = (
        *("--perception", perception, "--threads", str(threads), "--seed", str(seed), "--eval-every", "0"),
        *("--ppo", *(f"{name}={getattr(ppo, name)}" for name in SAME)),
    )
    for checkout in checkouts.values():
        _seconds(checkout, frames, arguments)  # compiles the kernels
    times: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            short = _seconds(checkout, frames, arguments)
            long = _seconds(checkout, (1 + rollouts) * frames, arguments)
            if long <= short:
                raise ValueError(
                    f"expected {rollouts} more rollouts to take longer, got {long:.1f} s of processor time "
                    f"with them and {short:.1f} s without: raise --rollouts"
                )
            times[name].append(1e3 * (long - short) / (rollouts * frames))
    return times


def _seconds(checkout: Path | None, steps: int, arguments: tuple[str, ...]) -> float:
    """Processor time of a training, s."""
    folders = [] if checkout is None else [str(checkout.resolve() / folder) for folder in FOLDERS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (*folders, *sys.path)))}
    # In an empty folder, since `python -m` imports from the current one first.
    with tempfile.TemporaryDirectory() as empty:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "robot_attn_scripts.cli", "train", "track"),
                *("--steps", str(steps), "--out", "run", *arguments),
            ],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"expected {checkout or 'this version'} to train track, got: {last}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
