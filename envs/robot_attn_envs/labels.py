"""What every pixel of a frame shows: the backdrop, the target, the robot, an occluder or a distractor."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.render.pixels import PATCH_ID
from robot_attn_envs.tasks.instructions import COLORS

BACKDROP, TARGET, ROBOT, OCCLUDER, DISTRACTOR = range(5)
"""Labels; `DISTRACTOR` is that of the first distractor, and the others follow."""
MAX_THINGS = 256  # as many as uint8 tells apart


def thing_names(distractors: int, landmarks: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the labels, by label.

    Args:
        distractors: number of distractors.
        landmarks: names of what else the task is about, such as the place where the target has to go.

    Raises:
        ValueError: more things than labels.
    """
    numbered = (f"distractor {number}" for number in range(1, distractors + 1))
    names = ("backdrop", "target", "robot", "occluder", *numbered, *landmarks)
    if len(names) > MAX_THINGS:
        raise ValueError(f"expected at most {MAX_THINGS} things, got {len(names)}: name fewer distractors")
    return names


def backdrop_table(worlds: int, geoms: int) -> NDArray[np.uint8]:
    """A table of the label of every geom, all `BACKDROP`; a patch of the lens is an `OCCLUDER`.

    Args:
        worlds: number of worlds.
        geoms: number of geoms, and of sites if they are drawn.

    Returns:
        uint8 [worlds, geoms + 2]; the last two columns are of the negative ids.
    """
    table = np.full((worlds, geoms + 2), BACKDROP, np.uint8)
    table[:, PATCH_ID] = OCCLUDER
    return table


def label_pixels(table: NDArray[np.uint8], ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Look up the labels of what is in each pixel.

    Args:
        table: labels of a world's geoms, from `backdrop_table`.
        ids: ids of geoms, int32 [worlds, H, W], as in `BatchCamera.geom_id`.

    Returns:
        uint8 [worlds, H, W].
    """
    labels = np.empty(ids.shape, np.uint8)
    for world, row in enumerate(table):  # a tenth of the time that indexing all worlds at once takes
        row.take(ids[world], out=labels[world], mode="wrap")
    return labels


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
    """Ids of what joints move, int64 [n]: the robot's geoms, and those of objects that lie around.

    A site's id is the number of geoms plus its own.
    """
    body = np.concatenate([model.geom_bodyid, model.site_bodyid])
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
