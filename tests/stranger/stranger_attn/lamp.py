"""A task: a camera on a hinge that turns towards a lamp, among boxes."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs import Objects, SpaceRow, Task, linear_falloff, object_names

SPEED = 3.0  # rad/s at full action
FIELD = math.radians(60)


class Lamp(Task):
    """The lamp stands still, at most `spread` rad to either side of the camera's initial axis."""

    camera = "eye"
    horizon = 20
    substeps = 5
    backdrop = ("floor",)
    action_table = (SpaceRow("turn, left", -1.0, 1.0, "3.0 rad/s", "pan"),)
    state_table = (SpaceRow("angle", -2.0, 2.0, "rad", "pan"),)
    training = MappingProxyType(
        {
            "ppo": {"n_envs": 2, "n_steps": 16, "batch_size": 16, "gamma": 0.9, "net_arch": [8]},
            "train_env": {"spread": 0.6},
        }
    )

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int = 1,
        spare_distractors: int = 0,
        instruction: bool = False,
        spread: float = 0.4,
    ) -> None:
        names = object_names(distractors, spare_distractors)
        self.objects = Objects(
            num_worlds,
            names,
            ["sphere", *["box"] * (len(names) - 1)],
            distractors=distractors,
            instruction=instruction,
        )
        self._spread = spread
        self._azimuths = np.zeros((num_worlds, len(names)))
        self.episode = {"azimuths": self._azimuths}
        self._everyone = np.arange(num_worlds)

    def mjcf(self) -> str:
        boxes = "".join(
            f'''
            <body name="{name}" mocap="true" pos="0 0 -9">
              <geom name="{name}" type="box" size=".3 .3 .3"/>
            </body>'''
            for name in self.objects.names[1:]
        )
        return f"""
        <mujoco>
          <compiler angle="radian"/>
          <worldbody>
            <light pos="0 0 4"/>
            <camera name="above" pos="0 0 8" fovy="60"/>
            <geom name="floor" type="plane" size="9 9 .1" rgba=".5 .5 .5 1"/>
            <body name="head" pos="0 0 1">
              <inertial pos="0 0 0" mass="1" diaginertia=".01 .01 .01"/>
              <joint name="pan" type="hinge" axis="0 0 1" range="-2 2" limited="true"/>
              <camera name="eye" xyaxes="0 -1 0 0 0 1" fovy="60"/>
            </body>
            <body name="target" mocap="true" pos="0 0 -9">
              <geom name="target" type="sphere" size=".5" rgba=".9 .1 .1 1"/>
            </body>{boxes}
          </worldbody>
          <actuator><velocity joint="pan" kv="1"/></actuator>
        </mujoco>"""

    def bind(self, model: mujoco.MjModel, batch: Any, aspect: float) -> None:
        self._qpos, self._ctrl = batch.bind("qpos"), batch.bind("ctrl")
        self._places = batch.bind("mocap_pos")
        self._dt = model.opt.timestep * self.substeps
        self.objects.bind(model, self.geom_rgba)

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._azimuths[world] = rng.uniform(-self._spread, self._spread, self._azimuths.shape[1])
        self.objects.sample(world, rng)
        self._put(world, np.flatnonzero(self.objects.present[world]))

    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._put(world, slots)

    def act(self, actions: NDArray[np.float64], steps: NDArray[np.int64]) -> None:
        self._ctrl[:] = SPEED * actions

    def compute_reward(self, steps: NDArray[np.int64]) -> Any:
        off = np.abs(self._off())
        return linear_falloff(off, FIELD), np.zeros(len(off), np.bool_), off < 0.1

    def state(self) -> NDArray[np.float64]:
        angle: NDArray[np.float64] = self._qpos.copy()
        return angle

    def oracle(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.clip(self._off() / (SPEED * self._dt), -1, 1)[:, None]

    def _off(self) -> NDArray[np.float64]:
        off: NDArray[np.float64] = self._azimuths[self._everyone, self.objects.target] - self._qpos[:, 0]
        return off

    def _put(self, world: int, slots: NDArray[np.int64]) -> None:
        azimuth = self._azimuths[world, slots]
        height = np.where(slots == 0, 1.0, 2.2)  # boxes hang above the lamp and never occlude it
        self._places[world, slots] = np.stack([4 * np.cos(azimuth), 4 * np.sin(azimuth), height], axis=1)
