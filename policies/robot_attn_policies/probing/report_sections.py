"""The sections of the report on a policy: figures in, words, tables and charts out."""

from __future__ import annotations

import copy
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
    METHODS,
    ActionCurves,
    InsensitivePolicyError,
    action_curves,
    attention_delay,
    attention_gradient,
    best_lag,
    cluster_maps,
    dwells,
    entropy,
    focus_by_condition,
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
from robot_attn.focus import FocusMeter, RatioOfSums, chance, mass_on_target, pointing_game
from robot_attn_policies.evaluation.statistics import (
    RESAMPLES,
    Interval,
    Statistic,
    bootstrap_interval,
    ratio_of_sums,
)
from robot_attn_policies.pages.report import Cell, Chart, Picture, Section, Series, Table
from robot_attn_policies.probing.faithfulness import (
    PIXEL_ABLATIONS,
    HeadAblation,
    InterventionEffect,
    PixelAblation,
    judge_faithfulness,
    judge_focus,
    judge_interventions,
    judge_weights,
)
from robot_attn_policies.probing.probe import (
    PolicyProbe,
    action_gradient_maps,
    decision,
    frames_of,
    with_frames,
)
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.rollouts.rollout import ObservationBatch
from robot_attn_policies.sb3.act import prepare
from robot_attn_policies.sb3.extractor import find_extractor, perceive

CURVE = ("deleted", "kept", "random", "centred")
"""Of `PIXEL_ABLATIONS`, in the curves of return."""
FRAMES = 240
"""Of those that were kept, at most, in the curves of action."""
FEW = 32
"""Frames at most for what takes many passes over each: gradients, and other weights."""
DRAWS = {"attention": 12, "gradient": 3, "uniform": 1}
"""Of random weights, by the kind of map: attention varies most with the draw, and gradients cost most."""
LOOSE = 0.3
"""Mean distance from the medoid above which a group is said to differ much."""
PICTURE = 256
"""Height of pictures in pixels."""


def focus_section(seen: StepBatch, erased: PixelAblation, episodes: int) -> Section:
    """Where it looks, against where the target is."""
    title = "Localised: is attention on the target?"
    if erased.focus is None or seen.masks is None:
        return Section("focus", title, ("This environment does not tell where the target is.",))
    if not seen.masks.any():
        return Section("focus", title, ("The target was never in view: there was nothing to look at.",))
    count = seen.maps.weights.shape[1]
    meter = FocusMeter(episodes, count)
    hits = np.full(len(seen), np.nan)
    for start in range(0, len(seen), 64):  # maps of the frame's size are large
        rows = slice(start, start + 64)
        meter.add(seen.episode[rows], seen.maps[rows].upsampled(), seen.masks[rows])
        hits[rows] = pointing_game(_spread(seen.together[rows])[:, None], seen.masks[rows])[:, 0]
    totals = meter.totals()
    figures = (totals.mean_mass, totals.mass_over_chance, totals.pointing)
    heads: list[tuple[Cell, ...]] = [
        (f"head {head}", *(_ratio(figure(head)) for figure in figures)) for head in range(count)
    ]
    conditions: list[tuple[Cell, ...]] = [
        (condition.name, condition.level, int(condition.means.denominator.sum()), _ratio(condition.means))
        for condition in focus_by_condition(hits, seen.masks, seen.episode, seen.step)
    ]
    share = totals.visible.sum() / (totals.visible.sum() + totals.hidden.sum())
    return Section(
        "focus",
        title,
        (
            f"The target was in view in {share:.0%} of the frames. The verdict is about the heads together: "
            "the mean of their maps, blurred by one cell.",
        ),
        judge_focus(erased.focus),
        (
            Table("Each head", ("head", "mass on target", "times chance", "maximum on target"), tuple(heads)),
            Table("Where it fails", ("by", "", "frames", "maximum on target"), tuple(conditions)),
        ),
    )


def faithful_section(erased: PixelAblation, at_shares: Mapping[float, PixelAblation]) -> Section:
    """What is left of the return without the pixels that the maps name, and with nothing else."""
    verdict = judge_faithfulness(erased)
    gain = verdict.checks[0]
    charts = []
    if gain.figure.value > 0:
        left = {name: erased.above_random(name) for name in erased.erased}
        names = [PIXEL_ABLATIONS[name] for name in left]
        charts.append(
            Chart(
                f"Return left with {erased.share:.0%} of the pixels deleted",
                "ablation",
                "share of the return above the random policy's",
                (_series("return left", names, list(left.values())),),
                "bars",
            )
        )
        if len(at_shares) > 1:
            charts.append(
                Chart(
                    "Return left as more pixels are deleted",
                    "share of the pixels",
                    "share of the return above the random policy's",
                    tuple(
                        _series(name, list(at_shares), [e.above_random(name) for e in at_shares.values()])
                        for name in CURVE
                    ),
                )
            )
    plain = tuple((PIXEL_ABLATIONS[name], erased.plain(name)) for name in erased.erased)
    told = [
        "The policy plays on while pixels are taken from its frames and their surroundings continued over "
        "them: those that its maps name, or as many others. If looking decides, it must lose its return "
        "without the first and keep it without the others.",
        "The disc at the centre and the pixels named in another episode are no controls for a policy that "
        "keeps its target at one place: they hide it too.",
    ]
    if {"blind", "deleted"} <= set(erased.erased) and erased.erased["blind"].mean() > max(
        erased.erased["deleted"].mean(), 0.5 * erased.full.mean()
    ):
        told.append(
            "It earns more without any pixel than without the most-attended ones: it can do its task "
            "blindly, and what is continued over a hole misleads it."
        )
    return Section(
        "faithful",
        "Faithful: does the return depend on the attended pixels?",
        tuple(told),
        verdict,
        (Table("Share of the plain return left", ("ablation", "return left"), plain),)
        if erased.full.mean() > 0
        else (),
        tuple(charts),
    )


def reason_section(effects: Mapping[tuple[Any, str], InterventionEffect] | None) -> Section:
    """Whether action and attention follow the target and nothing else."""
    title = "Causally specific: do actions and attention respond to the target alone?"
    if effects is None:
        text = "This environment cannot show its frames with one thing changed, so this is not known."
        return Section("reason", title, (text,))
    counted = {which: float(effect.frames.sum()) for which, effect in effects.items()}
    if not all(counted.values()):
        lacking = sorted({thing for (thing, _), count in counted.items() if count == 0})
        text = f"No frame showed what had to be changed ({' and '.join(lacking)}), so this is not known."
        return Section("reason", title, (text,))
    rows = tuple(
        (
            f"{thing} {edit}",
            int(effect.frames.sum()),
            _ratio(RatioOfSums(effect.action, effect.frames)),
            _ratio(RatioOfSums(effect.attention, effect.frames)),
        )
        for (thing, edit), effect in effects.items()
    )
    return Section(
        "reason",
        title,
        (
            "In the simulator one thing was moved, recoloured or removed, and the policy was shown the frame "
            "as it would then be. Action and attention should follow the target, and leave a distractor "
            "alone.",
        ),
        judge_interventions(effects),
        (Table("Mean change", ("edit", "frames", "change in action", "share of the map that moved"), rows),),
    )


def heads_section(silenced: HeadAblation) -> Section:
    """Which head carries the decision."""

    def left(returns: NDArray[np.float64]) -> Interval | None:
        if returns.size == 0:
            return None  # not played
        return _ratio(RatioOfSums(returns, silenced.full))

    rows = tuple(
        (f"head {head}", float(change), left(without), left(alone))
        for head, (change, without, alone) in enumerate(
            zip(silenced.action_change, silenced.without, silenced.alone, strict=True)
        )
    )
    most = int(silenced.action_change.argmax())
    return Section(
        "heads",
        "Which head drives the actions?",
        (
            f"Head {most} changes the action most when it is ablated: its output is then its mean, "
            "whatever the frame. Heads that attend to the same object are redundant.",
        ),
        tables=(
            Table(
                "Each head ablated",
                (
                    "head",
                    "change in action (1: all ablated)",
                    "return left without it",
                    "return left with it alone",
                ),
                rows,
            ),
        ),
    )


def action_section(probe: PolicyProbe, seen: StepBatch) -> Section:
    """Deletion and insertion on actions, in frames that were kept."""
    some = seen.some(FRAMES)
    frames, act = _of_frames(probe, some.observation)
    title = "Do actions depend on the attended pixels?"
    try:
        curves = action_curves(act, frames, _spread(some.together))
    except InsensitivePolicyError as error:
        return Section("actions", title, (f"{str(error).capitalize()}.",))
    return Section(
        "actions",
        title,
        (
            f"In {len(some)} frames pixels were deleted, or everything but them, and the action compared "
            "with that in the whole frame. A change of 1 is that without any pixel.",
        ),
        charts=(
            _curve_chart(
                "Deletion: change in action without the pixels", curves, curves.deleted, some.episode
            ),
            _curve_chart(
                "Insertion: change in action with those pixels alone", curves, curves.inserted, some.episode
            ),
        ),
    )


def weights_section(probe: PolicyProbe, seen: StepBatch) -> Section:
    """Whether maps change as weights are randomised (Adebayo et al. 2018)."""
    some = seen.some(FEW)
    stages: dict[str, list[NDArray[np.float64]]] = {}
    draws = DRAWS[probe.kind]
    for seed in range(draws):
        for name, maps in _maps_without_weights(probe, some, seed):
            stages.setdefault(name, []).append(_likeness(some.together.weights, maps))
    likeness = [_by_draw_and_episode(np.stack(rows), some.episode) for rows in stages.values()]
    return Section(
        "weights",
        "Weight-dependent: do the maps depend on the learned weights?",
        (
            f"Weights were randomised, layer by layer from the output to the input, {draws} times in "
            f"{len(some)} frames. A map that then stays as it is shows what is in the frame, or nothing at "
            "all, but not what the policy has learned to look at. What counts is the last stage, where all "
            "weights are random.",
            *(
                [
                    "Maps of gradients resemble each other from frame to frame too: where they fail here, "
                    "that says little of what the policy has learned."
                ]
                if probe.kind == "gradient"
                else []
            ),
        ),
        judge_weights(likeness[-1]),
        charts=(
            Chart(
                "Likeness to the policy's own maps",
                "all layers from the output down to",
                "rank correlation",
                (_series("likeness", list(stages), likeness),),
                "bars",
            ),
        ),
    )


def _by_draw_and_episode(values: NDArray[np.float64], episode: NDArray[np.int64]) -> Interval:
    """The mean of [draws, N] values, with the interval that other draws and other episodes would give."""
    _, which = np.unique(episode, return_inverse=True)
    of = np.eye(which.max() + 1)[which]
    sums, counts = values @ of, of.sum(axis=0)
    figure = float(sums.sum() / (len(values) * counts.sum()))
    if len(counts) == 1:
        return Interval(figure, float("nan"), float("nan"))
    rng = np.random.default_rng(0)
    draws, episodes = (rng.multinomial(n, [1 / n] * n, size=RESAMPLES) for n in sums.shape)
    again = ((draws @ sums) * episodes).sum(axis=1) / (len(values) * (episodes @ counts))
    low, high = np.quantile(again, [0.025, 0.975])
    return Interval(figure, float(low), float(high))


def _likeness(maps: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank correlation [N]; of a map that says nothing 0 with one that does, and 1 with one that does not."""
    empty = np.stack([np.ptp(batch, axis=(1, 2)) == 0 for batch in (maps, others)])
    return np.where(empty.any(axis=0), empty.all(axis=0), rank_agreement(maps, others))


def _maps_without_weights(
    probe: PolicyProbe, seen: StepBatch, seed: int
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """The policy's maps [N, rows, cols] with ever more layers randomised, by the name of the last one."""
    probe.policy.predict(cast(Any, seen.observation))  # so that it holds no graph, which cannot be copied
    if probe.kind == "gradient":
        for name, changed in randomised(probe.policy, seed=seed):
            maps = action_gradient_maps(cast(BasePolicy, changed), seen.observation, probe.image)
            yield name, maps.double().numpy(force=True)
        return
    policy = copy.deepcopy(probe.policy)
    extractor = find_extractor(policy)
    for name, changed in randomised(extractor.perception, seed=seed):
        extractor.perception = cast(Perception, changed)
        attention = perceive(policy, seen.observation).attention.numpy(force=True)
        yield name, replace(seen, maps=AttentionMaps(attention, seen.maps.grid)).together.weights


def gradients_section(probe: PolicyProbe, seen: StepBatch) -> Section:
    """Whether gradients agree with the map, and what moves it."""
    some = seen.some(FEW)
    frames, decide = decision(probe.policy, some.observation, probe.image)
    rows: list[tuple[Cell, ...]] = []
    for method, words in METHODS.items():
        maps = gradient_maps(decide, frames, method, module=probe.policy)
        agreement = rank_agreement(some.together.weights, AttentionMaps.pooled(maps, probe.grid).weights)
        rows.append((f"of the action: {words}", _by_episode(agreement, some.episode)))
    if probe.kind == "attention":
        moved = _moved_by(probe, some, frames)
        agreement = rank_agreement(some.together.weights, AttentionMaps.pooled(moved, probe.grid).weights)
        rows.append(("of the places that the heads look at", _by_episode(agreement, some.episode)))
    return Section(
        "gradients",
        "Do gradients name the same places?",
        (
            f"In {len(some)} frames, how the action depends on each pixel, against the map of all "
            "heads together, cell by cell: 1 where both rank them equally, 0 where they have nothing in "
            "common. No verdict hangs on it, as gradients are an explanation that may fail too.",
        ),
        tables=(Table("Agreement with the map", ("gradients", "rank correlation"), tuple(rows)),),
    )


def _moved_by(probe: PolicyProbe, seen: StepBatch, frames: Tensor) -> NDArray[np.float64]:
    """Which pixels move the maps of the heads, as one, [N, H, W]."""
    extractor = find_extractor(probe.policy)
    tensors, _ = probe.policy.obs_to_tensor(cast(Any, seen.observation))
    with torch.no_grad():
        _, context, _ = extractor.inputs(prepare(probe.policy, tensors))
    maps = attention_gradient(extractor.perception, frames.detach(), context)
    return np.asarray(np.tensordot(seen.weights, maps, (0, 1)))


def clusters_section(seen: StepBatch, pictures: NDArray[np.uint8]) -> Section:
    """What the policy looks at, as a handful of frames."""
    found = cluster_maps(seen.together.weights)
    shown = []
    for label, (medoid, share, far) in enumerate(
        zip(found.medoids, found.shares, found.distances, strict=True)
    ):
        runs = stretches_of(found.labels == label, seen.episode)
        length = float(np.mean([run.rows for run in runs]))
        caption = f"{share:.0%} of the frames, for {length:.1f} steps at a time"
        if far > LOOSE:
            caption += "; they differ much"
        shown.append(_picture(seen, pictures, int(medoid), caption))
    return Section(
        "clusters",
        "What does it look at?",
        (f"The maps of {len(seen):,} frames in {len(found)} groups; of each the frame in the middle.",),
        pictures=tuple(shown),
    )


def time_section(seen: StepBatch) -> Section:
    """How wide attention is, how it moves and how late it is."""
    grid = seen.maps.grid
    wide = entropy(seen.together.weights)
    peaks = peak_places(seen.together)
    far = jumps(peaks, seen.episode) / math.hypot(*grid.image_size)
    apart = max(float(np.diff(centers).max(initial=0.0)) for centers in (grid.ys, grid.xs))
    stays = dwells(peaks, 1.5 * apart, seen.episode)
    at = np.array([seen.episode[stay.first] for stay in stays])
    rows: list[tuple[Cell, ...]] = [
        ("entropy of the map (1: uniform)", _by_episode(wide, seen.episode)),
        ("jump of its maximum a step (1: the frame's diagonal)", _by_episode(far, seen.episode)),
        ("steps that its maximum stays", _by_episode(np.array([float(stay.rows) for stay in stays]), at)),
    ]
    if seen.masks is not None:
        delay = attention_delay(peaks, target_places(seen.masks), seen.episode)
        known = np.isfinite(delay.lag)
        rows.append(("steps by which it follows the target", _interval(delay.sums, _lag) if known else None))
    steps = np.unique(seen.step)
    mean = [_by_episode(wide[seen.step == step], seen.episode[seen.step == step]) for step in steps]
    return Section(
        "time",
        "How does attention move?",
        (
            "A delay is not known where the target hardly moves in the frame, as under a camera that "
            "follows it.",
        ),
        tables=(Table("Over the steps", ("", "mean"), tuple(rows)),),
        charts=(
            Chart("Entropy", "step", "1: uniform", (_series("mean of the episodes", steps.tolist(), mean),)),
        ),
    )


def _lag(sums: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return best_lag(sums.sum(axis=axis))


def failures_section(seen: StepBatch, pictures: NDArray[np.uint8], seeds: Sequence[int]) -> Section:
    """Frames that show where it fails."""
    mass = seen_chance = None
    if seen.masks is not None:
        parts = [slice(start, start + 64) for start in range(0, len(seen), 64)]
        maps = (_spread(seen.together[part])[:, None] for part in parts)
        on = [mass_on_target(some, seen.masks[part])[:, 0] for some, part in zip(maps, parts, strict=True)]
        mass, seen_chance = np.concatenate(on), chance(seen.masks)
    found = worst_frames(
        seen.rewards, seen.episode, seen.step, mass=mass, chance=seen_chance, seeds=np.asarray(seeds)
    )
    return Section(
        "failures",
        "Where does it fail?",
        (str(found),),
        pictures=tuple(_picture(seen, pictures, frame.index, frame.caption) for frame in found.frames),
    )


def _picture(seen: StepBatch, pictures: NDArray[np.uint8], row: int, caption: str) -> Picture:
    """A frame with the heads' maps as one, and the target's outline."""
    mask = None if seen.masks is None else seen.masks[row]
    maps = seen.together[row]
    height, width = maps.grid.image_size
    size = PICTURE, round(PICTURE * width / height)
    if not np.isfinite(maps.weights).all() or not maps.weights.any():
        return Picture(scale_frame(pictures[row], size), f"{caption} (no map)")
    return Picture(overlay(pictures[row], maps, mask=mask, size=size), caption)


def _spread(together: AttentionMaps) -> NDArray[np.float64]:
    """Maps [N, rows, cols] as `spread` gives them, [N, H, W]."""
    return spread(together[:, None])


def _ratio(means: RatioOfSums) -> Interval:
    return _interval(np.stack(means, axis=1), ratio_of_sums)


def _of_frames(
    probe: PolicyProbe, observation: ObservationBatch
) -> tuple[NDArray[Any], Callable[[NDArray[Any]], NDArray[Any]]]:
    """The frames [N, H, W, C] of observations, and the policy's actions as a function of them alone."""
    image = probe.image or "image"

    def act(frames: NDArray[Any]) -> NDArray[Any]:
        given: Any = with_frames(observation, image, probe.grid, frames)
        return probe.policy.predict(given, deterministic=True)[0]

    return frames_of(observation, image, probe.grid), act


def _curve_chart(
    title: str, curves: ActionCurves, by_name: Mapping[str, NDArray[np.float64]], episode: NDArray[np.int64]
) -> Chart:
    return Chart(
        title,
        "share of the pixels",
        "change in action",
        tuple(
            _series(name, list(curves.shares), [_by_episode(column, episode) for column in rows.T])
            for name, rows in by_name.items()
        ),
    )


def _by_episode(values: NDArray[np.float64], episode: NDArray[np.int64]) -> Interval:
    """The mean of [N] values, with the interval that other episodes would give; NaN values are left out."""
    known = np.isfinite(values)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    _, which = np.unique(episode[known], return_inverse=True)
    sums = np.stack([np.bincount(which, values[known]), np.bincount(which).astype(np.float64)], axis=1)
    return _interval(sums, ratio_of_sums)


def _interval(rows: NDArray[np.float64], statistic: Statistic) -> Interval:
    """The figure of episodes [E, ...], and its interval, which one episode does not have."""
    if len(rows) == 1:
        return Interval(float(statistic(rows, 0)), float("nan"), float("nan"))
    return bootstrap_interval(rows, statistic)


def _series(name: str, x: Sequence[Any], intervals: Sequence[Interval]) -> Series:
    value, low, high = (list(column) for column in zip(*intervals, strict=True))
    return Series(name, x, value, low, high)
