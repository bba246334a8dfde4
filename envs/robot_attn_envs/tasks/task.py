"""Base class of tasks: scene, state observation, actions, rewards, and the end of an episode.

A task handles all worlds at once: every array has a leading axis of worlds. It keeps what it sampled for an
episode in `episode`, a dict of arrays, so that a saved state restores it.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.errors import unknown_name
from robot_attn_envs.tasks.objects import Objects

if TYPE_CHECKING:
    from mujoco.batch import Batch

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class SpaceRow:
    """One row of an observation or action table."""

    name: str
    """What the component is, such as "pan angle"."""
    low: float
    """Lower bound, in `unit`; -1 for actions."""
    high: float
    """Upper bound, in `unit`; 1 for actions."""
    unit: str
    """Unit; for actions, what an action of 1 stands for."""
    mjcf: str
    """Names of the joints or actuators in the MJCF."""


class Task(ABC):
    """A task over `num_worlds` worlds of one model.

    A subclass implements the abstract methods. It may move only the bodies that it names: the scene may have
    more bodies after the task's own, such as the screen of `Occluders`.

    Attributes:
        camera: name of the policy's camera.
        horizon: control steps in an episode, after which it is truncated.
        substeps: physics steps in one control step.
        state_table: components of the observation's `state` entry, in order; empty for no such entry.
        action_table: components of the action, scaled to [-1, 1].
        backdrop: names of geoms that are scenery, such as walls and floor; shifts paint over them.
        fixed_robot: names of geoms of the robot that no joint moves, such as its base.
        landmarks: names of the geoms of what else the task is about, by the name of the thing, such as the
            "goal" that marks where the target has to go, or "obstacles".
        training: recommended training settings, as plain data: `ppo`, the fields that differ from the default
            `PPOPreset` of `robot_attn_policies`; `train_env`, options of the task used in training only.
        objects: the target and the distractors: which geom is which, and their colours.
        episode: what else was sampled for the running episodes, arrays [num_worlds, ...].
        geom_rgba: colours of the running episodes, float32 [num_worlds, ngeom, 4] in [0, 1]; a task may write
            to it in `reset`.
    """

    camera: str
    horizon: ClassVar[int]
    substeps: ClassVar[int]
    state_table: ClassVar[tuple[SpaceRow, ...]]
    action_table: ClassVar[tuple[SpaceRow, ...]]
    backdrop: ClassVar[tuple[str, ...]]
    fixed_robot: ClassVar[tuple[str, ...]] = ()
    landmarks: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    training: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    objects: Objects
    episode: dict[str, NDArray[np.generic]]
    geom_rgba: NDArray[np.float32]

    @abstractmethod
    def __init__(self, num_worlds: int, **options: Any) -> None:
        """Create the task for `num_worlds` worlds. A subclass names its options and checks them."""

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
        """Sample a new episode for one world.

        Writes `episode`, `objects` (with `Objects.sample`), `geom_rgba` and the world's physics state. Spare
        distractors stay out of sight.

        Args:
            world: index of the world.
            rng: the world's generator.
        """

    @abstractmethod
    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Place spare distractors among the objects that `reset` placed.

        Args:
            world: index of the world.
            slots: the distractors' slots in `objects`, int64 [n].
            rng: generator of the shift that adds them.
        """

    @abstractmethod
    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        """Write the controls, and the poses of bodies that move by themselves, for the coming control step.

        Args:
            actions: finite, float64 [num_worlds, A] in [-1, 1].
            steps: control steps already done in each world's episode, int64 [num_worlds].
        """

    @abstractmethod
    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Compute the outcome of the last control step.

        Args:
            steps: control steps done in each world's episode, the last one included, int64 [num_worlds].

        Returns:
            Reward float64 [num_worlds], termination bool [num_worlds] and success bool [num_worlds].
        """

    def camera_ids(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The index of the policy's camera in the scene, int64 [1]."""
        return np.array([model.camera(self.camera).id])

    def backdrop_geoms(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """The ids of the geoms in `backdrop`, int64 [n]."""
        return np.array([model.geom(name).id for name in self.backdrop], np.int64)

    def control_step(self, model: mujoco.MjModel) -> float:
        """Duration of a control step, s."""
        return float(model.opt.timestep * self.substeps)

    @abstractmethod
    def state(self) -> Floats:
        """The proprioceptive state, float64 [num_worlds, D], components as in `state_table`."""

    @abstractmethod
    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        """Actions of a scripted expert that reads the simulator's state.

        Args:
            steps: control steps done in each world's episode, int64 [num_worlds].

        Returns:
            float64 [num_worlds, A] in [-1, 1].
        """


def make_task(task: type[Task], num_worlds: int, options: dict[str, Any]) -> Task:
    """Create a task with options.

    Args:
        task: the task's class.
        num_worlds: number of worlds.
        options: its options by name.

    Raises:
        ValueError: an option that the task does not have, or a value out of range.
    """
    known = [name for name in inspect.signature(task).parameters if name != "num_worlds"]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of the task {task.__name__}", name, known)
    return task(num_worlds, **options)
