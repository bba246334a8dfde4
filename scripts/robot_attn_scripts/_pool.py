"""Independent pieces of work in processes of their own, each on its share of the cores.

Processes, since rollouts hold the interpreter most of the time. Cores of their own, since the simulator,
the camera and torch each take as many threads as there are cores that the process may use.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Tell = Callable[[Any], None]
"""Says how far a job is, in what can be pickled, such as the steps done since it last said so."""
ENDED = "a worker process ended; see its output above"


@contextmanager
def child(
    serve: Callable[..., None], *arguments: Any, cores: Sequence[int] | None = None, patience: float = 0.0
) -> Iterator[Connection]:
    """A separate process that runs `serve(*arguments, connection)`; this gives the connection's other end.

    When this is left, by an error or Ctrl-C too, the connection is closed, and the process is gone.

    Args:
        serve: a function of a module, as another process imports it.
        *arguments: what can be pickled. Their modules are imported before the cores are bound.
        cores: what the process may run on; None: as this one.
        patience: seconds that the process has to end by itself when this is left. With 0 it does not hear
            Ctrl-C either: we end it. Only a process with patience may start others.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_bound, args=(serve, arguments, cores, theirs), daemon=patience == 0)
    with nullcontext() if patience else _deaf():
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
def _deaf() -> Iterator[None]:
    """Processes that are started here do not hear Ctrl-C, not even while they import."""
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
        os.sched_setaffinity(0, cores)  # before any library counts them
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the other end is gone, or was stopped
        serve(*arguments, connection)


def run_jobs(
    work: Callable[[Job, Tell], Result],
    jobs: Sequence[Job],
    processes: int,
    *,
    on_progress: Callable[[int, Any], None],
    on_result: Callable[[int, Result], None],
    on_error: Callable[[int, str], None] | None = None,
) -> None:
    """Call `work(job, tell)` for each job, `processes` at a time, in their order.

    When this is left, by an error or Ctrl-C too, no process is left. When this process is killed, the others
    end at the next step that they tell of.

    Args:
        work: a function of a module, as other processes import it.
        jobs: what can be pickled.
        processes: how many.
        on_progress: called with a job's place and what it tells.
        on_result: called with a job's place and result as soon as there is one.
        on_error: called with a job's place and what kept it from a result, and the other jobs go on. None:
            the first error is raised.

    Raises:
        ValueError: from a job; or a process ended without a word.
    """
    # Not above: a job's process binds its cores before it imports torch, which counts them.
    from robot_attn.cores import usable_core_ids

    def fail(place: int, message: str) -> None:
        if on_error is None:
            raise ValueError(message)
        on_error(place, message)

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

        def give(connection: Connection) -> None:
            if waiting:
                busy[connection], job = waiting.popleft()
                connection.send(job)

        for number in range(processes):
            give(start(cores[number::processes] or [cores[number % len(cores)]]))
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    what, value = ready.recv()
                except EOFError:
                    fail(busy.pop(ready), ENDED)
                    if waiting:
                        give(start(shares[ready]))
                    continue
                if what == "step":
                    on_progress(busy[ready], value)
                    continue
                place = busy.pop(ready)
                if what == "error":
                    fail(place, value)
                else:
                    on_result(place, value)
                give(ready)


def _serve(work: Callable[[Any, Tell], Any], connection: Connection) -> None:
    while True:
        job = connection.recv()
        try:
            result = work(job, lambda steps: connection.send(("step", steps)))
        except ValueError as error:
            connection.send(("error", str(error)))
        else:
            connection.send(("done", result))
