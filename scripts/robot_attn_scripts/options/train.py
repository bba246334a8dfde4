"""What `robot-attn train` takes."""

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
from robot_attn_scripts.options._groups import (
    CONFIG,
    Checked,
    Modules,
    Output,
    Pairs,
    check_pairs,
    check_seeds,
    default,
)


@dataclass(frozen=True)
class Policy:
    """What is trained, and what for."""

    task: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            metavar="TASK",
            help=f"Task to train on: {', '.join(_choices.tasks())}; or the id of any environment of "
            "Gymnasium, such as Reacher-v5; or module:id where importing a module registers it.",
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
    """Modules to import first, such as one that registers a family, a task or a shift: their code runs."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, and how; when resuming, what is not given is the run folder's."""

    steps: Annotated[int | None, default(f"{TrainConfig.steps:,}")] = None
    """Environment steps to train for, rounded up to whole rollouts."""
    ppo: Annotated[tuple[str, ...], default("the task's preset", metavar="NAME=VALUE ...")] = ()
    """Fields of the PPO preset to change, such as learning_rate=3e-4."""
    threads: Annotated[int | None, default("one a core")] = None
    """Threads that share an update, on which the bits of a result depend."""
    resume: bool = False
    """Go on from the run folder's last checkpoint, on our tasks to the bits of a training never stopped."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the policy is scored while it trains."""

    eval_every: Annotated[int | None, default(f"{TrainConfig.eval_every:,}")] = None
    """Environment steps between two evaluations on fixed seeds; 0 for none."""
    eval_episodes: Annotated[
        int | None, default(f"{TrainConfig.eval_episodes}, or 8 where environments are stepped one by one")
    ] = None
    """Episodes of such an evaluation."""
    stop_score: Annotated[float | None, default("train to the end")] = None
    """Stop once an evaluation's score (0 random, 1 oracle) reaches this; without an oracle, its return."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What it is trained in."""

    env: Pairs = ()
    """Options of the environment, such as distractors=14."""


@dataclass(frozen=True, kw_only=True)
class Folder(Output):
    """Where results go."""

    out: Annotated[Path | None, default("runs/TASK/FAMILY-SEED")] = None
    """Run folder, new or empty unless resuming."""


@dataclass(frozen=True)
class Options(Policy, Training, Evaluation, Scene, Folder, Checked):
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
        TrainConfig(**self.given())  # which knows the range of each

    def given(self) -> dict[str, Any]:
        """The options that were given and are fields of a `TrainConfig` of the same name."""
        shared = {field.name for field in fields(TrainConfig)} & {field.name for field in fields(self)}
        return {name: getattr(self, name) for name in shared - {"env"} if getattr(self, name) is not None}

    def check_files(self) -> None:
        super().check_files()
        if self.resume and not (self.folder / CONFIG).is_file():
            raise ValueError(
                f"expected a training to go on with in {self.folder}, found no {CONFIG}: name its "
                "folder with --out, or leave --resume out to start a new one"
            )
        check_folder(self.folder)
        if ":" not in self.task and not self.module and self.task not in _choices.tasks():
            from robot_attn_scripts._tasks import env_id  # with Gymnasium, which alone knows all of its ids

            env_id(self.task)


def changed_preset(preset: PPOPreset, pairs: tuple[str, ...]) -> PPOPreset:
    """A preset with the fields changed that `pairs` name.

    Raises:
        ValueError: an unknown field, or a value of another type or out of its range.
    """
    changes = parse_pairs(pairs)
    known = [field.name for field in fields(PPOPreset)]
    for name in changes:
        _choices.check_name("field of the PPO preset", name, known, owner="")
    return presets.changed_preset(preset, changes)
