"""Checks before training starts or is resumed: configuration, spaces and memory."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.training.presets import TrainConfig
from robot_attn_policies.training.run_folder import Run, RunError

MAY_CHANGE = ("steps", "stop_score")
"""Fields of a configuration that may change on resuming."""


def merge_config(stored: TrainConfig, given: TrainConfig, folder: Path) -> TrainConfig:
    """Return the stored config with the `MAY_CHANGE` fields of the given one.

    Args:
        stored: the config in the run folder.
        given: the config to resume with; `threads` 0 stands for the stored number.
        folder: the run folder, for the message.

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
    """Yield the fields, presets' included, in which two configs differ, as "name = value" of each."""
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


def check_memory(
    observations: spaces.Space[Any], config: TrainConfig, *, available: float | None = None
) -> None:
    """Check that a rollout, a minibatch and the perception's weights fit in memory together.

    It counts what is certain: the observations of a rollout, those of a minibatch as 32-bit floats, and for
    each weight its value, its gradient and Adam's two moments. Activations come on top.

    Args:
        observations: observation space of one environment, with the axes of the policy's.
        config: the configuration.
        available: bytes of memory; None for what the machine, or the process's control group, has.

    Raises:
        ValueError: they do not fit; or a perception that cannot be built for these observations.
    """
    ppo = config.ppo
    entries = observations.spaces.values() if isinstance(observations, spaces.Dict) else (observations,)
    numbers = [math.prod(entry.shape or ()) for entry in entries]
    frame = sum(count * np.dtype(entry.dtype).itemsize for count, entry in zip(numbers, entries, strict=True))
    rollout = frame * ppo.n_envs * ppo.n_steps
    minibatch = 4 * sum(numbers) * ppo.batch_size
    weights = 16 * _count_weights(observations, config) * (1 if ppo.share_features_extractor else 2)
    limit = memory_limit() if available is None else available
    if rollout + minibatch + weights > limit:
        raise ValueError(
            f"expected a training that fits in {limit / 1e9:,.1f} GB of memory, got {rollout / 1e9:,.1f} GB "
            f"for n_envs {ppo.n_envs:,} x n_steps {ppo.n_steps:,} observations, {minibatch / 1e9:,.1f} GB "
            f"for a batch_size of {ppo.batch_size:,}, and {weights / 1e9:,.1f} GB for the weights of "
            f"{config.perception!r}: lower these numbers, or choose smaller frames or another perception"
        )


def _count_weights(observations: spaces.Space[Any], config: TrainConfig) -> int:
    """Number of weights of a perception, without allocating them; 0 for one that needs them to be built."""
    options: Any = config.options
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the policy's extractor repeats them
        try:
            extractor = PerceptionExtractor(observations, config.perception, **options)
        except (NotImplementedError, RuntimeError, TypeError):  # it reads its own weights
            return 0
    return sum(weights.numel() for weights in extractor.parameters())


def memory_limit() -> int:
    """Return the bytes of memory of the machine, or of the process's control group if that has fewer."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup/memory.max")
    allowed = group.read_text().strip() if group.is_file() else "max"
    return installed if allowed == "max" else min(installed, int(allowed))


def check_spaces(stored: Run, current: Run, folder: Path) -> None:
    """Check that the environments have the spaces that a run was trained on.

    Args:
        stored: the run in the folder.
        current: the run to resume.
        folder: the run folder, for the message.

    Raises:
        RunError: they differ.
    """
    for name in ("observation_space", "action_space"):
        expected, found = getattr(stored, name), getattr(current, name)
        if expected != found:
            raise RunError(
                f"expected the {name} that {folder} was trained on, {expected}, got {found}: use its task"
            )
