"""The shift "camera": an offset, rotation, sway and zoom of the policy's camera, or cameras."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.task import Floats

OFFSET = 0.02  # m, along each axis of the camera
TURN = np.radians([5.0, 5.0, 10.0])  # rad, about the camera's x, y and optical axis
SWAY = np.radians([1.5, 1.5, 2.0])  # rad, amplitude about the same axes
SWAY_RATE = (1.5, 6.0)  # rad/s
ZOOM = 0.2  # change of the logarithm of the frame's half height at unit distance, at most


class Camera(Shift):
    """Move, rotate, sway and zoom the policy's camera.

    The camera is moved by up to 2 cm, rotated by up to 5 degrees (10 about its optical axis), and sways by up
    to 1.5 degrees (2), all times the intensity. Its field of view is up to 1.22 x as wide or as narrow,
    raised to the power of the intensity. Rewards do not change: the task uses the camera's original pose.
    """

    stream = 5

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self._moved, self._turned = np.zeros((num_worlds, 3)), np.zeros((num_worlds, 3))
        self._sway, self._rate, self._phase = (np.zeros((num_worlds, 3)) for _ in range(3))
        self._zoom = np.ones(num_worlds)
        self.episode = {"moved": self._moved, "turned": self._turned, "zoom": self._zoom}
        self.episode |= {"sway": self._sway, "rate": self._rate, "phase": self._phase}

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        super().bind(model, task, aspect)
        self._ids = task.camera_ids(model)

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._moved[world] = self.intensity * rng.uniform(-OFFSET, OFFSET, 3)
        self._turned[world] = self.intensity * rng.uniform(-TURN, TURN)
        self._sway[world] = self.intensity * rng.uniform(0.3 * SWAY, SWAY)
        self._rate[world] = rng.uniform(*SWAY_RATE, 3)
        self._phase[world] = rng.uniform(0.0, 2.0 * np.pi, 3)
        self._zoom[world] = np.exp(self.intensity * rng.uniform(-ZOOM, ZOOM))

    def show(self, kinematics: dict[str, Floats], settings: NDArray[Any], steps: NDArray[np.int64]) -> None:
        angles = self._turned + self._sway * np.sin(self._rate * steps[:, None] * self._dt + self._phase)
        xpos, xmat = kinematics["cam_xpos"].copy(), kinematics["cam_xmat"].copy()
        rotations = _rotations(angles)
        for camera in self._ids.tolist():
            mat = xmat[:, camera].reshape(-1, 3, 3)
            xpos[:, camera] += np.einsum("nij,nj->ni", mat, self._moved)
            turned = mat @ rotations
            turned[:, :, :2] *= self._zoom[:, None, None]
            xmat[:, camera] = turned.reshape(xmat[:, camera].shape)
        kinematics["cam_xpos"], kinematics["cam_xmat"] = xpos, xmat


def _rotations(angles: Floats) -> Floats:
    """Rotation matrices [n, 3, 3] about x, then y, then z, from angles [n, 3] in rad."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles).T, np.cos(angles).T
    rows = [
        [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
        [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
        [-sy, sx * cy, cx * cy],
    ]
    return np.array(rows).transpose(2, 0, 1)
