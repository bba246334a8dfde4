"""The arm: its Jacobian against MuJoCo's, its inverse kinematics, and its velocity control."""

import math

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mujoco.batch import Batch

from robot_attn_envs.tasks.arm import (
    ARM_ACTUATORS,
    ARM_DEFAULTS,
    HIGH,
    JOINTS,
    LINK,
    LOW,
    MAX_JOINT_SPEED,
    RANGES,
    SHOULDER,
    SPEED,
    TOOL,
    Arm,
    arm_body,
    damped_least_squares,
    inverse_kinematics,
)

SUBSTEPS, DT = 5, 0.05
SCENE = f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.01" integrator="implicitfast"/>
  <default>{ARM_DEFAULTS}</default>
  <worldbody>{arm_body()}</worldbody>
  <actuator>{ARM_ACTUATORS}</actuator>
</mujoco>"""

points = st.tuples(*(st.floats(low, high) for low, high in zip(LOW, HIGH, strict=True)))


class Bench:
    """Arms in empty scenes."""

    def __init__(self, worlds: int) -> None:
        self.model = mujoco.MjModel.from_xml_string(SCENE)
        self.batch = Batch(self.model, worlds, 1)
        self.arm = Arm()
        self.arm.bind(self.model, self.batch, DT)
        self._tool = self.batch.bind("site_xmat")

    def start(self, grips: list[tuple[float, float, float]]) -> None:
        for world, grip in enumerate(grips):
            self.arm.reset(world, np.array(grip))
        self.batch.forward()

    def step(self, actions: np.ndarray) -> None:
        self.arm.move(actions)
        self.batch.step(nstep=SUBSTEPS, stage=mujoco.mjtStage.mjSTAGE_POS.value)

    def down(self) -> np.ndarray:
        """Vertical component of the tool's axis, -1 if it points straight down, [worlds]."""
        return self._tool[:, 0].reshape(-1, 3, 3)[:, 2, 2]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(2)


def test_inverse_kinematics_by_hand() -> None:
    # The wrist at the shoulder's height, a link away: an equilateral triangle with the elbow on top.
    yaw, shoulder, elbow, wrist = inverse_kinematics(np.array([0.0, LINK, SHOULDER - TOOL]))
    assert yaw == pytest.approx(math.pi / 2)
    assert shoulder == pytest.approx(math.pi / 6)  # from the vertical
    assert elbow == pytest.approx(2 * math.pi / 3)
    assert wrist == pytest.approx(math.pi / 6)
    with pytest.raises(ValueError, match=r"within 0.72 m of the shoulder, got \[0.8, 0.0, 0.1\]"):
        inverse_kinematics(np.array([0.8, 0.0, 0.1]))


@given(points)
def test_reset_puts_the_grip_point_at_the_given_position(
    bench: Bench, point: tuple[float, float, float]
) -> None:
    bench.start([point, (0.4, 0.0, 0.2)])
    np.testing.assert_allclose(bench.arm.grip, [point, (0.4, 0.0, 0.2)], atol=1e-9)
    np.testing.assert_allclose(bench.down(), -1.0, atol=1e-9)
    limits = np.array(RANGES)
    joints = bench.arm.state()[:, :4]
    assert ((joints > limits[:, 0]) & (joints < limits[:, 1])).all()  # the whole box is within the limits


@given(st.tuples(*(st.floats(low, high) for low, high in RANGES)))
def test_the_jacobian_equals_mujocos(bench: Bench, joints: tuple[float, ...]) -> None:
    bench.batch.bind("qpos")[1] = joints
    bench.batch.forward()
    data = mujoco.MjData(bench.model)
    data.qpos[:] = joints
    mujoco.mj_forward(bench.model, data)
    position, rotation = np.zeros((3, 4)), np.zeros((3, 4))
    mujoco.mj_jacSite(bench.model, data, position, rotation, bench.model.site("grip").id)
    found = bench.arm.jacobian()[1]
    np.testing.assert_allclose(found[:3], position, atol=1e-12)
    pitch_axis = (-math.sin(joints[0]), math.cos(joints[0]), 0.0)
    np.testing.assert_allclose(found[3], pitch_axis @ rotation, atol=1e-12)


def test_damped_least_squares_by_hand() -> None:
    # One row: j / (j^2 + 0.03^2) of the desired velocity, and 0 where the joints have no effect.
    jacobian = np.array([[[2.0, 0.0], [0.0, 0.0]], [[0.03, 0.0], [0.0, 1.0]]])
    joints = damped_least_squares(jacobian, np.array([[1.0, 5.0], [1.0, 0.0]]))
    np.testing.assert_allclose(joints, [[2 / 4.0009, 0.0], [0.03 / 0.0018, 0.0]])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_it_moves_along_an_axis_and_points_down(bench: Bench, axis: int, sign: float) -> None:
    start = np.array([(0.42, 0.05, 0.18), (0.38, -0.10, 0.22)])
    bench.start([tuple(point) for point in start])
    actions = np.zeros((2, 3))
    actions[0, axis] = sign  # the second arm does not move
    for _ in range(6):
        bench.step(actions)
        assert (np.abs(bench.down() + 1.0) < 0.002).all()
    moved = bench.arm.grip - start
    # 6 steps at full speed are 12 cm; the motors take one step to reach that speed.
    assert 0.75 * 6 * DT * SPEED < sign * moved[0, axis] < 1.05 * 6 * DT * SPEED
    assert np.abs(np.delete(moved[0], axis)).max() < 0.01
    assert np.abs(moved[1]).max() < 1e-4


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_it_stays_in_its_box_and_within_the_joint_speed(bench: Bench, direction: list[float]) -> None:
    bench.start([(0.42, 0.0, 0.2), (0.5, 0.2, 0.3)])
    for _ in range(30):
        bench.step(np.array([direction, direction]))
        assert (bench.arm.grip > LOW - 0.015).all() and (bench.arm.grip < HIGH + 0.015).all()
        assert np.abs(bench.batch.bind("ctrl")).max() <= MAX_JOINT_SPEED * (1 + 1e-12)
    corner = np.where(np.array(direction) > 0, HIGH, LOW)
    np.testing.assert_allclose(bench.arm.grip, [corner, corner], atol=0.012)
    assert (np.abs(bench.down() + 1.0) < 0.002).all()


def test_it_holds_still_against_its_weight(bench: Bench) -> None:
    points = [(0.60, 0.25, 0.05), (0.30, -0.2, 0.3)]
    bench.start(points)
    for _ in range(100):
        bench.step(np.zeros((2, 3)))
    np.testing.assert_allclose(bench.arm.grip, points, atol=1e-3)
    assert bench.arm.state().shape == (2, 8)
    assert np.abs(bench.arm.state()[:, 4:]).max() < 1e-3


def test_a_tilted_tool_is_straightened(bench: Bench) -> None:
    bench.start([(0.42, 0.0, 0.2), (0.5, 0.1, 0.1)])
    bench.batch.bind("qpos")[:, 3] += (0.3, -0.3)
    bench.batch.forward()
    at = bench.arm.grip.copy()
    for _ in range(10):
        bench.step(np.zeros((2, 3)))
    assert (np.abs(bench.down() + 1.0) < 1e-4).all()
    np.testing.assert_allclose(bench.arm.grip, at, atol=0.02)


def test_joints_are_found_by_their_names() -> None:
    # A free body before the arm shifts every address.
    ball = '<body><freejoint/><geom size="0.1" contype="0"/></body>'
    model = mujoco.MjModel.from_xml_string(SCENE.replace("<worldbody>", f"<worldbody>{ball}"))
    batch, arm = Batch(model, 1, 1), Arm()
    arm.bind(model, batch, DT)
    arm.reset(0, np.array([0.4, 0.1, 0.2]))
    batch.forward()
    np.testing.assert_allclose(arm.grip[0], [0.4, 0.1, 0.2], atol=1e-9)
    names = [model.joint(i).name for i in range(1, model.njnt)]
    assert names == list(JOINTS)
    assert batch.bind("qpos")[0, :7].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert arm.jacobian().shape == (1, 4, 4)
