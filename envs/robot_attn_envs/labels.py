"""What every pixel of a frame shows: the backdrop, the target, the robot, an occluder or a distractor."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.instructions import COLORS

BACKDROP, TARGET, ROBOT, OCCLUDER, DISTRACTOR = range(5)
"""Labels; `DISTRACTOR` is that of the first distractor, and the others follow."""


def thing_names(distractors: int, *, goal: bool = False) -> tuple[str, ...]:
    """Names of the labels, by label.

    Args:
        distractors: number of distractors.
        goal: whether the scene marks the place where the target has to go.
    """
    numbered = (f"distractor {number}" for number in range(1, distractors + 1))
    return ("backdrop", "target", "robot", "occluder", *numbered, *(("goal",) if goal else ()))


def label_of_slots(target: NDArray[np.int64], slots: int) -> NDArray[np.uint8]:
    """The label of each object: the target's slot is `TARGET`, the others are distractors in their order.

    Args:
        target: slot of the target, int64 [worlds].
        slots: number of objects.

    Returns:
        uint8 [worlds, slots].
    """
    slot, target = np.arange(slots), target[:, None]
    return np.where(slot == target, TARGET, DISTRACTOR + slot - (slot > target)).astype(np.uint8)


def moved_geoms(model: mujoco.MjModel) -> NDArray[np.int64]:
    """Ids of the geoms that joints move, int64 [n]: the robot's, and those of objects that lie around."""
    body = model.geom_bodyid
    mocap = model.body_mocapid[model.body_rootid[body]] >= 0
    return np.flatnonzero((model.body_weldid[body] != 0) & ~mocap).astype(np.int64)


def color_word(rgb: Sequence[float] | NDArray[np.floating]) -> str:
    """The word for a colour, RGB in [0, 1]: the nearest of `COLORS`, or black, grey or white."""
    values = np.asarray(rgb, np.float64)[:3]
    low, high = float(values.min()), float(values.max())
    if high < 0.2:
        return "black"
    if high - low < 0.15 * high:
        return "white" if low > 0.85 else "grey"
    # Compared at equal brightness, so that a dark green is green.
    named = {name: np.asarray(color) / max(color) for name, color in COLORS.items()}
    return min(named, key=lambda name: float(np.square(named[name] - values / high).sum()))
