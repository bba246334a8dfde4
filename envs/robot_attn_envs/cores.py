"""Number of CPU cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The control group's CPU quota on Linux: "QUOTA PERIOD" in microseconds, QUOTA "max" for none."""


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """Number of CPU cores that this process may use, by its affinity and its control group's quota.

    Args:
        cpu_max: file with the quota.

    Returns:
        Number of cores, at least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cpu_max.is_file():
        quota, period = cpu_max.read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores
