"""BatchVecEnv: the wrapped environment's bits, SB3's conventions, and a complete state."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage
from toy_env import HEIGHT, WIDTH, ToyEnv

from robot_attn_policies.sb3.vec_env import BatchVecEnv


def assert_same(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    else:
        assert first == second


def actions(steps: int, num_envs: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, 2)).astype(np.float32)


def test_frames_rewards_and_masks_equal_the_wrapped_environments() -> None:
    plain, wrapped = ToyEnv(3), BatchVecEnv(ToyEnv(3))
    wrapped.seed(5)
    expected, infos = plain.reset(seed=5)
    assert_same(wrapped.reset(), expected)
    for i in range(3):
        np.testing.assert_array_equal(wrapped.reset_infos[i]["target_mask"], infos["target_mask"][i])
    endings = {"terminated": 0, "truncated": 0}
    for action in actions(60, 3):
        expected, rewards, terminated, truncated, infos = plain.step(action)
        observation, found_rewards, dones, rows = wrapped.step(action)
        assert_same(observation, expected)
        np.testing.assert_array_equal(found_rewards, rewards.astype(np.float32))
        np.testing.assert_array_equal(dones, terminated | truncated)
        for i in range(3):
            source = infos["final_info"] if dones[i] else infos
            np.testing.assert_array_equal(rows[i]["target_mask"], source["target_mask"][i])
            assert rows[i]["success"] is bool(source["success"][i])
            assert ("terminal_observation" in rows[i]) == ("episode" in rows[i]) == bool(dones[i])
            if dones[i]:
                np.testing.assert_array_equal(wrapped.reset_infos[i]["target_mask"], infos["target_mask"][i])
                final = {key: value[i] for key, value in infos["final_obs"].items()}
                assert_same(rows[i]["terminal_observation"], final)
                assert rows[i]["TimeLimit.truncated"] is bool(truncated[i] and not terminated[i])
                assert rows[i]["is_success"] is rows[i]["success"]
                endings["truncated" if truncated[i] else "terminated"] += 1
    assert min(endings.values()) > 0  # episodes ended in both ways


def test_episode_return_and_length_are_sums_over_the_episode() -> None:
    env = BatchVecEnv(ToyEnv(2))
    env.seed(0)
    env.reset()
    returns, lengths, ended = np.zeros(2), np.zeros(2, int), 0
    for action in actions(50, 2):
        _, rewards, dones, infos = env.step(action)
        returns += rewards
        lengths += 1
        for i in np.flatnonzero(dones):
            assert infos[i]["episode"]["r"] == pytest.approx(returns[i])
            assert infos[i]["episode"]["l"] == lengths[i]
            returns[i] = lengths[i] = 0
            ended += 1
    assert ended >= 4


def test_rewards_may_be_changed_in_place() -> None:
    class Constant(ToyEnv):
        kept = np.full(2, 0.5, np.float32)

        def step(self, actions: Any) -> Any:
            observation, _, *rest = super().step(actions)
            return observation, self.kept, *rest

    env = BatchVecEnv(Constant(2))
    env.reset()
    rewards = env.step(actions(1, 2)[0])[1]
    rewards += 1  # as SB3 does to bootstrap
    assert Constant.kept.tolist() == [0.5, 0.5]


def test_state_is_complete() -> None:
    first, second = BatchVecEnv(ToyEnv(3)), BatchVecEnv(ToyEnv(3))
    first.seed(1)
    first.reset()
    before, after = np.split(actions(50, 3), 2)
    for action in before:
        first.step(action)
    second.reset()
    second.set_state(first.get_state())
    assert_same(second.observe(), first.observe())
    for action in after:
        for (*expected, infos), (*found, rows) in [(first.step(action), second.step(action))]:
            for one, other in zip(expected, found, strict=True):
                assert_same(one, other)
            for info, row in zip(infos, rows, strict=True):
                for each in (info, row):
                    each.get("episode", {}).pop("t", None)  # the clock is not part of the state
                assert_same(info, row)


def test_state_of_another_size_is_rejected() -> None:
    env = BatchVecEnv(ToyEnv(2))
    with pytest.raises(ValueError, match="expected the state of 2 environments"):
        env.set_state(BatchVecEnv(ToyEnv(3)).get_state())


def test_it_equals_sb3s_dummy_vec_env() -> None:
    ours = BatchVecEnv(
        SyncVectorEnv(
            [lambda: gymnasium.make("CartPole-v1", max_episode_steps=20)] * 3,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )
    theirs = DummyVecEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=20)] * 3)
    for env in (ours, theirs):
        env.seed(3)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ended = 0
    for action in np.random.default_rng(0).integers(0, 2, (70, 3)):
        found, expected = ours.step(action), theirs.step(action)
        for one, other in zip(found[:3], expected[:3], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        for info, reference in zip(found[3], expected[3], strict=True):
            if "terminal_observation" in reference:
                np.testing.assert_array_equal(info["terminal_observation"], reference["terminal_observation"])
                assert info["TimeLimit.truncated"] == reference["TimeLimit.truncated"]
                ended += 1
    assert ended > 6


def test_channels_first_equals_sb3s_transposition() -> None:
    for box in (False, True):
        ours, theirs = (
            BatchVecEnv(ToyEnv(2, box=box), channels_first=True),
            VecTransposeImage(BatchVecEnv(ToyEnv(2, box=box))),
        )
        assert ours.observation_space == theirs.observation_space
        for env in (ours, theirs):
            env.seed(2)
        assert_same(ours.reset(), theirs.reset())
        for action in actions(20, 2):
            found, expected = ours.step(action), theirs.step(action)
            assert_same(found[0], expected[0])
            frames = found[0] if box else found[0]["image"]
            assert frames.shape == (2, 3, HEIGHT, WIDTH)
            assert frames.base is not None  # a view of the camera's frames: nothing was copied
            assert np.moveaxis(frames, -3, -1).flags.c_contiguous
            for info, reference in zip(found[3], expected[3], strict=True):
                if "terminal_observation" in reference:
                    assert_same(info["terminal_observation"], reference["terminal_observation"])


def test_sb3_evaluates_on_it_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    env = BatchVecEnv(ToyEnv(2, box=True))
    model = PPO("MlpPolicy", VecTransposeImage(env), n_steps=8, batch_size=8)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=3)
    assert 0 < mean < 13
    assert [str(warning.message) for warning in recwarn if "Monitor" in str(warning.message)] == []


def test_attributes_and_methods_of_the_batch() -> None:
    env = BatchVecEnv(ToyEnv(2))
    assert env.get_attr("box") == [False, False]
    assert env.get_attr("box", indices=[1]) == [False]
    env.set_attr("poison", (0, 0.25))
    assert env.env_method("observe")[0]["state"][0, 0] == 0.25
    with pytest.raises(ValueError, match=r"got indices .*: leave `indices` out"):
        env.set_attr("box", True, indices=[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_observations_with_nan_or_infinity_are_rejected(value: float) -> None:
    inner = ToyEnv(2)
    inner.poison = (2, value)
    env = BatchVecEnv(inner)
    env.reset()
    env.step(actions(1, 2)[0])
    with pytest.raises(ValueError, match=r"finite observations.*'state'"):
        env.step(actions(1, 2)[0])


def test_another_autoreset_mode_is_rejected() -> None:
    with pytest.raises(ValueError, match="SAME_STEP"):
        BatchVecEnv(gymnasium.make_vec("CartPole-v1", num_envs=2))


def test_options_for_some_environments_are_rejected() -> None:
    env = BatchVecEnv(ToyEnv(2))
    env.set_options([{"hard": True}, {}])
    with pytest.raises(ValueError, match="one set of options"):
        env.reset()


def test_sb3_learns_on_it() -> None:
    model = PPO("MultiInputPolicy", BatchVecEnv(ToyEnv(2)), n_steps=16, batch_size=16, n_epochs=1)
    model.learn(64)
    assert model.num_timesteps == 64
    assert len(model.ep_info_buffer or ()) > 2
