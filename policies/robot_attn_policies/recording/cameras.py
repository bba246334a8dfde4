"""Record an episode at one or every camera of a policy: one rollout, one `Episode` a camera."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_attn.episode import Episode
from robot_attn_policies.probing.probe import PolicyProbe, camera_names
from robot_attn_policies.recording.episode_file import record_episode
from robot_attn_policies.rollouts.actor import ObservationBatch, peek
from robot_attn_policies.rollouts.camera import MASK, THINGS, at_camera, camera_info
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.rollouts.things import describe_things, thing_names


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
    names, described = thing_names(env), tuple[str, ...]()

    def keep(step: Step) -> None:
        nonlocal described
        if (
            not described and not step.done[0]
        ):  # after its last step the environment may show the next episode
            described = tuple(describe_things(env)[0])
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
    words = names, described or names
    for key in others:
        found[key] = _episode_of(episode, steps, probes[key], to_rgb[key], best_heads[key], words)
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
    words: tuple[tuple[str, ...], tuple[str, ...]],
) -> Episode:
    """Return the episode at another camera, whose maps are those of the same observations.

    `words` are the names and the descriptions of the things that its frames may show.
    """
    percepts = [peek(probe.act, step.observation, step.context)[1] for step in steps]
    attention = [each.attention.numpy(force=True)[0] for each in percepts if each is not None]
    infos = [camera_info(step.info, probe.image, False) for step in steps]
    masks, things = (_column(infos, key) for key in (MASK, THINGS))
    return replace(
        episode,
        images=np.stack([to_rgb(step.observation)[0] for step in steps]),
        attention=np.stack(attention).astype(np.float32),
        grid=probe.grid,
        target_masks=None if masks is None else masks.astype(np.bool_),
        things=things,
        thing_names=() if things is None else words[0],
        thing_descriptions=() if things is None else words[1],
        best_head=best_head,
        uniform=probe.uniform,
        maps=_maps(probe),
    )


def _column(infos: Sequence[Mapping[str, Any]], key: str) -> NDArray[Any] | None:
    """An entry of the infos of a batch of one at every step; None if one of them lacks it."""
    return np.stack([info[key][0] for info in infos]) if all(key in info for info in infos) else None


def _maps(probe: PolicyProbe) -> str:
    return "attention" if probe.uniform else probe.kind
