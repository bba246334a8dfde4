"""`replay`, `evaluate`, `explain` and `record` of policies in zips of Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import RescaleAction
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from ball_tasks import STEPS, Ball
from toy_run import make_run

from robot_attn_policies.recording.episode_file import load_episode
from robot_attn_policies.recording.record import record
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_scripts import cli

OURS = {"features_extractor_class": PerceptionExtractor}
MODULE = ["--module", "ball_tasks"]


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    ours: dict[str, Any] = {"policy_kwargs": dict(OURS)}
    short = {"n_steps": 4, "batch_size": 4, "seed": 0}
    memory = {"policy_kwargs": {"lstm_hidden_size": 8, **OURS}}
    models: dict[str, BaseAlgorithm] = {
        "ppo": PPO("CnnPolicy", Ball(), **short, **ours),
        "sac": SAC("CnnPolicy", Ball(), buffer_size=8, seed=0),
        "masked": MaskablePPO("CnnPolicy", Ball(discrete=True, masked=True), **short),
        "recurrent": RecurrentPPO("CnnLstmPolicy", Ball(), **short, **memory),
    }
    env = VecNormalize(DummyVecEnv([lambda: Ball(state=True)]), norm_obs_keys=["state"])
    models["normalised"] = PPO("MultiInputPolicy", env, **short, **ours).learn(16)
    env.save(str(folder / "statistics.pkl"))
    models["sac"].buffer_size = 10**9  # type: ignore[attr-defined]  # 3.6 TB, which acting does not need
    for name, model in models.items():
        model.save(folder / name)
    return folder


def run(*arguments: object) -> int:
    return cli.main([*map(str, arguments), *MODULE])


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("robot-attn: error: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ppo", "Ball/Box-v0"),
        ("sac", "Ball/Box-v0"),
        ("masked", "Ball/Masked-v0"),
        ("recurrent", "Ball/Box-v0"),
        ("normalised", "Ball/Dict-v0"),
    ],
)
def test_a_zip_is_recorded_and_evaluated(name: str, task: str, zips: Path, tmp_path: Path) -> None:
    more = ["--vecnormalize", zips / "statistics.pkl"] if name == "normalised" else []
    common = [zips / f"{name}.zip", "--trust", "--task", task, *more, "--seed", 7]
    assert run("record", *common, "--episodes", 2, "--out", tmp_path / "out", "--at-once", 1) == 0
    episode = load_episode(tmp_path / "out" / "episode-8.hdf5")
    assert episode.rewards.tolist() == [1.0] * STEPS and episode.env_args["env_name"] == task
    assert episode.maps == ("causal" if name in ("sac", "masked") else "attention")
    # The same as in Python, with the model in the environment of its training.
    kinds: dict[str, type[BaseAlgorithm]] = {"sac": SAC, "masked": MaskablePPO, "recurrent": RecurrentPPO}
    options = {"sac": {"custom_objects": {"buffer_size": 1}}}.get(name, {})
    model = kinds.get(name, PPO).load(zips / name, **options)
    masked = name == "masked"
    env: Any = Ball(steps=STEPS, discrete=masked, masked=masked)
    if name == "normalised":
        inner = DummyVecEnv([lambda: Ball(state=True, steps=STEPS)])
        env = VecNormalize.load(str(zips / "statistics.pkl"), inner)
    expected = record(model, env, seed=8)
    np.testing.assert_allclose(episode.actions, expected.actions, atol=1e-5)
    np.testing.assert_array_equal(episode.images, expected.images)
    if name == "normalised":
        np.testing.assert_array_equal(episode.state, expected.state)  # type: ignore[arg-type]

    figures = tmp_path / "figures.json"
    assert run("evaluate", *common, "--episodes", 3, "--calibration-episodes", 1, "--json", figures) == 0
    found = json.loads(figures.read_text())
    assert found["return"]["mean"]["value"] == STEPS and found["policy"] == type(model).__name__
    assert (found["focus"] is None) == (task != "Ball/Box-v0")


def test_a_zip_is_replayed_by_the_spelling_of_the_issue_too(zips: Path, tmp_path: Path) -> None:
    for number, task in enumerate((["--task", "Ball/Box-v0"], ["--env", "Ball/Box-v0"])):
        out = tmp_path / f"{number}.mp4"
        line = ["replay", zips / "ppo.zip", "--trust", *task, "--size", 600, "--seed", 3, "--out", out]
        assert run(*line, "--env", f"steps={3 + number}", "--explain") == 0
        episode = load_episode(out.with_suffix(".hdf5"))
        assert len(episode) == 3 + number and episode.policy == f"{zips / 'ppo.zip'} (PPO)"
        assert (tmp_path / f"{number}-explained.html").is_file()


def test_a_recurrent_zip_is_explained(zips: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    out = tmp_path / "report.html"
    line = ["explain", zips / "recurrent.zip", "--trust", "--task", "Ball/Box-v0", "--episodes", 2]
    assert run(*line, "--calibration-episodes", 1, "--no-curves", "--out", out) == 0
    figures = json.loads(out.with_suffix(".json").read_text())
    assert set(figures["sections"]) >= {"focus", "faithful", "weights"}


def test_two_policies_are_compared_side_by_side(zips: Path, tmp_path: Path) -> None:
    line = ["replay", zips / "ppo.zip", "--compare", zips / "sac.zip", "--trust", "--task", "Ball/Box-v0"]
    assert run(*line, "--size", 600, "--out", tmp_path / "both.mp4") == 0
    policies = [load_episode(tmp_path / f"both-{side}.hdf5").policy for side in "ab"]
    assert policies == [f"{zips / 'ppo.zip'} (PPO)", f"{zips / 'sac.zip'} (SAC)"]


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled_without_trust(
    zips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PPO.load(zips / "ppo")
    model.note = Touch(tmp_path / "ran")  # type: ignore[attr-defined]
    model.save(tmp_path / "trap")
    for command in ("replay", "evaluate", "explain", "record"):
        error = error_of(capsys, command, tmp_path / "trap.zip", "--task", "Ball/Box-v0")
        assert "expected --trust" in error and "runs the code in its pickled objects" in error
    assert not (tmp_path / "ran").exists()
    assert run("record", tmp_path / "trap.zip", "--trust", "--task", "Ball/Box-v0", "--episodes", 1,
               "--out", tmp_path / "out") == 0  # fmt: skip
    assert (tmp_path / "ran").exists()


def damaged(path: Path, at: str) -> Path:
    """A copy with a changed byte in the middle of a part."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(at)
    content[info.header_offset + 200 + info.compress_size // 2] ^= 255
    copy = path.with_name(f"damaged-{at}.zip")
    copy.write_bytes(content)
    return copy


def test_bad_files_and_options_are_one_sentence_each(
    zips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = ["--trust", "--task", "Ball/Box-v0"]
    ppo = zips / "ppo.zip"

    def refused(*arguments: object) -> str:
        return error_of(capsys, "evaluate", *arguments)

    (tmp_path / "text.zip").write_text("no zip")
    assert "which is none or is damaged" in refused(tmp_path / "text.zip", *box)
    shutil.copy(ppo, tmp_path / "cut.zip")
    with (tmp_path / "cut.zip").open("r+b") as file:
        file.truncate(10_000)
    assert "which is none or is damaged" in refused(tmp_path / "cut.zip", *box)
    for part in ("data", "policy.pth"):
        assert f"a wrong checksum of {part}" in refused(damaged(ppo, part), *box)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "with 'data' and 'policy.pth', got" in refused(tmp_path / "other.zip", *box)
    assert "no such file" in refused(tmp_path / "none.zip", *box)
    assert "expected a zip of SAC" in refused(ppo, *box, "--algorithm", "SAC")
    assert "got 'PPPO': did you mean 'PPO'?" in refused(ppo, *box, "--algorithm", "PPPO")
    assert "expected --task with" in refused(ppo, "--trust")
    assert "expected one task" in refused(ppo, *box, "--env", "Ball/Dict-v0")
    assert "expected no --which" in refused(ppo, *box, "--which", "last")
    assert "expected a task with the policy's spaces" in refused(ppo, "--trust", "--task", "Ball/Dict-v0")
    text = ["--vecnormalize", tmp_path / "text.zip"]
    assert "not a pickle that can be loaded" in refused(zips / "normalised.zip", *box, *text)
    statistics = ["--vecnormalize", zips / "statistics.pkl"]
    assert "expected statistics of the environment's observations" in refused(ppo, *box, *statistics)
    for dataset in (["--minari", "a/b-v0"], ["--lerobot", tmp_path / "dataset"]):
        error = error_of(capsys, "record", ppo, *box, *statistics, *dataset)
        assert "a dataset would hold normalised observations" in error
    run_folder = make_run(tmp_path / "run")
    assert "expected a .zip with --trust, --task" in refused(run_folder, *box)


def test_a_zip_of_another_action_space_is_refused(
    zips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", zips / "masked.zip", "--trust", "--task", "Ball/Box-v0"]
    assert "action float32 [2] where the policy has Discrete(3)" in error_of(capsys, *line)
    one: Any = Ball()
    one.action_space = type(one.action_space)(-1.0, 3.0, (2,), np.float32)
    PPO("CnnPolicy", one, n_steps=4, batch_size=4).save(tmp_path / "wide")
    line = ["evaluate", tmp_path / "wide.zip", "--trust", "--task", "Ball/Box-v0"]
    assert "expected a task with the policy's actions Box(-1.0, 3.0" in error_of(capsys, *line)


def test_a_policy_of_stacked_frames_gets_them_or_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = VecFrameStack(DummyVecEnv([lambda: Ball(steps=STEPS)]), 2)
    model = PPO("CnnPolicy", env, n_steps=4, batch_size=4, seed=0)
    model.save(tmp_path / "stacked")
    line = ["record", tmp_path / "stacked.zip", "--trust", "--episodes", 1, "--seed", 8]
    error = error_of(capsys, *line, "--task", "Ball/Box-v0")
    assert "observation uint8 [3, 36, 36] where the policy has uint8 [6, 36, 36]" in error
    assert 'FrameStackObservation(env, 2, padding_type="zero")' in error
    assert run(*line, "--task", "Ball/Stack-v0", "--out", tmp_path / "out") == 0
    expected = record(model, env, seed=8)
    episode = load_episode(tmp_path / "out" / "episode-8.hdf5")
    np.testing.assert_array_equal(episode.images, expected.images)
    np.testing.assert_allclose(episode.actions, expected.actions, atol=1e-5)


def test_a_policy_that_was_trained_with_scaled_actions_gets_them(zips: Path, tmp_path: Path) -> None:
    env = RescaleAction(Ball(steps=STEPS), np.float32(-1), np.float32(1))
    model = PPO("CnnPolicy", env, n_steps=4, batch_size=4, seed=0)
    model.save(tmp_path / "scaled")
    line = ["record", tmp_path / "scaled.zip", "--trust", "--task", "Ball/Box-v0", "--episodes", 1]
    assert run(*line, "--seed", 8, "--out", tmp_path / "out") == 0
    expected = record(model, env, seed=8)
    actions = load_episode(tmp_path / "out" / "episode-8.hdf5").actions
    np.testing.assert_allclose(actions, expected.actions, atol=1e-5)
