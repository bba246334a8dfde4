"""Zips of Stable-Baselines3 and statistics of VecNormalize: what is read without trust, what is refused."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import CrossQ
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_ball import Ball
from toy_env import ToyEnv

from robot_attn_policies.sb3.normalised_batch import NormalisedBatch
from robot_attn_policies.sb3.zip_file import ALGORITHMS, load_vecnormalize, load_zip, zip_algorithm


class Own(ActorCriticCnnPolicy):
    """A policy class of another package."""


def changed(source: Path, target: Path, **data: Any) -> Path:
    """A copy of a zip with other entries in its data; None removes one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                entries = json.loads(content) | data
                content = json.dumps(
                    {key: value for key, value in entries.items() if value is not None}
                ).encode()
            new.writestr(name, content)
    return target


@pytest.fixture(scope="module")
def ppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "ppo.zip"
    PPO("CnnPolicy", Ball(), n_steps=4, batch_size=4, seed=0).save(path)
    return path


def test_a_zip_needs_trust(ppo: Path) -> None:
    with pytest.raises(ValueError, match=r"expected trust in .*runs the code in its pickled objects"):
        load_zip(ppo)
    with pytest.raises(ValueError, match=r"expected trust in .*runs the code"):
        load_vecnormalize(ppo)


def test_a_policy_class_of_another_package_leaves_ppo_and_its_relatives_apart(tmp_path: Path) -> None:
    path = tmp_path / "own.zip"
    PPO(Own, Ball(), n_steps=4, batch_size=4).save(path)
    with pytest.raises(
        ValueError, match=r"policy class of another package: name the algorithm with --algorithm"
    ):
        zip_algorithm(path)
    assert zip_algorithm(path, "PPO") == "PPO"
    assert isinstance(load_zip(path, trust=True, algorithm="PPO").policy, Own)


def test_ddpg_and_crossq_are_told_from_their_relatives(tmp_path: Path) -> None:
    DDPG("CnnPolicy", Ball(), buffer_size=8).save(tmp_path / "ddpg")
    assert zip_algorithm(tmp_path / "ddpg.zip") == "TD3"  # of which it is a case
    assert type(load_zip(tmp_path / "ddpg.zip", trust=True, algorithm="DDPG")) is DDPG
    CrossQ("MlpPolicy", Ball(), buffer_size=8).save(tmp_path / "crossq")
    assert zip_algorithm(tmp_path / "crossq.zip") == "CrossQ"


def test_every_algorithm_can_be_imported() -> None:
    for name, package in ALGORITHMS.items():
        assert hasattr(__import__(package), name)


def test_what_only_training_needs_is_left_out(ppo: Path, tmp_path: Path) -> None:
    """Schedules and a last observation that cannot be unpickled."""
    broken = {":type:": "function", ":serialized:": "bm8gcGlja2xl"}
    path = changed(ppo, tmp_path / "a.zip", lr_schedule=broken, clip_range=broken, _last_obs=broken, seed=5)
    with pytest.raises(pickle.UnpicklingError):
        PPO.load(path)
    frames = np.zeros((1, 3, 36, 36), np.uint8)
    expected = PPO.load(ppo).predict(frames, deterministic=True)[0]
    assert_array_equal(load_zip(path, trust=True).predict(frames, deterministic=True)[0], expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"action_space": None}, "KeyError"),
        (
            {
                "policy_class": {
                    ":type:": "x",
                    ":serialized:": "bm8gcGlja2xl",
                    "__module__": "stable_baselines3.a",
                }
            },
            "Unpick",
        ),
    ],
)
def test_a_zip_that_cannot_be_loaded_says_with_what_it_was_saved(
    data: dict[str, Any], message: str, ppo: Path, tmp_path: Path
) -> None:
    path = changed(ppo, tmp_path / "a.zip", **data)
    with pytest.raises(
        ValueError, match=rf"expected a zip of PPO .* saved with Stable-Baselines3 \d.*{message}"
    ) as error:
        load_zip(path, trust=True)
    assert "\n" not in str(error.value)


def statistics(tmp_path: Path, **options: Any) -> VecNormalize:
    state = options.pop("state", True)
    env = VecNormalize(DummyVecEnv([lambda: Ball(state=state)]), **options)
    env.reset()
    for _ in range(9):
        env.step(np.zeros((1, 2), np.float32))
    env.save(str(tmp_path / "statistics.pkl"))
    return load_vecnormalize(tmp_path / "statistics.pkl", trust=True)


def batch(**options: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: Ball(**options)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


def test_observations_are_normalised_as_by_vecnormalize_the_last_ones_too(tmp_path: Path) -> None:
    given = statistics(tmp_path, norm_obs_keys=["state"])
    env, raw = NormalisedBatch(batch(state=True, steps=2), given), batch(state=True, steps=2)
    rms = given.obs_rms["state"]  # type: ignore[index]
    mean = rms.mean.copy()

    def expected(state: Any) -> Any:
        return np.clip((state - mean) / np.sqrt(rms.var + given.epsilon), -10, 10)

    seen, _ = env.reset(seed=[3, 4])
    plain, _ = raw.reset(seed=[3, 4])  # type: ignore[arg-type]
    assert_array_equal(seen["image"], plain["image"])
    assert_allclose(seen["state"], expected(plain["state"]), rtol=1e-6)
    for _ in range(2):
        seen, rewards, _, _, info = env.step(np.zeros((2, 2), np.float32))
        plain, _, _, _, plain_info = raw.step(np.zeros((2, 2), np.float32))
        assert rewards.tolist() == [1.0, 1.0]
        assert_allclose(seen["state"], expected(plain["state"]), rtol=1e-6)
    for row in range(2):
        last, plain_last = info["final_obs"][row], plain_info["final_obs"][row]
        assert_allclose(last["state"], expected(plain_last["state"]), rtol=1e-6)
    assert_array_equal(rms.mean, mean)


def test_normalised_images_have_the_range_of_the_clip(tmp_path: Path) -> None:
    env = NormalisedBatch(batch(), statistics(tmp_path, state=False, clip_obs=5.0))
    space = env.single_observation_space
    assert space.dtype == np.float32 and space.high.max() == 5.0  # type: ignore[attr-defined]
    assert env.observation_space.contains(env.reset(seed=[3, 4])[0])


def test_statistics_of_other_observations_are_refused(tmp_path: Path) -> None:
    given = statistics(tmp_path, norm_obs_keys=["state"])
    with pytest.raises(
        ValueError, match=r"those of the entry 'state' of shape \[2\] where the environment has none"
    ):
        NormalisedBatch(batch(), given)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"expected the statistics of VecNormalize, got .* with a dict"):
        load_vecnormalize(tmp_path / "a.pkl", trust=True)


class Counterfactual(ToyEnv):
    """Renders counterfactual frames, which nothing normalises."""

    def render_counterfactual(self, what: str, **edit: Any) -> Any:
        return {}


def test_images_are_not_normalised_where_counterfactual_frames_would_not_be(tmp_path: Path) -> None:
    given = statistics(tmp_path, state=False)
    given.obs_rms.mean = np.zeros((36, 44, 3))  # type: ignore[union-attr]
    with pytest.raises(
        ValueError, match="got those of images, which the environment's counterfactual frames"
    ):
        NormalisedBatch(Counterfactual(2, box=True), given)
