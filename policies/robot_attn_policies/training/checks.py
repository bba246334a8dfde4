"""Checks before training starts or is resumed: configuration, spaces and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from robot_attn_policies.training.presets import PPOPreset, TrainConfig
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
