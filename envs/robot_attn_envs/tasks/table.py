"""The table that the arm works over: its scene, and the objects that stand on it and can be pushed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robot_attn_envs.tasks.arm import ARM_ACTUATORS, ARM_DEFAULTS, arm_body
from robot_attn_envs.tasks.instructions import COLORS, Instruct
from robot_attn_envs.tasks.objects import Objects, object_names
from robot_attn_envs.tasks.task import Floats

TIMESTEP = 0.01  # s
TARGET_RGBA = (*COLORS["red"], 1.0)

# The objects in turn, slot 0 first: type, size (m), and the height of the centre when it stands.
KINDS = (
    ("box", "0.027 0.027 0.033", 0.033),
    ("cylinder", "0.027 0.035", 0.035),
    ("sphere", "0.032", 0.032),
    ("capsule", "0.023 0.025", 0.023),  # lying: on end it would not stand
)

# MuJoCo 4.0 misses that a cylinder stands on a plane where its axis is within 1e-15 of the normal, and it
# sinks in and topples. With its centre of mass 2 mm off the axis, as of a real one, it never is.
CYLINDER_INERTIA = '<inertial pos="0.002 0 0" mass="0.15" diaginertia="8.9e-5 8.9e-5 5.5e-5"/>'

# Where the objects of every episode stand, and where there is room for spare ones: (x, y) low and high, m.
PLACES = np.array([(0.31, -0.21), (0.58, 0.21)])
SPARE_PLACES = np.array([(0.24, -0.32), (0.70, 0.32)])
SPACING = 0.1  # m between two objects' centres, as long as there is room
CANDIDATES = 64  # places looked at for an object
PARKED = 900.0  # m up, out of sight: there what is not in the episode falls, and touches nothing


class Table:
    """Objects on a table, each in a slot of `objects`; slot 0, a red box, is the target untold.

    Boxes and cylinders can be knocked over. Spheres and capsules roll, but not far.

    Args:
        num_worlds: number of worlds.
        distractors: number of objects beside the target, 0 to 32; about 12 stand `SPACING` apart.
        spare_distractors: number of further ones, 0 to 32.
        instruction: what the target is, see `Objects`.
        kinds: the objects in turn, slot 0 first: type, size and height of the centre when it stands (m).

    Attributes:
        objects: which of the objects is the target, and of what colour they are.
        starts: [num_worlds, slots, 3], where the objects' centres were put, m.
        episode: what was drawn for the running episodes.
    """

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int,
        spare_distractors: int,
        instruction: Instruct,
        kinds: Sequence[tuple[str, str, float]] = KINDS,
    ) -> None:
        names = object_names(distractors, spare_distractors)
        slots = len(names)
        self._kinds = [kinds[slot % len(kinds)] for slot in range(slots)]
        self._heights = np.array([height for *_, height in self._kinds])
        shapes = [shape for shape, *_ in self._kinds]
        self.objects = Objects(num_worlds, names, shapes, distractors=distractors, instruction=instruction)
        self.starts = np.zeros((num_worlds, slots, 3))
        self.episode: dict[str, NDArray[np.generic]] = {"starts": self.starts}

    def mjcf(self, model: str, more: str = "", tool: str = "") -> str:
        """The scene with the arm as MJCF text; `more` is added to its world body, `tool` to the hand."""
        bodies = "".join(
            _body(i, name, *kind)
            for i, (name, kind) in enumerate(zip(self.objects.names, self._kinds, strict=True))
        )
        return f"""
        <mujoco model="{model}">
          <compiler angle="radian"/>
          <option timestep="{TIMESTEP}" integrator="implicitfast" cone="pyramidal" iterations="10"
                  ls_iterations="10"/>
          <statistic extent="1" center="0.4 0 0.1"/>
          <visual>
            <headlight ambient="0.5 0.5 0.5" diffuse="0.3 0.3 0.3" specular="0 0 0"/>
            <map znear="0.01" zfar="50"/>
          </visual>
          <default>{ARM_DEFAULTS}
            <default class="object">
              <geom contype="1" conaffinity="1" mass="0.15" friction="0.6 0.005 0.002"/>
            </default>
          </default>
          <worldbody>
            <light name="key" type="directional" dir="-0.5 0.3 -1" diffuse="0.4 0.4 0.4" specular="0 0 0"/>
            <light name="fill" type="directional" dir="0.6 -0.5 -1" diffuse="0.2 0.2 0.2" specular="0 0 0"/>
            <geom name="table" type="plane" size="2 2 0.1" rgba="0.72 0.64 0.53 1"/>
            <camera name="fixed" pos="1.16 0 0.66" xyaxes="0 1 0 -0.58 0 0.81" fovy="36"/>
            {arm_body(tool)}{bodies}
            {more}
          </worldbody>
          <actuator>{ARM_ACTUATORS}</actuator>
        </mujoco>"""

    def bind(self, model: mujoco.MjModel, batch: Batch, geom_rgba: NDArray[np.float32]) -> None:
        """Look up the objects, whose colours `geom_rgba` holds."""
        self.objects.bind(model, geom_rgba)
        self._qpos, self._positions = batch.bind("qpos"), batch.bind("geom_xpos")
        self._qpos_at = np.array([model.joint(name).qposadr[0] for name in self.objects.names])

    @property
    def positions(self) -> Floats:
        """The objects' centres, [num_worlds, slots, 3], m."""
        positions: Floats = self._positions[:, self.objects.geoms]
        return positions

    def target(self) -> Floats:
        """The target's centre, [num_worlds, 3], m."""
        target: Floats = self.positions[np.arange(len(self.starts)), self.objects.target]
        return target

    def moved(self) -> Floats:
        """How far each object is from where it was put, [num_worlds, slots], m; 0 for those not there."""
        moved: Floats = np.linalg.norm(self.positions - self.starts, axis=2) * self.objects.present
        return moved

    def others_moved(self) -> Floats:
        """`moved`, with 0 for the target too."""
        moved = self.moved()
        moved[np.arange(len(moved)), self.objects.target] = 0.0
        return moved

    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Draw the objects of a new episode and put them on the table, the spare ones out of sight."""
        self.objects.draw(world, rng)
        slots = len(self._kinds)
        self.starts[world] = np.arange(slots)[:, None] + (0.0, 0.0, PARKED)
        self._write(world, np.arange(slots), np.zeros(slots))
        for slot in range(self.objects.base):
            self._put(world, slot, PLACES, rng)

    def place(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Put these spare objects on the table, among the others."""
        for slot in slots.tolist():
            self._put(world, slot, SPARE_PLACES, rng)

    def put(self, world: int, slot: int, place: Floats, turn: float) -> None:
        """Put an object there, (x, y) in m, turned by `turn` rad about the vertical."""
        self.starts[world, slot] = *place, self._heights[slot]
        self._write(world, np.array([slot]), np.array([turn]))

    def _put(self, world: int, slot: int, places: Floats, rng: np.random.Generator) -> None:
        """Put an object at a random place, `SPACING` away from the others or else as far as can be."""
        candidates = rng.uniform(places[0], places[1], (CANDIDATES, 2))
        on_table = self.starts[world, self.starts[world, :, 2] < PARKED, :2]
        gaps = np.linalg.norm(candidates[:, None] - on_table, axis=2).min(axis=1, initial=SPACING)
        self.put(world, slot, candidates[gaps.argmax()], rng.uniform(-math.pi, math.pi))

    def _write(self, world: int, slots: NDArray[np.int64], turns: Floats) -> None:
        at = self._qpos_at[slots, None]
        self._qpos[world, at + np.arange(3)] = self.starts[world, slots]
        zero = np.zeros(len(slots))
        self._qpos[world, at + np.arange(3, 7)] = np.stack(
            [np.cos(turns / 2), zero, zero, np.sin(turns / 2)], axis=1
        )


def _body(slot: int, name: str, shape: str, size: str, height: float) -> str:
    """The MJCF of the object in a slot."""
    rolls = 'condim="6"' if shape in ("sphere", "capsule") else ""
    lies = 'euler="0 1.5707963 0"' if shape == "capsule" else ""
    rgba = f'rgba="{" ".join(map(str, TARGET_RGBA))}"' if slot == 0 else ""
    return f"""
            <body name="{name}" pos="{0.3 + 0.1 * (slot % 4):.1f} {0.1 * (slot // 4):.1f} {height}">
              <freejoint name="{name}"/>{CYLINDER_INERTIA if shape == "cylinder" else ""}
              <geom name="{name}" class="object" type="{shape}" size="{size}" {rolls} {lies} {rgba}/>
            </body>"""
