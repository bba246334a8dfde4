"""What every test shares: how hypothesis runs, and how many workers `pytest -n auto` takes."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: how long one example takes on a shared machine says nothing about the code.
settings.register_profile(
    "robot-attn", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("robot-attn")


def _cores() -> int:
    """Count the cores this process may use: its affinity, and its control group's share of the machine."""
    cores = len(os.sched_getaffinity(0))
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    # Past eight, importing torch once more costs a worker longer than the tests that it takes over.
    return min(_cores(), 8)
