"""Change one object in the simulator, and measure whether a policy's actions and attention change with it.

Atrey et al. 2020, https://arxiv.org/abs/1912.05743, call for such tests of saliency maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from robot_attn import AttentionGrid, Percept
from robot_attn.explain import action_change
from robot_attn.focus import pointing_game
from robot_attn_policies.probing.faithfulness import pixel_maps
from robot_attn_policies.probing.probe import with_frames
from robot_attn_policies.rollouts.actor import Actor, ChangedActor, ObservationBatch, peek
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes

INTERVENTIONS: dict[str, dict[str, Any]] = {
    "moved": {"shift": (0.25, 0.0)},
    "recoloured": {"rgba": (0.45, 0.45, 0.5, 1.0)},
    "removed": {"removed": True},
}
"""Interventions by name, as arguments of an environment's `render_counterfactual`."""
THINGS: tuple[Thing, ...] = ("target", "distractor")
MASKS = ("before", "after", "target", "target_after")
"""The masks among the entries of a counterfactual; an observation's entry may have one of these names."""
MIN_PIXELS = 8
"""Smallest visible area of an object, in pixels, for a frame to count."""


@dataclass(frozen=True)
class InterventionEffect:
    """Effect of one intervention on one object, as sums over the frames that count in each of E episodes.

    A frame counts if both the object and the target are visible. An object that is moved must stay in view.
    An intervention on a distractor must leave the target's visible pixels as they were: uncovering or hiding
    the target would be an intervention on the target.

    Attributes:
        frames: float64 [E], number of frames that count.
        action: float64 [E], sum of the changes in action.
        attention: float64 [E], sum of the fractions of the map that moved: half the sum of absolute
            differences, in [0, 1].
        hits: float64 [E], sum of the pointing-game scores on the object after the intervention.
    """

    frames: NDArray[np.float64]
    action: NDArray[np.float64]
    attention: NDArray[np.float64]
    hits: NDArray[np.float64]

    def joined(self, other: InterventionEffect) -> InterventionEffect:
        """Append the episodes of another effect of the same intervention."""
        names = [each.name for each in fields(self)]
        return InterventionEffect(
            *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        )


def measure_interventions(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    *,
    every: int = 10,
    weights: NDArray[np.float64] | None = None,
    sinks: NDArray[np.bool_] | None = None,
    image: str = "image",
    on_step: Callable[[Step], None] | None = None,
) -> dict[tuple[Thing, str], InterventionEffect]:
    """Run the episodes of `seeds` and render counterfactual frames at intervals.

    A recurrent policy acts on a counterfactual frame with the memory that it has at that step, and does not
    remember the frame.

    Args:
        act: the policy; it must return a `Percept`.
        env: its environments, which can render counterfactuals (`HasInterventions`).
        seeds: one episode per seed.
        grid: positions of the maps' cells in the frame.
        every: steps between two counterfactuals.
        weights: float64 [heads], weight of each head in the map; None for equal weights.
        sinks: bool [heads, rows, cols], cells whose mass is left out, as `find_sinks` returns them.
        image: key of the frames in dict observations.
        on_step: called after each step.

    Returns:
        The effect of each intervention, by (object, name of the intervention).

    Raises:
        ValueError: an error of `rollout_episodes` or `spread`, or the environment renders no counterfactuals.
    """
    simulator = ability(env, HasInterventions)
    if simulator is None:
        raise ValueError(
            "expected an environment with `render_counterfactual`, got one without: use a task of "
            "robot_attn_envs, or add the method"
        )
    sums = {(thing, edit): np.zeros((4, len(seeds))) for thing in THINGS for edit in INTERVENTIONS}
    pending: dict[tuple[Thing, str], NDArray[np.float64]] = {}
    step_count = 0

    def act_and_intervene(observation: ObservationBatch) -> tuple[NDArray[Any], Percept | None]:
        nonlocal step_count
        actions, percept = act(observation)
        if step_count % every == 0:
            maps = pixel_maps(percept, grid, weights, sinks)
            for thing, edit in sums:
                counterfactual = simulator.render_counterfactual(thing, **INTERVENTIONS[edit])
                changed = with_frames(observation, image, grid, counterfactual["image"])
                if isinstance(changed, Mapping):  # every camera sees the change
                    frames = {name: counterfactual[name] for name in counterfactual if name not in MASKS}
                    changed = {name: frames.get(name, entry) for name, entry in changed.items()}
                new_actions, new_percept = peek(act, changed)
                new_maps = pixel_maps(new_percept, grid, weights, sinks)
                rows = _effects(actions, new_actions, maps, new_maps, counterfactual)
                pending[thing, edit] = rows * _counts(thing, edit, counterfactual)
        step_count += 1
        return actions, percept

    def accumulate(step: Step) -> None:
        for which, rows in pending.items():
            sums[which][:, step.episode[step.running]] += rows[:, step.running]
        pending.clear()
        if on_step is not None:
            on_step(step)

    rollout_episodes(ChangedActor(act, act_and_intervene), env, seeds, on_step=accumulate)
    return {which: InterventionEffect(*rows) for which, rows in sums.items()}


def _effects(
    actions: NDArray[Any],
    new_actions: NDArray[Any],
    maps: NDArray[np.float64],
    new_maps: NDArray[np.float64],
    counterfactual: Mapping[str, NDArray[Any]],
) -> NDArray[np.float64]:
    """Terms of the fields of an `InterventionEffect` for one step of N environments, float64 [4, N]."""
    return np.stack(
        [
            np.ones(len(maps)),
            action_change(actions, new_actions),
            np.abs(new_maps - maps).sum(axis=(1, 2)) / 2,
            pointing_game(new_maps[:, None], counterfactual["after"])[:, 0],
        ]
    )


def _counts(thing: Thing, edit: str, counterfactual: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Whether each of the N frames counts for an intervention, bool [N]."""
    pixels = {name: counterfactual[name].sum(axis=(1, 2)) for name in ("before", "after", "target")}
    counts = (pixels["before"] >= MIN_PIXELS) & (pixels["target"] >= MIN_PIXELS)
    if edit == "moved":
        counts &= pixels["after"] >= MIN_PIXELS
    if thing == "distractor":
        counts &= (counterfactual["target"] == counterfactual["target_after"]).all(axis=(1, 2))
    return np.asarray(counts)
