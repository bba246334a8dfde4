"""Independent pieces of work in processes of their own, each on its share of the cores.

Processes, since rollouts hold the interpreter most of the time. Cores of their own, since the simulator,
the camera and torch each take as many threads as there are cores that the process may use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Tell = Callable[[int], None]
"""Says that so many steps more were done."""


def run_jobs(
    work: Callable[[Job, Tell], Result],
    jobs: Sequence[Job],
    processes: int,
    *,
    on_progress: Callable[[int, int], None],
    on_result: Callable[[int, Result], None],
) -> None:
    """Call `work(job, tell)` for each job, `processes` at a time, in their order.

    When this is left, by an error or Ctrl-C too, no process is left. When this process is killed, the others
    end at the next step that they tell of.

    Args:
        work: a function of a module, as other processes import it.
        jobs: what can be pickled.
        processes: how many.
        on_progress: called with a job's place and the steps that it tells of.
        on_result: called with a job's place and result as soon as there is one.

    Raises:
        ValueError: from a job; or a process ended without a word.
    """
    # Not above: a job's process binds its cores before it imports torch, which counts them.
    from robot_attn.cores import usable_core_ids

    processes = min(processes, len(jobs))
    cores = usable_core_ids()
    waiting = iter(enumerate(jobs))
    busy: dict[Connection, int] = {}
    context = multiprocessing.get_context("spawn")
    started = []

    def give(connection: Connection) -> None:
        place, job = next(waiting, (None, None))
        if place is not None:
            connection.send(job)
            busy[connection] = place

    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            share = cores[number::processes] or [cores[number % len(cores)]]
            process = context.Process(target=_serve, args=(work, share, theirs), daemon=True)
            with _deaf():
                process.start()
            started.append(process)
            theirs.close()
            give(ours)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    what, value = ready.recv()
                except EOFError as error:
                    raise ValueError("a worker process ended; see its output above") from error
                if what == "step":
                    on_progress(busy[ready], value)
                elif what == "error":
                    raise ValueError(value)
                else:
                    on_result(busy.pop(ready), value)
                    give(ready)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here do not hear Ctrl-C, not even while they import: we tell them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(work: Callable[[Any, Tell], Any], cores: list[int], connection: Connection) -> None:
    os.sched_setaffinity(0, cores)  # before any library counts them
    try:
        while True:
            job = connection.recv()
            try:
                result = work(job, lambda steps: connection.send(("step", steps)))
            except ValueError as error:
                connection.send(("error", str(error)))
            else:
                connection.send(("done", result))
    except (EOFError, BrokenPipeError):
        pass  # the other end is gone
