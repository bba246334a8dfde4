"""Options of `robot-attn train`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from robot_attn_policies.training import presets
from robot_attn_policies.training.presets import PPOPreset, TrainConfig
from robot_attn_scripts import _choices
from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts._report import check_folder
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import (
    CONFIG,
    Checked,
    Modules,
    Pairs,
    check_pairs,
    check_seeds,
    default,
)


@dataclass(frozen=True)
class Policy:
    """Task, perception family and seed."""

    task: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            metavar="TASK",
            help=f"Task to train on: {', '.join(_choices.tasks())}; or the id of any Gymnasium environment, "
            "such as Reacher-v5; or module:id, if importing the module registers it.",
        ),
    ]
    perception: Annotated[
        str | None,
        default(
            TrainConfig.perception,
            metavar="FAMILY",
            help=f"Perception family: {', '.join(_choices.families())}, or module:Class.",
        ),
    ] = None
    option: Pairs = ()
    """Options of the perception family, such as num_heads=4."""
    seed: Annotated[int | None, default(str(TrainConfig.seed))] = None
    """Random seed of the weights, the environments and the minibatches."""
    module: Modules = ()
    """Modules to import first, such as one that registers a family, a task or a shift. Their code runs."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Budget and PPO. When resuming, options that are not given keep the run folder's values."""

    steps: Annotated[int | None, default(f"{TrainConfig.steps:,}")] = None
    """Environment steps to train for, rounded up to whole rollouts."""
    ppo: Annotated[tuple[str, ...], default("the task's preset", metavar="NAME=VALUE ...")] = ()
    """PPO hyperparameters to change from the preset, such as learning_rate=3e-4."""
    threads: Annotated[int | None, default("one for each core")] = None
    """Threads that share a PPO update. The result's last bits depend on their number."""
    resume: bool = False
    """Resume from the last checkpoint; on our tasks the result equals an uninterrupted run bit for bit."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluations during training."""

    eval_every: Annotated[int | None, default(f"{TrainConfig.eval_every:,}")] = None
    """Environment steps between two evaluations on fixed seeds; 0 for no evaluation."""
    eval_episodes: Annotated[
        int | None, default(f"{TrainConfig.eval_episodes}, or 8 where environments are stepped one by one")
    ] = None
    """Episodes in each evaluation."""
    stop_score: Annotated[float | None, default("train for all steps")] = None
    """Stop early at this evaluation score (0 random, 1 oracle), or mean return if there is no oracle."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Environment options."""

    env: Pairs = ()
    """Options of the environment, such as distractors=14."""


@dataclass(frozen=True, kw_only=True)
class Output(_groups.Output):
    """Output files."""

    out: Annotated[Path | None, default("runs/TASK/FAMILY-SEED")] = None
    """Run folder; it must be new or empty unless resuming."""


@dataclass(frozen=True)
class Options(Policy, Training, Evaluation, Scene, Output, Checked):
    """Train a policy from camera frames in simulation."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        name = f"{self.perception or TrainConfig.perception}-{self.seed or TrainConfig.seed}"
        return self.out or Path("runs") / self.task / name

    def check(self) -> None:
        if self.perception is not None and ":" not in self.task and not self.module:
            _choices.check_name("perception family", self.perception, _choices.families(), owner="robot_attn")
        check_seeds(self.seed)
        check_pairs(self.option, self.env)
        changed_preset(PPOPreset(), self.ppo)
        TrainConfig(**self.given())  # validates the range of each

    def given(self) -> dict[str, Any]:
        """The options that were given and that are fields of `TrainConfig` by the same name."""
        shared = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(self)}
        return {name: getattr(self, name) for name in shared - {"env"} if getattr(self, name) is not None}

    def files(self) -> list[Path]:
        # The figures of a resumed training include those that it had before.
        return [] if self.resume else super().files()

    def check_files(self) -> None:
        super().check_files()
        if self.resume and not (self.folder / CONFIG).is_file():
            raise ValueError(
                f"expected a run to resume in {self.folder}, got no {CONFIG}: name its "
                "folder with --out, or omit --resume to start a new run"
            )
        check_folder(self.folder)
        if ":" not in self.task and not self.module and self.task not in _choices.tasks():
            # Imports Gymnasium, whose registry has the other ids.
            from robot_attn_scripts._tasks import env_id

            env_id(self.task)


def changed_preset(preset: PPOPreset, pairs: tuple[str, ...]) -> PPOPreset:
    """Return a preset with the fields in `pairs` changed.

    Args:
        preset: the preset to start from; it is not modified.
        pairs: NAME=VALUE for each field to change.

    Raises:
        ValueError: a field is unknown, or its value has the wrong type or is out of range.
    """
    changes = parse_pairs(pairs)
    known = [field.name for field in fields(PPOPreset)]
    for name in changes:
        _choices.check_name("field of the PPO preset", name, known, owner="")
    return presets.changed_preset(preset, changes)
