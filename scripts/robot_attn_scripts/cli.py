"""The entry point of `robot-attn`: dispatches to a command and turns errors into one line and an exit code.

Exit codes: 0 success; 2 an error, explained by one line on stderr; 130 interrupted with Ctrl-C; 141 the
reader of the output closed the pipe. With ROBOT_ATTN_TRACEBACK=1 in the environment errors show a traceback.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from robot_attn_scripts._command import Command, dispatch

COMMANDS: Mapping[str, Command] = {
    "train": Command("train", "train a policy from camera frames in simulation", ("train",)),
    "evaluate": Command("evaluate", "measure return, success and attention on the target", ("train",)),
    "compare": Command("compare", "compare runs over scenes and seeds: tables and plot", ("train",)),
    "curves": Command("curves", "plot the learning curves of runs", ("train",)),
    "replay": Command("replay", "draw an episode with the policy's attention maps", ("train", "video")),
    "explain": Command(
        "explain", "test whether a policy's attention drives its actions", ("train", "video", "explain")
    ),
    "record": Command(
        "record", "save episodes, as files or as a Minari or LeRobot dataset", ("train", "video")
    ),
    "export": Command("export", "export a policy to ONNX, with its preprocessing", ("train", "onnx")),
    "watch": Command("watch", "show a policy's attention on a video or a camera", ("train", "video")),
    "cameras": Command(
        "cameras", "show what a MuJoCo environment's cameras see, with names", ("train", "video")
    ),
    "gallery": Command("gallery", "draw every task under every visual shift", ("train", "video")),
    "benchmark": Command("benchmark", "measure rendering, training, attention and the families", group=True),
    "families": Command("families", "list the perception families and their cost", ("train",)),
    "demo": Command(
        "demo", "train a tracking policy from scratch, evaluate and replay it", ("train", "video")
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `robot-attn` with `argv` (default: the process's arguments) and return its exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Must be set before torch loads OpenMP. Its threads would otherwise spin between two operations, on cores
    # that the simulator's threads or another process could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _short_warnings():
            code = _run(arguments)
        sys.stdout.flush()  # here, where a full disk or a closed pipe is still caught below
        return code
    except KeyboardInterrupt:
        print("robot-attn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # As in `robot-attn ... | head`. Discard what Python flushes at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
        if os.environ.get("ROBOT_ATTN_TRACEBACK") == "1":
            raise
        print(f"robot-attn: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"robot-attn {importlib.metadata.version('robot-attn')}")
        return 0
    if arguments[:1] == ["--print-completion"]:
        from robot_attn_scripts._completion import script

        print(script(COMMANDS, arguments[1:]))
        return 0
    return dispatch("robot-attn", COMMANDS, arguments)


def _open_streams() -> None:
    """Open standard streams that the parent process has closed (`2>&-`) on the null device.

    Otherwise the next file that is opened would get the descriptor of the missing stream, and whatever a
    library writes to that stream would end up in the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings about what the user chose as one line on stderr, each once; others as Python does."""
    import warnings

    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        text = f"robot-attn: warning: {' '.join(str(message).split())}"
        if category is not UserWarning:
            shown(message, category, *place, **more)
        elif text not in told:
            told.add(text)
            print(text, file=sys.stderr)

    shown = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error or 'reduce the sizes'}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
