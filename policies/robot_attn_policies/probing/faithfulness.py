"""Measure whether attention drives a policy's actions and return, by ablating pixels and heads.

- *Deletion and insertion* (`run_pixel_ablation`). The policy acts while the most-attended pixels are deleted
  from its frames, and while as many others are (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421,
  section 3.2; measured here on the return). The map is computed on the whole frame, the action on what is
  left of it.
- *Head ablation* (`run_head_ablation`). Heads are ablated one at a time, and all but one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps, Percept
from robot_attn.errors import unknown_name
from robot_attn.explain import (
    HeadInputs,
    InsensitivePolicyError,
    ablate_pixels,
    action_change,
    centred_places,
    discs,
    random_places,
    spread,
    top_pixels,
    without_sinks,
)
from robot_attn_policies.evaluation.evaluate import normalised_score
from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval, ratio_of_sums
from robot_attn_policies.probing.probe import frames_of, with_frames
from robot_attn_policies.probing.steps import concatenate_observations
from robot_attn_policies.rollouts.actor import Actor, ChangedActor, ObservationBatch, peek
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.sb3.context import concatenate_contexts

SHARE = 0.1
"""Fraction of the frame's pixels that the verdict's ablations delete."""

OnRollout: TypeAlias = Callable[[str], "Callable[[Step], None] | None"]
"""Called with the name of each rollout before it starts; returns the rollout's `on_step`, or None."""

PIXEL_ABLATIONS: dict[str, str] = {
    "deleted": "the most-attended pixels deleted",
    "kept": "all but the most-attended pixels deleted",
    "random": "a disc deleted, at a random position in every frame",
    "centred": "a disc deleted, at a random position near the frame's centre",
    "centre": "the disc at the frame's centre deleted",
    "borrowed": "the pixels deleted that are most attended to in another episode",
    "blind": "all pixels deleted",
}
"""Pixel ablations by name, with a description of each.

"centre" and "borrowed" are not baselines for a policy that keeps its target at a fixed position in the frame,
such as one that tracks it: they hide the target. They measure what deleting the target's usual position costs
whatever the frame shows. A map that carries more information than that costs more when its pixels go.
"""

MIN_REST = 0.05
"""Smallest share of a head's mass outside its sinks for the head to count."""

ATTENTION_BASED = ("deleted", "kept", "borrowed")
"""The pixel ablations that depend on the policy's attention."""


@dataclass(frozen=True)
class PixelAblation:
    """Returns of E episodes with and without pixel ablation, and of random actions, on the same seeds.

    Attributes:
        share: fraction of the pixels that each ablation but "blind" deletes, or keeps for "kept".
        full: float64 [E], returns without ablation.
        random: float64 [E], returns of the random policy.
        ablated: float64 [E] for each ablation, by its name in `PIXEL_ABLATIONS`.
    """

    share: float
    full: NDArray[np.float64]
    random: NDArray[np.float64]
    ablated: dict[str, NDArray[np.float64]]

    def joined(self, other: PixelAblation) -> PixelAblation:
        """Append the episodes of another ablation of the same share, with the same names."""
        return PixelAblation(
            self.share,
            np.concatenate([self.full, other.full]),
            np.concatenate([self.random, other.random]),
            {name: np.concatenate([returns, other.ablated[name]]) for name, returns in self.ablated.items()},
        )

    def relative_return(self, name: str) -> Interval:
        """Return with an ablation, divided by the full return; NaN where the full return is not positive."""
        return bootstrap_interval(np.stack([self.ablated[name], self.full], axis=1), ratio_of_sums)

    def normalised_return(self, name: str) -> Interval:
        """Return with an ablation, on a scale from 0 (random policy) to 1 (no ablation).

        Raises:
            ValueError: the full return does not exceed the random policy's.
        """
        return normalised_score(self.ablated[name], self.random, self.full)

    @property
    def gain(self) -> Interval:
        """Full return minus the random policy's."""
        return bootstrap_interval(self.full - self.random)


def run_pixel_ablation(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    random: NDArray[np.float64],
    *,
    full: NDArray[np.float64] | None = None,
    names: Sequence[str] = tuple(PIXEL_ABLATIONS),
    share: float = SHARE,
    weights: NDArray[np.float64] | None = None,
    sinks: NDArray[np.bool_] | None = None,
    image: str = "image",
    seed: int = 0,
    on_rollout: OnRollout | None = None,
) -> PixelAblation:
    """Run the episodes of `seeds` unchanged, and once with each pixel ablation.

    A recurrent policy remembers the frames that it was given, without the deleted pixels. The map of a whole
    frame is computed with that memory, and the whole frame is not remembered.

    Args:
        act: the policy; it must return a `Percept`.
        env: its environments; at least two for "borrowed".
        seeds: one episode per seed.
        grid: positions of the maps' cells in the frame.
        random: float64 [E], returns of the random policy on these seeds.
        full: float64 [E], returns of the unchanged episodes, if they were run before.
        names: which of `PIXEL_ABLATIONS` to run.
        share: fraction of the pixels to delete, in [0, 1].
        weights: float64 [heads], weight of each head in the map; None for equal weights.
        sinks: bool [heads, rows, cols], cells whose mass is left out, as `find_sinks` returns them.
        image: key of the frames in dict observations.
        seed: random seed of random discs and of ties between pixels.
        on_rollout: called with "full" and with each of `names`.

    Returns:
        The returns.

    Raises:
        ValueError: an error of `rollout_episodes` or `spread`; an unknown name; a number of random returns
            that differs from that of the seeds; a policy without attention; frames of another size than the
            grid's; or "borrowed" with a single environment.
    """
    unknown = [name for name in names if name not in PIXEL_ABLATIONS]
    if unknown:
        raise unknown_name("pixel ablation", unknown[0], PIXEL_ABLATIONS)
    if len(random) != len(seeds):
        raise ValueError(
            f"expected a return of the random policy for each of {len(seeds)} seeds, got {len(random)}: "
            "run the random policy on the same seeds"
        )
    if "borrowed" in names and env.num_envs < 2:
        raise ValueError(
            'expected at least 2 environments for the ablation "borrowed", which takes maps from another '
            f"episode of the batch, got {env.num_envs}: use more environments, or leave it out"
        )
    on_rollout = on_rollout or (lambda name: None)
    if full is None:
        full = rollout_episodes(act, env, seeds, on_step=on_rollout("full")).returns
    ablated = {}
    for name in names:
        rng = np.random.default_rng(seed)

        def act_ablated(
            observation: ObservationBatch, name: str = name, rng: np.random.Generator = rng
        ) -> tuple[NDArray[Any], Percept | None]:
            uses_attention = name in ATTENTION_BASED
            percept = peek(act, observation)[1] if uses_attention else None
            frames = frames_of(observation, image, grid)
            maps = pixel_maps(percept, grid, weights, sinks) if uses_attention else np.empty(frames.shape[:3])
            remaining = ablate_pixels(frames, _deleted_pixels(name, maps, share, rng))
            actions, _ = act(with_frames(observation, image, grid, remaining))
            return actions, percept

        actor = ChangedActor(act, act_ablated)
        ablated[name] = rollout_episodes(actor, env, seeds, on_step=on_rollout(name)).returns
    return PixelAblation(share, full, random, ablated)


def _deleted_pixels(
    name: str, maps: NDArray[np.float64], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Select the pixels that an ablation deletes, bool [B, H, W].

    Args:
        name: the ablation.
        maps: float64 [B, H, W]; only the shape matters to ablations that do not use attention.
        share: fraction of the pixels.
        rng: random generator.
    """
    count, size = len(maps), (maps.shape[1], maps.shape[2])
    if name == "blind":
        return np.ones(maps.shape, np.bool_)
    if name == "random":
        return discs(random_places(count, size, rng), size, share)
    if name == "centred":
        return discs(centred_places(count, size, rng), size, share)
    if name == "centre":
        return discs(np.tile((np.array(size) - 1) / 2, (count, 1)), size, share)
    top = top_pixels(maps, share, rng)
    if name == "borrowed":
        return np.roll(top, 1, axis=0)
    return ~top if name == "kept" else top


def pixel_maps(
    percept: Percept | None,
    grid: AttentionGrid,
    weights: NDArray[np.float64] | None = None,
    sinks: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Combine the heads of a percept into one smooth map per frame, float64 [B, H, W].

    Args:
        percept: the percept of B frames.
        grid: positions of the maps' cells.
        weights: float64 [heads], weight of each head; None for equal weights.
        sinks: bool [heads, rows, cols], cells whose mass is left out; None for none.

    Raises:
        ValueError: no percept, or an error of `spread`.
    """
    if percept is None:
        raise ValueError("expected attention to test, got none: give an actor that returns a Percept")
    maps = AttentionMaps(percept.attention.numpy(force=True), grid)
    return spread(*((maps, weights) if sinks is None else clean_maps(maps, weights, sinks)))


def clean_maps(
    maps: AttentionMaps, weights: NDArray[np.float64] | None, sinks: NDArray[np.bool_]
) -> tuple[AttentionMaps, NDArray[np.float64]]:
    """Take the mass in sinks out of maps, and weight heads by what is left.

    Args:
        maps: [B, heads, rows, cols].
        weights: float64 [heads], weight of each head; None for equal weights.
        sinks: bool [heads, rows, cols].

    Returns:
        The maps, each of sum 1, and the weights, of sum 1.
    """
    heads = len(sinks)
    share = np.full(heads, 1 / heads) if weights is None else weights / weights.sum()
    rest = 1 - np.where(sinks, maps.weights, 0.0).sum(axis=(-2, -1)).mean(axis=0)
    left = share * np.where(rest >= MIN_REST, rest, 0.0)
    cleaned = AttentionMaps(without_sinks(maps.weights, sinks), maps.grid)
    return cleaned, left / left.sum() if left.any() else share


REDUNDANT_HEADS = "no action changes with any single head ablated"
"""Why heads with an effect together are weighted equally."""


@dataclass(frozen=True)
class HeadAblation:
    """Returns of E episodes with ablated heads, on the same seeds, and the change in action.

    Attributes:
        full: float64 [E], returns without ablation.
        without: float64 [heads, E], returns with one head ablated; [heads, 0] if only actions were compared.
        alone: float64 [heads, E], returns with all other heads ablated; likewise.
        action_change: float64 [heads], mean change in action with one head ablated, in the observations of
            the episodes without ablation, relative to the change with all heads ablated.
    """

    full: NDArray[np.float64]
    without: NDArray[np.float64]
    alone: NDArray[np.float64]
    action_change: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """float64 [heads], `action_change` scaled to sum 1, equal if `redundant`: weights for `spread`."""
        if self.redundant:
            return np.full(len(self.action_change), 1 / len(self.action_change))
        return np.asarray(self.action_change / self.action_change.sum())

    @property
    def redundant(self) -> bool:
        """Whether no action changes with any single head ablated."""
        return not self.action_change.any()


def run_head_ablation(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    heads: HeadInputs,
    *,
    returns: bool = True,
    on_rollout: OnRollout | None = None,
) -> HeadAblation:
    """Run the episodes of `seeds` unchanged, without each head, and with each head alone.

    An ablated head outputs its mean over the unchanged episodes. Heads that attend to the same object are
    redundant: ablating one of them costs little, and either alone may suffice.

    Args:
        act: the policy whose perception has these heads.
        env: its environments.
        seeds: one episode per seed.
        heads: `Perception.head_inputs` of its perception.
        returns: whether to run episodes with ablated heads. If False, only actions are compared.
        on_rollout: called with "full", and with "without 3" and "only 3" for head 3.

    Returns:
        The returns and the changes in action.

    Raises:
        InsensitivePolicyError: the actions do not depend on any head.
        ValueError: an error of `rollout_episodes`.
    """
    on_rollout = on_rollout or (lambda name: None)
    every = range(len(heads.columns))
    steps: list[Step] = []
    callback = on_rollout("full")

    def keep(step: Step) -> None:
        steps.append(step._replace(info={}, percept=None))  # large, and not needed
        if callback is not None:
            callback(step)

    with heads.recorded() as outputs:
        full = rollout_episodes(act, env, seeds, on_step=keep).returns
    mean_output = torch.cat(outputs).mean(dim=0)

    batches = [
        (
            concatenate_observations([step.observation for step in chunk]),
            concatenate_contexts([step.context for step in chunk]),
        )
        for chunk in _chunks(steps)
    ]
    full_actions, running = (
        np.concatenate([getattr(step, name) for step in steps]) for name in ("actions", "running")
    )

    def change(ablated: Sequence[int]) -> float:
        with heads.ablated(ablated, mean_output):
            actions = np.concatenate([peek(act, *batch)[0] for batch in batches])
        return float(action_change(full_actions, actions)[running].mean())

    def run(name: str, ablated: Sequence[int]) -> NDArray[np.float64]:
        if not returns:
            return np.empty(0)
        with heads.ablated(ablated, mean_output):
            return rollout_episodes(act, env, seeds, on_step=on_rollout(name)).returns

    scale = change(every)
    if scale == 0:
        raise InsensitivePolicyError("the actions are the same with all heads ablated: no head affects them")
    return HeadAblation(
        full,
        np.stack([run(f"without {head}", [head]) for head in every]),
        np.stack([run(f"only {head}", [other for other in every if other != head]) for head in every]),
        np.array([change([head]) for head in every]) / scale,
    )


def _chunks(steps: list[Step]) -> Iterator[list[Step]]:
    """Group steps so that the policy gets about 64 frames in one forward pass."""
    size = max(1, 64 // len(steps[0].actions))
    for start in range(0, len(steps), size):
        yield steps[start : start + size]
