"""Number of CPU cores usable by this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""CPU quota of the control group on Linux: "QUOTA PERIOD" in microseconds, where QUOTA is "max" for none."""


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Count the CPU cores usable by this process: within its affinity and its control group's quota.

    Libraries count all cores of the machine. In a container with a quota, threads beyond it are not
    scheduled, and every parallel region waits for them: measured, a PPO update was 80 times slower than on
    one thread.

    Args:
        cpu_max: file of the quota.

    Returns:
        The number of cores, at least 1.
    """
    return len(usable_core_ids(cpu_max))


def usable_core_ids(cpu_max: Path = CPU_MAX) -> list[int]:
    """List the ids of the `usable_cores`, for pinning processes to cores.

    Args:
        cpu_max: file of the quota.

    Returns:
        The ids in ascending order. Under a quota they are the lowest ids of the process's affinity.
    """
    ids = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    count = len(ids)
    if cpu_max.is_file():
        quota, period = cpu_max.read_text().split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    return list(ids[:count])
