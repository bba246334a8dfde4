"""Things of a scene by name: a body, a geom or a site, and the target and distractors made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name
from robot_attn_envs.render.camera import POLICY_GROUPS

KINDS = ("body", "geom", "site")
"""What a name may stand for. A name that several have stands for the first; "geom:NAME" names another."""
_OBJECTS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
}
_SCENERY = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))


@dataclass(frozen=True)
class Thing:
    """What a name stands for.

    Attributes:
        name: as given.
        geoms: ids of what is drawn of it, rising, int64 [n]; a site's is the number of geoms plus its own id.
        shape: type of the largest, as MuJoCo calls it.
    """

    name: str
    geoms: NDArray[np.int64]
    shape: str


def find_thing(model: mujoco.MjModel, name: str) -> Thing:
    """Find a body with the bodies attached to it, a geom, or a site by its name.

    Raises:
        ValueError: nothing has that name, or nothing of it is drawn.
    """
    kind, _, rest = name.partition(":") if name.partition(":")[0] in KINDS else ("", "", name)
    for one in [kind] if kind else KINDS:
        index = mujoco.mj_name2id(model, _OBJECTS[one], rest)
        if index >= (one == "body"):  # the world's body is no thing in it
            break
    else:
        raise unknown_name(f"{kind or 'body, geom or site'} of the model", rest, _names(model, kind))
    drawn = np.concatenate([_is_drawn(model.geom_group), _is_drawn(model.site_group)])
    drawn &= np.concatenate([model.geom_rgba, model.site_rgba])[:, 3] > 0.0
    ids = np.array([index if one == "geom" else model.ngeom + index])
    if one == "body":
        ids = np.flatnonzero(np.isin(model.geom_bodyid, _subtree(model, index)))
    ids = ids[drawn[ids]].astype(np.int64)
    if len(ids) == 0:
        raise ValueError(
            f"expected something that is drawn, got the {one} {rest!r}, of which nothing is: geoms and sites "
            f"of groups {', '.join(map(str, POLICY_GROUPS))} that are not transparent are drawn"
        )
    kinds, radius = np.concatenate([model.geom_type, model.site_type]), _radius(model)
    shape = mujoco.mjtGeom(kinds[ids[radius[ids].argmax()]]).name.removeprefix("mjGEOM_").lower()
    return Thing(name, ids, shape)


def nameable(model: mujoco.MjModel) -> list[tuple[str, str]]:
    """Everything drawn that has a name: pairs of its kind, "body", "geom" or "site", and its name."""
    found = []
    for kind in KINDS:
        for name in _names(model, kind):
            try:
                find_thing(model, f"{kind}:{name}")
            except ValueError:
                continue
            found.append((kind, name))
    return found


def scenery(model: mujoco.MjModel) -> NDArray[np.int64]:
    """The planes and height fields fixed to the world, such as the floor: what `backdrop` is by default."""
    fixed = (model.body_weldid[model.geom_bodyid] == 0) & np.isin(model.geom_type, _SCENERY)
    return np.flatnonzero(fixed & _is_drawn(model.geom_group)).astype(np.int64)


class NamedObjects:
    """The target and the distractors that somebody named: the target is slot 0, the same in every episode.

    Args:
        num_worlds: number of worlds.
        target: the target; None for none.
        distractors: the distractors.

    Attributes:
        things: the objects, one per slot; slot 0 is None without a target.
        shapes: their types, one per slot.
        target: slot of the target, zeros, int64 [num_worlds].
        instruction: False.

    Raises:
        ValueError: two objects share a geom.
    """

    instruction = False

    def __init__(self, num_worlds: int, target: Thing | None, distractors: Sequence[Thing]) -> None:
        self.things = [target, *distractors]
        self.shapes = ["" if thing is None else thing.shape for thing in self.things]
        self.target = np.zeros(num_worlds, np.int64)
        owner: dict[int, str] = {}
        for thing in filter(None, self.things):
            for geom in thing.geoms.tolist():
                if geom in owner:
                    raise ValueError(
                        f"expected things apart from each other, got {owner[geom]!r} and {thing.name!r}, "
                        "which share a geom: name only one of them"
                    )
                owner[geom] = thing.name

    def geoms_of(self, slot: int) -> NDArray[np.int64]:
        """The ids of what is drawn of an object, int64 [n]; empty without a target."""
        thing = self.things[slot]
        return np.zeros(0, np.int64) if thing is None else thing.geoms

    def distractors(self, world: int) -> NDArray[np.int64]:
        """The slots of the distractors, int64 [n]."""
        return np.arange(1, len(self.things))


def _names(model: mujoco.MjModel, kind: str) -> list[str]:
    names = {
        "body": [model.body(i).name for i in range(1, model.nbody)],
        "geom": [model.geom(i).name for i in range(model.ngeom)],
        "site": [model.site(i).name for i in range(model.nsite)],
    }
    chosen = names[kind] if kind else [name for every in names.values() for name in every]
    return [name for name in dict.fromkeys(chosen) if name]


def _is_drawn(group: NDArray[np.int32]) -> NDArray[np.bool_]:
    return np.isin(np.clip(group, 0, mujoco.mjNGROUP - 1), POLICY_GROUPS)


def _subtree(model: mujoco.MjModel, body: int) -> list[int]:
    """A body and all that are attached to it: a parent comes before its children."""
    inside = {body}
    for child in range(body + 1, model.nbody):
        if model.body_parentid[child] in inside:
            inside.add(child)
    return sorted(inside)


def _radius(model: mujoco.MjModel) -> NDArray[np.float64]:
    return np.concatenate([model.geom_rbound, model.site_size.max(axis=1, initial=0.0)])
