"""Training: killed, stopped and resumed runs end with the same bits, and failures keep the checkpoint."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_training
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_env import ToyEnv

from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.policy import policy_weights
from robot_attn_policies.training.checks import check_memory
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.process_settings import keep_memory
from robot_attn_policies.training.progress_bar import ProgressBar
from robot_attn_policies.training.progress_log import COLUMNS
from robot_attn_policies.training.run_folder import (
    RunError,
    load_policy,
    read_config,
    read_trainer,
    write_config,
)
from robot_attn_policies.training.train import Training, TrainResult, train

CONFIG = replace(toy_training.CONFIG, steps=320, eval_every=128)
SCRIPT = Path(toy_training.__file__)


def rows(folder: Path) -> list[dict[str, str]]:
    """progress.csv without the columns that depend on the clock."""
    with (folder / "progress.csv").open() as file:
        return [
            {k: v for k, v in row.items() if not k.startswith("seconds") and k != "steps_per_second"}
            for row in csv.DictReader(file)
        ]


def assert_same_run(found: Path, expected: Path) -> None:
    for name in ("config.json", "policy.safetensors", "best/policy.safetensors", "best/score.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert rows(found) == rows(expected)
    assert events(found) == events(expected)


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if "second" not in tag]
    # Sorted: two event files created in the same second are read in the order of their names.
    return {tag: sorted((event.step, event.value) for event in accumulator.Scalars(tag)) for tag in tags}


def stopped_at(call: int, config: TrainConfig, folder: Path) -> TrainResult:
    """Train or resume, and stop at the n-th call of `stop`."""
    calls = iter(range(1, 10**6))
    training = Training(config, ToyEnv, folder, None, lambda: next(calls) >= call)
    resumed = (folder / "trainer.pt").exists()
    write_config(folder, training.run)
    if resumed:
        training.restore(read_trainer(folder))
    else:
        training.start()
    result = training.loop(None, save_seconds=1e9)
    training.close()
    assert result.stopped == "interrupted"
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of `toy_training.py`."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    toy_training.run(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of uninterrupted training."""
    folder = tmp_path_factory.mktemp("train") / "run"
    train(CONFIG, ToyEnv, folder)
    return folder


def test_a_finished_run_folder_is_complete(finished: Path) -> None:
    assert [int(row["steps"]) for row in rows(finished)] == [64, 128, 192, 256, 320]
    assert (finished / "progress.csv").read_text().startswith(",".join(COLUMNS) + "\n")
    evaluated = [row for row in rows(finished) if row["eval_return"]]
    assert [row["steps"] for row in evaluated] == ["128", "256", "320"]  # every 128 steps, and at the end
    assert [step for step, _ in events(finished)["eval_return"]] == [128, 256, 320]
    last, config = load_policy(finished, "last")
    assert config == read_config(finished).config == CONFIG
    weights, state = policy_weights(last), read_trainer(finished)
    assert all(torch.equal(weights[name], state["policy"][name]) for name in weights)
    assert {path.name for path in finished.iterdir()} == {
        ".lock", "best", "config.json", "policy.safetensors", "progress.csv", "tensorboard", "trainer.pt",
    }  # fmt: skip


def test_the_best_policy_has_the_return_of_its_evaluation(finished: Path) -> None:
    best, config = load_policy(finished, "best")
    seeds = range(config.eval_seed, config.eval_seed + config.eval_episodes)
    returns = rollout_episodes(
        lambda observation: (best.predict(observation, deterministic=True)[0], None),
        ToyEnv(len(seeds)),
        seeds,
    ).returns
    assert max(float(row["eval_return"]) for row in rows(finished) if row["eval_return"]) == pytest.approx(
        returns.mean()
    )


def test_the_same_config_gives_the_same_bits(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # the caller's random state does not matter
    result = train(CONFIG, ToyEnv, tmp_path / "again", save_seconds=0)
    assert_same_run(tmp_path / "again", finished)
    assert result.stopped == "steps"
    assert result.steps == 320
    assert [evaluation.steps for evaluation in result.evaluations] == [128, 256, 320]


def test_evaluations_do_not_change_the_weights(finished: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, eval_every=0), ToyEnv, tmp_path / "run")
    found, expected = (policy_weights(load_policy(path, "last")[0]) for path in (tmp_path / "run", finished))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(RunError, match="load the last policy"):
        load_policy(tmp_path / "run", "best")


@pytest.mark.parametrize("call", [1, 5, 17, 19, 24, 60, 95])
def test_stopped_anywhere_and_resumed_ends_in_the_same_bits(
    finished: Path, tmp_path: Path, call: int
) -> None:
    """Stopped at the n-th call of `stop`: in a rollout, between minibatches, or in an evaluation."""
    folder = tmp_path / "run"
    torch.set_num_threads(CONFIG.threads)
    result = stopped_at(call, CONFIG, folder)
    assert result.steps % 64 == 0
    assert read_trainer(folder)["steps"] == result.steps  # saved at once
    assert train(CONFIG, ToyEnv, folder, resume=True).stopped == "steps"
    assert_same_run(folder, finished)


def test_raising_steps_gives_the_same_bits_as_setting_them_at_first(tmp_path: Path) -> None:
    config = replace(CONFIG, ppo=replace(CONFIG.ppo, final_learning_rate=None), eval_every=64)
    train(config, ToyEnv, tmp_path / "whole")
    train(replace(config, steps=192), ToyEnv, tmp_path / "run")
    train(config, ToyEnv, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_resuming_a_finished_training_changes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.safetensors")}
    result = train(CONFIG, ToyEnv, finished, resume=True)
    assert result.stopped == "steps"
    assert {path: path.read_bytes() for path in finished.rglob("*.safetensors")} == before
    assert len(rows(finished)) == 5


def test_the_final_policy_is_evaluated_after_lowering_steps(finished: Path, tmp_path: Path) -> None:
    """Stopped before its first evaluation, then resumed with no more steps than it has."""
    folder, short = tmp_path / "run", replace(CONFIG, steps=64)
    torch.set_num_threads(CONFIG.threads)
    stopped_at(24, CONFIG, folder)
    assert (read_trainer(folder)["steps"], read_trainer(folder)["evaluations"]) == (64, [])
    last = (folder / "policy.safetensors").read_bytes()
    # Stopped again, during the final evaluation.
    stopped_at(2, short, folder)
    assert not (folder / "best").exists()

    result = train(short, ToyEnv, folder, resume=True)
    assert (result.stopped, [evaluation.steps for evaluation in result.evaluations]) == ("steps", [64])
    assert (folder / "policy.safetensors").read_bytes() == last
    best, config = load_policy(folder, "best")
    assert config.steps == 64
    assert all(
        torch.equal(weights, policy_weights(load_policy(folder, "last")[0])[name])
        for name, weights in policy_weights(best).items()
    )
    evaluated = [(row["steps"], row["eval_return"] != "") for row in rows(folder)]
    assert evaluated == [("64", False), ("64", True)]
    assert [step for step, _ in events(folder)["eval_return"]] == [64]

    assert train(short, ToyEnv, folder, resume=True).evaluations == result.evaluations  # once
    assert len(rows(folder)) == 2
    more = train(CONFIG, ToyEnv, folder, resume=True)
    assert [evaluation.steps for evaluation in more.evaluations] == [64, 128, 256, 320]
    assert (folder / "policy.safetensors").read_bytes() == (finished / "policy.safetensors").read_bytes()
    assert [row for row in rows(folder) if row["policy_gradient_loss"]] == rows(finished)


def test_the_final_evaluation_may_reach_the_stop_score(tmp_path: Path) -> None:
    torch.set_num_threads(CONFIG.threads)
    stopped_at(24, CONFIG, tmp_path)
    config = replace(CONFIG, steps=64, stop_score=-1e9)
    assert train(config, ToyEnv, tmp_path, resume=True).stopped == "score"


def test_without_evaluations_there_is_no_final_one(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=64, eval_every=0)
    for resume in (False, True):
        assert train(config, ToyEnv, tmp_path, resume=resume).evaluations == ()
    assert not (tmp_path / "best").exists()


def test_killed_at_random_moments_and_resumed_ends_in_the_same_bits(whole: Path, tmp_path: Path) -> None:
    """SIGKILL, a dozen times, while every update writes a checkpoint."""
    command = [sys.executable, str(SCRIPT)]
    seed = os.environ.get("KILL_SEED", "0")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [*command, "kill", str(tmp_path / "killed"), "12", seed],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(killed.stdout) >= 3  # the number of kills that hit running training
    assert_same_run(tmp_path / "killed", whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resuming_gives_the_same_bits(
    whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, str(SCRIPT), "hold", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "config.json").exists():
        assert child.poll() is None
        time.sleep(0.005)
    (folder / "hold").touch()
    while not (folder / "trainer.pt").exists():
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(number)
    (folder / "hold").unlink()
    out, error = child.communicate(timeout=300)
    assert child.returncode == 0, error
    assert "stopped='interrupted'" in out
    steps = read_trainer(folder)["steps"]
    assert 0 < steps < toy_training.CONFIG.steps
    load_policy(folder, "last")
    toy_training.run(folder)
    assert_same_run(folder, whole)


def test_a_score_stops_training(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=256, stop_score=-1.0)
    assert (
        train(config, ToyEnv, tmp_path / "run", normalise=lambda mean_return: mean_return - 100).stopped
        == "steps"
    )
    config = replace(config, steps=10_000, stop_score=0.1)
    result = train(config, ToyEnv, tmp_path / "other", normalise=lambda mean_return: mean_return / 13)
    assert (result.stopped, result.steps) == ("score", 128)
    assert train(config, ToyEnv, tmp_path / "other", resume=True).steps == 128
    assert (
        train(replace(config, stop_score=None, steps=192), ToyEnv, tmp_path / "other", resume=True).steps
        == 192
    )


def test_a_folder_with_content_is_rejected(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not empty: continue its training with --resume"):
        train(CONFIG, ToyEnv, finished)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"not empty|cannot write"):
        train(CONFIG, ToyEnv, tmp_path / "file")
    with pytest.raises(RunError, match="cannot write"):
        train(CONFIG, ToyEnv, tmp_path / "file" / "run")


def test_training_twice_in_one_folder_at_a_time_is_rejected(tmp_path: Path) -> None:
    def make_env(num_envs: int, training: bool) -> ToyEnv:
        with pytest.raises(RunError, match="another training is writing"):
            train(CONFIG, ToyEnv, tmp_path, resume=True)
        raise KeyError  # ends the outer training

    with pytest.raises(KeyError):
        train(CONFIG, make_env, tmp_path)


def test_resuming_with_another_config_or_task_is_rejected(finished: Path) -> None:
    with pytest.raises(RunError, match="trained with, seed = 0, got seed = 1: leave them out to resume"):
        train(replace(CONFIG, seed=1), ToyEnv, finished, resume=True)
    with pytest.raises(RunError, match="use its task"):
        train(CONFIG, lambda num_envs, training: ToyEnv(num_envs, box=True), finished, resume=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "trainer.pt").unlink(), "expected a checkpoint at .*trainer.pt, got none"),
        (lambda f: os.truncate(f / "trainer.pt", 5000), "trainer.pt is damaged"),
        (lambda f: os.truncate(f / "progress.csv", 50), "progress.csv was truncated: expected at least"),
        (lambda f: (f / "config.json").write_text("{}"), "config.json: expected format 2"),
    ],
)
def test_resuming_a_damaged_folder_is_rejected(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    config = replace(CONFIG, steps=64, eval_every=0)
    train(config, ToyEnv, tmp_path / "run")
    damage(tmp_path / "run")
    policy = (tmp_path / "run/policy.safetensors").read_bytes()
    with pytest.raises(RunError, match=message):
        train(replace(config, steps=128), ToyEnv, tmp_path / "run", resume=True)
    assert (tmp_path / "run/policy.safetensors").read_bytes() == policy


def test_resuming_a_new_folder_starts_training(finished: Path, tmp_path: Path) -> None:
    train(CONFIG, ToyEnv, tmp_path / "new", resume=True)
    assert_same_run(tmp_path / "new", finished)


def test_a_full_disk_keeps_the_last_checkpoint(whole: Path, tmp_path: Path) -> None:
    """From the third rollout on, the system refuses to write more than 50 kB per file."""
    script = """
import resource, sys, signal
import toy_training, toy_env
from pathlib import Path
from robot_attn_policies.training.run_folder import RunError, load_policy, read_trainer
from robot_attn_policies.training.train import train
class Filling(toy_env.ToyEnv):
    def step(self, actions):
        if self.num_envs == 4 and self.steps == 40:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        return super().step(actions)
folder = Path(sys.argv[1])
try:
    train(toy_training.CONFIG, Filling, folder, save_seconds=0)
except RunError as error:
    print(error)
load_policy(folder, "last")
print(read_trainer(folder)["steps"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    message, steps = done.stdout.strip().split("\n")
    assert message.startswith("no space left to write")
    assert "the last checkpoint is kept, free some space and continue with --resume" in message
    assert steps == "128"
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob(".*tmp*"))
    toy_training.run(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_divergence_is_an_error_and_the_checkpoint_is_kept(tmp_path: Path) -> None:
    config = replace(
        CONFIG, ppo=PPOPreset(n_envs=2, n_steps=8, batch_size=8, learning_rate=1e3, max_grad_norm=1e9)
    )
    with pytest.raises(ValueError, match=r"training diverged: .* became NaN or infinite after"):
        train(replace(config, steps=10**6), ToyEnv, tmp_path / "run", save_seconds=0)
    if (tmp_path / "run/policy.safetensors").exists():
        policy, _ = load_policy(tmp_path / "run", "last")
        assert all(bool(torch.isfinite(weights).all()) for weights in policy_weights(policy).values())


def test_observations_with_nan_raise(tmp_path: Path) -> None:
    def make_env(num_envs: int, training: bool) -> ToyEnv:
        env = ToyEnv(num_envs)
        env.poison = (20, float("nan"))
        return env

    with pytest.raises(ValueError, match="expected finite observations"):
        train(CONFIG, make_env, tmp_path / "run")


def test_an_unknown_family_raises_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="query"):
        train(replace(CONFIG, perception="qurey"), ToyEnv, tmp_path / "run")
    assert not (tmp_path / "run/config.json").exists()


def test_threads_are_recorded_and_restored(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(replace(CONFIG, steps=64, threads=0, eval_every=0), ToyEnv, tmp_path / "run")
        assert read_config(tmp_path / "run").config.threads == 2
        torch.set_num_threads(1)
        inside = []

        def make_env(num_envs: int, training: bool) -> ToyEnv:
            inside.append(torch.get_num_threads())
            return ToyEnv(num_envs)

        train(replace(CONFIG, steps=128, threads=0, eval_every=0), make_env, tmp_path / "run", resume=True)
        assert inside == [1]  # torch's own threads; two others share an update
        assert read_config(tmp_path / "run").config.threads == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_freed_memory_is_kept_with_glibc() -> None:
    assert keep_memory() is (os.confstr("CS_GNU_LIBC_VERSION") is not None)


def test_a_snapshot_shares_nothing_with_the_training(tmp_path: Path) -> None:
    training = Training(CONFIG, ToyEnv, tmp_path, None, lambda: False)
    training.start()
    progress_bar = ProgressBar(None, CONFIG, 0)
    training._update(progress_bar)
    snapshot = training.snapshot()
    kept = {name: value.clone() for name, value in tensors(snapshot).items()}
    training._update(progress_bar)
    training.close()
    for name, value in tensors(snapshot).items():
        assert torch.equal(value, kept[name]), name
    moved = [
        name for name, value in tensors(training.snapshot()).items() if not torch.equal(value, kept[name])
    ]
    assert any(name.startswith("/optimizer/state") for name in moved)
    assert any(name.startswith("/environment") for name in moved)
    assert any(name.startswith("/observation") for name in moved)
    assert "/random/torch" in moved
    assert (
        "/random/numpy/1" in moved
        or training.snapshot()["random"]["numpy"][2] != snapshot["random"]["numpy"][2]
    )


def tensors(tree: Any, path: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    pairs = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    )
    return {name: value for key, node in pairs for name, value in tensors(node, f"{path}/{key}").items()}


def test_training_and_evaluation_have_separate_environments(tmp_path: Path) -> None:
    calls: list[tuple[int, bool]] = []

    def make_env(num_envs: int, training: bool) -> ToyEnv:
        calls.append((num_envs, training))
        return ToyEnv(num_envs, training)

    train(CONFIG, make_env, tmp_path / "run")
    assert calls == [(CONFIG.ppo.n_envs, True), (CONFIG.eval_episodes, False)]


def test_memory_is_that_of_the_rollout_a_minibatch_and_the_weights() -> None:
    space = spaces.Dict(
        left=spaces.Box(0, 255, (3, 48, 64), np.uint8),
        depth=spaces.Box(0, 9, (1, 32, 40), np.float32),
        state=spaces.Box(-1, 1, (2,), np.float64),
    )
    config = TrainConfig("track", perception="query", ppo=PPOPreset(n_envs=5, n_steps=7, batch_size=11))
    weights = sum(each.numel() for each in PerceptionExtractor(space, "query").parameters())
    pixels, depth = 3 * 48 * 64, 32 * 40
    needed = 35 * (pixels + 4 * depth + 8 * 2) + 11 * 4 * (pixels + depth + 2) + 16 * weights
    check_memory(space, config, available=needed)
    with pytest.raises(ValueError, match=r"n_envs 5 x n_steps 7 .*batch_size of 11.*weights of 'query'"):
        check_memory(space, config, available=needed - 1)
    large = spaces.Box(0, 255, (3, 2048, 2048), np.uint8)
    with pytest.raises(ValueError, match=r"33\.3 GB for the weights of 'cnn'"):
        check_memory(large, replace(config, perception="cnn"), available=8e9)
