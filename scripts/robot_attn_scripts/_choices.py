"""The names that a person may type, without importing what they stand for.

Importing a family costs torch and importing a shift costs MuJoCo; help and the refusal of a mistyped name
must cost neither. So the names that come with the packages are listed here once more, and a test keeps the
lists equal to the real ones. What other packages add is found by its entry point, whose name alone is read.
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
"""Each stands for its newest version; a certain one is named with its version, such as hard-v0."""
SUITE_VERSIONS = ("easy-v0", "medium-v0", "hard-v0")

EVALUATION_SEED = 1_000_000_000
CALIBRATION_SEED = 1_500_000_000
MAX_SEED = (1 << 32) - 1
"""What NumPy's global generator takes, which Stable-Baselines3 seeds."""
MAX_FRAME = 512
"""The largest side of a frame that a camera draws and a perception takes."""
MIN_FRAME = 32
MAX_REDRAWN = 2048
"""The largest side of a frame that is drawn again from a recorded state."""
MIN_REPLAY, MAX_REPLAY = 600, 4320
"""Pixels of a replay's height: from what its text needs to what video players show."""


def families() -> tuple[str, ...]:
    """The perception families by name, with those of other packages."""
    return FAMILIES + added("robot_attn.families")


def tasks() -> tuple[str, ...]:
    """The tasks by name, with those of other packages."""
    return TASKS + tuple(short_name(task_id) for task_id in added("robot_attn.tasks"))


def short_name(task_id: str) -> str:
    """What a task's id is for short: "Mine/Dot-v0" -> "dot"."""
    return re.sub(r"-v\d+$", "", task_id.rpartition("/")[2]).lower()


def shifts() -> tuple[str, ...]:
    """The visual shifts by name, with those of other packages."""
    return SHIFTS + added("robot_attn.shifts")


def added(group: str) -> tuple[str, ...]:
    """The names that other packages register in an entry-point group; none of these packages is imported."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=group)}))


def check_name(kind: str, name: str, known: Collection[str], *, owner: str) -> None:
    """Refuse a mistyped name before anything heavy is imported.

    A name with a colon says where it comes from. In a process that has imported `owner`, where names are
    registered, more may be known than stands here, and `owner` says what is wrong.

    Raises:
        ValueError: the name is not known; the nearest is named.
    """
    if name in known or ":" in name or owner in sys.modules:
        return
    raise unknown_name(kind, name, sorted(known))
