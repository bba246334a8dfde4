"""Record an episode at one or every camera of a policy: one rollout, one `Episode` a camera."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.episode import Episode
from robot_attn_policies.probing.probe import PolicyProbe, camera_names
from robot_attn_policies.recording.episode_file import record_episode
from robot_attn_policies.rollouts.actor import ObservationBatch, peek
from robot_attn_policies.rollouts.camera import at_camera, camera_mask
from robot_attn_policies.rollouts.rollout import Step


def record_probes(
    probes: Mapping[str | None, PolicyProbe],
    env: Any,
    seed: int,
    *,
    to_rgb: Mapping[str | None, Callable[[ObservationBatch], NDArray[np.uint8]]],
    best_heads: Mapping[str | None, int],
    env_args: Mapping[str, Any],
    policy: str,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str | None, Episode]:
    """Run an episode once, and record it at each camera that is probed.

    Args:
        probes: the probes of one policy by the key of the camera's image, at least one.
        env: a batch of one environment.
        seed: seed of the episode.
        to_rgb: converts observations to each camera's frames, uint8 [1, H, W, 3].
        best_heads: the head of each camera that a replay shows large.
        env_args: `env_name` and `env_kwargs`, from which the environment can be made.
        policy: name of the policy.
        on_step: called after each step, with the first camera's percept and target masks.

    Returns:
        An episode for each camera, which differ in what belongs to a camera: frames, attention, target masks.

    Raises:
        ValueError: an error of `record_episode`.
    """
    first, *others = probes
    steps: list[Step] = []

    def keep(step: Step) -> None:
        if others:  # the environment may write its next observation into the same memory
            steps.append(step._replace(observation=copy.deepcopy(step.observation), info=dict(step.info)))
        if on_step is not None:
            on_step(step)

    probe = probes[first]
    episode = record_episode(
        probe.act,
        at_camera(env, first, only=probe.only_camera),
        seed,
        probe.grid,
        env_args=env_args,
        to_rgb=to_rgb[first],
        best_head=best_heads[first],
        uniform=probe.uniform,
        policy=policy,
        values=probe.values,
        maps=_maps(probe),
        on_step=keep,
    )
    cameras = camera_names(probe.policy)
    if len(cameras) == 1:
        return {first: episode}
    found = {first: episode}
    for key in others:
        found[key] = _episode_of(episode, steps, probes[key], to_rgb[key], best_heads[key])
    return {
        key: replace(each, camera=str(key), other_cameras=tuple(str(name) for name in cameras if name != key))
        for key, each in found.items()
    }


def _episode_of(
    episode: Episode,
    steps: list[Step],
    probe: PolicyProbe,
    to_rgb: Callable[[ObservationBatch], NDArray[np.uint8]],
    best_head: int,
) -> Episode:
    """Return the episode at another camera, whose maps are those of the same observations."""
    percepts = [peek(probe.act, step.observation, step.context)[1] for step in steps]
    attention = [each.attention.numpy(force=True)[0] for each in percepts if each is not None]
    masks = [camera_mask(step.info, probe.image) for step in steps]
    known = [mask[0] for mask in masks if mask is not None]
    return replace(
        episode,
        images=np.stack([to_rgb(step.observation)[0] for step in steps]),
        attention=np.stack(attention).astype(np.float32),
        grid=probe.grid,
        target_masks=np.stack(known).astype(np.bool_) if len(known) == len(steps) else None,
        best_head=best_head,
        uniform=probe.uniform,
        maps=_maps(probe),
    )


def _maps(probe: PolicyProbe) -> str:
    return "attention" if probe.uniform else probe.kind
