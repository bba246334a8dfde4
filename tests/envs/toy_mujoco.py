"""A small MuJoCo environment of a user's own: a body of two geoms slides past a block, a goal is a site."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np

SCENE = """
<mujoco>
  <asset><material name="dark" rgba=".1 .1 .4 1"/></asset>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="top" pos="0 0 2"/>
    <camera pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
    <camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
    <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.3" material="dark"/>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0" damping="1"/>
      <geom name="chassis" type="box" size=".15 .1 .05" rgba=".9 .1 .1 1"/>
      <body name="mast"><geom name="pole" type="capsule" fromto="0 0 .05 0 0 .3" size=".04" rgba=".9 .1 .1
      1"/> </body>
    </body>
    <body name="block" pos="-.5 .3 0"><geom type="box" size=".1 .1 .1" rgba=".1 .8 .2 1"/></body>
    <geom name="ghost" type="sphere" size=".1" pos="0 .5 0" rgba="1 1 1 0"/>
    <geom name="hull" type="sphere" size=".1" pos="0 .5 0" group="3"/>
    <site name="goal" type="sphere" size=".08" pos=".5 .3 0" rgba=".9 .9 .1 1"/>
    {more}
  </worldbody>
  <actuator><motor joint="slide"/></actuator>
</mujoco>
"""


class Cart(gymnasium.Env[Any, Any]):
    """Pushes the cart; ends after `length` steps, or where it runs off.

    Args:
        own: "box" or "dict", the kind of its own observation.
        more: MJCF to add to the world.
        length: steps of an episode.
    """

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    dt = 0.02

    def __init__(self, own: str = "box", more: str = "", length: int = 5) -> None:
        self.model = mujoco.MjModel.from_xml_string(SCENE.format(more=more))
        self.data = mujoco.MjData(self.model)
        self.own, self.length, self.steps = own, length, 0
        numbers = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = (
            numbers if own == "box" else gymnasium.spaces.Dict(observation=numbers, side=numbers)
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[0] = self.np_random.uniform(-0.5, 0.5)
        mujoco.mj_forward(self.model, self.data)
        self.steps = 0
        return self.observe(), {"start": float(self.data.qpos[0])}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.data.ctrl[:] = 20.0 * np.asarray(action)
        mujoco.mj_step(self.model, self.data, nstep=10)
        self.steps += 1
        return self.observe(), float(self.data.qpos[0]), False, self.steps >= self.length, {}

    def observe(self) -> Any:
        numbers = np.concatenate([self.data.qpos, self.data.qvel])
        return numbers if self.own == "box" else {"observation": numbers, "side": 2.0 * numbers}
