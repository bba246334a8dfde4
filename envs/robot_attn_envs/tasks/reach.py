"""Reach: move an arm's gripper to one object among others on a table, without knocking the others over."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.arm import ARM_ACTIONS, ARM_STATE, SPEED, Arm
from robot_attn_envs.tasks.instructions import InstructionOption
from robot_attn_envs.tasks.rewards import progress
from robot_attn_envs.tasks.table import Table
from robot_attn_envs.tasks.task import Floats, Task

if TYPE_CHECKING:
    from mujoco.batch import Batch

CameraName = Literal["fixed", "wrist"]

NEAR = 0.05  # m, distance from the target's centre that counts as reached
HOLD = 10  # consecutive control steps that the grip point has to stay near: half a second
KNOCKED = 0.04  # m that another object may be moved; one that falls over moves further
KNOCK_COST = 0.5

# Where the grip point starts: above all objects.
START_LOW, START_HIGH = np.array([0.30, -0.20, 0.20]), np.array([0.54, 0.20, 0.32])
# Heights of the oracle's grip point over the target's centre, m: above all objects on the way there, and low
# once it is within ASIDE horizontally.
CRUISE, HOVER = 0.13, 0.035
ASIDE = 0.03  # m


class Reach(Task):
    """`RobotAttn/Reach-v0`.

    An arm with four hinges carries a gripper with two fixed fingers, pointing down, over a table. On the
    table are the target, a red box, and other objects. The grip point, between the fingertips, has to come
    within 5 cm of the target's centre and stay there for half a second. The objects are free bodies: the arm
    moves what it touches.

    ## Action space: `Box(-1, 1, (3,), float32)`

    The velocity of the grip point. Damped least squares on the arm's Jacobian turn it into joint velocities,
    which also keep the tool vertical and the grip point in a box over the table.

    | # | action                           | full scale | MJCF actuator                        |
    |---|----------------------------------|------------|--------------------------------------|
    | 0 | velocity along x, away from base | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |
    | 1 | velocity along y, left           | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |
    | 2 | velocity along z, up             | 0.4 m/s    | `yaw`, `shoulder`, `elbow`, `wrist`  |

    ## Observation space: `Dict`

    `image`: uint8 (H, W, 3), RGB, camera `fixed`, which faces the arm across the table with a vertical field
    of view of 36 degrees. With `view="wrist"`, camera `wrist` on the hand, with 90 degrees.
    `state`: float32 (8,):

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

    The distance covered by the grip point towards the target, as a fraction of the distance at the start;
    over an episode it sums to a value in [0, 1]. Plus 1 on success. Minus 0.5 on failure.

    ## Episode

    100 control steps of 0.05 s, then truncation. It terminates with success when the grip point has been
    within 5 cm of the target's centre for 10 steps in a row, and with failure when an object other than the
    target is more than 4 cm from where it stood, which includes one that falls over.

    ## Version history

    * v0: first version.

    Args:
        num_worlds: number of worlds.
        distractors: number of objects beside the target, 0 to 32; from about 12 on they stand close together.
        spare_distractors: number of spare ones, 0 to 32, for the shift that adds distractors.
        instruction: whether the target changes from episode to episode and is named by the observation's
            `tokens`; "held_out" names pairs of colour and shape that training never shows.
        view: the policy's camera, "fixed" or "wrist".

    Raises:
        ValueError: an argument is out of range.
    """

    horizon = 100
    substeps = 5
    backdrop = ("table",)
    fixed_robot = ("base",)
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
        view: CameraName = "fixed",
    ) -> None:
        if view not in get_args(CameraName):
            raise ValueError(f'expected view to be "fixed" or "wrist", got {view!r}')
        self.camera = view
        self._table = Table(
            num_worlds,
            distractors=distractors,
            spare_distractors=spare_distractors,
            instruction=instruction,
        )
        self._arm = Arm()
        self.objects = self._table.objects
        # Distance still to cover until the grip point is near, m: at the start, and now, at most the start's.
        # Then the number of consecutive steps for which it has been near.
        self._start, self._away = np.ones(num_worlds), np.ones(num_worlds)
        self._near_steps = np.zeros(num_worlds, np.int64)

    def mjcf(self) -> str:
        return self._table.mjcf("reach")

    def bind(self, model: mujoco.MjModel, batch: Batch, aspect: float) -> None:
        self._seconds = model.opt.timestep * self.substeps
        self._arm.bind(model, batch, self._seconds)
        self._table.bind(model, batch, self.geom_rgba)
        self.episode = {
            **self._table.episode,
            "start": self._start,
            "away": self._away,
            "near_steps": self._near_steps,
        }

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self._table.reset(world, rng)
        grip = rng.uniform(START_LOW, START_HIGH)
        self._arm.reset(world, grip)
        target = self._table.starts[world, self.objects.target[world]]
        self._start[world] = self._away[world] = np.linalg.norm(target - grip) - NEAR
        self._near_steps[world] = 0

    def place_distractors(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._table.place_spares(world, slots, rng)

    def act(self, actions: Floats, steps: NDArray[np.int64]) -> None:
        self._arm.move(actions)

    def compute_reward(self, steps: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        distance = np.linalg.norm(self._table.target() - self._arm.grip, axis=1)
        moved = self._table.others_moved()
        knocked = (moved > KNOCKED).any(axis=1)
        self._near_steps[:] = np.where(distance <= NEAR, self._near_steps + 1, 0)
        success = (self._near_steps >= HOLD) & ~knocked
        away = np.clip(distance - NEAR, 0.0, self._start)
        reward = progress(self._away, away, self._start) + success - KNOCK_COST * knocked
        self._away[:] = away
        return reward, success | knocked, success

    def state(self) -> Floats:
        return self._arm.state()

    def oracle(self, steps: NDArray[np.int64]) -> Floats:
        away = self._table.target() - self._arm.grip
        horizontal = np.linalg.norm(away[:, :2], axis=1)
        away[:, 2] += np.where(horizontal > ASIDE, CRUISE, HOVER)
        actions: Floats = np.clip(away / (2 * self._seconds * SPEED), -1.0, 1.0)  # arrive in two steps
        return actions
