"""Independent jobs in separate processes, each bound to its share of the cores.

Processes, because rollouts hold Python's global lock most of the time. Bound to cores, because the simulator,
the camera and torch each start as many threads as the process has cores.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
ReportProgress = Callable[[Any], None]
"""Reports the progress of a job as a picklable value, such as the steps done since the last report."""
ENDED = "expected a result, got the end of the worker process: see its output above"


@contextmanager
def child(
    serve: Callable[..., None], *arguments: Any, cores: Sequence[int] | None = None, patience: float = 0.0
) -> Iterator[Connection]:
    """Run `serve(*arguments, connection)` in a separate process.

    On leaving the context, also by an error or Ctrl-C, the connection is closed and the process ended.

    Args:
        serve: a module-level function, which the process imports.
        *arguments: picklable arguments. Their modules are imported before the process is bound to its cores.
        cores: cores that the process may use. Default: those of this process.
        patience: seconds that the process gets to end by itself before it is killed. With 0 it also ignores
            Ctrl-C, and may not start further processes.

    Yields:
        Our end of the connection.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_bound, args=(serve, arguments, cores, theirs), daemon=patience == 0)
    with nullcontext() if patience else _ignoring_interrupts():
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(patience)
        process.kill()
        process.join()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Have processes that are started in this context ignore Ctrl-C, even during their imports."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _bound(
    serve: Callable[..., None],
    arguments: tuple[Any, ...],
    cores: Sequence[int] | None,
    connection: Connection,
) -> None:
    if cores is not None:
        os.sched_setaffinity(0, cores)  # before a library counts the cores
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the other end is closed, or interrupted
        serve(*arguments, connection)


def run_jobs(
    work: Callable[[Job, ReportProgress], Result],
    jobs: Sequence[Job],
    processes: int,
    *,
    on_progress: Callable[[int, Any], None],
    on_result: Callable[[int, Result], None],
    on_error: Callable[[int, str], None] | None = None,
) -> None:
    """Call `work(job, report_progress)` for each job, in order, several at a time in separate processes.

    All processes have ended on return, also after an error or Ctrl-C. If this process is killed, they end at
    their next report of progress.

    Args:
        work: a module-level function, which the processes import.
        jobs: picklable jobs.
        processes: number of processes.
        on_progress: called with a job's index and what it reports.
        on_result: called with a job's index and result as soon as it is done.
        on_error: called with a job's index and its error message; the other jobs continue. Default: raise the
            first error.

    Raises:
        ValueError: a job raised it, or its process ended without a result.
    """
    # Not at the top: a process must bind its cores before it imports torch, which counts them.
    from robot_attn.cores import usable_core_ids

    def fail(index: int, message: str) -> None:
        if on_error is None:
            raise ValueError(message)
        on_error(index, message)

    processes = min(processes, len(jobs))
    cores = usable_core_ids()
    waiting = deque(enumerate(jobs))
    with ExitStack() as stack:
        shares: dict[Connection, list[int]] = {}
        busy: dict[Connection, int] = {}

        def start(share: list[int]) -> Connection:
            connection = stack.enter_context(child(_serve, work, cores=share))
            shares[connection] = share
            return connection

        def send_next(connection: Connection) -> None:
            if waiting:
                busy[connection], job = waiting.popleft()
                connection.send(job)

        for number in range(processes):
            send_next(start(cores[number::processes] or [cores[number % len(cores)]]))
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    kind, value = ready.recv()
                except EOFError:
                    fail(busy.pop(ready), ENDED)
                    if waiting:
                        send_next(start(shares[ready]))
                    continue
                if kind == "step":
                    on_progress(busy[ready], value)
                    continue
                index = busy.pop(ready)
                if kind == "error":
                    fail(index, value)
                else:
                    on_result(index, value)
                send_next(ready)


def _serve(work: Callable[[Any, ReportProgress], Any], connection: Connection) -> None:
    warnings.simplefilter("ignore", UserWarning)  # this process's parent has printed them, once
    while True:
        job = connection.recv()
        try:
            result = work(job, lambda steps: connection.send(("step", steps)))
        except ValueError as error:
            connection.send(("error", str(error)))
        else:
            connection.send(("done", result))
