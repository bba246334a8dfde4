"""Train with SB3's PPO, in a loop that can be killed at any moment and resumed bit-identically."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich.console import Console
from stable_baselines3.common.logger import Logger

from robot_attn.cores import usable_cores
from robot_attn_policies.compat.stable_baselines3 import (
    StepCallback,
    set_progress,
)
from robot_attn_policies.rollouts.actor import ObservationBatch
from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.sb3.policy import PerceptionPolicy, policy_kwargs, policy_weights
from robot_attn_policies.sb3.ppo import PerceptionPPO, TrainingInterrupted
from robot_attn_policies.sb3.sharded import Sharded
from robot_attn_policies.sb3.vec_env import BatchVecEnv
from robot_attn_policies.training.attention_log import AttentionLog
from robot_attn_policies.training.checks import check_actions, check_memory, check_spaces, merge_config
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.process_settings import keep_memory, torch_settings
from robot_attn_policies.training.progress_bar import ProgressBar
from robot_attn_policies.training.progress_log import ProgressLog
from robot_attn_policies.training.run_folder import (
    BEST,
    CONFIG,
    FORMAT,
    POLICY,
    SCORE,
    TRAINER,
    Run,
    RunError,
    describe_run,
    is_unused,
    locked,
    read_config,
    read_trainer,
    write_config,
    write_json,
    write_policy,
    write_trainer,
)
from robot_attn_policies.training.stop import stop_on_signal
from robot_attn_policies.training.trainer_state import (
    begin_episodes,
    model_state,
    random_state,
    restore_model,
    set_random_state,
)

SAVE_SECONDS = 5.0
"""Shortest time between two checkpoints, s. Evaluations and stopping write a checkpoint in any case."""

MakeEnv = Callable[[int, bool], VectorEnv[Any, Any, Any]]
"""`make_env(num_envs, training)` makes a vector environment for training (True) or evaluation (False).

It needs SAME_STEP autoreset. With `get_state` and `set_state`, resumed training gives the same bits as
uninterrupted training.
"""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation: one episode per evaluation seed, with deterministic actions.

    Attributes:
        steps: environment steps trained before the evaluation.
        mean_return: mean return of the episodes.
        success: fraction of successful episodes; None if the environment does not report success.
        score: score for `stop_score` and for the best policy: the mean return, normalised if `normalise` is
            given.
    """

    steps: int
    mean_return: float
    success: float | None
    score: float


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    Attributes:
        folder: the run folder.
        steps: environment steps trained.
        seconds: training time, summed over all resumptions, s.
        stopped: "steps" (all done), "score" (`stop_score` reached) or "interrupted" (by a signal).
        best: the first evaluation with the highest score; None without evaluations.
        evaluations: all evaluations in order.
    """

    folder: Path
    steps: int
    seconds: float
    stopped: str
    best: Evaluation | None
    evaluations: tuple[Evaluation, ...]


def train(
    config: TrainConfig,
    make_env: MakeEnv,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    normalise: Callable[[float], float] | None = None,
    console: Console | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> TrainResult:
    """Train a policy into a run folder.

    The result depends only on `config` and `make_env`. Training that was killed at any moment and resumed
    ends with the same weights, bit for bit, as uninterrupted training on the same machine and libraries. The
    exception are environments without `get_state` and `set_state`: on resuming they start new episodes.

    SIGINT (Ctrl-C) and SIGTERM save a checkpoint and return with `stopped="interrupted"`. A second signal
    ends the process at once.

    Args:
        config: what to train. On resuming, the folder's own config is used, and this one may differ from it
            in `steps` and `stop_score` only.
        make_env: called with `config.ppo.n_envs` and True for the training environments, and with
            `config.eval_episodes` and False for separate evaluation environments.
        folder: the run folder; new or empty, unless resuming.
        resume: continue from the folder's last checkpoint, or from the start if it has none yet.
        normalise: maps a mean return to the score of `stop_score` and of the best policy.
        console: console for the progress bar; None for no progress bar.
        save_seconds: shortest time between two checkpoints, s.

    Returns:
        How the training run ended.

    Raises:
        RunError: the folder is in use, not empty, damaged or not writable, or belongs to another config. The
            last good checkpoint is kept.
        ValueError: a perception, an option or an observation that cannot be used, or weights that became NaN.
    """
    path = Path(folder)
    if not resume and not is_unused(path):
        raise RunError(
            f"expected a new or empty folder, {path} is not empty: continue its training with --resume, or "
            "name another folder"
        )
    with locked(path), stop_on_signal() as stop, torch_settings():
        resumed = resume and (path / CONFIG).is_file()
        if resumed:
            stored = read_config(path)
            if stored.format != FORMAT:
                raise RunError(
                    f"{path} has format {stored.format}, of another version: its policies load, but its "
                    "training cannot be resumed: start a new run in another folder"
                )
            config = merge_config(stored.config, config, path)
        else:
            config = replace(config, threads=config.threads or min(torch.get_num_threads(), usable_cores()))
        torch.set_num_threads(1)  # `Sharded` distributes the frames over threads instead
        keep_memory()
        training = Training(config, make_env, path, normalise, stop)
        try:
            if resumed:
                check_spaces(stored, training.run, path)
            if not resumed or config != stored.config:
                write_config(path, training.run)
            # Training that was killed before its first checkpoint left neither file: start over.
            if resumed and ((path / TRAINER).is_file() or (path / POLICY).is_file()):
                training.restore(read_trainer(path))
                if not training.env.stateful and console is not None:
                    console.print(
                        "the environments cannot restore their state and start new episodes: the result will "
                        "differ from that of uninterrupted training",
                        soft_wrap=True,
                    )
            else:
                training.start()
            return training.loop(console, save_seconds)
        finally:
            training.close()


class Training:
    """A training run: its algorithm, environments, evaluations and files.

    Between two updates, `snapshot` returns its complete state.

    Args:
        config: what to train, with `threads` resolved.
        make_env: makes the environments.
        folder: the run folder, which exists and is locked.
        normalise: maps a mean return to a score; None uses the return.
        stop: returns whether to stop; called in each step and minibatch.

    Attributes:
        config: as given.
        folder: as given.
        env: the training environments.
        model: SB3's algorithm.
        sharded: the threads that share an update; None with one thread.
        run: the content of config.json.
        evaluations: all evaluations in order.
        seconds: training time, summed over all resumptions, s.
    """

    def __init__(
        self,
        config: TrainConfig,
        make_env: MakeEnv,
        folder: Path,
        normalise: Callable[[float], float] | None,
        stop: Callable[[], bool],
    ) -> None:
        self.config, self.folder = config, folder
        self._make_env, self._normalise, self._stop = make_env, normalise, stop
        ppo = config.ppo
        self.env = BatchVecEnv(make_env(ppo.n_envs, True), channels_first=True)
        try:
            check_actions(self.env.action_space)
            check_memory(self.env.observation_space, config)
        except ValueError:
            self.env.close()
            raise
        self._eval_env: VectorEnv[Any, Any, Any] | None = None
        self.sharded: Sharded | None = None
        self.model = PerceptionPPO(
            PerceptionPolicy,
            self.env,
            learning_rate=_schedule(ppo),
            n_steps=ppo.n_steps,
            **ppo.update_arguments(),
            policy_kwargs=policy_kwargs(config),
            seed=config.seed,
            device="cpu",
        )
        self.model.stop = stop
        if config.threads > 1:
            self.sharded = Sharded(config.threads)
            cast(PerceptionPolicy, self.model.policy).sharded = self.sharded
        self.model.set_logger(Logger(None, []))
        self.model.ep_info_buffer = deque(maxlen=100)
        self.model.ep_success_buffer = deque(maxlen=100)
        renderer = (self.env.env.metadata or {}).get("renderer")
        self.run: Run = describe_run(config, self.env.observation_space, self.env.action_space, renderer)
        self.evaluations: list[Evaluation] = []
        self.seconds = 0.0
        self._progress = ProgressLog(folder)

    # ---- State ----

    def start(self) -> None:
        """Start from the beginning: reset the environments and the progress files."""
        begin_episodes(self.model, self.env)
        self._progress.open(0, steps=0)

    def snapshot(self) -> dict[str, Any]:
        """Copy the state, as tensors and plain containers only."""
        return {
            "format": FORMAT,
            "policy_hash": self.run.policy_hash,
            "seconds": self.seconds,
            "evaluations": [[e.steps, e.mean_return, e.success, e.score] for e in self.evaluations],
            "progress_bytes": self._progress.size,
            **model_state(self.model, self.env),
            "random": random_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a snapshot.

        Raises:
            RunError: the snapshot does not fit the configuration.
        """
        path = self.folder / TRAINER
        try:
            if state["policy_hash"] != self.run.policy_hash:
                raise ValueError("it belongs to another configuration than the folder's config.json")
            restore_model(self.model, self.env, state, self.config.seed)
            self.seconds = float(state["seconds"])
            self.evaluations = [Evaluation(*row) for row in state["evaluations"]]
            self._progress.open(state["progress_bytes"], self.model.num_timesteps)
            set_random_state(state["random"])  # last: the code above may use the global generators
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"cannot resume from {path}: {error}: start a new run in another folder"
            ) from error

    # ---- Loop ----

    @property
    def best(self) -> Evaluation | None:
        """The first evaluation with the highest score; None without evaluations."""
        return max(self.evaluations, key=lambda evaluation: evaluation.score, default=None)

    def finished(self) -> str | None:
        """Return why training is finished, "score" or "steps"; None if it is not."""
        target, last = self.config.stop_score, self.evaluations[-1] if self.evaluations else None
        if target is not None and last is not None and last.score >= target:
            return "score"
        return "steps" if self.model.num_timesteps >= self.config.steps else None

    def loop(self, console: Console | None, save_seconds: float) -> TrainResult:
        """Update until `finished` or stopped, writing checkpoints between updates.

        Args:
            console: console for the progress bar; None for no progress bar.
            save_seconds: shortest time between two checkpoints, s.
        """
        saved, snapshot = -math.inf, self.snapshot()
        written: dict[str, Any] | None = None
        stopped = None
        with ProgressBar(console, self.config, self.model.num_timesteps) as progress_bar:
            try:
                while (stopped := self.finished()) is None:
                    evaluated = self._update(progress_bar)
                    snapshot = self.snapshot()
                    progress_bar.show(self.model.num_timesteps, self._progress.row)
                    if evaluated or time.monotonic() - saved >= save_seconds:
                        self._save(snapshot)
                        saved, written = time.monotonic(), snapshot
                if stopped == "steps" and self._lacks_final_evaluation():
                    self._evaluate_final()
                    snapshot, stopped = self.snapshot(), self.finished() or stopped
            except TrainingInterrupted:
                stopped = "interrupted"
            # The current weights may be from the middle of an update: save the last boundary instead.
            if written is not snapshot:
                self._save(snapshot)
        return TrainResult(
            self.folder, snapshot["steps"], snapshot["seconds"], stopped, self.best, tuple(self.evaluations)
        )

    def _update(self, progress_bar: ProgressBar) -> bool:
        """Collect a rollout, update, and evaluate if due. Returns whether it evaluated."""
        model, started, steps = self.model, time.monotonic(), self.model.num_timesteps

        def on_step() -> bool:
            rate = (model.num_timesteps - steps) / max(time.monotonic() - started, 1e-9)
            progress_bar.collect(model.num_timesteps, rate)
            return not self._stop()

        callback = StepCallback(on_step)
        callback.init_callback(model)
        if not model.collect_rollouts(self.env, callback, model.rollout_buffer, model.n_steps):
            raise TrainingInterrupted
        set_progress(model, model.num_timesteps, self.config.steps)
        model.train()
        for name, weights in policy_weights(model.policy).items():
            if not bool(torch.isfinite(weights).all()):
                raise ValueError(
                    f"training diverged: {name} became NaN or infinite after {model.num_timesteps} steps: "
                    "the last checkpoint is kept, lower learning_rate or raise batch_size"
                )
        trained = time.monotonic() - started
        figures = {name.removeprefix("train/"): value for name, value in model.logger.name_to_value.items()}
        model.logger.name_to_value.clear()
        if model.ep_info_buffer:
            figures["episode_return"] = float(np.mean([episode["r"] for episode in model.ep_info_buffer]))
            figures["episode_length"] = float(np.mean([episode["l"] for episode in model.ep_info_buffer]))
        if model.ep_success_buffer:
            figures["episode_success"] = float(np.mean(model.ep_success_buffer))
        every = self.config.eval_every
        due = bool(every) and (
            steps // every < model.num_timesteps // every or model.num_timesteps >= self.config.steps
        )
        if due:
            figures |= self._evaluate_and_keep_best()
        self.seconds += time.monotonic() - started
        figures["seconds"] = self.seconds
        figures["steps_per_second"] = (model.num_timesteps - steps) / trained
        self._progress.add(model.num_timesteps, figures)
        return due

    def _evaluate_and_keep_best(self) -> dict[str, float]:
        """Evaluate, save the policy if it is the best so far, and return the figures for progress.csv."""
        evaluation, attention = self.evaluate()
        self.evaluations.append(evaluation)
        if self.best is evaluation:
            self._save_best(evaluation)
        figures = {"eval_return": evaluation.mean_return, "eval_score": evaluation.score, **attention}
        return figures if evaluation.success is None else {**figures, "eval_success": evaluation.success}

    def _lacks_final_evaluation(self) -> bool:
        """Whether the final policy was not evaluated: training stopped early, then `steps` was lowered."""
        last = self.evaluations[-1].steps if self.evaluations else -1
        return self.config.eval_every > 0 and last < self.model.num_timesteps

    def _evaluate_final(self) -> None:
        started = time.monotonic()
        figures = self._evaluate_and_keep_best()
        self.seconds += time.monotonic() - started
        # In a separate row: the update's row is written already, and the checkpoint counts its bytes.
        self._progress.add(self.model.num_timesteps, {**figures, "seconds": self.seconds})

    def evaluate(self) -> tuple[Evaluation, dict[str, float]]:
        """Evaluate the policy on the evaluation seeds, without changing the random state of the training.

        Returns:
            The evaluation, and what the policy attended to (`AttentionLog.figures`).

        Raises:
            TrainingInterrupted: `stop` returned True.
        """
        config, policy = self.config, self.model.policy
        if self._eval_env is None:
            self._eval_env = self._make_env(config.eval_episodes, False)

        def act(observation: ObservationBatch) -> tuple[NDArray[Any], None]:
            if self._stop():
                raise TrainingInterrupted
            return policy.predict(cast(Any, observation), deterministic=True)[0], None

        before = random_state()
        seeds = range(config.eval_seed, config.eval_seed + config.eval_episodes)
        attention = AttentionLog(policy, self._eval_env)
        episodes = rollout_episodes(act, self._eval_env, seeds, on_step=attention)
        mean_return = float(episodes.returns.mean())
        evaluation = Evaluation(
            steps=self.model.num_timesteps,
            mean_return=mean_return,
            success=None if episodes.successes is None else float(episodes.successes.mean()),
            score=mean_return if self._normalise is None else float(self._normalise(mean_return)),
        )
        set_random_state(before)
        return evaluation, attention.figures()

    # ---- Files ----

    def _save(self, snapshot: Mapping[str, Any]) -> None:
        self._progress.flush()
        write_trainer(self.folder, snapshot)
        write_policy(self.folder / POLICY, snapshot["policy"], self.run, steps=snapshot["steps"])

    def _save_best(self, evaluation: Evaluation) -> None:
        folder = self.folder / BEST
        write_policy(folder / POLICY, policy_weights(self.model.policy), self.run, steps=evaluation.steps)
        write_json(
            folder / SCORE,
            {
                "steps": evaluation.steps,
                "score": evaluation.score,
                "mean_return": evaluation.mean_return,
                "success": evaluation.success,
                "episodes": self.config.eval_episodes,
                "first_seed": self.config.eval_seed,
            },
        )

    def close(self) -> None:
        """Close environments and files."""
        self._progress.close()
        self.env.close()
        if self._eval_env is not None:
            self._eval_env.close()
        if self.sharded is not None:
            self.sharded.close()


def _schedule(ppo: PPOPreset) -> Callable[[float], float]:
    """Learning rate as a function of the remaining fraction of the training, 1 to 0."""
    first, last = (
        ppo.learning_rate,
        ppo.learning_rate if ppo.final_learning_rate is None else ppo.final_learning_rate,
    )
    return lambda remaining: last + (first - last) * max(remaining, 0.0)
