"""What a task is: a scene, what its robot senses, how it is rewarded, and when an episode ends.

A task works on all worlds at once: every array has a leading axis of worlds. It keeps what it drew
for an episode in `episode`, a dict of arrays, so that a saved state can bring it back.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name
from robot_attn_envs.tasks.objects import Objects

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class SpaceRow:
    """One row of an observation table."""

    name: str
    low: float
    high: float
    unit: str
    mjcf: str


class Task(ABC):
    """A task over `num_worlds` worlds of one model. Subclasses fill in what is abstract, in one file.

    A task moves the bodies that it names, and leaves others alone: the scene may hold more of them, such as
    the screens of `Occluders`, which come after the task's own.

    Attributes:
        camera: name of the camera that the policy sees through.
        horizon: control steps in an episode; the episode is truncated there.
        substeps: physics steps in one control step.
        state_table: the rows of the observation's `state` entry, in order (empty: no such entry).
        action_table: the rows of the action, scaled to [-1, 1].
        backdrop: names of the geoms that are only scenery, such as walls and floor; shifts paint over them.
        training: how a policy is best trained on it, plain data: `ppo`, what differs from the default preset
            (`PPOPreset` of `robot_attn_policies`); `train_env`, the task's options in training alone.
        objects: the target and the distractors: which geom is which, and of what colour.
        episode: what else was drawn for the running episodes, arrays [num_worlds, ...].
        geom_rgba: float32 [num_worlds, ngeom, 4], the episode's colours; a task may write it in `reset`.
    """

    camera: str
    horizon: ClassVar[int]
    substeps: ClassVar[int]
    state_table: ClassVar[tuple[SpaceRow, ...]]
    action_table: ClassVar[tuple[SpaceRow, ...]]
    backdrop: ClassVar[tuple[str, ...]]
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    objects: Objects
    episode: dict[str, NDArray[np.generic]]
    geom_rgba: NDArray[np.float32]

    @abstractmethod
    def __init__(self, num_worlds: int, **options: Any) -> None:
        """A task for `num_worlds` worlds; a subclass names its options and checks them."""

    @abstractmethod
    def mjcf(self) -> str:
        """The scene as MJCF text."""

    @abstractmethod
    def bind(self, model: mujoco.MjModel, batch: Batch, aspect: float) -> None:
        """Look up ids, bind the fields that the task reads, and allocate `episode`.

        Args:
            model: the compiled scene.
            batch: the simulations.
            aspect: width / height of the policy's frames.
        """

    @abstractmethod
    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Draw a new episode for one world.

        Writes `episode`, `objects` (by its `draw`), `geom_rgba` and the world's physics state. Spare
        distractors are left out of sight.
        """

    @abstractmethod
    def place(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Put these spare distractors, by their slots in `objects`, among those that `reset` placed."""

    @abstractmethod
    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        """Write controls (and whatever moves by itself) for the control step to come.

        Args:
            actions: [num_worlds, A], finite, in [-1, 1].
            steps: control steps already done in each world's episode.
        """

    @abstractmethod
    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Reward, termination and success after the control step that made the count `steps`."""

    @abstractmethod
    def state(self) -> Floats:
        """What the robot feels, [num_worlds, D], rows as in `state_table`."""

    @abstractmethod
    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        """Actions in [-1, 1] of a scripted expert that reads the simulator's state, [num_worlds, A]."""


def make_task(task: type[Task], num_worlds: int, options: dict[str, Any]) -> Task:
    """The task with these options.

    Raises:
        ValueError: an option that the task does not have, the nearest named; or one out of its range.
    """
    known = [name for name in inspect.signature(task).parameters if name != "num_worlds"]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of the task {task.__name__}", name, known)
    return task(num_worlds, **options)
