"""Names and limits that the options need, without the imports behind them.

Importing the families would import torch, and importing the shifts would import MuJoCo. Help and the error
for a mistyped name must stay quick, so the names are listed here again; a test keeps both lists equal. Names
from other packages are read from their entry points, without importing those packages.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Collection

from robot_attn_scripts._errors import unknown_name

FAMILIES = (
    "cnn",
    "dynamic",
    "hierarchical",
    "instruction",
    "keypoints",
    "local",
    "mask",
    "patches",
    "query",
    "self",
    "slots",
)
TASKS = ("track", "reach", "navigate", "push")
SHIFTS = (
    "distractors",
    "colors",
    "lookalikes",
    "background",
    "lighting",
    "camera",
    "noise",
    "occlusion",
)
SUITES = ("easy", "medium", "hard")
"""Short names, each for the newest version of a suite."""
SUITE_VERSIONS = ("easy-v0", "medium-v0", "hard-v0")
"""Full names of the suites."""

NUISANCE_FRAMES = 64
EVALUATION_SEED = 1_000_000_000
CALIBRATION_SEED = 1_500_000_000
MAX_SEED = (1 << 32) - 1
"""The largest seed of NumPy's global generator, which Stable-Baselines3 seeds."""
MAX_FRAME = 2048
"""The largest side of a camera frame in pixels."""
MIN_FRAME = 32
"""The smallest side of a camera frame in pixels."""
MAX_REDRAWN = 2048
"""The largest side, in pixels, of a frame rendered again from a recorded state."""
MIN_REPLAY, MAX_REPLAY = 600, 4320
"""Height of a replay in pixels: its text needs the least, and video players show no more than the most."""


def families() -> tuple[str, ...]:
    """List the names of the perception families, including those of other packages."""
    return FAMILIES + added("robot_attn.families")


def tasks() -> tuple[str, ...]:
    """List the short names of the tasks, including those of other packages."""
    return TASKS + tuple(short_name(task_id) for task_id in added("robot_attn.tasks"))


def short_name(task_id: str) -> str:
    """Shorten the id of a task: "Mine/Dot-v0" -> "dot"."""
    return re.sub(r"-v\d+$", "", task_id.rpartition("/")[2]).lower()


def shifts() -> tuple[str, ...]:
    """List the names of the visual shifts, including those of other packages."""
    return SHIFTS + added("robot_attn.shifts")


def added(group: str) -> tuple[str, ...]:
    """List the names in an entry-point group, without importing the packages that register them."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=group)}))


def check_name(kind: str, name: str, known: Collection[str], *, owner: str) -> None:
    """Check a name before anything heavy is imported.

    A name with a colon is accepted, as it has its module in it. So is any name once `owner` is imported: more
    names may be registered by then, and `owner` checks them itself.

    Args:
        kind: what the name is of, such as "task".
        name: the name to check.
        known: the accepted names.
        owner: the module in which such names are registered; empty if there is none.

    Raises:
        ValueError: the name is unknown. The message suggests the nearest one.
    """
    if name in known or ":" in name or owner in sys.modules:
        return
    raise unknown_name(kind, name, sorted(known))
