"""Report sections on recorded steps, which need no further rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from robot_attn import AttentionMaps, Perception
from robot_attn.drawing import overlay, scale_frame
from robot_attn.explain import (
    ATTENDED,
    METHODS,
    ActionCurves,
    InsensitivePolicyError,
    action_curves,
    attention_delay,
    attention_gradient,
    attention_states,
    best_lag,
    cluster_maps,
    dwells,
    entropy,
    gradient_maps,
    jumps,
    peak_places,
    randomised,
    rank_agreement,
    spread,
    stretches_of,
    target_places,
    worst_frames,
)
from robot_attn.focus import chance, mass_on_target
from robot_attn_policies.pages.report import Cell, Chart, Picture, Section, Table
from robot_attn_policies.probing.decision import decision
from robot_attn_policies.probing.episode_intervals import (
    interval_over_episodes,
    interval_series,
    mean_over_draws_and_episodes,
    mean_over_episodes,
)
from robot_attn_policies.probing.policy_maps import (
    FAST,
    action_gradient_maps,
    causal_cells,
    policy_causal_maps,
)
from robot_attn_policies.probing.probe import PolicyProbe, frames_of, image_module, with_frames
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.probing.verdicts import judge_weights
from robot_attn_policies.rollouts.thing_words import ThingWords
from robot_attn_policies.sb3.act import prepare
from robot_attn_policies.sb3.context import predict
from robot_attn_policies.sb3.extractor import find_extractor
from robot_attn_policies.sb3.images import fit_observation

CURVE_FRAMES = 240
"""Most frames for the curves of action."""
EXPENSIVE_FRAMES = 32
"""Most frames for figures that need many passes over each frame: gradients and random weights."""
RANDOMISATIONS = {"attention": 12, "causal": 1, "gradient": 3, "uniform": 1}
"""Draws of random weights, by kind of map: attention varies most between draws, and causal maps cost most."""
LOOSE_CLUSTER = 0.3
"""Mean distance from the medoid above which a cluster's caption says that its maps differ."""
PICTURE_HEIGHT = 256
"""Height of pictures in pixels."""


def action_section(probe: PolicyProbe, steps: StepBatch) -> Section:
    """Report deletion and insertion curves of the action."""
    sample = steps.subsample(CURVE_FRAMES)
    frames, act = _frames_and_actor(probe, sample)
    title = TITLES["actions"]
    try:
        curves = action_curves(act, frames, spread(sample.combined[:, None]))
    except InsensitivePolicyError:
        return Section(
            "actions",
            title,
            (
                "The policy gives the same actions with all pixels ablated: its actions do not depend on "
                "the frames.",
            ),
        )
    return Section(
        "actions",
        title,
        (
            f"In {len(sample)} frames, some pixels were deleted, or all others were, and the action was "
            "compared with that for the whole frame. A change of 1 is the change with all pixels deleted.",
        ),
        charts=(
            _curve_chart("Deletion: change in action", curves, curves.deleted, sample.episode),
            _curve_chart("Insertion: change in action", curves, curves.inserted, sample.episode),
        ),
    )


def weights_section(probe: PolicyProbe, steps: StepBatch) -> Section:
    """Report whether the maps change as weights are randomised (Adebayo et al. 2018)."""
    sample = steps.subsample(EXPENSIVE_FRAMES)
    stages: dict[str, list[NDArray[np.float64]]] = {}
    draws = RANDOMISATIONS[probe.kind]
    for seed in range(draws):
        for name, maps in _maps_of_randomised_weights(probe, sample, seed):
            stages.setdefault(name, []).append(_rank_correlation(sample.combined.weights, maps))
    correlations = [mean_over_draws_and_episodes(np.stack(rows), sample.episode) for rows in stages.values()]
    return Section(
        "weights",
        TITLES["weights"],
        (
            f"The weights were randomised layer by layer, from the output to the input, {draws} times in "
            f"{len(sample)} frames. A map that does not change comes from the frame or the architecture, not "
            "from what the policy has learned. The verdict uses the last stage, in which all weights are "
            "random.",
            *(
                [
                    "Gradient maps also resemble each other from frame to frame: a no here says little about "
                    "what the policy has learned."
                ]
                if probe.kind == "gradient"
                else []
            ),
        ),
        judge_weights(correlations[-1], len(np.unique(sample.episode))),
        charts=(
            Chart(
                "Similarity to the policy's own maps",
                "layers randomised, from the output down to",
                "rank correlation",
                (interval_series("rank correlation", list(stages), correlations),),
                "bars",
            ),
        ),
    )


def _rank_correlation(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank correlation of maps [N, rows, cols], float64 [N].

    A constant map has none: it is 1 between two constant maps, and 0 between a constant map and another.
    """
    constant = np.stack([np.ptp(batch, axis=(1, 2)) == 0 for batch in (maps, others)])
    return np.where(constant.any(axis=0), constant.all(axis=0), rank_agreement(maps, others))


def _maps_of_randomised_weights(
    probe: PolicyProbe, steps: StepBatch, seed: int
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """Yield the maps [N, rows, cols] after each layer is randomised in turn, with the layer's name."""
    if probe.kind in ("causal", "gradient"):
        given = steps.observation, probe.image
        for name, changed in randomised(probe.policy, seed=seed):
            policy = cast(BasePolicy, changed)
            if probe.kind == "causal":
                maps = causal_cells(policy_causal_maps(policy, *given, context=steps.context, sampling=FAST))
            else:
                maps = action_gradient_maps(policy, *given, context=steps.context)
            yield name, maps.double().numpy(force=True)
        return
    perception, frames, context = _perception_inputs(probe, steps)
    for name, changed in randomised(perception, seed=seed):
        with torch.no_grad():
            attention = changed(frames, context).attention.numpy(force=True)
        yield name, replace(steps, maps=AttentionMaps(attention, steps.maps.grid)).combined.weights


def gradients_section(probe: PolicyProbe, steps: StepBatch) -> Section:
    """Report whether gradients agree with the map."""
    sample = steps.subsample(EXPENSIVE_FRAMES)
    frames, decide = decision(probe.policy, sample.observation, probe.image, context=sample.context)
    rows: list[tuple[Cell, ...]] = []
    for method, description in METHODS.items():
        try:
            maps = gradient_maps(decide, frames, method, module=image_module(probe))
        except ValueError:
            if method != "grad_cam":
                raise
            rows.append((f"of the action: {description}", "not possible: the policy has no feature maps"))
            continue
        agreement = rank_agreement(sample.combined.weights, AttentionMaps.pooled(maps, probe.grid).weights)
        rows.append((f"of the action: {description}", mean_over_episodes(agreement, sample.episode)))
    if probe.kind == "attention":
        maps = _attention_gradients(probe, sample, frames)
        agreement = rank_agreement(sample.combined.weights, AttentionMaps.pooled(maps, probe.grid).weights)
        rows.append(("of the attended positions", mean_over_episodes(agreement, sample.episode)))
    return Section(
        "gradients",
        TITLES["gradients"],
        (
            f"In {len(sample)} frames, gradients with respect to each pixel are compared with the combined "
            "map, cell by cell: 1 if both rank the cells equally, 0 if they are unrelated. No verdict "
            "depends on it, since gradients may fail as explanations too.",
        ),
        tables=(Table("Agreement with the map", ("gradients", "rank correlation"), tuple(rows)),),
    )


def _attention_gradients(probe: PolicyProbe, steps: StepBatch, frames: Tensor) -> NDArray[np.float64]:
    """Gradients of the heads' attended positions with respect to the pixels, combined, float64 [N, H, W]."""
    perception, _, context = _perception_inputs(probe, steps)
    maps = attention_gradient(perception, frames.detach(), context)
    return np.asarray(np.tensordot(steps.weights, maps, (0, 1)))


def _perception_inputs(probe: PolicyProbe, steps: StepBatch) -> tuple[Perception, Tensor, Tensor | None]:
    """Return the perception of the probe's camera, and its frames and context in these steps."""
    policy, extractor = probe.policy, find_extractor(probe.policy)
    tensors, _ = policy.obs_to_tensor(fit_observation(cast(Any, steps.observation), policy.observation_space))
    with torch.no_grad():
        frames, context, _ = extractor.inputs(prepare(policy, tensors), probe.image)
    return extractor.perception_of(probe.image), frames, context


def clusters_section(steps: StepBatch, pictures: NDArray[np.uint8]) -> Section:
    """Report clusters of maps, with a representative frame each.

    Args:
        steps: the steps.
        pictures: uint8 [N, H, W, 3], the frame of each step.
    """
    clusters = cluster_maps(steps.combined.weights)
    shown = []
    for label, (medoid, share, distance) in enumerate(
        zip(clusters.medoids, clusters.shares, clusters.distances, strict=True)
    ):
        runs = stretches_of(clusters.labels == label, steps.episode)
        length = float(np.mean([run.rows for run in runs]))
        caption = f"{share:.0%} of the frames, for {length:.1f} steps at a time"
        if distance > LOOSE_CLUSTER:
            caption += "; its maps differ"
        shown.append(step_picture(steps, pictures, int(medoid), caption))
    return Section(
        "clusters",
        TITLES["clusters"],
        (f"The maps of {len(steps):,} frames in {len(clusters)} clusters, with the medoid of each.",),
        pictures=tuple(shown),
    )


def time_section(steps: StepBatch) -> Section:
    """Report the entropy, movement and delay of attention."""
    grid = steps.maps.grid
    map_entropy = entropy(steps.combined.weights)
    peaks = peak_places(steps.combined)
    distances = jumps(peaks, steps.episode) / math.hypot(*grid.image_size)
    spacing = max(float(np.diff(centers).max(initial=0.0)) for centers in (grid.ys, grid.xs))
    stays = dwells(peaks, 1.5 * spacing, steps.episode)
    stay_lengths = np.array([float(stay.rows) for stay in stays])
    stay_episodes = np.array([steps.episode[stay.first] for stay in stays])
    rows: list[tuple[Cell, ...]] = [
        ("entropy of the map (1: uniform)", mean_over_episodes(map_entropy, steps.episode)),
        (
            "distance of its maximum from that of the step before (1: the frame's diagonal)",
            mean_over_episodes(distances, steps.episode),
        ),
        ("steps that its maximum stays in place", mean_over_episodes(stay_lengths, stay_episodes)),
    ]
    if steps.masks is not None:
        delay = attention_delay(peaks, target_places(steps.masks), steps.episode)
        known = np.isfinite(delay.lag)
        lag = interval_over_episodes(delay.sums, _lag) if known else None
        rows.append(("delay of its maximum behind the target, steps", lag))
    indices = np.unique(steps.step)
    means = [
        mean_over_episodes(map_entropy[steps.step == index], steps.episode[steps.step == index])
        for index in indices
    ]
    return Section(
        "time",
        TITLES["time"],
        (
            "The delay is unknown if the target hardly moves in the frame, for example under a camera that "
            "tracks it.",
        ),
        tables=(Table("Over the steps", ("", "mean"), tuple(rows)),),
        charts=(
            Chart(
                "Entropy",
                "step",
                "entropy (1: uniform)",
                (interval_series("mean over episodes", indices.tolist(), means),),
            ),
        ),
    )


def _lag(sums: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return best_lag(sums.sum(axis=axis))


def failures_section(
    steps: StepBatch, pictures: NDArray[np.uint8], seeds: Sequence[int], words: ThingWords
) -> Section:
    """Report the frames of failures.

    Args:
        steps: the steps.
        pictures: uint8 [N, H, W, 3], the frame of each step.
        seeds: seed of each episode, for the captions.
        words: what the labels of `steps` stand for.
    """
    mass = target_share = attended = None
    if steps.masks is not None:
        chunks = [slice(start, start + 64) for start in range(0, len(steps), 64)]
        pixel_maps = (spread(steps.combined[rows][:, None])[:, None] for rows in chunks)
        masses = [
            mass_on_target(maps, steps.masks[rows])[:, 0]
            for maps, rows in zip(pixel_maps, chunks, strict=True)
        ]
        mass, target_share = np.concatenate(masses), chance(steps.masks)
        labels: dict[str, Any] = {"labels": steps.things, "allowed": words.allowed}
        attended = attention_states(steps.combined, steps.masks, **labels) == ATTENDED
    worst = worst_frames(
        steps.rewards,
        steps.episode,
        steps.step,
        mass=mass,
        chance=target_share,
        attended=attended,
        seeds=np.asarray(seeds),
    )
    return Section(
        "failures",
        TITLES["failures"],
        (str(worst),),
        pictures=tuple(step_picture(steps, pictures, frame.index, frame.caption) for frame in worst.frames),
    )


def step_picture(steps: StepBatch, pictures: NDArray[np.uint8], row: int, caption: str) -> Picture:
    """Draw the frame of a step with the combined map and the target's outline.

    Args:
        steps: the steps.
        pictures: uint8 [N, H, W, 3], the frame of each step.
        row: index of the step.
        caption: what the picture shows.
    """
    mask = None if steps.masks is None else steps.masks[row]
    maps = steps.combined[row]
    height, width = maps.grid.image_size
    size = PICTURE_HEIGHT, round(PICTURE_HEIGHT * width / height)
    if not np.isfinite(maps.weights).all() or not maps.weights.any():
        return Picture(scale_frame(pictures[row], size), f"{caption} (no map)")
    return Picture(overlay(pictures[row], maps, mask=mask, size=size), caption)


def _frames_and_actor(
    probe: PolicyProbe, steps: StepBatch
) -> tuple[NDArray[Any], Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the frames [N, H, W, C] of steps, and the actions as a function of the frames alone."""
    image, observation = probe.image or "image", steps.observation

    def act(frames: NDArray[Any]) -> NDArray[Any]:
        changed: Any = with_frames(observation, image, probe.grid, frames)
        return predict(probe.policy, changed, steps.context)[0]

    return frames_of(observation, image, probe.grid), act


def _curve_chart(
    title: str, curves: ActionCurves, by_name: Mapping[str, NDArray[np.float64]], episode: NDArray[np.int64]
) -> Chart:
    return Chart(
        title,
        "fraction of the pixels",
        "change in action",
        tuple(
            interval_series(
                name, list(curves.shares), [mean_over_episodes(column, episode) for column in rows.T]
            )
            for name, rows in by_name.items()
        ),
    )
