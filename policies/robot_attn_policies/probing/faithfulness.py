"""Measure whether attention drives a policy's actions and return, with verdicts that can be negative.

Three tests, with thresholds that were fixed before anything was measured with them:

- *Deletion and insertion* (`run_pixel_ablation`). The policy acts while the most-attended pixels are deleted
  from its frames, and while as many others are (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421,
  section 3.2; measured here on the return). The map is computed on the whole frame, the action on what is
  left of it.
- *Head ablation* (`run_head_ablation`). Heads are ablated one at a time, and all but one.
- *Interventions* (`measure_interventions`). One object is moved, recoloured or removed in the simulator
  (Atrey et al. 2020, https://arxiv.org/abs/1912.05743, call for such tests of saliency maps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

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
)
from robot_attn.focus import FocusMeter, FocusTotals, center_bias_map, pointing_game
from robot_attn_policies.evaluation.evaluate import normalised_score
from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval, ratio_of_sums
from robot_attn_policies.probing.probe import frames_of, with_frames
from robot_attn_policies.probing.steps import concatenate_observations
from robot_attn_policies.rollouts.actor import Actor, ChangedActor, ObservationBatch, peek
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.sb3.context import concatenate_contexts

SHARE = 0.1
"""Fraction of the frame's pixels that the verdict's ablations delete."""

Outcome: TypeAlias = Literal["yes", "no", "undecided"]
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
        focus: focus of two maps in the episodes without ablation: 0 is the map that selects the pixels, 1 the
            centre-bias map. None where the environment gives no target masks.
    """

    share: float
    full: NDArray[np.float64]
    random: NDArray[np.float64]
    ablated: dict[str, NDArray[np.float64]]
    focus: FocusTotals | None

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
    names: Sequence[str] = tuple(PIXEL_ABLATIONS),
    share: float = SHARE,
    weights: NDArray[np.float64] | None = None,
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
        names: which of `PIXEL_ABLATIONS` to run.
        share: fraction of the pixels to delete, in [0, 1].
        weights: float64 [heads], weight of each head in the map; None for equal weights.
        image: key of the frames in dict observations.
        seed: random seed of random discs and of ties between pixels.
        on_rollout: called with "full" and with each of `names`.

    Returns:
        The returns, and the focus of the unchanged episodes.

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
    center_bias = center_bias_map(grid.image_size)[None]
    meter = FocusMeter(len(seeds), 2)
    has_masks = False
    callback = on_rollout("full")

    def measure_focus(step: Step) -> None:
        nonlocal has_masks
        maps = _pixel_maps(step.percept, grid, weights)[step.running]
        if "target_mask" in step.info:
            has_masks = True
            pair = np.stack([maps, np.broadcast_to(center_bias, maps.shape)], axis=1)
            meter.add(step.episode[step.running], pair, step.info["target_mask"][step.running])
        if callback is not None:
            callback(step)

    full = rollout_episodes(act, env, seeds, on_step=measure_focus).returns
    ablated = {}
    for name in names:
        rng = np.random.default_rng(seed)

        def act_ablated(
            observation: ObservationBatch, name: str = name, rng: np.random.Generator = rng
        ) -> tuple[NDArray[Any], Percept | None]:
            uses_attention = name in ATTENTION_BASED
            percept = peek(act, observation)[1] if uses_attention else None
            frames = frames_of(observation, image, grid)
            maps = _pixel_maps(percept, grid, weights) if uses_attention else np.empty(frames.shape[:3])
            remaining = ablate_pixels(frames, _deleted_pixels(name, maps, share, rng))
            actions, _ = act(with_frames(observation, image, grid, remaining))
            return actions, percept

        actor = ChangedActor(act, act_ablated)
        ablated[name] = rollout_episodes(actor, env, seeds, on_step=on_rollout(name)).returns
    return PixelAblation(share, full, random, ablated, meter.totals() if has_masks else None)


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


def _pixel_maps(
    percept: Percept | None, grid: AttentionGrid, weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Combine the heads of a percept into one smooth map per frame, float64 [B, H, W]."""
    if percept is None:
        raise ValueError("expected attention to test, got none: give an actor that returns a Percept")
    return spread(AttentionMaps(percept.attention.numpy(force=True), grid), weights)


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


def measure_interventions(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    grid: AttentionGrid,
    *,
    every: int = 10,
    weights: NDArray[np.float64] | None = None,
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
            maps = _pixel_maps(percept, grid, weights)
            for thing, edit in sums:
                counterfactual = simulator.render_counterfactual(thing, **INTERVENTIONS[edit])
                changed = with_frames(observation, image, grid, counterfactual["image"])
                if isinstance(changed, Mapping):  # every camera sees the change
                    frames = {name: counterfactual[name] for name in counterfactual if name not in MASKS}
                    changed = {name: frames.get(name, entry) for name, entry in changed.items()}
                new_actions, new_percept = peek(act, changed)
                new_maps = _pixel_maps(new_percept, grid, weights)
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


POINTING, OVER_CENTRE = 0.5, 2.0
"""Localised: in at least half of the frames in which the target is visible, the most-attended pixel is on it;
and the attention mass on the target is at least twice that of a centre-bias map."""
MAX_DELETION_RETURN, MIN_INSERTION_RETURN = 0.25, 0.85
"""Faithful, with returns on a scale from 0 (random policy) to 1 (no ablation): at most 0.25 with the
most-attended pixels deleted, and at least 0.85 with only those kept, or with as many others deleted."""
SHARE_OF_CHANGE = 0.75
"""Causally specific: an intervention on the target changes actions and attention at least three times as much
as the same one on a distractor, so that three quarters of both changes are due to the target. In at least
half of the frames the most-attended pixel is on the target after it was moved."""
MAX_RANK_CORRELATION = 0.5
"""Weight-dependent: largest rank correlation between the policy's maps and those of random weights (parameter
randomisation: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""


@dataclass(frozen=True)
class Check:
    """A figure, and the threshold that was fixed before it was measured.

    Attributes:
        text: what the figure is.
        figure: its value and confidence interval.
        limit: the threshold.
        at_least: True if the figure must be at least the threshold, False if at most.
    """

    text: str
    figure: Interval
    limit: float
    at_least: bool

    @property
    def outcome(self) -> Outcome:
        """Return "yes" or "no" if the whole interval is on one side of the limit, else "undecided"."""
        low, high = (
            (self.figure.low, self.figure.high) if self.at_least else (-self.figure.high, -self.figure.low)
        )
        limit = self.limit if self.at_least else -self.limit
        return "yes" if low >= limit else "no" if high < limit else "undecided"

    def __str__(self) -> str:
        value, low, high = self.figure
        required = f"at {'least' if self.at_least else 'most'} {self.limit:g} required"
        return f"{self.text}: {value:.2f} [{low:.2f}, {high:.2f}], {required}: {self.outcome}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a test, with its checks.

    Attributes:
        question: name of the test.
        checks: the checks that decide it.
    """

    question: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """Return "no" if a check fails, "undecided" if one is undecided or there are none, else "yes"."""
        outcomes = {check.outcome for check in self.checks} or {"undecided"}
        return "no" if "no" in outcomes else "undecided" if "undecided" in outcomes else "yes"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks whose outcome is not "yes"."""
        return tuple(check for check in self.checks if check.outcome != "yes")

    def __str__(self) -> str:
        return "\n".join([f"{self.question}: {self.outcome}", *(f"- {check}" for check in self.checks)])


def judge_focus(focus: FocusTotals) -> Verdict:
    """Judge whether attention is localised on the target, from `PixelAblation.focus`."""
    pointing = bootstrap_interval(np.stack(focus.pointing(0), axis=1), ratio_of_sums)
    over = bootstrap_interval(np.stack(focus.mass_over(0, 1), axis=1), ratio_of_sums)
    return Verdict(
        "Localised",
        (
            Check("share of the frames whose most-attended pixel is on the target", pointing, POINTING, True),
            Check("attention mass on the target, relative to a centre-bias map", over, OVER_CENTRE, True),
        ),
    )


def judge_faithfulness(ablation: PixelAblation) -> Verdict:
    """Judge whether the return depends on the attended pixels.

    A policy whose return does not exceed that of random actions is not tested further: there is no return to
    lose.
    """
    gain = Check("return above the random policy's", ablation.gain, 0.0, True)
    if gain.figure.value <= 0:
        return Verdict("Faithful (deletion and insertion)", (gain,))
    limits = {
        "deleted": (MAX_DELETION_RETURN, False),
        "kept": (MIN_INSERTION_RETURN, True),
        "random": (MIN_INSERTION_RETURN, True),
        "centred": (MIN_INSERTION_RETURN, True),
    }
    return Verdict(
        "Faithful (deletion and insertion)",
        (
            gain,
            *(
                Check(
                    f"share of the return that remains with {PIXEL_ABLATIONS[name]}",
                    ablation.normalised_return(name),
                    limit,
                    at_least,
                )
                for name, (limit, at_least) in limits.items()
            ),
        ),
    )


def judge_interventions(effects: Mapping[tuple[Thing, str], InterventionEffect]) -> Verdict:
    """Judge whether actions and attention respond to the target and not to distractors."""
    checks = []
    for edit in INTERVENTIONS:
        target, distractor = effects["target", edit], effects["distractor", edit]
        for name, target_change, distractor_change in (
            ("action", target.action, distractor.action),
            ("attention", target.attention, distractor.attention),
        ):
            rows = np.stack([target_change, target.frames, distractor_change, distractor.frames], axis=1)
            text = (
                f"change in {name} with the target {edit}, as a share of the sum over target and distractor"
            )
            checks.append(Check(text, bootstrap_interval(rows, _share_of_change), SHARE_OF_CHANGE, True))
    moved = effects["target", "moved"]
    found = bootstrap_interval(np.stack([moved.hits, moved.frames], axis=1), ratio_of_sums)
    text = "share of the frames whose most-attended pixel is on the target where it was moved to"
    return Verdict(
        "Causally specific (interventions in the simulator)", (*checks, Check(text, found, POINTING, True))
    )


def judge_weights(correlation: Interval) -> Verdict:
    """Judge whether the maps depend on the learned weights.

    Args:
        correlation: rank correlation of the maps with those of random weights, in [-1, 1].
    """
    text = "rank correlation of the maps with those of random weights"
    return Verdict(
        "Weight-dependent (parameter randomisation)", (Check(text, correlation, MAX_RANK_CORRELATION, False),)
    )


def _share_of_change(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Share of the first of two ratios in their sum; 0.5 if both are 0.

    Args:
        rows: [..., 4], numerators and denominators of the two ratios, to be summed over `axis`.
        axis: axis of the episodes.
    """
    ours, theirs = ratio_of_sums(rows[..., :2], axis), ratio_of_sums(rows[..., 2:], axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ours + theirs == 0, 0.5, ours / (ours + theirs))
