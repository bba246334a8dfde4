"""Measure whether attention drives a policy's actions and return, with verdicts that can be negative.

Three tests, with thresholds that were fixed before anything was measured with them:

- *Deletion and insertion.* The policy acts while pixels are deleted from its frames: the most-attended ones,
  and as many others (`run_pixel_ablation`; Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, section
  3.2, here on return). The map is always that of the whole frame, the action that of
  what is left of it.
- *Head ablation.* Heads are ablated, one at a time and all but one (`run_head_ablation`).
- *Interventions.* In the simulator one object is moved, recoloured or removed, and nothing else
  (`measure_interventions`; Atrey et al. 2020, https://arxiv.org/abs/1912.05743, ask for such tests of
  saliency).
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
from robot_attn_policies.probing.steps import joined
from robot_attn_policies.rollouts.protocols import HasInterventions, Thing, ability
from robot_attn_policies.rollouts.rollout import Actor, ObservationBatch, Step, rollout_episodes

SHARE = 0.1
"""Of the frame's pixels: what the verdict is about."""

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
"""What is taken from the frames, by name.

"centre" and "borrowed" are no controls where the policy keeps its target at a fixed place in the frame, as
one that tracks does: they hide the target. They tell what deletion at the target's usual place costs,
whatever the frame shows; a map that says more than that costs more when its pixels go.
"""


LOOKED = ("deleted", "kept", "borrowed")
"""Of `PIXEL_ABLATIONS`, those that depend on where the policy looks."""


@dataclass(frozen=True)
class PixelAblation:
    """Returns of E episodes: unchanged, with pixels deleted, and of random actions; on the same seeds."""

    share: float
    """Of the pixels, in all but "blind"."""
    full: NDArray[np.float64]
    """[E] returns."""
    random: NDArray[np.float64]
    """[E] returns of the random policy."""
    erased: dict[str, NDArray[np.float64]]
    """[E] returns by the name of the ablation."""
    focus: FocusTotals | None
    """Of two maps, in the episodes as they are: the one that pixels are chosen by, and the centre-biased one.
    None where the environment gives no target masks."""

    def plain(self, name: str) -> Interval:
        """The share of its return that the policy keeps; NaN where it earned nothing above 0."""
        return bootstrap_interval(np.stack([self.erased[name], self.full], axis=1), ratio_of_sums)

    def above_random(self, name: str) -> Interval:
        """The same with the random policy's return as zero: what a policy has that sees nothing.

        Raises:
            ValueError: the policy earned no more than the random one.
        """
        return normalised_score(self.erased[name], self.random, self.full)

    @property
    def gain(self) -> Interval:
        """Return above the random policy's."""
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
    """Play the episodes of `seeds` unchanged, and once for each of `names` with pixels deleted.

    Args:
        act: the policy, which must say where it looks.
        env: its environment, of two or more at once for "borrowed".
        seeds: of the episodes.
        grid: where the cells of its maps lie.
        random: [E] the random policy's returns on these seeds.
        names: of `PIXEL_ABLATIONS`.
        share: of the pixels.
        weights: [heads] for `spread`; None for their mean.
        image: the observation's entry with the frames, where it is a mapping.
        seed: random seed.
        on_rollout: called with "full" and each of `names`.

    Raises:
        ValueError: as `rollout_episodes` and `spread`; an unknown name; random returns of other seeds; no
            attention; frames of another size than the maps'; or "borrowed" from a single environment.
    """
    unknown = [name for name in names if name not in PIXEL_ABLATIONS]
    if unknown:
        raise unknown_name("pixel ablation", unknown[0], PIXEL_ABLATIONS)
    if len(random) != len(seeds):
        raise ValueError(
            f"expected a return of the random policy for each of {len(seeds)} seeds, got {len(random)}"
        )
    if "borrowed" in names and env.num_envs < 2:
        raise ValueError("a map is borrowed from another episode of the batch: use 2 environments or more")
    on_rollout = on_rollout or (lambda name: None)
    center = center_bias_map(grid.image_size)[None]
    meter = FocusMeter(len(seeds), 2)
    measured = False
    after = on_rollout("full")

    def see(step: Step) -> None:
        nonlocal measured
        maps = _maps(step.percept, grid, weights)[step.running]
        if "target_mask" in step.info:
            measured = True
            pair = np.stack([maps, np.broadcast_to(center, maps.shape)], axis=1)
            meter.add(step.episode[step.running], pair, step.info["target_mask"][step.running])
        if after is not None:
            after(step)

    full = rollout_episodes(act, env, seeds, on_step=see).returns
    erased = {}
    for name in names:
        rng = np.random.default_rng(seed)

        def act_ablated(
            observation: ObservationBatch, name: str = name, rng: np.random.Generator = rng
        ) -> tuple[NDArray[Any], Percept | None]:
            percept = act(observation)[1] if name in LOOKED else None
            frames = frames_of(observation, image, grid)
            maps = _maps(percept, grid, weights) if name in LOOKED else np.empty(frames.shape[:3])
            left = ablate_pixels(frames, _holes(name, maps, share, rng))
            actions, _ = act(with_frames(observation, image, grid, left))
            return actions, percept

        erased[name] = rollout_episodes(act_ablated, env, seeds, on_step=on_rollout(name)).returns
    return PixelAblation(share, full, random, erased, meter.totals() if measured else None)


def _holes(name: str, maps: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The pixels that this ablation deletes, bool [B, H, W]."""
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


def _maps(
    percept: Percept | None, grid: AttentionGrid, weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if percept is None:
        raise ValueError("the policy gives no attention to test; give an actor that returns a Percept")
    return spread(AttentionMaps(percept.attention.numpy(force=True), grid), weights)


@dataclass(frozen=True)
class HeadAblation:
    """What heads carry: returns on the same seeds, and the change in action in the episodes as they are."""

    full: NDArray[np.float64]
    """[E] returns."""
    without: NDArray[np.float64]
    """[heads, E] returns with one head ablated."""
    alone: NDArray[np.float64]
    """[heads, E] returns with all other heads ablated."""
    action_change: NDArray[np.float64]
    """[heads] mean change in action with one head ablated, relative to that with all heads ablated."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """[heads] their shares in the change in action, with sum 1: weights for `spread`."""
        return np.asarray(self.action_change / self.action_change.sum())


def run_head_ablation(
    act: Actor,
    env: VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    heads: HeadInputs,
    *,
    returns: bool = True,
    on_rollout: OnRollout | None = None,
) -> HeadAblation:
    """Play the episodes of `seeds` as they are, without each head, and with each head alone.

    An ablated head passes on its mean output over the unchanged episodes. Heads that attend to the same
    object are redundant: ablating one of them costs little, and either alone may suffice.

    Args:
        act: the policy whose perception `heads` is of.
        env: its environment.
        seeds: of the episodes.
        heads: `Perception.head_inputs` of its perception.
        returns: whether to play on without heads. Else only actions are compared, and returns are empty.
        on_rollout: called with "full", and "without 3" or "only 3" for head 3.

    Raises:
        NoDecision: the actions do not depend on any head.
        ValueError: as `rollout_episodes`.
    """
    on_rollout = on_rollout or (lambda name: None)
    every = range(len(heads.columns))
    met: list[tuple[ObservationBatch, NDArray[Any], NDArray[np.bool_]]] = []
    after = on_rollout("full")

    def see(step: Step) -> None:
        met.append((step.observation, step.actions, step.running))
        if after is not None:
            after(step)

    with heads.recorded() as seen:
        full = rollout_episodes(act, env, seeds, on_step=see).returns
    usual = torch.cat(seen).mean(dim=0)

    observed = [joined([observation for observation, _, _ in some]) for some in _batches(met)]
    done, on = (np.concatenate([row[i] for row in met]) for i in (1, 2))

    def change(silent: Sequence[int]) -> float:
        with heads.ablated(silent, usual):
            actions = np.concatenate([act(observation)[0] for observation in observed])
        return float(action_change(done, actions)[on].mean())

    def play(name: str, silent: Sequence[int]) -> NDArray[np.float64]:
        if not returns:
            return np.empty(0)
        with heads.ablated(silent, usual):
            return rollout_episodes(act, env, seeds, on_step=on_rollout(name)).returns

    scale = change(every)
    if scale == 0:
        raise InsensitivePolicyError("the actions are the same with all heads ablated: no head affects them")
    return HeadAblation(
        full,
        np.stack([play(f"without {head}", [head]) for head in every]),
        np.stack([play(f"only {head}", [other for other in every if other != head]) for head in every]),
        np.array([change([head]) for head in every]) / scale,
    )


def _batches(met: list[Any]) -> Iterator[list[Any]]:
    """Steps by the few, so that a policy looks at some 64 frames at a time and not at one."""
    size = max(1, 64 // len(met[0][1]))
    for start in range(0, len(met), size):
        yield met[start : start + size]


INTERVENTIONS: dict[str, dict[str, Any]] = {
    "moved": {"shift": (0.25, 0.0)},
    "recoloured": {"rgba": (0.45, 0.45, 0.5, 1.0)},
    "removed": {"removed": True},
}
"""What is done to a thing, as arguments of an environment's `render_counterfactual`."""
THINGS: tuple[Thing, ...] = ("target", "distractor")
SMALLEST = 8
"""Pixels: of a thing of which less is seen, no change is expected to be noticed."""


@dataclass(frozen=True)
class InterventionEffect:
    """What one edit of one thing did, as sums over the frames of E episodes that count, [E] each.

    A frame counts where the thing is seen, and the target too. A thing that is moved must stay in view. An
    edit of a distractor must leave the target as it was seen: what uncovers or hides it edits the target.
    """

    frames: NDArray[np.float64]
    action: NDArray[np.float64]
    """Change in action."""
    attention: NDArray[np.float64]
    """Share of the map that moved: half the sum of absolute differences, in [0, 1]."""
    hits: NDArray[np.float64]
    """Score of the pointing game on the thing, where it is seen after the edit."""


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
    """Play the episodes of `seeds`, and render counterfactuals at intervals: by (object, edit).

    Args:
        act: the policy, which must say where it looks.
        env: its environment, which can show what would be seen otherwise (`HasInterventions`).
        seeds: of the episodes.
        grid: where the cells of its maps lie.
        every: steps between two counterfactuals.
        weights: [heads] for `spread`; None for their mean.
        image: the observation's entry with the frames.
        on_step: called after each step.

    Raises:
        ValueError: as `rollout_episodes` and `spread`; or the environment renders no counterfactuals.
    """
    simulator = ability(env, HasInterventions)
    if simulator is None:
        raise ValueError(
            "expected an environment with `render_counterfactual`, got one without: use a task of "
            "robot_attn_envs, or add the method"
        )
    sums = {(thing, edit): np.zeros((4, len(seeds))) for thing in THINGS for edit in INTERVENTIONS}
    pending: dict[tuple[Thing, str], NDArray[np.float64]] = {}
    clock = 0

    def act_and_intervene(observation: ObservationBatch) -> tuple[NDArray[Any], Percept | None]:
        nonlocal clock
        actions, percept = act(observation)
        if clock % every == 0:
            maps = _maps(percept, grid, weights)
            for thing, edit in sums:
                counterfactual = simulator.render_counterfactual(thing, **INTERVENTIONS[edit])
                frames = counterfactual["image"]
                changed, seen = act(with_frames(observation, image, grid, frames))
                rows = _effects(actions, changed, maps, _maps(seen, grid, weights), counterfactual)
                pending[thing, edit] = rows * _counts(thing, edit, counterfactual)
        clock += 1
        return actions, percept

    def see(step: Step) -> None:
        for which, rows in pending.items():
            sums[which][:, step.episode[step.running]] += rows[:, step.running]
        pending.clear()
        if on_step is not None:
            on_step(step)

    rollout_episodes(act_and_intervene, env, seeds, on_step=see)
    return {which: InterventionEffect(*rows) for which, rows in sums.items()}


def _effects(
    actions: NDArray[Any],
    changed: NDArray[Any],
    maps: NDArray[np.float64],
    others: NDArray[np.float64],
    counterfactual: Mapping[str, NDArray[Any]],
) -> NDArray[np.float64]:
    """The rows of an `InterventionEffect` for one step, [4, N]."""
    return np.stack(
        [
            np.ones(len(maps)),
            action_change(actions, changed),
            np.abs(others - maps).sum(axis=(1, 2)) / 2,
            pointing_game(others[:, None], counterfactual["after"])[:, 0],
        ]
    )


def _counts(thing: Thing, edit: str, counterfactual: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Which of the N frames count for an edit."""
    pixels = {name: counterfactual[name].sum(axis=(1, 2)) for name in ("before", "after", "target")}
    counts = (pixels["before"] >= SMALLEST) & (pixels["target"] >= SMALLEST)
    if edit == "moved":
        counts &= pixels["after"] >= SMALLEST
    if thing == "distractor":
        counts &= (counterfactual["target"] == counterfactual["target_after"]).all(axis=(1, 2))
    return np.asarray(counts)


POINTING, OVER_CENTRE = 0.5, 2.0
"""Localised: the map's maximum is on the target in at least half of the frames in which that is seen, and the
map has at least twice the mass there that one has which always looks at the centre."""
MAX_DELETION_RETURN, MIN_INSERTION_RETURN = 0.25, 0.85
"""Faithful: without the most-attended pixels at most a quarter of the return above the random policy's is
left; with nothing but them, and without as many others, 85 % or more."""
SHARE_OF_CHANGE = 0.75
"""Causally specific: an edit of the target changes action and attention at least three times as much as
the same edit of a distractor, so that three quarters of both changes are the target's; and the map's maximum
is on the target, where that was moved to, in at least half of the frames."""

MAX_RANK_CORRELATION = 0.5
"""Weight-dependent: the rank correlation of the policy's maps with those of random weights is at most this
(parameter randomisation: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""


@dataclass(frozen=True)
class Check:
    """A figure, and the threshold that was fixed before it was measured."""

    text: str
    figure: Interval
    limit: float
    at_least: bool

    @property
    def outcome(self) -> Outcome:
        """Whether the whole interval is on the right side of the limit, or on the wrong one."""
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
    """An answer, and the checks that it comes from."""

    question: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """No where one check says no, undecided where one is undecided or there is none, else yes."""
        outcomes = {check.outcome for check in self.checks} or {"undecided"}
        return "no" if "no" in outcomes else "undecided" if "undecided" in outcomes else "yes"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not say yes: where it fails."""
        return tuple(check for check in self.checks if check.outcome != "yes")

    def __str__(self) -> str:
        return "\n".join([f"{self.question}: {self.outcome}", *(f"- {check}" for check in self.checks)])


def judge_focus(focus: FocusTotals) -> Verdict:
    """Whether attention is localised on the target; `focus` as `PixelAblation` has it."""
    pointing = bootstrap_interval(np.stack(focus.pointing(0), axis=1), ratio_of_sums)
    over = bootstrap_interval(np.stack(focus.mass_over(0, 1), axis=1), ratio_of_sums)
    return Verdict(
        "Localised",
        (
            Check("share of the frames whose most-attended pixel is on the target", pointing, POINTING, True),
            Check("mass on the target, times that of a map of the centre", over, OVER_CENTRE, True),
        ),
    )


def judge_faithfulness(erased: PixelAblation) -> Verdict:
    """Whether the return depends on the attended pixels.

    A policy whose return does not exceed that of random actions is not tested further: it has nothing to
    lose.
    """
    gain = Check("return above the random policy's", erased.gain, 0.0, True)
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
                    f"share of the return left, {PIXEL_ABLATIONS[name]}",
                    erased.above_random(name),
                    limit,
                    at_least,
                )
                for name, (limit, at_least) in limits.items()
            ),
        ),
    )


def judge_interventions(effects: Mapping[tuple[Thing, str], InterventionEffect]) -> Verdict:
    """Whether action and attention follow the target, and leave distractors alone."""
    checks = []
    for edit in INTERVENTIONS:
        target, distractor = effects["target", edit], effects["distractor", edit]
        for name, ours, theirs in (
            ("action", target.action, distractor.action),
            ("attention", target.attention, distractor.attention),
        ):
            rows = np.stack([ours, target.frames, theirs, distractor.frames], axis=1)
            text = f"change in {name} with the target {edit}, as a share of that and of a distractor's"
            checks.append(Check(text, bootstrap_interval(rows, _share_of_change), SHARE_OF_CHANGE, True))
    moved = effects["target", "moved"]
    found = bootstrap_interval(np.stack([moved.hits, moved.frames], axis=1), ratio_of_sums)
    text = "share of the frames whose most-attended pixel is on the target where it was moved to"
    return Verdict(
        "Causally specific (interventions in the simulator)", (*checks, Check(text, found, POINTING, True))
    )


def judge_weights(likeness: Interval) -> Verdict:
    """Whether maps are about what was learned; `likeness` of those with other weights, in [-1, 1]."""
    text = "rank correlation of the maps with those of random weights"
    return Verdict(
        "Weight-dependent (parameter randomisation)", (Check(text, likeness, MAX_RANK_CORRELATION, False),)
    )


def _share_of_change(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Means [..., 0] / [..., 1] and [..., 2] / [..., 3]: the first over their sum, a half if both are 0."""
    ours, theirs = ratio_of_sums(rows[..., :2], axis), ratio_of_sums(rows[..., 2:], axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ours + theirs == 0, 0.5, ours / (ours + theirs))
