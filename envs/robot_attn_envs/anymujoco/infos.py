"""Infos of many environments as arrays, and what they say of the target in the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.anymujoco.frames import SceneFrames


def target_infos(frames: SceneFrames, *, masks: bool) -> dict[str, NDArray[Any]]:
    """What the frames that were drawn last show of the target.

    `target_visible`, bool [N], `target_mask`, bool [N, H, W], and `things`, uint8 [N, H, W].

    Args:
        frames: the frames.
        masks: whether masks and labels are wanted: those of the first camera, and with several cameras also
            `target_mask/NAME` and `things/NAME` of each.

    Returns:
        The entries; none without a target.
    """
    if frames.objects.things[0] is None:
        return {}
    own = {camera.name: frames.target_mask(index) for index, camera in enumerate(frames.cameras)}
    first, *others = own.values()
    visible = np.stack(list(own.values())).any(axis=(0, 2, 3))
    infos: dict[str, NDArray[Any]] = {"target_visible": np.asarray(visible)}
    if masks:
        infos["target_mask"] = first
        labels = {camera.name: frames.things(index) for index, camera in enumerate(frames.cameras)}
        infos["things"] = next(iter(labels.values()))
        if others:
            infos |= {f"target_mask/{name}": mask for name, mask in own.items()}
            infos |= {f"things/{name}": each for name, each in labels.items()}
    return infos


def batch_infos(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The infos of N environments as one, by Gymnasium's convention for vector environments.

    Args:
        infos: the info of each environment; an entry may be missing in some.

    Returns:
        For each entry an array [N, ...], and under its name with a leading underscore which rows are valid,
        bool [N]. Numbers and arrays of one shape are stacked, with zeros where they are missing; anything
        else is in an array of objects, with None; mappings are batched themselves.
    """
    batch: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        present = np.array([key in info for info in infos])
        values = [info[key] for info in infos if key in info]
        batch[key], batch[f"_{key}"] = _column(values, present, [info.get(key) for info in infos]), present
    return batch


def _column(values: Sequence[Any], present: NDArray[np.bool_], rows: Sequence[Any]) -> Any:
    """One entry of all environments.

    Args:
        values: the values that there are.
        present: which environments have one, bool [N].
        rows: the value of each environment, None without one.
    """
    if all(isinstance(value, Mapping) for value in values):
        return batch_infos([row if row is not None else {} for row in rows])
    numeric = bool | int | float | np.generic | np.ndarray
    arrays = [np.asarray(value) for value in values if isinstance(value, numeric)]
    if len(arrays) == len(values) and len({array.shape for array in arrays}) == 1:
        column = np.zeros((len(rows), *arrays[0].shape), np.result_type(*arrays))
        column[present] = np.stack(arrays)
        return column
    objects = np.full(len(rows), None, object)
    for row, value in enumerate(rows):
        objects[row] = value
    return objects
