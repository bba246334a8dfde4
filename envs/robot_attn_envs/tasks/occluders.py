"""A screen that slides in front of the target and hides it for up to two seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Task

if TYPE_CHECKING:
    from mujoco.batch import Batch

MAX_OCCLUDERS = 8
MAX_STAY = 2.0  # s, longest time that the screen stays and hides the target
MAX_FRACTION = 0.6  # longest stay as a fraction of the screen's part of the episode
RAMP = 0.15  # fraction of the stay spent sliding in, and again sliding out
NEARNESS = 0.5  # position of the screen between the camera (0) and the target (1)
HALF_WIDTH, HALF_HEIGHT = 1.5, 2.0  # in radii of the target
RGBA = (0.30, 0.27, 0.25, 1.0)
PARKED = (0.0, 0.0, -50.0)


class Occluders:
    """A screen that hides the target `count` times in an episode, for up to 2 s each time.

    The episode is divided into `count` equal parts. In each part the screen appears once, at a random time,
    and stays for 2 s or 60 % of the part, whichever is shorter. It slides in from one side, stands across the
    line of sight from the camera to the target, and slides out on the other side. The line of sight is the
    one at the moment the screen appeared: the screen does not follow the target.

    Args:
        num_worlds: number of worlds.
        count: occlusions in an episode, 0 to 8.

    Attributes:
        episode: what was sampled for the running episodes, arrays [num_worlds, ...]; empty if `count` is 0.

    Raises:
        ValueError: `count` is out of range.
    """

    def __init__(self, num_worlds: int, count: int) -> None:
        if not isinstance(count, int | np.integer) or not 0 <= count <= MAX_OCCLUDERS:
            raise ValueError(f"expected occluders to be an integer from 0 to {MAX_OCCLUDERS}, got {count!r}")
        self._count = count
        self._starts = np.zeros((num_worlds, count), np.int64)
        self._sides = np.zeros((num_worlds, count))
        self._middle, self._across = np.zeros((num_worlds, 3)), np.zeros((num_worlds, 3))
        self.episode: dict[str, NDArray[np.generic]] = {}
        if count:
            self.episode = {"starts": self._starts, "sides": self._sides}
            self.episode |= {"middle": self._middle, "across": self._across}

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the screen to a scene as its last body. `fit` sets its size."""
        if self._count:
            screen = spec.worldbody.add_body(name="screen", mocap=True, pos=PARKED)
            screen.add_geom(
                name="screen",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=(0.01, 1.0, 1.0),
                rgba=RGBA,
                contype=0,
                conaffinity=0,
            )

    def geoms(self, model: mujoco.MjModel) -> NDArray[np.int64]:
        """Ids of the screen's geoms, int64 [n]; empty without a screen."""
        return np.array([model.geom("screen").id] if self._count else [], np.int64)

    def fit(self, model: mujoco.MjModel, task: Task) -> None:
        """Size the screen so that it hides the largest object of the task."""
        if self._count:
            radius = max(float(model.geom(name).rbound[0]) for name in task.objects.names)
            self._half_width = HALF_WIDTH * radius
            model.geom("screen").size = 0.01, self._half_width, HALF_HEIGHT * radius

    def bind(self, model: mujoco.MjModel, batch: Batch, task: Task) -> None:
        """Bind the fields that hold the poses of the camera, the objects and the screen.

        Args:
            model: the compiled scene, screen included.
            batch: the simulations.
            task: the task, already bound.
        """
        if not self._count:
            return
        part = task.horizon // self._count
        self._stay = int(min(MAX_STAY / (model.opt.timestep * task.substeps), MAX_FRACTION * part))
        self._part = part
        self._objects = task.objects
        self._camera = model.camera(task.camera).id
        self._eye, self._geoms = batch.bind("cam_xpos"), batch.bind("geom_xpos")
        self._pos, self._quat = batch.bind("mocap_pos")[:, -1], batch.bind("mocap_quat")[:, -1]

    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Sample when the screen appears in a world's new episode, and from which side."""
        if self._count:
            part_starts = self._part * np.arange(self._count)
            # Never in step 0: its frame is the one that `reset` returns.
            self._starts[world] = part_starts + rng.integers(1, self._part - self._stay, self._count)
            self._sides[world] = rng.choice([-1.0, 1.0], self._count)

    def move(self, steps: NDArray[np.int64]) -> None:
        """Move the screens for the coming control step.

        Args:
            steps: control steps already done in each world's episode, int64 [num_worlds].
        """
        if not self._count:
            return
        since: NDArray[np.int64] = steps[:, None] - self._starts
        for world in np.argwhere(since == 0)[:, 0].tolist():
            self._align(world)
        current = (since >= 0) & (since < self._stay)
        visible: NDArray[np.bool_] = np.any(current, axis=1, keepdims=True)
        which = current.argmax(axis=1)
        rows = np.arange(len(steps))
        stayed = since[rows, which] / self._stay
        # 1 before the screen has slid in, 0 in front of the target, -1 after it has slid out.
        offset = np.clip(1.0 - stayed / RAMP, 0.0, 1.0) - np.clip((stayed - 1.0 + RAMP) / RAMP, 0.0, 1.0)
        away = 1.5 * self._half_width * self._sides[rows, which] * offset
        self._pos[:] = np.where(visible, self._middle + self._across * away[:, None], PARKED)

    def _align(self, world: int) -> None:
        """Set the screen's middle, sideways axis and orientation from the current line of sight."""
        eye = self._eye[world, self._camera]
        target = self._geoms[world, self._objects.geoms[self._objects.target[world]]]
        ahead = (target - eye) / np.linalg.norm(target - eye)
        across = np.cross((0.0, 0.0, 1.0), ahead)
        across /= max(float(np.linalg.norm(across)), 1e-9)
        self._middle[world], self._across[world] = eye + NEARNESS * (target - eye), across
        axes = np.stack([ahead, across, np.cross(ahead, across)], axis=1)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, axes.flatten())
        self._quat[world] = quat
