"""Peers of a benchmark, each in a separate process, measured in turns and idle otherwise.

A separate process: the threads, the allocator's settings and the OpenGL of a peer touch no other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from robot_attn_scripts._pool import child

Advance = Callable[[int], int]
"""Do an amount of work, and return the frames of it."""
Work = Callable[..., AbstractContextManager[Advance]]
"""Sets a peer up and takes it down; a function of a module, as another process imports it."""


@contextmanager
def opengl() -> Iterator[None]:
    """Import mujoco and set a renderer up in here, with EGL, which needs no display, or what MUJOCO_GL names.

    Only for the peers that draw with OpenGL: where there is none, mujoco does not even import with it named.

    Raises:
        ValueError: it does not work.
    """
    backend = os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        yield
    except Exception as error:  # each backend fails in its own way
        raise ValueError(
            f"there is no OpenGL to draw with, MUJOCO_GL being {backend} ({error}); "
            "on Debian, `apt-get install libegl1` brings what egl needs"
        ) from error


class Peer:
    """The process of a peer."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name, self._connection = name, connection

    def answer(self) -> float | str:
        """What the process has to say: a rate, or why there is none.

        Raises:
            ValueError: it ended without a word.
        """
        try:
            said: float | str = self._connection.recv()
        except EOFError as error:
            raise ValueError(f"the process of {self.name} ended; see its output above") from error
        return said

    def measure(self, amount: int) -> float:
        """Frames a second, over that amount of work.

        Raises:
            ValueError: it failed.
        """
        self.start(amount)
        return self.finish()

    def start(self, amount: int) -> None:
        """Have that amount of work begun."""
        self._connection.send(amount)

    def finish(self) -> float:
        """Frames a second, over the work that was begun.

        Raises:
            ValueError: it failed.
        """
        rate = self.answer()
        if isinstance(rate, str):
            raise ValueError(f"{self.name} failed while it was measured: {rate}")
        return rate


@contextmanager
def peer(name: str, work: Work, *arguments: Any, cores: list[int] | None = None) -> Iterator[Peer]:
    """Start a peer that does `work(*arguments)`, on those cores alone where they are named.

    Its first `answer` is a number once it is ready, or the reason why it cannot be measured.
    """
    with child(_serve, work, arguments, cores=cores, patience=30.0) as connection:
        yield Peer(name, connection)


def _serve(work: Work, arguments: tuple[Any, ...], connection: Connection) -> None:
    try:
        with work(*arguments) as advance:
            connection.send(0.0)
            while True:
                amount = connection.recv()
                started = time.perf_counter()
                frames = advance(amount)
                connection.send(frames / (time.perf_counter() - started))
    except (EOFError, BrokenPipeError):
        raise  # the other end has what it wanted
    except Exception as error:  # whatever keeps a peer from running is what the table says of it
        connection.send(" ".join(str(error).split()) or type(error).__name__)
