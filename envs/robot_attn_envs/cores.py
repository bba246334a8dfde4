"""The CPU cores and threads that this process may use."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The control group's CPU quota on Linux: "QUOTA PERIOD" in microseconds, QUOTA "max" for none."""

CPU_INFO = Path("/proc/cpuinfo")
"""What Linux says of the processor."""
# The x86-64-v3 level of the System V ABI, by the names that Linux has for its instructions.
_LEVEL_3 = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}


def has_avx2(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the processor is known to have AVX2 and what came with it, the x86-64-v3 level.

    Args:
        cpu_info: file with the processor's flags.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not cpu_info.is_file():
        return False
    lines = cpu_info.read_text().splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return _LEVEL_3.issubset(flags)


class OwnThreads:
    """Remembers the process whose threads an object has: a fork of a process has none of its threads.

    Work that is given to threads that are gone is never done, and an object that joins its threads when it is
    freed waits for them for ever: in a forked process it is therefore never freed.

    Args:
        owner: the object with the threads.

    Attributes:
        owner: the same.
    """

    _all: ClassVar[weakref.WeakSet[OwnThreads]] = weakref.WeakSet()

    def __init__(self, owner: object) -> None:
        self.owner, self._process = owner, os.getpid()
        self._all.add(self)

    def check(self) -> None:
        """Check that the threads are there.

        Raises:
            RuntimeError: this process is a fork of the one with the threads.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                "expected to be used in the process that the environment was made in, got a fork of it, in "
                "which its threads are gone: make the environment in the child process, or with threads=1"
            )

    @classmethod
    def keep_owners(cls) -> None:
        """Never free the objects whose threads are gone."""
        for threads in list(cls._all):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(threads.owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OwnThreads.keep_owners)


_Outcomes = SimpleQueue[BaseException | None]
_Jobs = SimpleQueue[tuple[Callable[[], None], _Outcomes] | None]


class Helpers:
    """Threads that do the same work as the thread that calls, at the same time.

    They begin within microseconds. A `ThreadPoolExecutor`, which keeps accounts of its jobs, takes several
    times as long, and that is noticeable in work of a millisecond.

    Args:
        count: number of threads beside the one that calls.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: _Jobs = SimpleQueue()
        self._threads_of = OwnThreads(self._jobs)
        for _ in range(count):
            threading.Thread(target=_serve, args=(self._jobs,), daemon=True).start()
        self._dismiss = weakref.finalize(self, _dismiss, self._jobs, count)

    def run(self, work: Callable[[], None]) -> None:
        """Call `work` in every thread, this one included, and wait until all have returned.

        Raises:
            RuntimeError: this process is a fork of the one with the threads.
            BaseException: what `work` raised in any of them.
        """
        self._threads_of.check()
        outcomes: _Outcomes = SimpleQueue()
        for _ in range(self._count):
            self._jobs.put((work, outcomes))
        try:
            work()
        finally:
            errors = [outcomes.get() for _ in range(self._count)]
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        """End the threads."""
        self._dismiss()


def _serve(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        work, outcomes = job
        try:
            work()
        except BaseException as error:  # raised again by the thread that waits
            outcomes.put(error)
        else:
            outcomes.put(None)
        del job, work, outcomes  # what they refer to would live until the next job


def _dismiss(jobs: _Jobs, count: int) -> None:
    for _ in range(count):
        jobs.put(None)


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
