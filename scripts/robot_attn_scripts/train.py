"""Train a policy from camera frames in simulation."""

from __future__ import annotations

import json as jsonlib
import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv
from rich.console import Console

from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor, rollout_episodes
from robot_attn_policies.training.presets import PPOPreset, TrainConfig, task_preset
from robot_attn_policies.training.run_folder import CONFIG, RunError, read_config, write_json
from robot_attn_policies.training.train import MakeEnv, TrainResult, train
from robot_attn_scripts import _loaded_run, _report
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts._tasks import env_id, make_batch, steps_many, training_of, with_masks
from robot_attn_scripts.options.train import Options, changed_preset

REFERENCE = "reference.json"
"""File in the run folder with the mean returns of the random policy and of the oracle, on the evaluation
seeds of training."""

ONE_BY_ONE, ONE_BY_ONE_EPISODES = PPOPreset(n_envs=8, batch_size=256), 8
"""Preset and number of evaluation episodes if environments are stepped one by one. They are few, as each may
have an OpenGL context, which takes about 0.1 GB."""


def run(options: Options) -> dict[str, object]:
    """Train, print the run folder and the best score, and return the figures.

    Raises:
        ValueError: a task, family or option is unknown, or the folder cannot be written or resumed.
        KeyboardInterrupt: interrupted, after the checkpoint was written. The command to resume is printed.
    """
    console = Console()
    _loaded_run.import_modules(options.module)
    folder = options.folder
    config = make_config(options, folder)
    make_env = env_maker(config)
    with closing(make_env(1, False)) as env:
        scored = _loaded_run.has_oracle(env)
    normalise = Normaliser(make_env, config, folder) if scored else None
    result = train(config, make_env, folder, resume=options.resume, normalise=normalise, console=console)
    if result.stopped == "interrupted":
        own = config.perception.rpartition(":")[0]
        modules = dict.fromkeys([*options.module, *([own] if own else [])])
        arguments = ["robot-attn", "train", options.task, "--out", str(folder), "--resume"]
        command = shlex.join([*arguments, *(["--module", *modules] if modules else [])])
        console.print(
            f"stopped and saved after {result.steps:,} steps; resume with:\n  {command}", soft_wrap=True
        )
        raise KeyboardInterrupt
    figures = figures_of(result, "reward an episode" if normalise is None else "0 random, 1 oracle")
    message = f"trained {result.steps:,} steps in {result.seconds:,.0f} s: {folder}"
    if result.best is not None:
        name = "mean return" if normalise is None else "score"
        message += f"\nbest {name} {result.best.score:.3f}, after {result.best.steps:,} steps"
    console.print(message, soft_wrap=True)
    if options.json is not None:
        _report.write_json(options.json, figures)
    return figures


def make_config(options: Options, folder: Path) -> TrainConfig:
    """Make the configuration of a training.

    Args:
        options: options of the command. When resuming, they change the stored configuration.
        folder: run folder.

    Raises:
        ValueError: the task or a field is unknown, or a value has the wrong type.
    """
    env_id(options.task)  # raises for an unknown task before anything is created
    if options.resume and (folder / CONFIG).is_file():
        stored = read_config(folder).config
        start, preset = stored, stored.ppo
        _check_named(stored.perception, options, folder)
    else:
        many = steps_many(options.task)
        own = task_preset(training_of(options.task), None if many else ONE_BY_ONE)
        start, preset = TrainConfig(options.task, train_env=own.train_env), own.ppo
        if not many:
            start = replace(start, eval_episodes=ONE_BY_ONE_EPISODES)
    changes = options.given()
    for name, pairs, before in (("options", options.option, start.options), ("env", options.env, start.env)):
        changes[name] = {**before, **parse_pairs(pairs)}
    changes["ppo"] = changed_preset(preset, options.ppo)
    return replace(start, **changes)


def _check_named(perception: str, options: Options, folder: Path) -> None:
    """Check that the options name a perception of another module too: importing it runs its code.

    Raises:
        ValueError: only the run folder names it.
    """
    module, colon, _ = perception.partition(":")
    if colon and perception != options.perception and module not in options.module:
        raise ValueError(
            f"the perception of {folder} is {perception!r}, and importing {module!r} runs its code: if you "
            f"trust it, add --module {module}"
        )


def env_maker(config: TrainConfig) -> MakeEnv:
    """Return a function that creates batches of environments, for training or for evaluation."""

    def make(num_envs: int, training: bool) -> VectorEnv[Any, Any, Any]:
        # Masks and labels of evaluations show what the policy attends to as it learns.
        options = {**config.env, **config.train_env} if training else with_masks(config.task, config.env)
        return make_batch(config.task, options, num_envs)

    return make


class Normaliser:
    """Normalise a mean return on the evaluation seeds: 0 is the random policy, 1 the scripted oracle.

    Both baselines are measured once, at the first call, and saved to the run folder.

    Args:
        make_env: creates a batch of environments.
        config: configuration of the training.
        folder: run folder.
    """

    def __init__(self, make_env: MakeEnv, config: TrainConfig, folder: Path) -> None:
        self._make_env, self._config, self._path = make_env, config, folder / REFERENCE
        self._references: tuple[float, float] | None = None

    def __call__(self, mean_return: float) -> float:
        if self._references is None:
            self._references = self._read() or self._measure()
        random, oracle = self._references
        return (mean_return - random) / (oracle - random)

    def _seeds(self) -> Mapping[str, int]:
        return {"first_seed": self._config.eval_seed, "episodes": self._config.eval_episodes}

    def _read(self) -> tuple[float, float] | None:
        if not self._path.is_file():
            return None
        try:
            data = jsonlib.loads(self._path.read_bytes())
            found = float(data["random_mean_return"]), float(data["oracle_mean_return"])
            same = {name: data[name] for name in self._seeds()} == self._seeds()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"expected the returns of the baselines, got a damaged {self._path}: delete it, and they are "
                "measured again"
            ) from error
        return found if same and found[0] < found[1] else None

    def _measure(self) -> tuple[float, float]:
        config = self._config
        env = self._make_env(config.eval_episodes, False)
        try:
            seeds = range(config.eval_seed, config.eval_seed + config.eval_episodes)
            space: Any = env.action_space
            actors = (random_actor(space, config.eval_seed), oracle_actor(env))
            random, oracle = (float(rollout_episodes(act, env, seeds).returns.mean()) for act in actors)
        finally:
            env.close()
        if oracle <= random:
            raise ValueError(
                f"expected a mean return of the oracle above the random policy's, {random:.3f}, got "
                f"{oracle:.3f}: check its oracle_actions"
            )
        references = {"random_mean_return": random, "oracle_mean_return": oracle}
        write_json(self._path, {**references, **self._seeds()})
        return random, oracle


def figures_of(result: TrainResult, score_unit: str) -> dict[str, object]:
    """Make the JSON of a training. Figures of the best checkpoint are null without an evaluation."""
    best = result.best

    def of_best(name: str, unit: str) -> dict[str, object] | None:
        value = None if best is None else getattr(best, name)
        return None if value is None else _report.figure(value, unit)

    return {
        "steps": _report.figure(result.steps, "steps"),
        "time": _report.figure(result.seconds, "s"),
        "stopped": result.stopped,
        "best_score": of_best("score", score_unit),
        "best_mean_return": of_best("mean_return", "reward an episode"),
        "best_success": of_best("success", "fraction of episodes"),
        "best_steps": of_best("steps", "steps"),
        "folder": str(result.folder),
    }
