"""Navigate: drive a two-wheeled robot to a target that its camera sees, around obstacles."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.instructions import COLORS, InstructionOption
from robot_attn_envs.tasks.objects import Objects, object_names
from robot_attn_envs.tasks.rewards import progress
from robot_attn_envs.tasks.task import Floats, SpaceRow, Task

if TYPE_CHECKING:
    from mujoco.batch import Batch

ARENA = 3.0  # m, half the side of the walled square
WALL_HEIGHT = 1.2  # m
WALLS = (("north", "x", 1, 0), ("south", "x", -1, 0), ("west", "y", 0, 1), ("east", "y", 0, -1))
START_DISTANCE = (2.0, 4.5)  # m, from the robot to the target
SUCCESS_DISTANCE = 0.4  # m
COLLISION_COST = 0.01

# The robot, m: two wheels on one axle, a caster behind them, a round bumper around it all.
WHEEL_RADIUS, HALF_AXLE, BUMPER_RADIUS = 0.08, 0.13, 0.16
EYE_HEIGHT, EYE_PITCH = 0.30, math.radians(10)  # m, rad upwards
FOVY = 65.0  # degrees, vertical
SPEED, TURN = 1.0, 2.5  # m/s and rad/s at full action
WHEEL_SPEED = (SPEED + TURN * HALF_AXLE) / WHEEL_RADIUS  # rad/s, at most

# Target and distractors hang high enough for the robot to drive beneath them: large in view, no obstacles.
HANGING_HEIGHT = 0.65  # m, of their centres
TARGET_RADIUS = 0.25  # m
DISTRACTOR_SHAPES = (
    ("box", "0.19 0.19 0.19"),
    ("cylinder", "0.19 0.22"),
    ("capsule", "0.14 0.11"),
    ("ellipsoid", "0.25 0.15 0.17"),
    ("sphere", "0.25"),
    ("box", "0.13 0.24 0.15"),
)

# Pillars, taller than the hanging objects: shape, size, and radius of the circle around the base (m).
PILLAR_HALF_HEIGHT = 0.6
PILLARS = (
    ("cylinder", f"0.32 {PILLAR_HALF_HEIGHT}", 0.32),
    ("box", f"0.26 0.26 {PILLAR_HALF_HEIGHT}", math.hypot(0.26, 0.26)),
    ("cylinder", f"0.24 {PILLAR_HALF_HEIGHT}", 0.24),
    ("box", f"0.18 0.34 {PILLAR_HALF_HEIGHT}", math.hypot(0.18, 0.34)),
)
MAX_OBSTACLES = 12
HIDDEN_SHARE = 0.25  # fraction of episodes with a pillar placed between the robot and the target
PASSAGE = 0.55  # m, smallest gap between pillars, and from a pillar to a wall, the robot or the target
PARKED = (20.0, 0.0, -5.0)  # outside the walls and below the floor, for what is not in the episode
CANDIDATES = 64  # positions sampled for a body: the first that fits is taken

# The oracle plans over waypoints around the pillars.
CLEARANCE = 0.05  # m, between the bumper and a pillar
CORNERS = 8  # waypoints around a pillar


class Navigate(Task):
    """`RobotAttn/Navigate-v0`.

    A robot with two driven wheels and a caster starts in a walled square of 6 x 6 m. The target, a red sphere
    of 25 cm radius, hangs 65 cm above the floor, so that the robot can drive beneath it. Distractors of other
    colours and several shapes hang there too. Pillars stand in the way. Contacts of wheels, caster and bumper
    with floor, walls and pillars are simulated. Each episode has a new layout, with the target 2 to 4.5 m
    from the robot.

    ## Action space: `Box(-1, 1, (2,), float32)`

    | # | action         | full scale | MJCF actuators                  |
    |---|----------------|------------|---------------------------------|
    | 0 | forward speed  | 1.0 m/s    | `left` and `right`, same sign   |
    | 1 | turn rate, left| 2.5 rad/s  | `left` and `right`, opposite    |

    ## Observation space: `Dict`

    `image`: uint8 (H, W, 3), RGB, camera `eye`, which looks forward and 10 degrees up, with 65 degrees of
    vertical field of view. `state`: float32 (3,), without the positions of robot and target:

    | # | observation  | min   | max  | unit  | MJCF joint |
    |---|--------------|-------|------|-------|------------|
    | 0 | left wheel   | -20.0 | 20.0 | rad/s | `left`     |
    | 1 | right wheel  | -20.0 | 20.0 | rad/s | `right`    |
    | 2 | heading rate | -5.0  | 5.0  | rad/s | `chassis`  |

    ## Reward

    The distance covered towards the target in the step, as a fraction of the distance at the start; over an
    episode it sums to at most 1. Plus 1 on success. Minus 0.01 in each step in which the bumper touches a
    wall or a pillar.

    ## Episode

    150 control steps of 0.1 s, then truncation. `success`, which terminates: the horizontal distance between
    the robot's centre and the target's is at most 0.4 m. At the start the target is within the camera's field
    of view, or outside it with `start_in_view=False`. In a quarter of the episodes a pillar is placed in
    front of it; other pillars hide it by chance, so that about three targets in ten start hidden.

    ## Version history

    * v0: first version.

    Args:
        num_worlds: number of worlds.
        distractors: number of distractors, 0 to 32.
        spare_distractors: number of spare ones, 0 to 32, for the shift that adds distractors.
        instruction: whether the target changes from episode to episode and is named by the observation's
            `tokens`; "held_out" names pairs of colour and shape that training never shows.
        obstacles: number of pillars, 0 to 12; fewer where they do not fit with gaps of 0.55 m.
        start_in_view: whether the robot faces the target at the start (True), has to search for it (False),
            or the fraction of episodes, in [0, 1], in which it faces it.

    Raises:
        ValueError: an argument is out of range.
    """

    camera = "eye"
    horizon = 150
    substeps = 10
    backdrop = ("floor", "wall_north", "wall_south", "wall_west", "wall_east")
    # The reward comes at the end of a path: a longer horizon of the discount.
    training = MappingProxyType({"ppo": {"gamma": 0.97}, "train_env": {"start_in_view": 0.8}})
    action_table = (
        SpaceRow("forward speed", -1.0, 1.0, "1.0 m/s", "left, right"),
        SpaceRow("turn rate", -1.0, 1.0, "2.5 rad/s", "left, right"),
    )
    state_table = (
        SpaceRow("left wheel", -20.0, 20.0, "rad/s", "left"),
        SpaceRow("right wheel", -20.0, 20.0, "rad/s", "right"),
        SpaceRow("heading rate", -5.0, 5.0, "rad/s", "chassis"),
    )

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int = 4,
        spare_distractors: int = 0,
        instruction: InstructionOption = False,
        obstacles: int = 4,
        start_in_view: bool | float = True,
    ) -> None:
        if not isinstance(obstacles, int | np.integer) or not 0 <= obstacles <= MAX_OBSTACLES:
            raise ValueError(
                f"expected obstacles to be an integer from 0 to {MAX_OBSTACLES}, got {obstacles!r}"
            )
        if not isinstance(start_in_view, int | float) or not 0.0 <= start_in_view <= 1.0:
            raise ValueError(
                "expected start_in_view to be True, False, or a fraction of the episodes from 0 to 1, got "
                f"{start_in_view!r}"
            )
        self._num_worlds, self._start_in_view = num_worlds, float(start_in_view)
        names = object_names(distractors, spare_distractors)
        slots = len(names)
        self._shapes = [DISTRACTOR_SHAPES[i % len(DISTRACTOR_SHAPES)] for i in range(slots - 1)]
        self._pillars = [PILLARS[i % len(PILLARS)] for i in range(obstacles)]
        if obstacles:
            self.landmarks = {"obstacles": tuple(f"obstacle{i}" for i in range(obstacles))}
        self._radii = np.array([radius for _, _, radius in self._pillars])
        self.objects = Objects(
            num_worlds,
            names,
            ["sphere", *(shape for shape, _ in self._shapes)],
            distractors=distractors,
            instruction=instruction,
        )

    def mjcf(self) -> str:
        hanging = [("target", "sphere", str(TARGET_RADIUS))]
        hanging += [(f"distractor{i}", *shape) for i, shape in enumerate(self._shapes)]
        bodies = "".join(
            f"""
            <body name="{name}" mocap="true" pos="{_text(PARKED)}">
              <geom name="{name}" class="hanging" type="{shape}" size="{size}"/>
            </body>"""
            for name, shape, size in hanging
        )
        bodies += "".join(
            f"""
            <body name="obstacle{i}" mocap="true" pos="{_text(PARKED)}">
              <geom name="obstacle{i}" class="solid" type="{shape}" size="{size}" rgba="0.42 0.39 0.36 1"/>
            </body>"""
            for i, (shape, size, _) in enumerate(self._pillars)
        )
        half = WALL_HEIGHT / 2
        walls = "".join(
            f"""
            <geom name="wall_{name}" class="solid" type="box" material="wall_{axis}"
                  size="{"0.1" if axis == "x" else ARENA} {ARENA if axis == "x" else "0.1"} {half}"
                  pos="{x * (ARENA + 0.1)} {y * (ARENA + 0.1)} {half}"/>"""
            for name, axis, x, y in WALLS
        )
        return f"""
        <mujoco model="navigate">
          <compiler angle="degree"/>
          <option timestep="0.01" integrator="implicitfast"/>
          <statistic extent="1" center="0 0 0.5"/>
          <visual>
            <headlight ambient="0.5 0.5 0.5" diffuse="0.3 0.3 0.3" specular="0 0 0"/>
            <map znear="0.01" zfar="50"/>
          </visual>
          <default>
            <default class="hanging">
              <geom contype="0" conaffinity="0" rgba="{_text(COLORS["red"])} 1"/>
            </default>
            <default class="solid"><geom contype="2" conaffinity="0" condim="1"/></default>
            <default class="rolling">
              <geom contype="0" conaffinity="1" group="3"/>
              <default class="wheel">
                <geom type="ellipsoid" size="{WHEEL_RADIUS} 0.02 {WHEEL_RADIUS}" mass="0.3"/>
                <joint type="hinge" axis="0 1 0" damping="0.001"/>
                <velocity kv="0.2" ctrlrange="{-WHEEL_SPEED} {WHEEL_SPEED}" forcerange="-0.5 0.5"/>
              </default>
            </default>
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
            <camera name="overview" pos="-4.2 0 6.2" xyaxes="0 -1 0 0.82 0 0.57" fovy="56"/>
            <geom name="floor" type="plane" size="{ARENA} {ARENA} 0.1" contype="1" conaffinity="0"
                  material="floor"/>{walls}
            <body name="chassis" pos="0 0 {WHEEL_RADIUS}">
              <freejoint name="chassis"/>
              <inertial pos="-0.05 0 0" mass="4.4" diaginertia="0.03 0.03 0.05"/>
              <geom name="caster" class="rolling" type="sphere" size="0.03" pos="-0.11 0 -0.05" priority="1"
                    condim="1"/>
              <body name="bumper" pos="0 0 0.04">
                <geom name="bumper" type="sphere" size="{BUMPER_RADIUS}" contype="0" conaffinity="2"
                      condim="1" mass="0.1" group="3"/>
                <site name="bumper" type="sphere" size="{BUMPER_RADIUS + 0.02}" group="3"/>
              </body>
              <camera name="{self.camera}" pos="0 0 {EYE_HEIGHT - WHEEL_RADIUS}" fovy="{FOVY}"
                      xyaxes="0 -1 0 {-math.sin(EYE_PITCH)} 0 {math.cos(EYE_PITCH)}"/>
              <body name="left" pos="0 {HALF_AXLE} 0">
                <joint name="left" class="wheel"/>
                <geom name="left" class="wheel"/>
              </body>
              <body name="right" pos="0 {-HALF_AXLE} 0">
                <joint name="right" class="wheel"/>
                <geom name="right" class="wheel"/>
              </body>
            </body>{bodies}
          </worldbody>
          <actuator>
            <velocity name="left" joint="left" class="wheel"/>
            <velocity name="right" joint="right" class="wheel"/>
          </actuator>
          <sensor>
            <touch name="bumper" site="bumper"/>
          </sensor>
        </mujoco>"""

    def bind(self, model: mujoco.MjModel, batch: Batch, aspect: float) -> None:
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._ctrl, self._touch = batch.bind("ctrl"), batch.bind("sensordata")
        slots = len(self.objects.names)
        self._hanging = batch.bind("mocap_pos")[:, :slots]
        pillars = slice(slots, slots + len(self._pillars))
        self._pillar_pos = batch.bind("mocap_pos")[:, pillars]
        self._pillar_quat = batch.bind("mocap_quat")[:, pillars]
        self._half_field = math.atan(math.tan(math.radians(FOVY / 2)) * aspect)  # rad, horizontal
        self.objects.bind(model, self.geom_rgba)
        self._start, self._distance = np.zeros(self._num_worlds), np.zeros(self._num_worlds)
        self._worlds = np.arange(self._num_worlds)
        self.episode = {"start": self._start, "distance": self._distance}

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self.objects.sample(world, rng)
        robot = rng.uniform(-ARENA + 0.5, ARENA - 0.5, 2)
        target = _target_place(robot, rng)
        offset = target - robot
        distance = float(np.hypot(*offset))
        self._start[world] = self._distance[world] = distance

        margin = math.asin(TARGET_RADIUS / START_DISTANCE[0])
        in_view = rng.random() < self._start_in_view
        low, high = (0.0, self._half_field - margin) if in_view else (self._half_field + margin, math.pi)
        yaw = math.atan2(offset[1], offset[0]) + rng.choice([-1.0, 1.0]) * rng.uniform(low, high)
        self._qpos[world, :2] = robot
        self._qpos[world, 3:7] = math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)

        self._place_pillars(world, robot, target, rng)
        self._hanging[world] = PARKED
        self._hanging[world, self.objects.target[world]] = *target, HANGING_HEIGHT
        self.place_distractors(world, self.objects.distractors(world), rng)

    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Hang distractors at random positions that leave a gap, or where the gap is largest."""
        for slot in slots.tolist():
            others = self._hanging[world, self._hanging[world, :, 2] > 0, :2]
            things = np.concatenate([self._qpos[world, None, :2], self._pillar_pos[world, :, :2], others])
            radii = np.concatenate([[0.5], self._radii, np.full(len(others), TARGET_RADIUS)])
            places = rng.uniform(-ARENA + TARGET_RADIUS, ARENA - TARGET_RADIUS, (CANDIDATES, 2))
            gaps = _gaps(places, things, radii)
            fits = gaps >= TARGET_RADIUS + 0.05
            chosen = fits.argmax() if fits.any() else gaps.argmax()
            self._hanging[world, slot] = *places[chosen], HANGING_HEIGHT

    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        forward, turn = (actions * (SPEED, TURN)).T
        self._ctrl[:, 0] = (forward - turn * HALF_AXLE) / WHEEL_RADIUS
        self._ctrl[:, 1] = (forward + turn * HALF_AXLE) / WHEEL_RADIUS

    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        distance = np.hypot(*(self._targets() - self._qpos[:, :2]).T)
        reached = distance <= SUCCESS_DISTANCE
        touches = self._touch[:, 0] > 0
        gained = progress(self._distance, distance, self._start)
        reward: Floats = gained + reached - COLLISION_COST * touches
        self._distance[:] = distance
        return reward, reached, reached

    def state(self) -> Floats:
        state: Floats = self._qvel[:, [6, 7, 5]]
        return state

    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        robot, target = self._qpos[:, :2], self._targets()
        ahead = _next_corner(robot, target, self._pillar_pos[:, :, :2], self._radii)
        w, z = self._qpos[:, 3], self._qpos[:, 6]
        bearing = np.arctan2(*(ahead - robot).T[::-1]) - 2.0 * np.arctan2(z, w)
        bearing = (bearing + np.pi) % (2 * np.pi) - np.pi
        forward, turn = np.clip(np.cos(bearing), 0.0, 1.0) ** 3, np.clip(1.5 * bearing, -1.0, 1.0)
        return np.stack([forward, turn], axis=1)

    def _targets(self) -> Floats:
        """Horizontal position of the target, [num_worlds, 2], m."""
        targets: Floats = self._hanging[self._worlds, self.objects.target, :2]
        return targets

    def _place_pillars(self, world: int, robot: Floats, target: Floats, rng: np.random.Generator) -> None:
        """Place pillars with passages between them; a pillar that does not fit is left out."""
        self._pillar_pos[world] = PARKED
        things, radii = np.stack([robot, target]), np.array([BUMPER_RADIUS, 0.0])
        hidden = rng.random() < HIDDEN_SHARE
        for i, radius in enumerate(self._radii):
            limit = ARENA - radius - PASSAGE
            places = rng.uniform(-limit, limit, (CANDIDATES, 2))
            if i == 0 and hidden:
                fraction = rng.uniform(0.4, 0.6, (CANDIDATES, 1))
                places = robot + fraction * (target - robot) + rng.uniform(-0.08, 0.08, (CANDIDATES, 2))
            fits = (_gaps(places, things, radii) >= radius + PASSAGE) & (np.abs(places) <= limit).all(axis=1)
            yaw = rng.uniform(0.0, math.pi)
            if fits.any():
                place = places[fits.argmax()]
                self._pillar_pos[world, i] = *place, PILLAR_HALF_HEIGHT
                self._pillar_quat[world, i] = math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)
                things, radii = np.vstack([things, place]), np.append(radii, radius)


def _target_place(robot: Floats, rng: np.random.Generator) -> Floats:
    """A random position for the target, [2], m, at a distance in `START_DISTANCE` from the robot."""
    while True:
        place = rng.uniform(-ARENA + 0.4, ARENA - 0.4, 2)
        if START_DISTANCE[0] <= np.hypot(*(place - robot)) <= START_DISTANCE[1]:
            return place


def _gaps(places: Floats, things: Floats, radii: Floats) -> Floats:
    """Distance of each place [n, 2] to the nearest edge of circles at [m, 2] with radii [m]; [n], m."""
    gaps: Floats = (np.hypot(*(places[:, None] - things).transpose(2, 0, 1)) - radii).min(axis=1)
    return gaps


def _next_corner(robot: Floats, target: Floats, pillars: Floats, radii: Floats) -> Floats:
    """First point of the shortest path to the target: the target itself, or a waypoint around a pillar.

    The path is the shortest in the visibility graph of robot, target and waypoints.

    Args:
        robot: positions of the robots, [n, 2], m.
        target: positions of the targets, [n, 2], m.
        pillars: centres of the pillars, [n, p, 2], m.
        radii: radii of the pillars, [p], m.

    Returns:
        The point to drive to, [n, 2], m.
    """
    keep = radii + BUMPER_RADIUS + CLEARANCE
    angles = np.arange(CORNERS) * 2 * np.pi / CORNERS
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Far enough out that the straight line between neighbouring waypoints keeps its distance, too.
    corners = pillars[:, :, None] + 1.01 * keep[:, None, None] / math.cos(np.pi / CORNERS) * around
    points = np.concatenate([target[:, None], robot[:, None], corners.reshape(len(robot), -1, 2)], axis=1)

    lines = points[:, None] - points[:, :, None]  # [n, from, to, 2]
    lengths = np.hypot(lines[..., 0], lines[..., 1])
    costs = np.where(lengths > 0, lengths, np.inf)
    for pillar, radius in zip(pillars.swapaxes(0, 1), keep, strict=True):
        to_pillar = (pillar[:, None] - points)[:, :, None]
        along = np.clip((to_pillar * lines).sum(-1) / np.maximum(lengths, 1e-9) ** 2, 0.0, 1.0)
        nearest = np.hypot(*np.moveaxis(to_pillar - along[..., None] * lines, -1, 0))
        # A robot that is already too close may still drive away.
        free = np.full(points.shape[:2], radius)
        free[:, 1] = np.minimum(radius, np.hypot(*to_pillar[:, 1, 0].T) - 1e-6)
        costs[nearest < free[:, :, None]] = np.inf

    # Bellman-Ford: the length of the shortest path from each point to the target, [n, from].
    paths = np.where(np.arange(points.shape[1]) == 0, 0.0, costs[:, :, 0])
    for _ in range(points.shape[1]):
        shorter = np.minimum(paths, (costs + paths[:, None]).min(axis=2))
        if (shorter == paths).all():
            break
        paths = shorter
    first = (costs[:, 1] + paths).argmin(axis=1)
    ahead: Floats = points[np.arange(len(points)), first]
    return ahead


def _text(values: tuple[float, ...]) -> str:
    return " ".join(map(str, values))
