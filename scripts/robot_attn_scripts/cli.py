"""The entry point of `robot-attn`: picks a command, and turns errors into one line and an exit code.

Exit codes: 0 done, 2 an error that the line on stderr explains, 130 interrupted with Ctrl-C. With
ROBOT_ATTN_TRACEBACK=1 in the environment an error shows its traceback instead.
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
    "benchmark": Command("benchmark", "measure rendering, training, attention and the families"),
    "families": Command("families", "list the perception families, and what each costs", ("train",)),
    "demo": Command("demo", "train, evaluate and replay a tracking policy from nothing", ("train", "video")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `robot-attn` with `argv` (default: the process's arguments) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Read when torch's OpenMP is loaded, so before torch is. Its threads would otherwise spin between two
    # operations on the cores that the simulator's threads, or another process, could be using.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if arguments == ["--version"]:
            print(f"robot-attn {importlib.metadata.version('robot-attn')}")
            return 0
        return dispatch("robot-attn", COMMANDS, arguments)
    except KeyboardInterrupt:
        print("robot-attn: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("ROBOT_ATTN_TRACEBACK") == "1":
            raise
        print(f"robot-attn: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
