"""How many CPU cores are worth a thread."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The control group's quota, where Linux has it: "QUOTA PERIOD" in microseconds, QUOTA "max" for none."""


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Number of CPU cores worth a thread: within this process's affinity and its control group's quota.

    Libraries count the machine's cores. In a container with a quota, threads beyond it are not scheduled, and
    every parallel region waits for them: measured, an update of PPO became 80 times as slow as on one thread.

    Args:
        cpu_max: where the quota is read.

    Returns:
        The number, at least 1.
    """
    return len(usable_core_ids(cpu_max))


def usable_core_ids(cpu_max: Path = CPU_MAX) -> list[int]:
    """The `usable_cores` by the numbers that the system gives them, to run processes on cores of their own.

    Args:
        cpu_max: where the quota is read.

    Returns:
        The numbers, rising. Within a quota they are the lowest of those that the process may run on.
    """
    ids = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    count = len(ids)
    if cpu_max.is_file():
        quota, period = cpu_max.read_text().split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    return list(ids[:count])
