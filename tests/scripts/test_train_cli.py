from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ToyTask, register

from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.run_folder import RunError, load_policy, read_config, read_trainer
from robot_attn_scripts.cli import main
from robot_attn_scripts.train import Normaliser, Options, env_maker, make_config, parse_pairs

SMALL = ["--ppo", "n_envs=2", "n_steps=16", "batch_size=16", "n_epochs=1", "net_arch=[8]"]


@pytest.fixture(autouse=True)
def _toy() -> None:
    register()


def run(*arguments: str) -> int:
    return main(["train", "toy", *arguments])


def test_it_trains_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, figures = tmp_path / "run", tmp_path / "figures.json"
    arguments = ["--out", str(folder), "--eval-every", "32", "--eval-episodes", "3"]
    assert run(*arguments, "--steps", "64", "--option", "num_heads=3", "--env", "masks=false", *SMALL) == 0
    config = read_config(folder).config
    assert (config.steps, config.options, config.env) == (64, {"num_heads": 3}, {"masks": False})
    assert (config.ppo.n_envs, config.ppo.net_arch) == (2, (8,))
    assert read_config(folder).renderer is None  # the toy does not say
    # Nothing but the steps: the rest is the folder's.
    assert run("--out", str(folder), "--resume", "--steps", "96", "--json", str(figures)) == 0
    assert read_trainer(folder)["steps"] == 96
    assert read_config(folder).config == replace(config, steps=96)
    written = json.loads(figures.read_text())
    assert written["steps"] == {"value": 96, "unit": "steps"}
    assert written["time"]["value"] > 0
    assert written["time"]["unit"] == "s"
    assert written["stopped"] == "steps"
    references = json.loads((folder / "reference.json").read_text())
    assert references["random_mean_return"] < references["oracle_mean_return"]
    best = json.loads((folder / "best/score.json").read_text())
    spread = references["oracle_mean_return"] - references["random_mean_return"]
    assert best["score"] == pytest.approx((best["mean_return"] - references["random_mean_return"]) / spread)
    assert {name: written[f"best_{name}"] for name in ("score", "mean_return", "success", "steps")} == {
        "score": {"value": best["score"], "unit": "0 random, 1 oracle"},
        "mean_return": {"value": best["mean_return"], "unit": "reward an episode"},
        "success": {"value": best["success"], "unit": "fraction of episodes"},
        "steps": {"value": best["steps"], "unit": "steps"},
    }
    assert str(folder) in capsys.readouterr().out.replace("\n", "")


def test_without_an_evaluation_there_is_no_best_figure(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--out", str(tmp_path / "run"), "--steps", "32", "--eval-every", "0", "--json", str(figures)]
    assert run(*arguments, *SMALL) == 0
    written = json.loads(figures.read_text())
    assert written["steps"]["value"] == 32
    assert [written[f"best_{name}"] for name in ("score", "mean_return", "success", "steps")] == [None] * 4


def test_the_oracle_scores_one_and_the_random_policy_zero(tmp_path: Path) -> None:
    config = TrainConfig("toy", eval_episodes=4)
    normalise = Normaliser(ToyTask, config, tmp_path)
    normalise(0.0)
    references = json.loads((tmp_path / "reference.json").read_text())
    again = Normaliser(lambda num_envs, training: pytest.fail("they were kept"), config, tmp_path)
    assert again(references["random_mean_return"]) == 0
    assert again(references["oracle_mean_return"]) == 1
    (tmp_path / "reference.json").write_text("{")
    with pytest.raises(RunError, match=r"got a damaged .*reference\.json: delete it"):
        Normaliser(ToyTask, config, tmp_path)(0.0)


@pytest.mark.parametrize(
    ("task", "ppo", "train_env", "eval_episodes"),
    [
        ("track", {}, {"out_of_view": 0.2}, 24),
        ("navigate", {"gamma": 0.97}, {"start_in_view": 0.8}, 24),
        ("reach", {"gamma": 0.97}, {}, 24),
        ("push", {"gamma": 0.97}, {}, 24),
        ("Pusher-v5", {"n_envs": 8, "batch_size": 256}, {}, 8),
    ],
)
def test_each_task_brings_its_preset(
    tmp_path: Path, task: str, ppo: dict[str, Any], train_env: dict[str, Any], eval_episodes: int
) -> None:
    config = make_config(Options(task), tmp_path)
    assert config == TrainConfig(task, ppo=PPOPreset(**ppo), train_env=train_env, eval_episodes=eval_episodes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "tyo"], "'toy'"),
        (["train", "toy", "--perception", "qurey"], "did you mean 'query'"),
        (["train", "toy", "--ppo", "learning_rat=1"], "did you mean 'learning_rate'"),
        (["train", "toy", "--ppo", "gamma=2"], "gamma from 0 to 1, got 2"),
        (["train", "toy", "--ppo", "gamma=high"], "expected gamma of type float, got 'high'"),
        (["train", "toy", "--ppo", "gamma"], "expected NAME=VALUE, got 'gamma'"),
        (["train", "toy", "--steps", "0"], "steps from 1"),
    ],
)
def test_wrong_arguments_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run/config.json").exists()


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("kept")
    for out, message in ((tmp_path, "is not empty"), (tmp_path / "file/run", "cannot write")):
        assert run("--out", str(out), "--steps", "32", *SMALL) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_refused_training_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even the folders above its own, or a lock in one that was there."""
    (tmp_path / "empty").mkdir()
    for out in ("new/runs/a", "empty"):
        assert run("--out", str(tmp_path / out), "--option", "heads=0", *SMALL) == 2
        assert run("--out", str(tmp_path / out), "--option", "nonsense=1", *SMALL) == 2
        assert capsys.readouterr().err.count("\n") == 2
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_there_must_be_a_training_to_go_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", str(tmp_path / "typo"), "--resume") == 2
    assert capsys.readouterr().err == (
        f"robot-attn: error: expected a run to resume in {tmp_path / 'typo'}, got no config.json: "
        "name its folder with --out, or omit --resume to start a new run\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_going_on_otherwise_names_what_differs_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert run("--out", folder, "--steps", "32", "--eval-every", "0", *SMALL) == 0
    assert run("--out", folder, "--resume", "--ppo", "gamma=0.5", "n_epochs=3") == 2
    assert capsys.readouterr().err == (
        f"robot-attn: error: expected the settings that {folder} was trained with, n_epochs = 1, "
        "gamma = 0.95, got n_epochs = 3, gamma = 0.5: leave them out to resume, or start a new run in "
        "another folder\n"
    )


class Unlearnable(gymnasium.Env[Any, Any]):
    """Frames, and actions that PPO cannot learn."""

    observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)

    def __init__(self, kind: str) -> None:
        unbounded = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        kinds = {"unbounded": unbounded, "tuple": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)])}
        self.action_space = kinds[kind]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros((32, 32, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros((32, 32, 3), np.uint8), 0.0, False, True, {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["Toy/Unlearnable-v0", "--env", "kind=unbounded"],
            "expected actions with finite bounds",
        ),
        (["Toy/Unlearnable-v0", "--env", "kind=tuple"], "expected an action space of type Box, Discrete, "),
        (
            ["toy", "--ppo", "n_envs=1", "n_steps=1"],
            "expected a rollout, n_envs x n_steps, of 2 frames",
        ),
        (["toy", "--ppo", "n_envs=64", "n_steps=1048576"], "expected a training that fits in "),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "Toy/Unlearnable-v0" not in gymnasium.registry:
        gymnasium.register("Toy/Unlearnable-v0", entry_point=Unlearnable, max_episode_steps=1)
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"robot-attn: error: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_pairs() -> None:
    assert parse_pairs(["a=1", "b=x", "c=[1, 2]", "d=null", "e=a=b"]) == {
        "a": 1, "b": "x", "c": [1, 2], "d": None, "e": "a=b",
    }  # fmt: skip


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import toy_run; toy_run.register()\n"
        "from robot_attn_scripts.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "toy", "--out", str(folder), "--steps", "1000000", *SMALL]
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / "trainer.pt").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=300)
    assert child.returncode == 130, error
    assert f"robot-attn train toy --out {folder} --resume" in out.replace("\n", " ")
    assert "Traceback" not in error
    policy, _ = load_policy(folder, "last")
    config = make_config(Options("toy", resume=True), folder)
    assert config == read_config(folder).config
    env = env_maker(config)(2, True)
    policy.predict(env.reset(seed=0)[0])
    env.close()
