"""The scene of the arm tasks: a table, and movable objects on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.arm import ARM_ACTUATORS, ARM_DEFAULTS, arm_body
from robot_attn_envs.tasks.instructions import COLORS, InstructionOption
from robot_attn_envs.tasks.objects import Objects, object_names
from robot_attn_envs.tasks.task import Floats

if TYPE_CHECKING:
    from mujoco.batch import Batch

TIMESTEP = 0.01  # s
TARGET_RGBA = (*COLORS["red"], 1.0)

# The objects by slot, repeated in this order: type, size (m), and height of the centre when standing (m).
KINDS = (
    ("box", "0.027 0.027 0.033", 0.033),
    ("cylinder", "0.027 0.035", 0.035),
    ("sphere", "0.032", 0.032),
    ("capsule", "0.023 0.025", 0.023),  # lies on its side: it would not stand on end
)

# MuJoCo 4.0 misses the contact between a plane and a cylinder whose axis is within 1e-15 of the normal: the
# cylinder sinks in and topples. A centre of mass 2 mm off the axis, as in a real cylinder, avoids that.
CYLINDER_INERTIA = '<inertial pos="0.002 0 0" mass="0.15" diaginertia="8.9e-5 8.9e-5 5.5e-5"/>'

# Regions for the objects of every episode, and for the spare ones: (x, y) low and high, m.
PLACES = np.array([(0.31, -0.21), (0.58, 0.21)])
SPARE_PLACES = np.array([(0.24, -0.32), (0.70, 0.32)])
SPACING = 0.1  # m between two objects' centres, as long as there is room
CANDIDATES = 64  # positions sampled for an object: the first with room is taken, or the one with the most
PARKED = 900.0  # m up: objects that are not in the episode fall freely there, out of sight


class Table:
    """Objects on a table. Without an instruction, the target is slot 0, a red box.

    Boxes and cylinders can be knocked over. Spheres and capsules roll, but not far.

    Args:
        num_worlds: number of worlds.
        distractors: number of objects beside the target, 0 to 32; up to about 12 stand `SPACING` apart.
        spare_distractors: number of spare ones, 0 to 32, for the shift that adds distractors.
        instruction: see `Objects`.
        kinds: geom type, size (m) and height of the centre when standing (m) of each slot, repeated in this
            order.

    Attributes:
        objects: which object is the target, and the objects' colours.
        starts: initial positions of the objects' centres, float64 [num_worlds, slots, 3], m.
        episode: what was sampled for the running episodes, arrays [num_worlds, ...].

    Raises:
        ValueError: a number of distractors or an instruction that is not allowed.
    """

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int,
        spare_distractors: int,
        instruction: InstructionOption,
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

    def mjcf(self, model: str, extra_bodies: str = "", tool: str = "") -> str:
        """The scene, arm included, as MJCF text.

        Args:
            model: the model's name.
            extra_bodies: MJCF of further bodies of the world.
            tool: MJCF of further geoms of the arm's hand.
        """
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
            {extra_bodies}
          </worldbody>
          <actuator>{ARM_ACTUATORS}</actuator>
        </mujoco>"""

    def bind(self, model: mujoco.MjModel, batch: Batch, geom_rgba: NDArray[np.float32]) -> None:
        """Look up the objects and bind their positions.

        Args:
            model: the compiled scene.
            batch: the simulations.
            geom_rgba: the colours of every world, float32 [num_worlds, ngeom, 4] in [0, 1].
        """
        self.objects.bind(model, geom_rgba)
        self._qpos, self._positions = batch.bind("qpos"), batch.bind("geom_xpos")
        self._qpos_at = np.array([model.joint(name).qposadr[0] for name in self.objects.names])

    @property
    def positions(self) -> Floats:
        """The objects' centres, float64 [num_worlds, slots, 3], m."""
        positions: Floats = self._positions[:, self.objects.geoms]
        return positions

    def target(self) -> Floats:
        """The target's centre, float64 [num_worlds, 3], m."""
        target: Floats = self.positions[np.arange(len(self.starts)), self.objects.target]
        return target

    def moved(self) -> Floats:
        """Each object's distance from its start, float64 [num_worlds, slots], m; 0 if not in the episode."""
        moved: Floats = np.linalg.norm(self.positions - self.starts, axis=2) * self.objects.present
        return moved

    def others_moved(self) -> Floats:
        """`moved` with 0 for the target, float64 [num_worlds, slots], m."""
        moved = self.moved()
        moved[np.arange(len(moved)), self.objects.target] = 0.0
        return moved

    def reset(self, world: int, rng: np.random.Generator) -> None:
        """Sample the objects of a new episode and put them on the table, the spare ones out of sight."""
        self.objects.sample(world, rng)
        slots = len(self._kinds)
        self.starts[world] = np.arange(slots)[:, None] + (0.0, 0.0, PARKED)
        self._write(world, np.arange(slots), np.zeros(slots))
        for slot in range(self.objects.base):
            self._put(world, slot, PLACES, rng)

    def place_spares(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Put spare objects on the table, among the others.

        Args:
            world: index of the world.
            slots: their slots, int64 [n].
            rng: generator of their positions.
        """
        for slot in slots.tolist():
            self._put(world, slot, SPARE_PLACES, rng)

    def put(self, world: int, slot: int, place: Floats, turn: float) -> None:
        """Put an object at a position.

        Args:
            world: index of the world.
            slot: the object's slot.
            place: (x, y), m.
            turn: rotation about the vertical, rad.
        """
        self.starts[world, slot] = *place, self._heights[slot]
        self._write(world, np.array([slot]), np.array([turn]))

    def _put(self, world: int, slot: int, places: Floats, rng: np.random.Generator) -> None:
        """Put an object at a random position `SPACING` from the others, or as far as there is room."""
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
    """MJCF of the object in a slot."""
    rolls = 'condim="6"' if shape in ("sphere", "capsule") else ""
    lies = 'euler="0 1.5707963 0"' if shape == "capsule" else ""
    rgba = f'rgba="{" ".join(map(str, TARGET_RGBA))}"' if slot == 0 else ""
    return f"""
            <body name="{name}" pos="{0.3 + 0.1 * (slot % 4):.1f} {0.1 * (slot // 4):.1f} {height}">
              <freejoint name="{name}"/>{CYLINDER_INERTIA if shape == "cylinder" else ""}
              <geom name="{name}" class="object" type="{shape}" size="{size}" {rolls} {lies} {rgba}/>
            </body>"""
