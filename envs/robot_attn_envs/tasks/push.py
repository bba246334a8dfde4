"""Push: push one block among others over a table to a mark."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.arm import ARM_ACTIONS, ARM_STATE, LOW, SPEED, TOOL, Arm
from robot_attn_envs.tasks.instructions import InstructionOption
from robot_attn_envs.tasks.rewards import progress
from robot_attn_envs.tasks.table import Table
from robot_attn_envs.tasks.task import Floats, Task

if TYPE_CHECKING:
    from mujoco.batch import Batch

# The blocks by slot, repeated in this order: type, size (m), height of the centre (m). None of them rolls.
BLOCKS = (("box", "0.03 0.03 0.03", 0.03), ("cylinder", "0.03 0.03", 0.03))

# Two wings close the gap between the fingers and form a hollow that opens away from the base: it keeps the
# pushed block from slipping out sideways.
WINGS = "".join(
    f"""<geom name="wing_{side}" type="box" size="0.003 0.027 0.026" mass="0.05"
              pos="-0.006 {0.024 * sign} {TOOL - 0.026}" euler="0 0 {0.46 * sign}" friction="0.8"
              rgba="0.12 0.12 0.14 1"/>"""
    for side, sign in (("left", 1), ("right", -1))
)
MARK = """<body name="mark" mocap="true">
              <geom name="rim" type="cylinder" contype="0" conaffinity="0"
                    size="0.05 0.001" rgba="0.05 0.05 0.05 1"/>
              <geom name="mark" type="cylinder" contype="0" conaffinity="0"
                    size="0.036 0.002" rgba="0.97 0.97 0.97 1"/>
            </body>"""

# Regions of the target's start and of the mark: (x, y) low and high, m.
STARTS, MARKS = np.array([(0.34, -0.13), (0.44, 0.13)]), np.array([(0.40, -0.24), (0.62, 0.24)])
WAY = (0.12, 0.20)  # m, distance from the target's start to the mark
MAX_BEARING = 0.7  # rad, largest angle between that path and the direction away from the base
NEAR = 0.04  # m, distance from the target's centre to the mark that counts as success

# Region of the other blocks: (x, y) low and high, and their distance from each other and from the path; m.
PLACES = np.array([(0.22, -0.36), (0.76, 0.36)])
SPACING, CLEAR = 0.10, 0.12
CANDIDATES = 64  # positions sampled for a block: the first that fits is taken, or the one closest to fitting

# Where the grip point starts: above all blocks, and closer to the base than the target.
START_LOW, START_HIGH = np.array([0.25, -0.12, 0.08]), np.array([0.31, 0.12, 0.16])

# Where the grip point is when it pushes a block: this far from its centre towards the base, and this high; m.
PUSHING_SIDE, PUSHING_HEIGHT = 0.045, LOW[2] + 0.005
APPROACH_REWARD = 0.25
MOVED, MOVED_COST = (
    0.2,
    0.3,
)  # m, total displacement of the other blocks that costs the maximum, and that cost

# The oracle: the height at which it crosses blocks, and how far behind the target it comes down.
ABOVE, BEHIND = 0.10, 0.085  # m
TOUCHING = 0.06  # m, distance between the target's centre and the grip point below which they touch
PUSHING_SPEED, CENTERING = 0.2, 3.0  # m/s, 1/s


class Push(Task):
    """`RobotAttn/Push-v0`.

    An arm with four hinges carries a gripper, pointing down, over a table. On the table are the target, a red
    box, and other blocks. Two wings close the gap between the fingers and form a hollow. With it the policy
    has to push or drag the target to a mark: a white disc with a black rim, 12 to 20 cm away. The blocks are
    free bodies, boxes and cylinders 6 cm wide and high. The other blocks stand beside the target's path.

    ## Action space: `Box(-1, 1, (3,), float32)`

    The velocity of the grip point, which damped least squares turn into joint velocities, as in `Reach`.

    | # | action                           | full scale | MJCF actuator                        |
    |---|----------------------------------|------------|--------------------------------------|
    | 0 | velocity along x, away from base | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |
    | 1 | velocity along y, left           | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |
    | 2 | velocity along z, up             | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |

    ## Observation space: `Dict`

    `image`: uint8 (H, W, 3), RGB, camera `fixed`, which faces the arm across the table with a vertical field
    of view of 36 degrees. `state`: float32 (8,), without the positions of target and mark:

    | # | observation       | min  | max | unit  | MJCF joint |
    |---|-------------------|------|-----|-------|------------|
    | 0 | yaw angle         | -1.3 | 1.3 | rad   | `yaw`      |
    | 1 | shoulder angle    | -0.6 | 1.8 | rad   | `shoulder` |
    | 2 | elbow angle       | 0.3  | 2.6 | rad   | `elbow`    |
    | 3 | wrist angle       | -0.6 | 1.8 | rad   | `wrist`    |
    | 4 | yaw velocity      | -8.0 | 8.0 | rad/s | `yaw`      |
    | 5 | shoulder velocity | -8.0 | 8.0 | rad/s | `shoulder` |
    | 6 | elbow velocity    | -8.0 | 8.0 | rad/s | `elbow`    |
    | 7 | wrist velocity    | -8.0 | 8.0 | rad/s | `wrist`    |

    ## Reward

    1 on success, plus each step's change of three terms, all relative to the start of the episode:

    * the target's progress to the mark: sums to 1 on arrival, and to no less than -1;
    * the grip point's progress to the side of the target that faces the base: sums to 0.25 on arrival, and to
      no less than -0.25;
    * the total displacement of the other blocks: sums to -0.3 at 20 cm and beyond.

    ## Episode

    150 control steps of 0.05 s, then truncation. `success`, which terminates: the horizontal distance between
    the target's centre and the mark's is at most 4 cm. The mark lies further out than the target; the path
    between them is at most 40 degrees off the direction away from the base.

    ## Version history

    * v0: first version.

    Args:
        num_worlds: number of worlds.
        distractors: number of blocks beside the target, 0 to 32; from about 20 on they stand close together.
        spare_distractors: number of spare ones, 0 to 32, for the shift that adds distractors.
        instruction: whether the target changes from episode to episode and is named by the observation's
            `tokens`; "held_out" names pairs of colour and shape that training never shows.

    Raises:
        ValueError: an argument is out of range.
    """

    camera = "fixed"
    horizon = 150
    substeps = 5
    backdrop = ("table",)
    fixed_robot = ("base",)
    landmarks = MappingProxyType({"goal": ("rim", "mark")})
    # The reward comes at the end of a path: a longer horizon of the discount.
    training = MappingProxyType({"ppo": {"gamma": 0.97}})
    action_table = ARM_ACTIONS
    state_table = ARM_STATE

    def __init__(
        self,
        num_worlds: int,
        *,
        distractors: int = 4,
        spare_distractors: int = 0,
        instruction: InstructionOption = False,
    ) -> None:
        self._table = Table(
            num_worlds,
            distractors=distractors,
            spare_distractors=spare_distractors,
            instruction=instruction,
            kinds=BLOCKS,
        )
        self._arm = Arm()
        self.objects = self._table.objects
        # Distance of the target from being near the mark, and of the grip point from the target's pushing
        # side, m: at the start, and now, at most twice the start's. Then the cost of moved blocks so far.
        self._start, self._away = np.ones(num_worlds), np.ones(num_worlds)
        self._grip_start, self._grip_away = np.ones(num_worlds), np.ones(num_worlds)
        self._cost = np.zeros(num_worlds)

    def mjcf(self) -> str:
        return self._table.mjcf("push", MARK, WINGS)

    def bind(self, model: mujoco.MjModel, batch: Batch, aspect: float) -> None:
        self._seconds = model.opt.timestep * self.substeps
        self._marks = batch.bind("mocap_pos")[:, 0, :2]
        self._arm.bind(model, batch, self._seconds)
        self._table.bind(model, batch, self.geom_rgba)
        self.episode = {
            **self._table.episode,
            "start": self._start,
            "away": self._away,
            "grip_start": self._grip_start,
            "grip_away": self._grip_away,
            "cost": self._cost,
        }

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._table.reset(world, rng)
        target, mark = _sample_path(rng)
        self._marks[world] = mark
        self._table.put(world, int(self.objects.target[world]), target, rng.uniform(-math.pi, math.pi))
        self.place_distractors(world, self.objects.distractors(world), rng)
        grip = rng.uniform(START_LOW, START_HIGH)
        self._arm.reset(world, grip)
        self._start[world] = self._away[world] = math.dist(target, mark) - NEAR
        self._grip_start[world] = self._grip_away[world] = math.dist(_behind(target, PUSHING_SIDE), grip)
        self._cost[world] = 0.0

    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Put blocks beside the target's path where they fit, or where they come closest to fitting."""
        starts, target = self._table.starts[world, :, :2], int(self.objects.target[world])
        others, mark = self.objects.distractors(world), self._marks[world]
        for slot in slots.tolist():
            candidates = rng.uniform(PLACES[0], PLACES[1], (CANDIDATES, 2))
            standing = starts[[target, *others[others < slot]]]
            gaps = np.linalg.norm(candidates[:, None] - standing, axis=2).min(axis=1) - SPACING
            behind = _behind(starts[target], BEHIND)[:2]
            for end in (behind, mark):
                gaps = np.minimum(gaps, _to_line(candidates, starts[target], end) - CLEAR)
            place = candidates[np.minimum(gaps, 0.0).argmax()]
            self._table.put(world, slot, place, rng.uniform(-math.pi, math.pi))

    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        self._arm.move(actions)

    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        target = self._table.target()[:, :2]
        distance = np.hypot(*(self._marks - target).T)
        success = distance <= NEAR
        away = np.clip(distance - NEAR, 0.0, 2.0 * self._start)
        to_side = np.linalg.norm(_behind(target, PUSHING_SIDE) - self._arm.grip, axis=1)
        grip_away = np.minimum(to_side, 2.0 * self._grip_start)
        moved = self._table.others_moved()
        cost = MOVED_COST * np.minimum(moved.sum(axis=1) / MOVED, 1.0)
        pushed = progress(self._away, away, self._start)
        approached = progress(self._grip_away, grip_away, self._grip_start)
        reward: Floats = success + pushed + APPROACH_REWARD * approached - (cost - self._cost)
        self._away[:], self._grip_away[:], self._cost[:] = away, grip_away, cost
        return reward, success, success

    def state(self) -> Floats:
        return self._arm.state()

    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        """Cross the blocks from above, come down behind the target, and push it with the hollow."""
        target, grip = self._table.target()[:, :2], self._arm.grip
        to_behind = _behind(target, BEHIND) - grip
        out = _unit(target)
        left, off = out[:, ::-1] * (-1.0, 1.0), grip[:, :2] - target
        along, across = (off * out).sum(axis=1), (off * left).sum(axis=1)
        low, high = grip[:, 2] < PUSHING_HEIGHT + 0.015, grip[:, 2] > ABOVE - 0.02
        pushing = low & (along < -0.02) & (along > -BEHIND - 0.03) & (np.abs(across) < 0.035)
        over = np.linalg.norm(to_behind[:, :2], axis=1) < 0.02
        velocity = to_behind / (2 * self._seconds)
        velocity[:, 2] += np.where(pushing | over, 0.0, (ABOVE - PUSHING_HEIGHT) / (2 * self._seconds))
        velocity[~(high | over), :2] = 0.0
        # Move straight out until the gripper touches the target: other blocks stand beside the path.
        touching = (along > -TOUCHING)[:, None]
        push = PUSHING_SPEED * np.where(touching, _unit(self._marks - target), out)
        push -= CENTERING * across[:, None] * left
        velocity[pushing, :2] = push[pushing]
        actions: Floats = np.clip(velocity / SPEED, -1.0, 1.0)
        return actions


def _sample_path(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Sample the positions of the target and of the mark, [2] each, m."""
    while True:
        target = rng.uniform(STARTS[0], STARTS[1])
        angle = math.atan2(target[1], target[0]) + rng.uniform(-MAX_BEARING, MAX_BEARING)
        mark = target + rng.uniform(*WAY) * np.array([math.cos(angle), math.sin(angle)])
        if (MARKS[0] <= mark).all() and (mark <= MARKS[1]).all():
            return target, mark


def _behind(block: Floats, distance: float) -> Floats:
    """Point [..., 3] at `distance` from blocks [..., 2] towards the base, at the pushing height; m."""
    point = block - distance * _unit(block)
    return np.concatenate([point, np.full((*point.shape[:-1], 1), PUSHING_HEIGHT)], axis=-1)


def _unit(offset: Floats) -> Floats:
    """Unit vectors [..., 2] along offsets [..., 2]; zeros for zero offsets."""
    unit: Floats = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-9)
    return unit


def _to_line(points: Floats, start: Floats, end: Floats) -> Floats:
    """Distance of points [n, 2] to the line segment between two others, [n]."""
    line = end - start
    along = np.clip((points - start) @ line / (line @ line), 0.0, 1.0)
    distance: Floats = np.linalg.norm(points - start - along[:, None] * line, axis=1)
    return distance
