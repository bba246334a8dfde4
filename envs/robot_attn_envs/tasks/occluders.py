"""A screen that crosses the view in front of the target and hides it for a while."""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Task

MAX_OCCLUDERS = 8
LONGEST = 2.0  # s that the screen stays, and so the longest that it hides the target
SHARE = 0.6  # of its part of the episode, at most
RAMP = 0.15  # of its stay to slide in, and as much to slide out
NEARNESS = 0.5  # where it stands on the way from the camera to the target
HALF_WIDTH, HALF_HEIGHT = 1.5, 2.0  # in radii of the target
RGBA = (0.30, 0.27, 0.25, 1.0)
PARKED = (0.0, 0.0, -50.0)


class Occluders:
    """`count` times in an episode a screen comes before the target and hides it for up to 2 s.

    The episode is cut into `count` equal parts. In each the screen comes once, at a time drawn for the
    episode, and stays for 2 s or 60 % of the part, whichever is less. It slides in from one side, stands
    across the line from the camera to the target *as that was when the screen came*, and slides out on the
    other side: it does not follow the target.

    Args:
        num_worlds: number of worlds.
        count: how many times in an episode, 0 to 8.

    Raises:
        ValueError: `count` is out of its range.
    """

    def __init__(self, num_worlds: int, count: int) -> None:
        if not isinstance(count, int) or not 0 <= count <= MAX_OCCLUDERS:
            raise ValueError(f"occluders is a whole number from 0 to {MAX_OCCLUDERS}, got {count!r}")
        self._count = count
        self._starts = np.zeros((num_worlds, count), np.int64)
        self._sides = np.zeros((num_worlds, count))
        self._middle, self._across = np.zeros((num_worlds, 3)), np.zeros((num_worlds, 3))
        self.episode: dict[str, NDArray[np.generic]] = {}
        if count:
            self.episode = {"starts": self._starts, "sides": self._sides}
            self.episode |= {"middle": self._middle, "across": self._across}

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the screen to a scene, as the last of its bodies; `fit` sizes it."""
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

    def fit(self, model: mujoco.MjModel, task: Task) -> None:
        """Make the screen as large as it must be to hide the target."""
        if self._count:
            radius = max(float(model.geom(name).rbound[0]) for name in task.objects.names)
            self._half_width = HALF_WIDTH * radius
            model.geom("screen").size = 0.01, self._half_width, HALF_HEIGHT * radius

    def bind(self, model: mujoco.MjModel, batch: Batch, task: Task) -> None:
        """Bind what says where camera and target are."""
        if not self._count:
            return
        part = task.horizon // self._count
        self._stay = int(min(LONGEST / (model.opt.timestep * task.substeps), SHARE * part))
        self._part = part
        self._objects = task.objects
        self._camera = model.camera(task.camera).id
        self._eye, self._geoms = batch.bind("cam_xpos"), batch.bind("geom_xpos")
        self._pos, self._quat = batch.bind("mocap_pos")[:, -1], batch.bind("mocap_quat")[:, -1]

    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Draw when and from which side the screen comes in a world's new episode."""
        if self._count:
            firsts = self._part * np.arange(self._count)
            # Not at the very first step, whose frame is of the reset.
            self._starts[world] = firsts + rng.integers(1, self._part - self._stay, self._count)
            self._sides[world] = rng.choice([-1.0, 1.0], self._count)

    def move(self, steps: NDArray[np.int64]) -> None:
        """Put the screen where it is in the control step to come, [num_worlds] of which are done."""
        if not self._count:
            return
        since: NDArray[np.int64] = steps[:, None] - self._starts
        for world in np.argwhere(since == 0)[:, 0].tolist():
            self._come(world)
        current = (since >= 0) & (since < self._stay)
        there: NDArray[np.bool_] = np.any(current, axis=1, keepdims=True)
        which = current.argmax(axis=1)
        rows = np.arange(len(steps))
        stayed = since[rows, which] / self._stay
        # 1 before it, 0 in front of the target, -1 past it.
        offset = np.clip(1.0 - stayed / RAMP, 0.0, 1.0) - np.clip((stayed - 1.0 + RAMP) / RAMP, 0.0, 1.0)
        away = 1.5 * self._half_width * self._sides[rows, which] * offset
        self._pos[:] = np.where(there, self._middle + self._across * away[:, None], PARKED)

    def _come(self, world: int) -> None:
        """Stand across the present line of sight."""
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
