"""Attention in the evaluations of a training: progress.csv, TensorBoard, and weights that do not notice."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_env import HEIGHT, WIDTH, ToyEnv

from robot_attn import AttentionMaps
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.sb3.extractor import find_extractor, perceive
from robot_attn_policies.training import progress_log
from robot_attn_policies.training.attention_log import ATTENTION_COLUMNS, EVERY, AttentionLog
from robot_attn_policies.training.run_folder import load_policy
from robot_attn_policies.training.train import train

# A constant learning rate, with which raising the steps gives the same bits.
PPO = replace(toy_training.CONFIG.ppo, final_learning_rate=None)
CONFIG = replace(toy_training.CONFIG, steps=128, eval_every=64, ppo=PPO)


class Labelled(ToyEnv):
    """The toy environment with a robot in its lowest rows and a distractor at the left."""

    thing_names = ("backdrop", "target", "robot", "occluder", "distractor 1", "distractor 2", "goal")

    def __init__(self, num_envs: int, training: bool = False) -> None:
        super().__init__(num_envs, training, masks=not training)

    def _infos(self, which: Any) -> dict[str, Any]:
        infos = super()._infos(which)
        if self.masks:
            labels = np.zeros((self.num_envs, HEIGHT, WIDTH), np.uint8)
            labels[:, -6:], labels[:, :, :5], labels[infos["target_mask"]] = 2, 5, 1
            infos |= {"things": labels, "_things": which.copy()}
        return infos

    def describe_things(self) -> list[tuple[str, ...]]:
        return [self.thing_names] * self.num_envs


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "run"
    train(CONFIG, Labelled, folder)
    return folder


def test_each_evaluation_has_its_attention_in_progress_and_tensorboard(trained: Path) -> None:
    accumulator = EventAccumulator(str(trained / "tensorboard"))
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if tag.startswith("attention/")]
    kinds = ("backdrop", "target", "robot", "occluder", "distractors", "goal")
    assert set(tags) == {*(f"attention/{kind}" for kind in kinds), "attention/best_head"}
    logged = {tag: [event.value for event in accumulator.Scalars(tag)] for tag in tags}
    np.testing.assert_allclose(np.sum([logged[f"attention/{kind}"] for kind in kinds], axis=0), 1, rtol=1e-5)
    assert logged["attention/goal"] == [0, 0]  # a name without pixels
    evaluated = [row for row in rows(trained) if row["eval_return"]]
    assert len(evaluated) == 2
    for name in ATTENTION_COLUMNS:
        assert [float(row[name]) for row in evaluated] == pytest.approx(logged[name], rel=1e-6)
    assert all(row["attention/target"] == "" for row in rows(trained) if not row["eval_return"])


def test_the_figures_equal_a_count_by_hand(trained: Path) -> None:
    policy, config = load_policy(trained, "last")
    grid = find_extractor(policy).perception_of(None).grid
    on_target, on_left, calls = [], [], 0

    def count(step: Step) -> None:
        nonlocal calls
        calls += 1
        if calls % EVERY == 1:
            attention = perceive(policy, step.observation).attention.numpy(force=True)[step.running]
            maps = AttentionMaps(attention, grid).upsampled()
            labels = step.info["things"][step.running]
            on_target.append((maps * (labels == 1)[:, None]).sum(axis=(2, 3)))
            on_left.append((maps * (labels == 5)[:, None]).sum(axis=(2, 3)))

    act = lambda observation: (policy.predict(observation, deterministic=True)[0], None)  # noqa: E731
    seeds = range(config.eval_seed, config.eval_seed + config.eval_episodes)
    rollout_episodes(act, Labelled(config.eval_episodes), seeds, on_step=count)
    last = rows(trained)[-1]
    heads = np.concatenate(on_target).mean(axis=0)
    assert float(last["attention/target"]) == pytest.approx(heads.mean(), rel=1e-5)
    assert float(last["attention/best_head"]) == pytest.approx(heads.max(), rel=1e-5)
    assert float(last["attention/distractors"]) == pytest.approx(np.concatenate(on_left).mean(), rel=1e-5)


def test_the_weights_are_those_without_labels(trained: Path, tmp_path: Path) -> None:
    train(CONFIG, lambda count, training: ToyEnv(count, training, masks=False), tmp_path / "run")
    for name in ("policy.safetensors", "best/policy.safetensors"):
        assert (trained / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert all(row[name] == "" for row in rows(tmp_path / "run") for name in ATTENTION_COLUMNS)


def test_a_run_of_an_earlier_version_goes_on_with_its_own_columns(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    earlier = tuple(name for name in progress_log.COLUMNS if name not in ATTENTION_COLUMNS)
    with monkeypatch.context() as patch:
        patch.setattr(progress_log, "COLUMNS", earlier)
        train(replace(CONFIG, steps=64), Labelled, folder)
    train(CONFIG, Labelled, folder, resume=True)
    lines = (folder / "progress.csv").read_text().splitlines()
    assert lines[0] == ",".join(earlier) and {line.count(",") for line in lines} == {len(earlier) - 1}
    scores = [row["eval_score"] for row in rows(folder)]
    assert len(scores) == 2 and scores[-1] == rows(trained)[-1]["eval_score"]
    assert (folder / "policy.safetensors").read_bytes() == (trained / "policy.safetensors").read_bytes()


def test_uniform_attention_has_no_figures() -> None:
    from robot_attn_policies.sb3.policy import PerceptionPolicy, policy_kwargs

    env = Labelled(2)
    config = replace(CONFIG, perception="cnn", options={})
    policy = PerceptionPolicy(
        env.single_observation_space, env.single_action_space, lambda _: 0.0, **policy_kwargs(config)
    )
    log = AttentionLog(policy, env)
    act = lambda observation: (policy.predict(observation, deterministic=True)[0], None)  # noqa: E731
    rollout_episodes(act, env, [1, 2], on_step=log)
    assert log.figures() == {}
