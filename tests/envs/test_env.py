"""The environments: the same bits for one or many, their spaces and infos, and their errors."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn_envs.env import TaskEnv
from robot_attn_policies.sb3.vec_env import BatchVecEnv

ID = "RobotAttn/Track-v0"
OPTIONS: dict[str, Any] = {"masks": True, "distractors": 3, "out_of_view": 0.3}
STEPS = 157  # past the end of an episode, and into the next


def actions(envs: int) -> np.ndarray:
    """Actions from one random stream per world, float32 [STEPS, envs, 2]."""
    streams = [np.random.default_rng(world).uniform(-1, 1, (STEPS, 2)) for world in range(envs)]
    return np.stack(streams, axis=1).astype(np.float32)


def batch_trace(envs: int, threads: int) -> list[list[np.ndarray]]:
    env = gymnasium.make_vec(ID, num_envs=envs, threads=threads, **OPTIONS)
    observation, infos = env.reset(seed=3)
    trace = [[observation["image"], observation["state"], infos["target_mask"]]]
    for action in actions(envs):
        observation, reward, _, truncated, infos = env.step(action)
        trace.append([observation["image"], observation["state"], infos["target_mask"], reward, truncated])
        if truncated.any():
            trace[-1].append(infos["final_obs"]["image"])
    env.close()
    return trace


@pytest.fixture(scope="module")
def reference() -> list[list[np.ndarray]]:
    return batch_trace(envs=7, threads=1)


def assert_same(found: list[list[np.ndarray]], expected: list[list[np.ndarray]], worlds: int) -> None:
    assert len(found) == len(expected)
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for got, want in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(got[:worlds], want[:worlds], err_msg=f"step {step}", strict=True)


@pytest.mark.parametrize(("envs", "threads"), [(7, 3), (2, 2), (1, 1)])
def test_bits_do_not_depend_on_environments_or_threads(
    reference: list[list[np.ndarray]], envs: int, threads: int
) -> None:
    assert_same(batch_trace(envs, threads), reference, envs)


@pytest.mark.parametrize("world", [0, 4])
def test_one_environment_gives_the_bits_of_the_batch(reference: list[list[np.ndarray]], world: int) -> None:
    env = gymnasium.make(ID, **OPTIONS)
    observation, info = env.reset(seed=3 + world)
    for step in range(STEPS + 1):
        frame, state, mask, *rest = (value[world] for value in reference[step])
        ended = bool(rest and rest[1])
        if step:
            observation, reward, _, truncated, info = env.step(actions(7)[step - 1, world])
            assert (reward, truncated) == (rest[0], ended)
        if ended:
            np.testing.assert_array_equal(observation["image"], rest[2])
            observation, info = env.reset()
        np.testing.assert_array_equal(observation["image"], frame)
        np.testing.assert_array_equal(observation["state"], state)
        np.testing.assert_array_equal(info["target_mask"], mask)
    env.close()


def test_the_adapter_for_sb3_gives_the_bits_of_the_batch(reference: list[list[np.ndarray]]) -> None:
    env = BatchVecEnv(gymnasium.make_vec(ID, num_envs=7, threads=2, **OPTIONS))
    env.seed(3)
    observation = env.reset()
    for step in range(STEPS + 1):
        if step:
            observation, rewards, dones, infos = env.step(actions(7)[step - 1])
            np.testing.assert_array_equal(rewards, reference[step][3].astype(np.float32))
            np.testing.assert_array_equal(dones, reference[step][4])
            for world in np.flatnonzero(dones):
                last = infos[world]["terminal_observation"]["image"]
                np.testing.assert_array_equal(last, reference[step][5][world])
        np.testing.assert_array_equal(observation["image"], reference[step][0])
    env.close()


def test_a_saved_state_restores_the_bits() -> None:
    first = gymnasium.make_vec(ID, num_envs=3, threads=2, **OPTIONS)
    first.reset(seed=9)
    for action in actions(3)[:140]:
        first.step(action)
    state = first.unwrapped.get_state()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
    other = gymnasium.make_vec(ID, num_envs=3, threads=1, **OPTIONS)
    other.reset(seed=1)
    other.unwrapped.set_state({name: value.copy() for name, value in state.items()})
    for name, value in first.unwrapped.observe().items():
        np.testing.assert_array_equal(other.unwrapped.observe()[name], value)
    for action in actions(3)[:17]:  # past the end of the episode: the next one is sampled from the state too
        ours, theirs = first.step(action), other.step(action)
        for name in ("image", "state"):
            np.testing.assert_array_equal(ours[0][name], theirs[0][name])
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[4]["target_mask"], theirs[4]["target_mask"])
    with pytest.raises(ValueError, match=r"expected \(3.*got \(2"):
        first.unwrapped.set_state({name: value[:2] for name, value in state.items()})
    with pytest.raises(ValueError, match=r"'steps'.*got nothing"):
        first.unwrapped.set_state({name: value for name, value in state.items() if name != "steps"})
    first.close()
    other.close()


@pytest.mark.parametrize("options", [{}, {"masks": True, "image_size": (48, 64), "depth": True}])
def test_gymnasiums_checker_passes(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, render_mode="rgb_array", **options)
        check_env(env.unwrapped)
        env.close()


def test_sb3s_checker_passes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, masks=True)
        sb3_check_env(env)
        env.close()


def test_observations_match_the_spaces() -> None:
    env = gymnasium.make_vec(ID, num_envs=2, image_size=(40, 56), depth=True, masks=True)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, infos = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["image"].shape == (2, 40, 56, 3)
    assert infos["target_mask"].shape == (2, 40, 56)
    mask = infos["target_mask"]
    assert mask.any()
    # The target is 2.2 to 2.8 m from the head; the depth of its pixels, along the axis, is at most that.
    assert (observation["depth"][mask] > 1.5).all() and (observation["depth"][mask] < 2.9).all()
    again, *_ = env.step(np.zeros((2, 2), np.float32))
    assert not np.shares_memory(again["image"], observation["image"])
    env.close()


def test_the_mask_is_where_the_red_pixels_are() -> None:
    env = gymnasium.make(ID, masks=True, distractors=0)
    observation, info = env.reset(seed=2)
    red, green, blue = np.moveaxis(observation["image"].astype(int), -1, 0)
    np.testing.assert_array_equal((red > 2 * green) & (red > 2 * blue), info["target_mask"])
    assert info["target_visible"] and info["target_mask"].any()
    env.close()


def test_render_returns_a_larger_frame_of_the_policys_camera() -> None:
    env = gymnasium.make(ID, render_mode="rgb_array")
    observation, _ = env.reset(seed=4)
    picture = env.render()
    assert picture.shape == (480, 480, 3)
    coarse = picture[3::15, 3::15].astype(float)  # 32 x 32 pixels, one within every second pixel of ours
    assert np.abs(coarse - observation["image"][::2, ::2]).mean() < 12
    env.close()
    assert gymnasium.make(ID).unwrapped.render() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 16}, r"from 32 to 2048, got 16"),
        ({"image_size": (64, 2049)}, r"from 32 to 2048, got \(64, 2049\)"),
        ({"image_size": 64.5}, r"integers from 32 to 2048, got 64.5"),
        ({"render_mode": "human"}, r"\"rgb_array\", got 'human'"),
        ({"device": "cuda:7"}, r"expected a device among .*, got 'cuda:7'"),
    ],
)
def test_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskEnv(_task(), **options)


def _task() -> Any:
    from robot_attn_envs.tasks.track import Track

    return Track


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((2, 2), np.nan), r"NaN or infinity in worlds \[0, 1\]"),
        (np.array([[0, 0], [np.inf, 0]]), r"in worlds \[1\]"),
        (np.zeros((2, 3)), r"shape \(2, 2\), got \(2, 3\)"),
        (np.zeros(2), r"shape \(2, 2\), got \(2,\)"),
        ([["left", "up"], ["up", "left"]], r"expected numeric actions"),
    ],
)
def test_invalid_actions_change_nothing(bad: Any, message: str) -> None:
    env = gymnasium.make_vec(ID, num_envs=2, image_size=32)
    env.reset(seed=0)
    before = env.unwrapped.get_state()
    with pytest.raises(ValueError, match=message):
        env.step(bad)
    for name, value in env.unwrapped.get_state().items():
        np.testing.assert_array_equal(value, before[name])
    env.close()


def test_seeds_for_each_world() -> None:
    env = gymnasium.make_vec(ID, num_envs=2, image_size=32)
    together, _ = env.reset(seed=[8, 8])
    np.testing.assert_array_equal(together["image"][0], together["image"][1])
    with pytest.raises(ValueError, match="expected one seed or 2 seeds, got 3"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        gymnasium.make_vec(ID, num_envs=0)
    env.close()


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ([0.0, 1.5], r"in \[-1, 1\], got up to 1.5 in worlds \[0\]: clip them"),
        ([float("nan"), 0.0], r"finite actions, got NaN or infinity in worlds \[0\]"),
        ([0.0, float("-inf")], r"finite actions, got NaN or infinity in worlds \[0\]"),
        ([0.0], r"shape \(1, 2\), got \(1, 1\)"),
    ],
)
def test_an_invalid_action_is_refused_and_changes_nothing(action: list[float], match: str) -> None:
    env = gymnasium.make(ID).unwrapped
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=match):
        env.step(np.array(action, np.float32))
    for name, value in env.get_state().items():
        np.testing.assert_array_equal(value, before[name])
    env.step(np.ones(2, np.float32))
    env.close()


def test_a_step_after_the_end_of_the_episode_raises() -> None:
    env = gymnasium.make(ID).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))
    env.reset(seed=0)
    for step in range(150):
        *_, truncated, info = env.step(np.zeros(2, np.float32))
        assert truncated == (step == 149) and info["end"] == ("time limit" if truncated else "")
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(2, np.float32))
    env.reset()
    env.step(np.zeros(2, np.float32))
    env.close()


def test_a_world_that_diverges_ends_and_the_others_continue(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working directory
    env, twin = (gymnasium.make_vec(ID, num_envs=3) for _ in range(2))
    for each in (env, twin):
        each.reset(seed=5)
    env.unwrapped.worlds.batch.bind("qvel")[1] = np.inf
    action = np.full((3, 2), 0.3, np.float32)
    observation, reward, terminated, truncated, infos = env.step(action)
    expected, expected_reward, *_ = twin.step(action)
    assert truncated.tolist() == [False, True, False] and not terminated.any()
    assert infos["final_info"]["end"].tolist() == ["", "diverged", ""]
    assert reward[1] == 0 and np.isfinite(infos["final_obs"]["state"]).all()
    assert not infos["success"].any() and infos["end"].tolist() == ["", "", ""]
    for world in (0, 2):
        np.testing.assert_array_equal(observation["image"][world], expected["image"][world])
        assert reward[world] == expected_reward[world]
    assert env.unwrapped.worlds.steps.tolist() == [1, 0, 1]
    for _ in range(5):
        assert not env.step(action)[3].any()
    env.close()
    twin.close()


def pickled(env: Any) -> Any:
    return pickle.loads(pickle.dumps(env))


SCENES: list[tuple[str, dict[str, Any]]] = [
    (ID, {"suite": "hard", "occluders": 2, "masks": True, "threads": np.int64(1)}),
    ("RobotAttn/Navigate-v0", {"obstacles": 3, "depth": True}),
    ("RobotAttn/Reach-v0", {"shift": "camera", "instruction": True, "image_size": (32, 48)}),
    ("RobotAttn/Push-v0", {"render_mode": "rgb_array"}),
]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize(("task", "options"), SCENES)
def test_a_copy_continues_like_the_original(
    copied: Callable[[Any], Any], task: str, options: dict[str, Any]
) -> None:
    env = gymnasium.make(task, **options)
    env.reset(seed=5)
    for _ in range(3):
        env.step(env.action_space.sample())
    twin = copied(env)
    assert twin.spec == env.spec and twin.observation_space == env.observation_space
    assert twin.unwrapped.np_random is twin.unwrapped.worlds.generators[0]
    actions = [env.action_space.sample() for _ in range(4)]
    first = [env.step(action) for action in actions]
    np.testing.assert_equal([twin.action_space.sample() for _ in range(4)], actions)
    np.testing.assert_equal(
        [twin.step(action) for action in actions], first
    )  # and the original has not moved it
    np.testing.assert_equal(twin.reset(), env.reset())
    np.testing.assert_equal(twin.render(), env.render())
    env.close()
    twin.step(actions[0])
    twin.close()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_a_batch_continues_like_the_original(copied: Callable[[Any], Any]) -> None:
    env = gymnasium.make_vec(ID, num_envs=3, threads=2, **OPTIONS)
    env.reset(seed=5)
    steps = actions(3)
    for action in steps[:90]:
        env.step(action)
    twin = copied(env)
    for action in steps[90:130]:  # past the end of an episode
        np.testing.assert_equal(twin.step(action), env.step(action))
    env.close()
    twin.close()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize(("task", "options"), SCENES)
def test_a_copy_before_the_first_episode(
    copied: Callable[[Any], Any], task: str, options: dict[str, Any]
) -> None:
    env = gymnasium.make(task, **options).unwrapped
    twin = copied(env)
    np.testing.assert_equal(twin.reset(seed=7), env.reset(seed=7))
    env.close()
    twin.close()


def test_a_copy_of_an_ended_episode_needs_a_reset() -> None:
    env = gymnasium.make(ID).unwrapped
    twin = copy.deepcopy(env)
    with pytest.raises(gymnasium.error.ResetNeeded):
        twin.step(np.zeros(2, np.float32))
    twin.close()
    env.close()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (ID, {"image_size": 48, "distractors": 3, "occluders": 2}),
        (ID, {"image_size": (40, 56), "distractors": 2}),
        ("RobotAttn/Navigate-v0", {"obstacles": 2, "distractors": 1}),
    ],
)
def test_numpy_integers_are_accepted(task: str, options: dict[str, Any]) -> None:
    def whole(value: Any) -> Any:
        return tuple(map(np.int64, value)) if isinstance(value, tuple) else np.int64(value)

    plain = gymnasium.make(task, **options)
    env = gymnasium.make(task, **{name: whole(value) for name, value in options.items()})
    assert env.observation_space == plain.observation_space
    np.testing.assert_equal(env.reset(seed=3), plain.reset(seed=3))
    env.close()
    plain.close()


@pytest.mark.parametrize("renderer", [None, "tiled", "mujoco_warp"])
def test_metadata_name_what_draws_the_frames(renderer: str | None) -> None:
    for env in (
        gymnasium.make("RobotAttn/Track-v0", renderer=renderer),
        gymnasium.make_vec("RobotAttn/Track-v0", num_envs=2, renderer=renderer),
    ):
        assert env.metadata["renderer"] == (renderer or "tiled")
        env.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"renderer": "opengl"}, "expected a renderer among tiled, mujoco_warp, got 'opengl'"),
        ({"device": "abacus"}, "expected a device among cpu"),
    ],
)
def test_what_cannot_draw_is_refused(options: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        gymnasium.make("RobotAttn/Track-v0", **options)


def test_episodes_of_a_batch_can_be_shortened_as_those_of_one_environment_can() -> None:
    batch: Any = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=2, max_episode_steps=3)
    one = gymnasium.make("RobotAttn/Track-v0", max_episode_steps=3)
    batch.reset(seed=0)
    one.reset(seed=0)
    assert batch.unwrapped.horizon == 3
    action = np.zeros(batch.single_action_space.shape, np.float32)
    for step in range(1, 4):
        *_, truncated, infos = batch.step(np.stack([action] * 2))
        assert truncated.tolist() == [step == 3] * 2 == [one.step(action)[3]] * 2
    assert infos["final_info"]["end"].tolist() == ["time limit"] * 2
    with pytest.raises(ValueError, match="max_episode_steps of at least 1, got 0"):
        gymnasium.make_vec("RobotAttn/Track-v0", num_envs=2, max_episode_steps=0)
    batch.close()
    one.close()
