"""The entry point of `robot-attn`: picks a command, and turns errors into one line and an exit code.

Exit codes: 0 done, 2 an error that the line on stderr explains, 130 interrupted with Ctrl-C, 141 whoever read
the output closed it. With ROBOT_ATTN_TRACEBACK=1 in the environment an error shows its traceback instead.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence

from robot_attn_scripts._command import Command, dispatch

COMMANDS: Mapping[str, Command] = {
    "train": Command("train", "train a policy from camera frames in simulation", ("train",)),
    "evaluate": Command("evaluate", "score a policy, and whether it looked at the target", ("train",)),
    "compare": Command("compare", "compare runs over scenes and seeds: table and plot", ("train",)),
    "curves": Command("curves", "draw the learning curves of runs", ("train",)),
    "replay": Command("replay", "draw an episode with what the policy looked at", ("train", "video")),
    "explain": Command(
        "explain", "test whether what a policy looks at decides what it does", ("train", "video", "explain")
    ),
    "record": Command("record", "play episodes and keep them, as files or for Minari", ("train", "video")),
    "watch": Command("watch", "show what a policy attends to in a video or a camera", ("train", "video")),
    "gallery": Command("gallery", "draw every task under every visual shift", ("train", "video")),
    "benchmark": Command("benchmark", "measure rendering, training, attention and the families", group=True),
    "families": Command("families", "list the perception families, and what each costs", ("train",)),
    "demo": Command("demo", "train, evaluate and replay a tracking policy from scratch", ("train", "video")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `robot-attn` with `argv` (default: the process's arguments) and return its exit code."""
    _open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read when torch's OpenMP is loaded, so before torch is. Its threads would otherwise spin between two
    # operations on the cores that the simulator's threads, or another process, could be using.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a full disk or a closed pipe still becomes one line
        return code
    except KeyboardInterrupt:
        print("robot-attn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `robot-attn ... | head` has read enough. What Python still wants to write at its end goes nowhere.
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
    """Open what whoever started us has closed (`2>&-`), so that writing there goes nowhere.

    Otherwise the next file that is opened would get the number of the stream that is missing, and whatever a
    library writes to that stream would end up in the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the least number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error or 'ask for less'}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
