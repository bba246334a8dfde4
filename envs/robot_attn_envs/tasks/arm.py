"""A small arm over a table: its MJCF, and control of its grip point in Cartesian velocities."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Floats, SpaceRow

SHOULDER = 0.28  # m, height of the shoulder over the table
LINK = 0.36  # m, from shoulder to elbow, and from elbow to wrist
TOOL = 0.12  # m, from the wrist to the grip point, between the tips of the fingers
SPEED = 0.4  # m/s of the grip point along each axis at full action
TURN = 4.0  # rad/s, the quickest that a joint is told to turn

# The box in which the grip point stays: x away from the base, y to its left, z up from the table; m.
LOW, HIGH = np.array([0.24, -0.27, 0.02]), np.array([0.62, 0.27, 0.34])

JOINTS = ("yaw", "shoulder", "elbow", "wrist")
RANGES = ((-1.3, 1.3), (-0.6, 1.8), (0.3, 2.6), (-0.6, 1.8))  # rad
STRAIGHTEN = 8.0  # 1/s, of the tool's angle to the vertical
DAMPING = 0.03  # of the least squares: bounds what a singular pose would ask of the joints

ARM_ACTIONS = (
    SpaceRow("velocity along x, away from the base", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
    SpaceRow("velocity along y, left", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
    SpaceRow("velocity along z, up", -1.0, 1.0, f"{SPEED} m/s", ", ".join(JOINTS)),
)
ARM_STATE = (
    *(SpaceRow(f"{name} angle", *ends, "rad", name) for name, ends in zip(JOINTS, RANGES, strict=True)),
    *(SpaceRow(f"{name} velocity", -2 * TURN, 2 * TURN, "rad/s", name) for name in JOINTS),
)

# The arm touches what is on the table and never itself: its geoms meet type 1, and are of none.
ARM_DEFAULTS = """
  <default class="arm">
    <geom contype="0" conaffinity="1" rgba="0.66 0.67 0.70 1" mass="0.3" friction="0.5"/>
    <joint type="hinge" axis="0 1 0" limited="true" armature="0.05"/>
    <velocity kv="20"/>
  </default>"""

ARM_ACTUATORS = "".join(
    f'<velocity class="arm" name="{name}" joint="{name}" ctrlrange="{-TURN} {TURN}"/>' for name in JOINTS
)


def arm_body(tool: str = "") -> str:
    """The arm as MJCF text, for the world body; `tool` is added to its hand.

    At angles of 0 all links point up, and those of shoulder, elbow and wrist bend away from the base.
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

    The MJCF is `ARM_DEFAULTS` in `<default>`, `arm_body()` in `<worldbody>` and `ARM_ACTUATORS` in
    `<actuator>`. Both are bound to simulations with `bind`.
    """

    def bind(self, model: mujoco.MjModel, batch: Batch, seconds: float) -> None:
        """Look up the joints and bind what the control reads.

        Args:
            model: the compiled scene.
            batch: the simulations.
            seconds: length of a control step.
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
        """Where the grip point is, [num_worlds, 3], m."""
        grip: Floats = self._sites[:, self._grip]
        return grip

    def reset(self, world: int, grip: Floats) -> None:
        """Put one world's arm, at rest, where its grip point is there (m), the tool pointing down."""
        self._qpos[world, self._qpos_at] = angles(grip)
        self._qvel[world, self._dof_at] = 0.0

    def move(self, actions: Floats) -> None:
        """Write the joints' velocities that move the grip point so, as far as its box allows.

        Args:
            actions: [num_worlds, 3], the grip point's velocity, 1 for `SPEED`.
        """
        # No further than the box in this step; from outside it, back.
        room = (LOW - self.grip) / self._seconds, (HIGH - self.grip) / self._seconds
        velocity = np.clip(np.clip(SPEED * actions, *room), -SPEED, SPEED)
        lean = self._qpos[:, self._qpos_at[1:]].sum(axis=1, keepdims=True) - math.pi
        turns = resolve(self.jacobian(), np.concatenate([velocity, -STRAIGHTEN * lean], axis=1))
        # Too quick a joint slows all of them, and the direction stays.
        self._ctrl[:, self._motors] = turns / np.maximum(1.0, np.abs(turns).max(axis=1, keepdims=True) / TURN)

    def jacobian(self) -> Floats:
        """Of the grip point's position and the tool's angle, [num_worlds, 4, joints]."""
        arms = self.grip[:, None] - self._anchors[:, self._joints]
        position = np.cross(self._axes[:, self._joints], arms).transpose(0, 2, 1)
        pitch = np.broadcast_to([0.0, 1.0, 1.0, 1.0], (len(position), 1, len(JOINTS)))
        return np.concatenate([position, pitch], axis=1)

    def state(self) -> Floats:
        """The joints' angles and velocities, [num_worlds, 8], rows as in `ARM_STATE`."""
        return np.concatenate([self._qpos[:, self._qpos_at], self._qvel[:, self._dof_at]], axis=1)


def resolve(jacobian: Floats, velocity: Floats) -> Floats:
    """Joint velocities by damped least squares (Nakamura and Hanafusa 1986), [n, joints].

    Args:
        jacobian: [n, rows, joints].
        velocity: [n, rows], what is wanted.
    """
    across = jacobian.transpose(0, 2, 1)
    damped = jacobian @ across + DAMPING**2 * np.eye(jacobian.shape[1])
    turns: Floats = (across @ np.linalg.solve(damped, velocity[..., None]))[..., 0]
    return turns


def angles(grip: Floats) -> NDArray[np.float64]:
    """The joints' angles, [4], that bring the grip point there (m) with the tool pointing down, elbow up.

    Raises:
        ValueError: the point is out of reach.
    """
    x, y, z = grip
    out, up = math.hypot(x, y), z + TOOL - SHOULDER  # from the shoulder to the wrist
    bend = (out**2 + up**2) / (2 * LINK**2) - 1.0
    if abs(bend) > 1.0:
        raise ValueError(f"the grip point cannot reach {np.round(grip, 3).tolist()}; it reaches {2 * LINK} m")
    elbow = math.acos(bend)
    shoulder = math.atan2(out, up) - elbow / 2
    return np.array([math.atan2(y, x), shoulder, elbow, math.pi - shoulder - elbow])
