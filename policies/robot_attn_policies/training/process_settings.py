"""Settings of the process that make training faster: memory of glibc, and torch."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import torch
from torch.distributions import Distribution, Normal


def keep_memory() -> bool:
    """Make glibc keep freed memory instead of returning it to the system, for the rest of this process.

    Every update frees and allocates the same large activations repeatedly; the page faults take a fifth of
    its time.

    Returns:
        Whether it took effect; False if the C library has no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 26))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings)


def _distributions_check() -> bool:
    """Whether distributions check their arguments: torch has a public setter for it, but no getter."""
    try:
        Normal(0.0, -1.0)
    except ValueError:
        return True
    return False


@contextlib.contextmanager
def torch_settings() -> Iterator[None]:
    """Restore torch's number of threads afterwards, and disable argument checks of distributions meanwhile.

    The checks take time in every minibatch; weights that became NaN are detected after every update anyway.
    """
    threads, checks = torch.get_num_threads(), _distributions_check()
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        Distribution.set_default_validate_args(checks)
