"""A small arm over a table: its MJCF, and Cartesian velocity control of its grip point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Floats, SpaceRow

if TYPE_CHECKING:
    from mujoco.batch import Batch

SHOULDER = 0.28  # m, height of the shoulder over the table
LINK = 0.36  # m, from shoulder to elbow, and from elbow to wrist
TOOL = 0.12  # m, from the wrist to the grip point, between the tips of the fingers
SPEED = 0.4  # m/s, speed of the grip point along each axis at full action
MAX_JOINT_SPEED = 4.0  # rad/s, the largest joint velocity that is commanded

# The box that the grip point stays in: x away from the base, y to its left, z up from the table; m.
LOW, HIGH = np.array([0.24, -0.27, 0.02]), np.array([0.62, 0.27, 0.34])

JOINTS = ("yaw", "shoulder", "elbow", "wrist")
RANGES = ((-1.3, 1.3), (-0.6, 1.8), (0.3, 2.6), (-0.6, 1.8))  # rad
TILT_GAIN = 8.0  # 1/s, with which the tool's tilt from the vertical is corrected
DAMPING = 0.03  # of the least squares: bounds the joint velocities near a singular pose

ARM_ACTIONS = (
    SpaceRow("velocity along x, away from the base", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
    SpaceRow("velocity along y, left", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
    SpaceRow("velocity along z, up", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
)
ARM_STATE = (
    *(SpaceRow(f"{name} angle", *limits, "rad", name) for name, limits in zip(JOINTS, RANGES, strict=True)),
    *(
        SpaceRow(f"{name} velocity", -2 * MAX_JOINT_SPEED, 2 * MAX_JOINT_SPEED, "rad/s", name)
        for name in JOINTS
    ),
)

# The arm collides with the objects (contype 1) but not with itself: its own geoms have contype 0.
ARM_DEFAULTS = """
  <default class="arm">
    <geom contype="0" conaffinity="1" rgba="0.66 0.67 0.70 1" mass="0.3" friction="0.5"/>
    <joint type="hinge" axis="0 1 0" limited="true" armature="0.05"/>
    <velocity kv="20"/>
  </default>"""

ARM_ACTUATORS = "".join(
    f'<velocity class="arm" name="{name}" joint="{name}" ctrlrange="{-MAX_JOINT_SPEED} {MAX_JOINT_SPEED}"/>'
    for name in JOINTS
)


def arm_body(tool: str = "") -> str:
    """The arm as MJCF text, for the world body.

    At joint angles of 0 all links point up. Positive shoulder, elbow and wrist angles bend the arm away from
    the base.

    Args:
        tool: MJCF of further geoms of the hand.
    """
    return f"""
  <geom name="base" type="cylinder" size="0.07 0.05" pos="0 0 0.05" rgba="0.25 0.26 0.29 1"
        contype="0" conaffinity="1"/>
  <body name="column" pos="0 0 0.10" childclass="arm" gravcomp="1">
    <joint name="yaw" axis="0 0 1" range="{RANGES[0][0]} {RANGES[0][1]}"/>
    <geom name="column" type="capsule" size="0.045" fromto="0 0 0 0 0 {SHOULDER - 0.10}"
          rgba="0.30 0.31 0.35 1"/>
    <body name="upper_arm" pos="0 0 {SHOULDER - 0.10}" gravcomp="1">
      <joint name="shoulder" range="{RANGES[1][0]} {RANGES[1][1]}"/>
      <geom name="upper_arm" type="capsule" size="0.032" fromto="0 0 0 0 0 {LINK}"/>
      <body name="forearm" pos="0 0 {LINK}" gravcomp="1">
        <joint name="elbow" range="{RANGES[2][0]} {RANGES[2][1]}"/>
        <geom name="forearm" type="capsule" size="0.026" fromto="0 0 0 0 0 {LINK}"/>
        <body name="hand" pos="0 0 {LINK}" gravcomp="1">
          <joint name="wrist" range="{RANGES[3][0]} {RANGES[3][1]}"/>
          <geom name="palm" type="box" size="0.018 0.042 0.016" pos="0 0 0.044" rgba="0.30 0.31 0.35 1"/>
          <geom name="finger_left" type="box" size="0.010 0.006 0.032" pos="0 0.036 {TOOL - 0.032}"
                rgba="0.12 0.12 0.14 1"/>
          <geom name="finger_right" type="box" size="0.010 0.006 0.032" pos="0 -0.036 {TOOL - 0.032}"
                rgba="0.12 0.12 0.14 1"/>
          {tool}<site name="grip" pos="0 0 {TOOL}"/>
          <camera name="wrist" pos="-0.06 0 0.02" xyaxes="0 1 0 1 0 -0.15" fovy="90"/>
        </body>
      </body>
    </body>
  </body>"""


class Arm:
    """Four hinges that carry a gripper with fixed fingers, pointing down, over a table at z = 0.

    The scene has `ARM_DEFAULTS` in `<default>`, `arm_body()` in `<worldbody>` and `ARM_ACTUATORS` in
    `<actuator>`. Call `bind` once the scene is compiled.
    """

    def bind(self, model: mujoco.MjModel, batch: Batch, seconds: float) -> None:
        """Look up the joints and bind the fields that the controller reads and writes.

        Args:
            model: the compiled scene.
            batch: the simulations.
            seconds: duration of a control step, s.
        """
        joints = [model.joint(name) for name in JOINTS]
        self._joints = np.array([joint.id for joint in joints])
        self._qpos_at = np.array([joint.qposadr[0] for joint in joints])
        self._dof_at = np.array([joint.dofadr[0] for joint in joints])
        self._motors = np.array([model.actuator(name).id for name in JOINTS])
        self._qpos, self._qvel, self._ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
        self._axes, self._anchors = batch.bind("xaxis"), batch.bind("xanchor")
        self._sites, self._grip = batch.bind("site_xpos"), model.site("grip").id
        self._seconds = seconds

    @property
    def grip(self) -> Floats:
        """Position of the grip point, float64 [num_worlds, 3], m."""
        grip: Floats = self._sites[:, self._grip]
        return grip

    def reset(self, world: int, grip: Floats) -> None:
        """Set one world's arm to rest with the tool pointing down.

        Args:
            world: index of the world.
            grip: position of the grip point, float64 [3], m.

        Raises:
            ValueError: the position is out of reach.
        """
        self._qpos[world, self._qpos_at] = inverse_kinematics(grip)
        self._qvel[world, self._dof_at] = 0.0

    def move(self, actions: Floats) -> None:
        """Write the joint velocities that give the grip point this velocity, within its box.

        Args:
            actions: velocity of the grip point, float64 [num_worlds, 3]; 1 is `SPEED`.
        """
        # Stop at the side of the box within this step; from outside the box, move back into it.
        limits = (LOW - self.grip) / self._seconds, (HIGH - self.grip) / self._seconds
        velocity = np.clip(np.clip(SPEED * actions, *limits), -SPEED, SPEED)
        tilt = self._qpos[:, self._qpos_at[1:]].sum(axis=1, keepdims=True) - math.pi
        joints = damped_least_squares(self.jacobian(), np.concatenate([velocity, -TILT_GAIN * tilt], axis=1))
        # If one joint is too fast, slow down all of them: the direction of motion stays the same.
        fastest = np.abs(joints).max(axis=1, keepdims=True)
        self._ctrl[:, self._motors] = joints / np.maximum(1.0, fastest / MAX_JOINT_SPEED)

    def jacobian(self) -> Floats:
        """Jacobian of the grip point's position and the tool's pitch, float64 [num_worlds, 4, joints]."""
        levers = self.grip[:, None] - self._anchors[:, self._joints]
        position = np.cross(self._axes[:, self._joints], levers).transpose(0, 2, 1)
        pitch = np.broadcast_to([0.0, 1.0, 1.0, 1.0], (len(position), 1, len(JOINTS)))
        return np.concatenate([position, pitch], axis=1)

    def state(self) -> Floats:
        """Joint angles (rad) and velocities (rad/s), float64 [num_worlds, 8], columns as in `ARM_STATE`."""
        return np.concatenate([self._qpos[:, self._qpos_at], self._qvel[:, self._dof_at]], axis=1)


def damped_least_squares(jacobian: Floats, velocity: Floats) -> Floats:
    """Joint velocities by damped least squares (Nakamura and Hanafusa 1986).

    Args:
        jacobian: float64 [n, rows, joints].
        velocity: desired task-space velocity, float64 [n, rows].

    Returns:
        Joint velocities, float64 [n, joints].
    """
    transposed = jacobian.transpose(0, 2, 1)
    damped = jacobian @ transposed + DAMPING**2 * np.eye(jacobian.shape[1])
    joints: Floats = (transposed @ np.linalg.solve(damped, velocity[..., None]))[..., 0]
    return joints


def inverse_kinematics(grip: Floats) -> NDArray[np.float64]:
    """Joint angles that put the grip point at a position, with the tool pointing down and the elbow up.

    Args:
        grip: position of the grip point, float64 [3], m.

    Returns:
        Angles of yaw, shoulder, elbow and wrist, float64 [4], rad.

    Raises:
        ValueError: the position is out of reach.
    """
    x, y, z = grip
    out, up = math.hypot(x, y), z + TOOL - SHOULDER  # from the shoulder to the wrist
    bend = (out**2 + up**2) / (2 * LINK**2) - 1.0
    if abs(bend) > 1.0:
        raise ValueError(
            f"expected a grip point whose wrist is within {2 * LINK} m of the shoulder, got "
            f"{np.round(grip, 3).tolist()}"
        )
    elbow = math.acos(bend)
    shoulder = math.atan2(out, up) - elbow / 2
    return np.array([math.atan2(y, x), shoulder, elbow, math.pi - shoulder - elbow])
