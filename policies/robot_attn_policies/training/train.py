"""Train with SB3's PPO, in a loop that can be killed at any moment and resumed bit for bit."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import io
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich.console import Console
from stable_baselines3.common.logger import Logger
from torch.distributions import Distribution, Normal

from robot_attn.cores import usable_cores
from robot_attn_policies.compat.stable_baselines3 import (
    StepCallback,
    rollout_start,
    set_progress,
    set_updates_done,
    start_rollout_from,
    updates_done,
)
from robot_attn_policies.rollouts.rollout import ObservationBatch, rollout_episodes
from robot_attn_policies.sb3.policy import PerceptionPolicy, fill_policy, policy_kwargs, policy_weights
from robot_attn_policies.sb3.ppo import PerceptionPPO, TrainingInterrupted
from robot_attn_policies.sb3.sharded import Sharded
from robot_attn_policies.sb3.vec_env import BatchVecEnv
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_policies.training.progress_bar import ProgressBar
from robot_attn_policies.training.run_folder import (
    BEST,
    CONFIG,
    FORMAT,
    POLICY,
    PROGRESS,
    SCORE,
    TENSORBOARD,
    TRAINER,
    Run,
    RunError,
    as_run_error,
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

SAVE_SECONDS = 5.0
"""Shortest time between two checkpoints, s. Evaluations and stopping write a checkpoint in any case."""

MAY_CHANGE = ("steps", "stop_score")
"""Fields of a configuration that may change on resuming."""

COLUMNS = (
    "steps",
    "seconds",
    "steps_per_second",
    "episode_return",
    "episode_length",
    "episode_success",
    "eval_return",
    "eval_success",
    "eval_score",
    "learning_rate",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "std",
)
"""Columns of progress.csv. A cell is empty if the row has no such figure."""

MakeEnv = Callable[[int, bool], VectorEnv[Any, Any, Any]]
"""`make_env(num_envs, training)` makes a vector environment for training (True) or evaluation (False).

It needs SAME_STEP autoreset. With `get_state` and `set_state`, resumed training gives the same bits as
uninterrupted training.
"""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation: one episode per evaluation seed, with deterministic actions."""

    steps: int
    """Environment steps trained before the evaluation."""
    mean_return: float
    """Mean return of the episodes."""
    success: float | None
    """Fraction of successful episodes; None if the environment does not report success."""
    score: float
    """Score for `stop_score` and for the best policy: the mean return, normalised if `normalise` is given."""


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended."""

    folder: Path
    """The run folder."""
    steps: int
    """Environment steps trained."""
    seconds: float
    """Training time, summed over all resumptions, s."""
    stopped: str
    """"steps" (all done), "score" (`stop_score` reached) or "interrupted" (by a signal)."""
    best: Evaluation | None
    """The first evaluation with the highest score; None without evaluations."""
    evaluations: tuple[Evaluation, ...]
    """All evaluations in order."""


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
        console: where the progress bar is drawn; None draws none.
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
    with locked(path), stop_on_signal() as stop, _torch_settings():
        resumed = resume and (path / CONFIG).is_file()
        if resumed:
            stored = read_config(path)
            if stored.format != FORMAT:
                raise RunError(
                    f"{path} has format {stored.format}, of another version: its policies load, but its "
                    "training cannot be resumed: start a new run in another folder"
                )
            config = _merge(stored.config, config, path)
        else:
            config = replace(config, threads=config.threads or min(torch.get_num_threads(), usable_cores()))
        torch.set_num_threads(1)  # `Sharded` distributes the frames over threads instead
        keep_memory()
        training = Training(config, make_env, path, normalise, stop)
        try:
            if resumed:
                _check_spaces(stored, training, path)
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
    """The state of a training run. Between two updates, `snapshot` returns all of it.

    Args:
        config: what to train, with `threads` resolved.
        make_env: makes the environments.
        folder: the run folder, which exists and is locked.
        normalise: maps a mean return to a score; None uses the return.
        stop: returns whether to stop; asked in each step and minibatch.

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
            check_memory(self.env.observation_space, ppo)
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
        self._progress = _ProgressLog(folder)

    # ---- State ----

    def start(self) -> None:
        """Start from the beginning: reset the environments and the progress files."""
        self._begin_episodes()
        self._progress.open(0, steps=0)

    def _begin_episodes(self) -> None:
        start_rollout_from(self.model, self.env.reset(), np.ones(self.env.num_envs, bool))

    def snapshot(self) -> dict[str, Any]:
        """A copy of the state, made of tensors and plain containers only."""
        model = self.model
        observation, episode_starts = rollout_start(model)
        return {
            "format": FORMAT,
            "policy_hash": self.run.policy_hash,
            "steps": model.num_timesteps,
            "updates": updates_done(model),
            "seconds": self.seconds,
            "policy": {name: weights.clone() for name, weights in policy_weights(model.policy).items()},
            "optimizer": _copy_tree(model.policy.optimizer.state_dict()),
            "environment": {
                key: _tensor(value)
                for key, value in (self.env.get_state() if self.env.stateful else {}).items()
            },
            "observation": {key: _tensor(value) for key, value in _entries(observation).items()},
            "episode_starts": _tensor(episode_starts),
            "episodes": [
                [episode["r"], episode["l"], episode["t"]] for episode in model.ep_info_buffer or ()
            ],
            "successes": [bool(success) for success in model.ep_success_buffer or ()],
            "evaluations": [[e.steps, e.mean_return, e.success, e.score] for e in self.evaluations],
            "random": _random_state(),
            "progress_bytes": self._progress.size,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a snapshot.

        Raises:
            RunError: the snapshot does not fit the configuration.
        """
        path = self.folder / TRAINER
        model = self.model
        try:
            if state["policy_hash"] != self.run.policy_hash:
                raise ValueError("it belongs to another configuration than the folder's config.json")
            fill_policy(model.policy, state["policy"])
            model.policy.optimizer.load_state_dict(_copy_tree(state["optimizer"]))
            model.num_timesteps = int(state["steps"])
            set_updates_done(model, int(state["updates"]))
            if self.env.stateful:
                self.env.set_state({key: value.numpy() for key, value in state["environment"].items()})
                entries = {key: value.numpy().copy() for key, value in state["observation"].items()}
                start_rollout_from(
                    model,
                    entries[""] if list(entries) == [""] else entries,
                    state["episode_starts"].numpy().copy(),
                )
            else:
                # Not the seeds of the start, whose episodes were already trained on.
                self.env.seed(_seed_after(self.config.seed, model.num_timesteps))
                self._begin_episodes()
            self.seconds = float(state["seconds"])
            assert model.ep_info_buffer is not None and model.ep_success_buffer is not None
            model.ep_info_buffer.extend({"r": r, "l": length, "t": t} for r, length, t in state["episodes"])
            model.ep_success_buffer.extend(state["successes"])
            self.evaluations = [Evaluation(*row) for row in state["evaluations"]]
            self._progress.open(state["progress_bytes"], model.num_timesteps)
            _set_random_state(state["random"])  # last: the code above may use the global generators
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
        """Why training is finished, "score" or "steps"; None if it is not."""
        target, last = self.config.stop_score, self.evaluations[-1] if self.evaluations else None
        if target is not None and last is not None and last.score >= target:
            return "score"
        return "steps" if self.model.num_timesteps >= self.config.steps else None

    def loop(self, console: Console | None, save_seconds: float) -> TrainResult:
        """Update until `finished` or stopped, writing checkpoints between updates.

        Args:
            console: where the progress bar is drawn; None draws none.
            save_seconds: shortest time between two checkpoints, s.
        """
        saved, snapshot = -math.inf, self.snapshot()
        written: dict[str, Any] | None = None
        stopped = None
        with ProgressBar(console, self.config, self.model.num_timesteps) as progress_bar:
            try:
                while (stopped := self.finished()) is None:
                    evaluated = self._update()
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

    def _update(self) -> bool:
        """Collect a rollout, update, and evaluate if due. Returns whether it evaluated."""
        model, started, steps = self.model, time.monotonic(), self.model.num_timesteps
        callback = StepCallback(lambda: not self._stop())
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
        evaluation = self.evaluate()
        self.evaluations.append(evaluation)
        if self.best is evaluation:
            self._save_best(evaluation)
        figures = {"eval_return": evaluation.mean_return, "eval_score": evaluation.score}
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

    def evaluate(self) -> Evaluation:
        """Evaluate the policy on the evaluation seeds, without changing the random state of the training.

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

        before = _random_state()
        seeds = range(config.eval_seed, config.eval_seed + config.eval_episodes)
        episodes = rollout_episodes(act, self._eval_env, seeds)
        mean_return = float(episodes.returns.mean())
        evaluation = Evaluation(
            steps=self.model.num_timesteps,
            mean_return=mean_return,
            success=None if episodes.successes is None else float(episodes.successes.mean()),
            score=mean_return if self._normalise is None else float(self._normalise(mean_return)),
        )
        _set_random_state(before)
        return evaluation

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


class _ProgressLog:
    """progress.csv and the TensorBoard events: a row per update, and one for a final evaluation.

    On resuming, rows written after the checkpoint are dropped: those steps are trained again.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._events_folder = folder / PROGRESS, folder / TENSORBOARD
        self._file: BinaryIO | None = None
        self._events: Any = None
        self.size = 0
        self.row: dict[str, float] = {}
        """The last row."""

    def open(self, size: int, steps: int) -> None:
        """Open the files for appending.

        Args:
            size: bytes of progress.csv to keep; 0 starts a new file.
            steps: environment steps that those bytes cover.

        Raises:
            RunError: progress.csv is shorter, or cannot be written.
        """
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        with as_run_error(self._path):
            found = self._path.stat().st_size if self._path.exists() else 0
            if found < size:
                raise RunError(
                    f"{self._path} was truncated: expected at least {size} bytes, got {found}: restore the "
                    "original"
                )
            file = self._file = self._path.open("r+b" if found else "wb")
            file.truncate(size)
            file.seek(size)
            if size == 0:
                file.write(",".join(COLUMNS).encode() + b"\n")
                for stale in self._events_folder.glob("events.*"):
                    stale.unlink()
            self.size = file.tell()
            # TensorBoard drops earlier events of these steps: they are trained again.
            purge_step = steps + 1 if size else None
            self._events = SummaryWriter(str(self._events_folder), purge_step=purge_step)

    def add(self, steps: int, figures: Mapping[str, float]) -> None:
        """Append a row."""
        assert self._file is not None
        self.row = {"steps": steps, **figures}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writerow(
            {name: value if isinstance(value, int) else f"{value:.8g}" for name, value in self.row.items()}
        )
        with as_run_error(self._path):
            self._file.write(text.getvalue().encode())
        self.size = self._file.tell()
        with as_run_error(self._events_folder):
            for name, value in figures.items():
                self._events.add_scalar(name, value, steps)

    def flush(self) -> None:
        """Write all rows to disk."""
        assert self._file is not None
        with as_run_error(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        with as_run_error(self._events_folder):
            self._events.flush()

    def close(self) -> None:
        for file in (self._file, self._events):
            if file is not None:
                # Everything up to the last checkpoint was flushed, and a full disk was reported then.
                with contextlib.suppress(OSError):
                    file.close()


def keep_memory() -> bool:
    """Make glibc keep freed memory instead of returning it to the system, for the rest of this process.

    Every update frees and allocates the same large activations repeatedly; the page faults take a fifth of
    its time.

    Returns:
        Whether it took effect; False if the C library has no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 26))
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings)


def _distributions_check() -> bool:
    """Whether distributions check their arguments: torch has a public setter for it, but no getter."""
    try:
        Normal(0.0, -1.0)
    except ValueError:
        return True
    return False


@contextlib.contextmanager
def _torch_settings() -> Iterator[None]:
    """Restore torch's number of threads afterwards, and disable argument checks of distributions meanwhile.

    The checks take time in every minibatch; weights that became NaN are detected after every update anyway.
    """
    threads, checks = torch.get_num_threads(), _distributions_check()
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        Distribution.set_default_validate_args(checks)


def _merge(stored: TrainConfig, given: TrainConfig, folder: Path) -> TrainConfig:
    """The stored config with the `MAY_CHANGE` fields of the given one.

    Raises:
        RunError: they differ in other fields.
    """
    merged = replace(stored, **{name: getattr(given, name) for name in MAY_CHANGE})
    given = replace(given, threads=given.threads or stored.threads)
    if merged != given:
        before, now = (", ".join(changed) for changed in zip(*_differences(merged, given), strict=True))
        raise RunError(
            f"expected the settings that {folder} was trained with, {before}, got {now}: leave them out to "
            "resume, or start a new run in another folder"
        )
    return merged


def _differences(one: Any, other: Any) -> Iterator[tuple[str, str]]:
    """The fields in which two configurations differ, as "name = value" of each, those of presets included."""
    for field in fields(one):
        values = getattr(one, field.name), getattr(other, field.name)
        if values[0] != values[1]:
            if is_dataclass(values[0]):
                yield from _differences(*values)
            else:
                yield f"{field.name} = {values[0]!r}", f"{field.name} = {values[1]!r}"


def check_actions(space: spaces.Space[Any]) -> None:
    """Check that PPO supports an action space.

    Raises:
        ValueError: a Box without finite bounds, or another kind of space.
    """
    if isinstance(space, spaces.Box):
        if not space.is_bounded():
            raise ValueError(
                "expected actions with finite bounds, got a Box without: give the action space "
                "bounds, in a wrapper such as gymnasium.wrappers.TransformAction"
            )
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(
            "expected an action space of type Box, Discrete, MultiDiscrete or MultiBinary, got "
            f"{type(space).__name__}: flatten it in a wrapper of the environment"
        )


def check_memory(observations: spaces.Space[Any], ppo: PPOPreset) -> None:
    """Check that the observations of a rollout fit in the machine's memory.

    Args:
        observations: observation space of one environment.
        ppo: the preset, whose `n_envs` and `n_steps` are a rollout.

    Raises:
        ValueError: they do not fit.
    """
    entries = observations.spaces.values() if isinstance(observations, spaces.Dict) else (observations,)
    frame = sum(math.prod(entry.shape or ()) * np.dtype(entry.dtype).itemsize for entry in entries)
    required = frame * ppo.n_envs * ppo.n_steps
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if required > installed:
        raise ValueError(
            f"expected a rollout that fits in {installed / 1e9:.0f} GB of memory, got n_envs {ppo.n_envs:,} "
            f"x n_steps {ppo.n_steps:,} observations of {required / 1e9:,.0f} GB: lower n_envs or n_steps"
        )


def _check_spaces(stored: Run, training: Training, folder: Path) -> None:
    for name in ("observation_space", "action_space"):
        expected, found = getattr(stored, name), getattr(training.run, name)
        if expected != found:
            raise RunError(
                f"expected the {name} that {folder} was trained on, {expected}, got {found}: use its task"
            )


def _seed_after(seed: int, steps: int) -> int:
    """A seed for environments that start new episodes after `steps` steps of training with `seed`."""
    return int(np.random.SeedSequence((seed, steps)).generate_state(1)[0])


def _schedule(ppo: PPOPreset) -> Callable[[float], float]:
    """Learning rate as a function of the remaining fraction of the training, 1 to 0."""
    first, last = (
        ppo.learning_rate,
        ppo.learning_rate if ppo.final_learning_rate is None else ppo.final_learning_rate,
    )
    return lambda remaining: last + (first - last) * max(remaining, 0.0)


def _entries(observation: Any) -> dict[str, NDArray[Any]]:
    return observation if isinstance(observation, dict) else {"": observation}


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def _copy_tree(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _copy_tree(value) for key, value in tree.items()}
    return type(tree)(_copy_tree(value) for value in tree) if isinstance(tree, list | tuple) else tree


def _random_state() -> dict[str, Any]:
    """State of the global generators of Python, NumPy and torch."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.array(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
