"""`robot-attn` with the toy task, for other processes too: they import the main module first.

python toy_compare.py ARGUMENTS
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import register

from robot_attn_scripts.cli import main

register()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
    sys.exit(main())
