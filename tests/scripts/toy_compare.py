"""`robot-attn` with the toy task, for other processes too: they import the main module first.

python toy_compare.py ARGUMENTS

With HOLD=FILE in the environment no episode begins while FILE is there and more cells are measured than the
number in it, so that a test meets the command in the middle of its work however slow the machine is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ID, ToyTask

from robot_attn_scripts.cli import main


class HeldTask(ToyTask):
    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        hold = Path(os.environ.get("HOLD", "/nowhere"))
        while hold.is_file() and len(list((hold.parent / "cells").glob("*.json"))) > int(hold.read_text()):
            time.sleep(0.01)
        return super().reset(seed=seed, options=options)


gymnasium.register(ID, vector_entry_point=HeldTask)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
    sys.exit(main())
