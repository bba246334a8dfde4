"""Times taken fairly, on one thread and in turns; memory at its peak; how a figure grows with a size."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

LEAST_SECONDS = 0.02
"""What is quicker is repeated within a round until it takes this long: a clock and a cache need it."""

TimedStep = Callable[[], object]


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute on one thread within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def forward_and_backward(forward: Callable[[], Tensor], leaves: Sequence[Tensor]) -> TimedStep:
    """One pass there and back: from `leaves` to what `forward` gives, and to the gradients of all leaves."""
    with torch.no_grad():
        gradient = torch.randn_like(forward())
    return lambda: torch.autograd.grad(forward(), leaves, gradient)


def take_turns(steps: Mapping[str, TimedStep], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step in each round. In a round every step has its turn, one right after another.

    Whatever slows the machine for a while so slows all of a round, and hardly their ratios.
    """
    repeats = {}
    for name, step in steps.items():
        step()  # the first brings code and memory, and says nothing
        repeats[name] = math.ceil(LEAST_SECONDS / seconds(step, 1))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(1e3 * seconds(step, repeats[name]))
    return times


def seconds(step: TimedStep, repeats: int) -> float:
    """The mean time of a step."""
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - started) / repeats


def peak_bytes(step: TimedStep) -> int:
    """Memory that this process takes at the peak of `step`, above what it has taken before; on Linux.

    Memory that was freed and is still the process's own counts as taken before: call it in a fresh process.
    """
    with suppress(OSError):  # where this is forbidden, the peak so far is what is measured from
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kilobytes()
    step()
    return 1024 * (_peak_kilobytes() - before)


def _peak_kilobytes() -> int:
    # Not getrusage's ru_maxrss, which begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def log_log_slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Give the slope of log(figure) over log(size), by least squares: 1 is linear growth, 2 quadratic.

    Raises:
        ValueError: fewer than two sizes, or a figure or size that is not above 0.
    """
    if len(set(sizes)) < 2 or min(*sizes, *figures) <= 0:
        raise ValueError(
            "a slope needs two sizes or more, and figures above 0; "
            f"they are {list(sizes)} and {list(figures)}"
        )
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(f) for f in figures]).slope
