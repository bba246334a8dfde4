"""Keep a moving target in view of a pan-tilt camera, among distractors that cross and occlude it."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.instructions import COLORS, InstructionOption
from robot_attn_envs.tasks.objects import Objects, object_names
from robot_attn_envs.tasks.rewards import linear_falloff
from robot_attn_envs.tasks.task import Floats, SpaceRow, Task

if TYPE_CHECKING:
    from mujoco.batch import Batch

HEAD_HEIGHT = 1.2  # m, height of the camera and of the point where the pan and tilt axes cross
FOVY = 60.0  # degrees, vertical
PAN_SPEED, TILT_SPEED = 2.0, 1.5  # rad/s at full action
PAN_LIMIT, TILT_LIMIT = 2.8, 0.7  # rad
TARGET_RGBA = (*COLORS["red"], 1.0)
IN_VIEW_SHARE = 0.95  # fraction of the episode that the target must be in view for success

# Shapes of the distractors, repeated in this order. Some share the target's shape, none its colour.
DISTRACTOR_SHAPES = (
    ("box", "0.13 0.13 0.13"),
    ("cylinder", "0.12 0.15"),
    ("capsule", "0.09 0.13"),
    ("ellipsoid", "0.19 0.11 0.11"),
    ("sphere", "0.15"),
    ("box", "0.09 0.18 0.09"),
)

# A body moves as centre + sum of sines in (azimuth, elevation, range): two slow waves and a fast one.
# Rows: azimuth (rad), elevation (rad), range (m). The target turns at about 1.4 rad/s at most.
WAVE_AMPLITUDES = np.array([(1.1, 0.4, 0.1), (0.2, 0.1, 0.03), (0.25, 0.15, 0.0)])
WAVE_RATES = np.array([(0.5, 1.1, 2.5), (0.5, 1.1, 2.5), (0.4, 0.9, 1.0)])  # rad/s
TARGET_RANGE, DISTRACTOR_RANGE = 2.5, 2.0  # m: distractors pass in front
PARKED = (0.0, -1.5, 20.0)  # azimuth, elevation, range of bodies not in the episode: far below the floor


class Track(Task):
    """`RobotAttn/Track-v0`.

    A camera on a pan-tilt head stands in the middle of a walled room. The target, a red sphere of 15 cm
    radius, moves around it. Distractors of other colours and several shapes move in front of the target.

    ## Action space: `Box(-1, 1, (2,), float32)`

    | # | action              | full scale | MJCF actuator |
    |---|---------------------|------------|---------------|
    | 0 | pan velocity, left  | 2.0 rad/s  | `pan`         |
    | 1 | tilt velocity, up   | 1.5 rad/s  | `tilt`        |

    ## Observation space: `Dict`

    `image`: uint8 (H, W, 3), RGB, camera `eye`, 60 degrees of vertical field of view.
    `state`: float32 (4,):

    | # | observation   | min  | max | unit  | MJCF joint |
    |---|---------------|------|-----|-------|------------|
    | 0 | pan angle     | -3.0 | 3.0 | rad   | `pan`      |
    | 1 | tilt angle    | -0.9 | 0.9 | rad   | `tilt`     |
    | 2 | pan velocity  | -4.0 | 4.0 | rad/s | `pan`      |
    | 3 | tilt velocity | -3.0 | 3.0 | rad/s | `tilt`     |

    ## Reward

    Each step's reward is in [0, 1]. It is 1 when the target's centre is on the optical axis, falls linearly
    with the angle between them to 0 at the corner of the frame, and is 0 when the centre is outside the
    frame.

    ## Episode

    150 control steps of 0.05 s, then truncation. `success`: the target's centre was inside the frame in at
    least 95 % of the steps. The target starts in view, except in a fraction `out_of_view` of the episodes, in
    which the policy has to search for it.

    ## Version history

    * v0: first version.

    Args:
        num_worlds: number of worlds.
        distractors: number of distractors, 0 to 32.
        spare_distractors: number of spare ones, 0 to 32, for the shift that adds distractors.
        instruction: whether the target changes from episode to episode and is named by the observation's
            `tokens`; "held_out" names pairs of colour and shape that training never shows.
        out_of_view: fraction of episodes, in [0, 1], that start with the target out of view.

    Raises:
        ValueError: an argument is out of range.
    """

    camera = "eye"
    horizon = 150
    substeps = 5
    backdrop = ("floor", "wall_north", "wall_south", "wall_west", "wall_east")
    # Practises searching for a target that is out of view, which evaluation does not test.
    training = MappingProxyType({"train_env": {"out_of_view": 0.2}})
    action_table = (
        SpaceRow("pan velocity", -1.0, 1.0, "2.0 rad/s", "pan"),
        SpaceRow("tilt velocity", -1.0, 1.0, "1.5 rad/s", "tilt"),
    )
    state_table = (
        SpaceRow("pan angle", -3.0, 3.0, "rad", "pan"),
        SpaceRow("tilt angle", -0.9, 0.9, "rad", "tilt"),
        SpaceRow("pan velocity", -4.0, 4.0, "rad/s", "pan"),
        SpaceRow("tilt velocity", -3.0, 3.0, "rad/s", "tilt"),
    )

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int = 6,
        spare_distractors: int = 0,
        instruction: InstructionOption = False,
        out_of_view: float = 0.0,
    ) -> None:
        if not isinstance(out_of_view, int | float) or not 0.0 <= out_of_view <= 1.0:
            raise ValueError(
                f"expected out_of_view to be a fraction of the episodes, from 0 to 1, got {out_of_view!r}"
            )
        self._num_worlds = num_worlds
        names = object_names(distractors, spare_distractors)
        self._bodies = len(names)
        self._shapes = [_shape(i) for i in range(self._bodies - 1)]
        self.objects = Objects(
            num_worlds,
            names,
            ["sphere", *(shape for shape, _ in self._shapes)],
            distractors=distractors,
            instruction=instruction,
        )
        self._out_of_view = out_of_view

    def mjcf(self) -> str:
        bodies = "".join(
            f"""
            <body name="distractor{i}" mocap="true" pos="{_around(i, self._bodies - 1)}">
              <geom name="distractor{i}" class="wanderer" type="{shape}" size="{size}"/>
            </body>"""
            for i, (shape, size) in enumerate(self._shapes)
        )
        return f"""
        <mujoco model="track">
          <compiler angle="radian"/>
          <option timestep="0.01" integrator="implicitfast"/>
          <statistic extent="1" center="0 0 1"/>
          <visual>
            <headlight ambient="0.5 0.5 0.5" diffuse="0.3 0.3 0.3" specular="0 0 0"/>
            <map znear="0.01" zfar="50"/>
          </visual>
          <default>
            <default class="wanderer"><geom contype="0" conaffinity="0"/></default>
            <default class="head"><joint type="hinge" limited="true" damping="0.01"/></default>
          </default>
          <asset>
            <texture name="floor" type="2d" builtin="checker" width="128" height="128"
                     rgb1="0.36 0.40 0.44" rgb2="0.54 0.58 0.62"/>
            <material name="floor" texture="floor" texrepeat="6 6"/>
            <material name="wall_x" rgba="0.80 0.77 0.71 1"/>
            <material name="wall_y" rgba="0.70 0.71 0.73 1"/>
          </asset>
          <worldbody>
            <light name="key" type="directional" dir="-0.5 0.3 -1" diffuse="0.4 0.4 0.4" specular="0 0 0"/>
            <light name="fill" type="directional" dir="0.6 -0.5 -1" diffuse="0.2 0.2 0.2" specular="0 0 0"/>
            <camera name="overview" pos="-2.2 0 4.6" xyaxes="0 -1 0 0.68 0 0.73" fovy="58"/>
            <geom name="floor" type="plane" size="5 5 0.1" material="floor"/>
            <geom name="wall_north" type="plane" size="2 5 0.1" pos="5 0 2" zaxis="-1 0 0" material="wall_x"/>
            <geom name="wall_south" type="plane" size="2 5 0.1" pos="-5 0 2" zaxis="1 0 0" material="wall_x"/>
            <geom name="wall_west" type="plane" size="5 2 0.1" pos="0 5 2" zaxis="0 -1 0" material="wall_y"/>
            <geom name="wall_east" type="plane" size="5 2 0.1" pos="0 -5 2" zaxis="0 1 0" material="wall_y"/>
            <body name="pan" pos="0 0 {HEAD_HEIGHT}">
              <inertial pos="0 0 0" mass="0.5" diaginertia="0.002 0.002 0.002"/>
              <joint name="pan" class="head" axis="0 0 1" range="{-PAN_LIMIT} {PAN_LIMIT}"/>
              <body name="tilt">
                <inertial pos="0 0 0" mass="0.3" diaginertia="0.001 0.001 0.001"/>
                <joint name="tilt" class="head" axis="0 -1 0" range="{-TILT_LIMIT} {TILT_LIMIT}"/>
                <camera name="{self.camera}" xyaxes="0 -1 0 0 0 1" fovy="{FOVY}"/>
              </body>
            </body>
            <body name="target" mocap="true" pos="{TARGET_RANGE} 0 {HEAD_HEIGHT}">
              <geom name="target" class="wanderer" type="sphere" size="0.15"
                    rgba="{" ".join(map(str, TARGET_RGBA))}"/>
            </body>{bodies}
          </worldbody>
          <actuator>
            <velocity name="pan" joint="pan" kv="0.05" ctrlrange="{-PAN_SPEED} {PAN_SPEED}"/>
            <velocity name="tilt" joint="tilt" kv="0.03" ctrlrange="{-TILT_SPEED} {TILT_SPEED}"/>
          </actuator>
        </mujoco>"""

    def bind(self, model: mujoco.MjModel, batch: Batch, aspect: float) -> None:
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._ctrl, self._mocap_pos = batch.bind("ctrl"), batch.bind("mocap_pos")[:, : self._bodies]
        eye = model.camera(self.camera).id
        self._eye_pos, self._eye_mat = batch.bind("cam_xpos")[:, eye], batch.bind("cam_xmat")[:, eye]
        self._control_dt = model.opt.timestep * self.substeps
        self._half_height = math.tan(math.radians(FOVY / 2))  # of the frame, at unit distance
        self._half_width = self._half_height * aspect
        self._corner = math.atan(math.hypot(self._half_width, self._half_height))
        self.objects.bind(model, self.geom_rgba)
        shape = (self._num_worlds, self._bodies, 3)
        self._centers = np.zeros(shape)
        self._amplitudes, self._rates, self._phases = (np.zeros((*shape, 3)) for _ in range(3))
        self._steps_in_view = np.zeros(self._num_worlds, np.int64)
        self._worlds = np.arange(self._num_worlds)
        self.episode = {
            "centers": self._centers,
            "amplitudes": self._amplitudes,
            "rates": self._rates,
            "phases": self._phases,
            "steps_in_view": self._steps_in_view,
        }

    def reset(self, world: int, rng: np.random.Generator) -> None:
        bodies = self.objects.base
        self._steps_in_view[world] = 0
        self._sample_waves(world, slice(bodies), rng)
        azimuth = rng.uniform(-0.9, 0.9)
        self._centers[world, 0] = azimuth, rng.uniform(-0.05, 0.15), TARGET_RANGE
        # Distractors move in the same region, closer to the camera: they cross the target and hide it.
        self._sample_centers(world, np.arange(1, bodies), azimuth, rng)
        self.objects.sample(world, rng)
        # Path 0 is the target's, whichever body the instruction names.
        swapped = [0, self.objects.target[world]]
        for parameters in (self._centers, self._amplitudes, self._rates, self._phases):
            parameters[world, swapped] = parameters[world, swapped[::-1]]
        self._centers[world, bodies:], self._amplitudes[world, bodies:] = PARKED, 0.0

        paths = self._paths(np.zeros(1), slice(world, world + 1))
        self._mocap_pos[world] = _to_xyz(paths)[0]
        target_azimuth, target_elevation = paths[0, self.objects.target[world], :2]
        if rng.random() < self._out_of_view:
            side = np.sign(rng.uniform(-1.0, 1.0) - target_azimuth / PAN_LIMIT)
            pan = target_azimuth + side * rng.uniform(0.75, 1.6)
            tilt = target_elevation + rng.uniform(-0.3, 0.3)
        else:
            pan = target_azimuth + rng.uniform(-0.3, 0.3)
            tilt = target_elevation + rng.uniform(-0.3, 0.3)
        self._qpos[world] = np.clip(pan, -PAN_LIMIT, PAN_LIMIT), np.clip(tilt, -TILT_LIMIT, TILT_LIMIT)

    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._sample_waves(world, slots, rng)
        self._sample_centers(world, slots, self._centers[world, self.objects.target[world], 0], rng)
        self._mocap_pos[world] = _to_xyz(self._paths(np.zeros(1), slice(world, world + 1)))[0]

    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        self._ctrl[:] = actions * (PAN_SPEED, TILT_SPEED)
        self._mocap_pos[:] = _to_xyz(self._paths((steps + 1) * self._control_dt))

    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        # The target in the camera's axes: x right, y up, z backwards.
        eye_mat = self._eye_mat.reshape(-1, 3, 3)
        target = self._mocap_pos[self._worlds, self.objects.target]
        x, y, z = np.einsum("nji,nj->in", eye_mat, target - self._eye_pos)
        angle = np.arctan2(np.hypot(x, y), -z)
        in_view = (z < 0) & (np.abs(x) <= -z * self._half_width) & (np.abs(y) <= -z * self._half_height)
        self._steps_in_view += in_view
        success = (steps >= self.horizon) & (self._steps_in_view >= IN_VIEW_SHARE * self.horizon)
        return linear_falloff(angle, self._corner) * in_view, np.zeros_like(in_view), success

    def state(self) -> Floats:
        return np.concatenate([self._qpos, self._qvel], axis=1)

    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        # Aim at where the target will be at the end of the step, and match its velocity.
        target = self._worlds, self.objects.target, slice(2)
        now = self._paths(steps * self._control_dt)[target]
        next_step = self._paths((steps + 1) * self._control_dt)[target]
        velocity = (next_step - now) / self._control_dt + 6.0 * (next_step - self._qpos)
        actions: Floats = np.clip(velocity / (PAN_SPEED, TILT_SPEED), -1.0, 1.0)
        return actions

    def _sample_waves(self, world: int, slots: slice | NDArray[np.int64], rng: np.random.Generator) -> None:
        shape = self._phases[world, slots].shape
        self._amplitudes[world, slots] = WAVE_AMPLITUDES * rng.uniform(0.5, 1.0, shape)
        self._rates[world, slots] = WAVE_RATES * rng.uniform(0.6, 1.2, shape)
        self._phases[world, slots] = rng.uniform(0.0, 2 * np.pi, shape)

    def _sample_centers(
        self, world: int, slots: NDArray[np.int64], azimuth: float, rng: np.random.Generator
    ) -> None:
        self._centers[world, slots, 0] = azimuth + rng.uniform(-1.0, 1.0, len(slots))
        self._centers[world, slots, 1] = rng.uniform(-0.15, 0.25, len(slots))
        self._centers[world, slots, 2] = DISTRACTOR_RANGE + rng.uniform(-0.2, 0.2, len(slots))

    def _paths(self, time: Floats, worlds: slice = slice(None)) -> Floats:
        """Azimuth, elevation (rad) and range (m) of all bodies, [worlds, bodies, 3], at `time` s [worlds]."""
        waves = np.sin(self._rates[worlds] * time[:, None, None, None] + self._phases[worlds])
        paths: Floats = self._centers[worlds] + (self._amplitudes[worlds] * waves).sum(-1)
        return paths


def _shape(index: int) -> tuple[str, str]:
    """Type and size of a distractor's geom."""
    return DISTRACTOR_SHAPES[index % len(DISTRACTOR_SHAPES)]


def _around(index: int, count: int) -> str:
    """A position on a circle about the head, as MJCF text."""
    angle = 2 * math.pi * index / count
    return f"{DISTRACTOR_RANGE * math.cos(angle):.3f} {DISTRACTOR_RANGE * math.sin(angle):.3f} {HEAD_HEIGHT}"


def _to_xyz(paths: Floats) -> Floats:
    """Convert (azimuth, elevation, range) about the head to world positions, [..., 3], m."""
    azimuth, elevation, distance = np.moveaxis(paths, -1, 0)
    flat = distance * np.cos(elevation)
    return np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), HEAD_HEIGHT + distance * np.sin(elevation)], axis=-1
    )
