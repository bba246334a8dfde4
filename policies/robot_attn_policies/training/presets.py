"""Configurations of training runs and presets of tasks, as frozen dataclasses stored in config.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from robot_attn_policies.training.dataclass_json import from_json

Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]

MAX_OPTION = 1 << 16
"""Largest width of a layer, and largest number among a family's options."""


@dataclass(frozen=True)
class PPOPreset:
    """Hyperparameters of PPO (Schulman et al. 2017, arXiv:1707.06347), with SB3's names."""

    n_envs: int = 24
    """Number of environments, stepped together."""
    n_steps: int = 128
    """Steps of each environment per update; a rollout has n_envs x n_steps frames."""
    batch_size: int = 512
    """Frames in a minibatch."""
    n_epochs: int = 4
    """Passes over a rollout per update."""
    learning_rate: float = 5e-4
    """Adam's learning rate."""
    final_learning_rate: float | None = None
    """Learning rate at the last step, reached linearly; None keeps `learning_rate`."""
    adam_eps: float = 1e-5
    """Adam's epsilon, added to its denominator."""
    gamma: float = 0.95
    """Discount factor per step."""
    gae_lambda: float = 0.9
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""
    clip_range: float = 0.2
    """The probability ratio is clipped to 1 +- this (epsilon in the paper's equation 7)."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus (c2 in the paper's equation 9)."""
    vf_coef: float = 0.5
    """Weight of the value loss (c1 in the paper's equation 9)."""
    max_grad_norm: float = 0.5
    """Largest norm of the gradient; larger gradients are clipped to it."""
    target_kl: float | None = None
    """An update stops early once the KL divergence exceeds 1.5 x this; None disables early stopping."""
    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers between features and actions, and of those between features and value."""
    log_std_init: float = 0.0
    """Initial logarithm of the actions' standard deviation."""
    ortho_init: bool = True
    """Whether all linear and convolution layers, the perception's included, get SB3's orthogonal
    initialisation."""
    share_features_extractor: bool = True
    """Whether actor and critic share one perception; otherwise each has its own."""

    def __post_init__(self) -> None:
        _make_plain(self)
        for name, least, most in (
            ("n_envs", 1, 1 << 12),
            ("n_steps", 1, 1 << 20),
            ("batch_size", 2, 1 << 24),
            ("n_epochs", 1, 1 << 10),
            ("learning_rate", 0, 1e3),
            ("final_learning_rate", 0, 1e3),
            ("adam_eps", 0, 1),
            ("gamma", 0, 1),
            ("gae_lambda", 0, 1),
            ("clip_range", 0, 1e3),
            ("ent_coef", -1e3, 1e3),
            ("vf_coef", 0, 1e3),
            ("max_grad_norm", 0, 1e9),
            ("target_kl", 0, 1e9),
            ("log_std_init", -20, 20),
        ):
            _check_range(name, getattr(self, name), least, most)
        if self.n_envs * self.n_steps < 2:
            raise ValueError(
                "expected a rollout, n_envs x n_steps, of 2 frames or more, got 1: raise n_steps or "
                "n_envs, since advantages are scaled by their standard deviation"
            )
        if len(self.net_arch) > 16:
            raise ValueError(f"expected at most 16 hidden layers in net_arch, got {len(self.net_arch)}")
        for width in self.net_arch:
            _check_range("a width in net_arch", width, 1, MAX_OPTION)
        object.__setattr__(self, "net_arch", tuple(self.net_arch))

    def update_arguments(self) -> dict[str, Any]:
        """The arguments of SB3's `PPO` that concern the update."""
        names = "batch_size n_epochs gamma gae_lambda clip_range ent_coef vf_coef max_grad_norm target_kl"
        return {name: getattr(self, name) for name in names.split()}


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run; the same configuration on the same machine gives the same weights."""

    task: str
    """Name of the task; recorded only, as the caller makes the environments."""
    perception: str = "query"
    """Family in `robot_attn.FAMILIES`, or "module:Class"."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """Options of the family."""
    env: Mapping[str, Json] = field(default_factory=dict)
    """Options of the environment; recorded only."""
    train_env: Mapping[str, Json] = field(default_factory=dict)
    """Further options of the training environments, which evaluation environments do not get, such as starts
    with the target out of view."""
    seed: int = 0
    """Seed of the weights, environments and minibatches; environment i has seed + i."""
    steps: int = 250_000
    """Environment steps to train for, rounded up to whole rollouts."""
    ppo: PPOPreset = field(default_factory=PPOPreset)
    eval_every: int = 24_576
    """Environment steps between evaluations on fixed seeds; the final policy is evaluated too. 0 disables
    evaluation."""
    eval_episodes: int = 24
    """Episodes per evaluation, run in parallel in separate environments."""
    eval_seed: int = 1_000_000
    """Seed of the evaluations; evaluation environment i has eval_seed + i in every evaluation."""
    stop_score: float | None = None
    """Training stops once the score of an evaluation (the mean return if no score is defined) reaches this;
    None disables it."""
    threads: int = 0
    """Threads that share an update. The bits of the result depend on it. 0 uses one per usable core, and
    records the number."""

    def __post_init__(self) -> None:
        _make_plain(self)
        for name, least, most in (
            ("seed", 0, (1 << 32) - 1),
            ("steps", 1, 1 << 50),
            ("eval_every", 0, 1 << 50),
            ("eval_episodes", 1, 1 << 16),
            ("eval_seed", 0, (1 << 32) - 1),
            ("stop_score", -1e300, 1e300),
            ("threads", 0, 1024),
        ):
            _check_range(name, getattr(self, name), least, most)
        for name, value in self.options.items():
            _check_option(f"option {name}", value)


def _make_plain(config: Any) -> None:
    """Replace NumPy's numbers and other mappings and sequences in the fields by those of JSON.

    The fields then equal what is read back from a run folder.
    """
    for each in fields(config):
        object.__setattr__(config, each.name, _plain(getattr(config, each.name)))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's, which is not imported for it: the command's help needs none
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"expected {name} from {least:g} to {most:g}, got {value:g}")


def _check_option(name: str, value: Any) -> None:
    """Check that the numbers in an option are within the sizes that a network can be built with."""
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_option(name, item)
    elif isinstance(value, int | float):
        _check_range(name, value, -MAX_OPTION, MAX_OPTION)


@dataclass(frozen=True)
class TaskPreset:
    """Default training settings of a task."""

    ppo: PPOPreset = field(default_factory=PPOPreset)
    """Hyperparameters of PPO."""
    train_env: Mapping[str, Json] = field(default_factory=dict)
    """See `TrainConfig.train_env`."""


def task_preset(training: Mapping[str, Any], base: PPOPreset | None = None) -> TaskPreset:
    """Make the preset of a task from its class attribute `training`.

    Args:
        training: `ppo`, the fields that differ from `base` by name; `train_env`, options of the environment
            used in training only. Both are optional.
        base: the other fields; None for the defaults of `PPOPreset`.

    Raises:
        ValueError: another entry, an unknown field, or a value of another type or out of range.
    """
    for name in training:
        if name not in ("ppo", "train_env"):
            from robot_attn.errors import unknown_name  # brings torch, which help must not

            raise unknown_name("entry of a task's training", name, ("ppo", "train_env"))
    preset = changed_preset(PPOPreset() if base is None else base, training.get("ppo", {}))
    try:
        options: dict[str, Json] = json.loads(json.dumps(dict(training.get("train_env", {}))))
    except TypeError as error:
        raise ValueError(f"expected a task's train_env to be plain JSON data, got {error}") from error
    return TaskPreset(preset, options)


def changed_preset(preset: PPOPreset, changes: Mapping[str, Any]) -> PPOPreset:
    """A copy of a preset with some fields changed.

    Args:
        preset: the preset.
        changes: new values by name of the field.

    Raises:
        ValueError: an unknown field, or a value of another type or out of range.
    """
    known = [field.name for field in fields(PPOPreset)]
    for name in changes:
        if name not in known:
            from robot_attn.errors import unknown_name

            raise unknown_name("field of the PPO preset", name, known)
    changed: PPOPreset = from_json(PPOPreset, {**asdict(preset), **changes})
    return changed
