"""Track: rewards and truncation by hand, and how episodes start."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from hypothesis import given
from hypothesis import strategies as st

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.tasks.rewards import linear_falloff
from robot_attn_envs.tasks.track import FOVY, HEAD_HEIGHT, Track
from robot_attn_envs.worlds import Worlds

ID = "RobotAttn/Track-v0"
CORNER = math.atan(math.sqrt(2) * math.tan(math.radians(FOVY / 2)))


@pytest.fixture(scope="module")
def worlds() -> Worlds:
    worlds = Worlds(Track, 3, image_size=32, threads=1)
    worlds.seed([0, 1, 2])
    worlds.reset(np.arange(3))
    return worlds


def reward_at(worlds: Worlds, pan: float, tilt: float, target: tuple[float, float, float]) -> float:
    """Reward of world 0 with the camera at (pan, tilt), rad, and the target at `target` from the head, m."""
    worlds.batch.bind("qpos")[0] = pan, tilt
    worlds.batch.bind("mocap_pos")[0, 0] = np.add(target, (0, 0, HEAD_HEIGHT))
    worlds.batch.forward()
    return float(worlds.task.compute_reward(np.full(3, 1))[0][0])


@pytest.mark.parametrize(
    ("pan", "tilt", "target", "expected"),
    [
        (0.0, 0.0, (2.0, 0.0, 0.0), 1.0),
        (0.5, 0.0, (2 * math.cos(0.5), 2 * math.sin(0.5), 0.0), 1.0),  # pan turns left, towards +y
        (0.0, 0.3, (2 * math.cos(0.3), 0.0, 2 * math.sin(0.3)), 1.0),  # tilt turns up
        (0.0, 0.0, (2 * math.cos(0.2), 2 * math.sin(0.2), 0.0), 1 - 0.2 / CORNER),
        (0.0, 0.0, (1.0, math.tan(math.radians(29.9)), 0.0), 1 - math.radians(29.9) / CORNER),
        (0.0, 0.0, (1.0, math.tan(math.radians(30.1)), 0.0), 0.0),  # past the frame's edge
        (0.0, 0.0, (1.0, 0.0, -math.tan(math.radians(30.1))), 0.0),
        (0.0, 0.0, (-2.0, 0.0, 0.0), 0.0),  # behind
    ],
)
def test_reward_by_hand(
    worlds: Worlds, pan: float, tilt: float, target: tuple[float, float, float], expected: float
) -> None:
    assert reward_at(worlds, pan, tilt, target) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 10), st.floats(0.1, 10))
def test_falloff_is_bounded_and_falls(value: float, limit: float) -> None:
    near, far = linear_falloff(np.array([value, value + 0.01]), limit)
    assert 0 <= far <= near <= 1


def test_falloff_needs_a_positive_limit() -> None:
    assert linear_falloff(np.array([0.0, 0.75, 3.0, 4.0]), 3.0).tolist() == [1.0, 0.75, 0.0, 0.0]
    with pytest.raises(ValueError, match="positive"):
        linear_falloff(np.zeros(1), 0.0)


def play(env: VectorEnv, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    env.reset(seed=seed)
    rng, total = np.random.default_rng(seed), np.zeros(env.num_envs)
    for _ in range(Track.horizon):
        actions = (
            env.unwrapped.oracle_actions() if kind == "oracle" else rng.uniform(-1, 1, (env.num_envs, 2))
        )
        _, reward, terminated, truncated, infos = env.step(actions)
        assert not terminated.any()
        assert ((reward >= 0) & (reward <= 1)).all()
        total += reward
    assert truncated.all()
    return total, infos["final_info"]["success"]


def test_the_oracle_succeeds_and_a_random_policy_does_not() -> None:
    env = gymnasium.make_vec(ID, num_envs=8, image_size=32)
    best, success = play(env, "oracle")
    worst, failure = play(env, "random")
    assert success.all() and not failure.any()
    assert best.min() > 140 and worst.mean() < 60
    env.close()


@pytest.mark.parametrize(("share", "visible"), [(0.0, 1.0), (1.0, 0.0)])
def test_out_of_view_sets_how_often_the_target_is_visible(share: float, visible: float) -> None:
    env = gymnasium.make_vec(ID, num_envs=61, image_size=32, distractors=0, out_of_view=share)
    _, infos = env.reset(seed=5)
    assert infos["target_visible"].mean() == visible
    env.close()


def test_distractors_occlude_the_target() -> None:
    env = gymnasium.make_vec(ID, num_envs=16, masks=True, distractors=6)
    env.reset(seed=11)
    sizes = []
    for _ in range(60):
        _, _, _, _, infos = env.step(env.unwrapped.oracle_actions())
        sizes.append(infos["target_mask"].sum(axis=(1, 2)))
    # The oracle keeps the target in the middle of the frame: only distractors in front of it can hide it.
    assert (np.array(sizes) == 0).any()
    assert ((np.array(sizes) > 0) & (np.array(sizes) < np.median(sizes) / 2)).any()
    env.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("distractors", -1),
        ("distractors", 33),
        ("distractors", 2.5),
        ("out_of_view", 1.5),
        ("out_of_view", "no"),
    ],
)
def test_options_out_of_range_raise(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{option} .*{value}"):
        gymnasium.make(ID, **{option: value})


def test_an_unknown_option_is_named_with_a_suggestion() -> None:
    with pytest.raises(
        ValueError,
        match=r"an option of the task Track among .*, got 'distractor': did you mean 'distractors'\?$",
    ):
        gymnasium.make(ID, distractor=3)
