"""What visual shifts need to know of the scenes that they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray


class ShiftedObjects(Protocol):
    """The target and the distractors of many worlds, one per slot."""

    @property
    def shapes(self) -> Sequence[str]:
        """Geom types, one per slot."""

    @property
    def target(self) -> NDArray[np.int64]:
        """Slot of the target, int64 [num_worlds]."""

    @property
    def instruction(self) -> Any:
        """Whether objects are named by their colours, which shifts then keep."""

    def geoms_of(self, slot: int) -> NDArray[np.int64]:
        """The ids of an object's geoms, int64 [n]; empty if there is no such object."""

    def distractors(self, world: int) -> NDArray[np.int64]:
        """The slots of the distractors in a world's episode, int64 [present]."""


class Appearance(Protocol):
    """The scenes of many worlds of one model, as visual shifts see them. A bound `Task` is one.

    Attributes:
        geom_rgba: colours of the running episodes, float32 [num_worlds, ngeom, 4] in [0, 1]; shifts write to
            it.
    """

    geom_rgba: NDArray[np.float32]

    @property
    def objects(self) -> ShiftedObjects:
        """The target and the distractors."""

    def camera_ids(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The policy's cameras, as indices into `cam_xpos` of the kinematics, int64 [cameras]."""

    def backdrop_geoms(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The ids of geoms that are scenery, such as walls and floor, int64 [n]."""

    def control_step(self, model: mujoco.MjModel) -> float:
        """Duration of a control step, s."""
