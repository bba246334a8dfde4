"""Failure analysis: frames that show a policy fail, and how often it attends to its target by condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain._time import target_places
from robot_attn.focus import RatioOfSums
from robot_attn.stretches import Stretch, stretches, stretches_of

Floats = NDArray[np.floating]
Failure: TypeAlias = Literal["missed", "lost", "reward", "failed"]

FAILURES: dict[Failure, str] = {
    "missed": "target visible but not attended",
    "lost": "target lost from view",
    "reward": "drop in reward",
    "failed": "episode without success",
}
"""Description of each type of failure, by name."""

ON_TARGET_RATIO = 2.0
"""Attention counts as on the target from this multiple of chance (`focus.chance`) on."""
MIN_STEPS = 5
"""Shortest interval, in steps, for which a missed or lost target is a failure."""
DROP_WINDOW = 10
"""Steps within which a drop of the reward or value is measured."""
MIN_DROP = 0.1
"""Smallest drop worth marking, as a fraction of the largest magnitude in the series."""
MIN_FAILURE_DROP = 0.25
"""Smallest drop that counts as a failure, as a fraction of the largest reward magnitude over all episodes."""
EARLY_STEPS = 20
"""Number of steps that count as the beginning of an episode."""


class Drop(NamedTuple):
    """A drop of a series.

    Attributes:
        start: step of the value before the drop.
        stop: step of the value after it.
    """

    start: int
    stop: int


def largest_drop(
    series: NDArray[np.float64], window: int = DROP_WINDOW, *, min_drop: float | None = None
) -> Drop | None:
    """Find the largest drop of a series within `window` steps.

    Args:
        series: float [T], such as rewards or values; non-finite entries are ignored.
        window: largest number of steps between the two values.
        min_drop: smallest drop to return, exclusive; None for `MIN_DROP` times the largest magnitude.

    Returns:
        The steps before and after the drop; None if no drop exceeds `min_drop`.
    """
    if min_drop is None:
        min_drop = MIN_DROP * float(np.abs(series[np.isfinite(series)]).max(initial=0.0))
    best, deepest = None, min_drop
    for stop in range(1, len(series)):
        recent = series[max(0, stop - window) : stop][::-1]
        start = stop - 1 - int(np.where(np.isfinite(recent), recent, -np.inf).argmax())  # the last of ties
        if series[start] - series[stop] > deepest:
            best, deepest = Drop(start, stop), float(series[start] - series[stop])
    return best


@dataclass(frozen=True)
class WorstFrame:
    """A frame that shows a failure.

    Attributes:
        index: row of the frame among the N rows.
        failure: type of the failure, a key of `FAILURES`.
        caption: description of the failure, with its numbers.
    """

    index: int
    failure: Failure
    caption: str


@dataclass(frozen=True)
class WorstFrames:
    """Frames that show a policy's failures; empty if none was found.

    Attributes:
        frames: the selected frames.
    """

    frames: tuple[WorstFrame, ...]
    counts: dict[Failure, int]
    """Number of episodes with each type of failure; types that could not be checked are missing."""
    episodes: int
    """Number of episodes examined."""

    def __str__(self) -> str:
        """Summarise the failures in one sentence."""
        episodes = f"{self.episodes} episode{'' if self.episodes == 1 else 's'}"
        found = [f"{FAILURES[name]} in {count}" for name, count in self.counts.items() if count]
        if not found:
            checked = ", ".join(FAILURES[name] for name in self.counts)
            return f"No failures in {episodes}; checked: {checked}."
        return f"Failures in {episodes}: {', '.join(found)}."


class _Instance(NamedTuple):
    """The worst instance of one type of failure in one episode."""

    row: int
    severity: float
    description: str


def worst_frames(
    rewards: NDArray[np.float64],
    episode: NDArray[np.integer],
    step: NDArray[np.integer],
    *,
    mass: Floats | None = None,
    chance: Floats | None = None,
    attended: NDArray[np.bool_] | None = None,
    successes: NDArray[np.bool_] | None = None,
    seeds: NDArray[np.integer] | None = None,
    count: int = 6,
) -> WorstFrames:
    """Select frames that show a policy's failures, alternating between types and preferring new episodes.

    - "missed": the target is visible but not attended for `MIN_STEPS` steps or more; of the longest such
      interval, the frame with the largest target.
    - "lost": the target, visible before, is out of view for `MIN_STEPS` steps or more; the last frame that
      shows it.
    - "reward": the largest drop within `DROP_WINDOW` steps; the frame after it.
    - "failed": the episode ends without success; its last frame. The lowest return comes first.

    Args:
        rewards: float [N], rows ordered by episode and step.
        episode: int [N], episode of each row, from 0.
        step: int [N], step of each row within its episode.
        mass: float [N], share of the map's mass on the target, in [0, 1], NaN where unknown; None, together
            with `chance`, if there are no target masks.
        chance: float [N], share of the frame covered by the target, in [0, 1], 0 where it is out of view.
        attended: bool [N], where the target is attended, such as by `attention_states`; None where the mass
            on it is at least `ON_TARGET_RATIO` times chance.
        successes: bool [E], or None if the task does not define success.
        seeds: int [E], episode seeds for the captions; None to number the episodes.
        count: largest number of frames to select.

    Returns:
        The selected frames, and the number of episodes with each type of failure.

    Raises:
        ValueError: arrays of different lengths, or only one of `mass` and `chance`.
    """
    _check(len(rewards), episode=episode, step=step, mass=mass, chance=chance, attended=attended)
    if (mass is None) != (chance is None):
        raise ValueError("expected both mass and chance, or neither, got only one: pass the other too")
    parts = {int(episode[part.first]): slice(*part) for part in stretches(episode)}
    returns = {own: float(rewards[part].sum()) for own, part in parts.items()}
    scale = float(np.abs(rewards[np.isfinite(rewards)]).max(initial=0.0))
    searches: dict[Failure, Callable[[int, slice], _Instance | None]] = {}
    if mass is not None and chance is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = mass / chance
        attended = ratio >= ON_TARGET_RATIO if attended is None else attended
        missed = (chance > 0) & np.isfinite(ratio) & ~attended
        searches["missed"] = lambda own, part: _missed(missed[part], ratio[part], chance[part], step[part])
        searches["lost"] = lambda own, part: _lost(chance[part], step[part])
    searches["reward"] = lambda own, part: _dropped(rewards[part], MIN_FAILURE_DROP * scale, step[part])
    if successes is not None:
        median = float(np.median(list(returns.values()))) if returns else 0.0
        searches["failed"] = lambda own, part: (
            None if successes[own] else _failed(part.stop - part.start, returns[own], median)
        )
    found = {
        name: {own: one for own, part in parts.items() if (one := find(own, part)) is not None}
        for name, find in searches.items()
    }
    frames = []
    for name, own in _chosen(found, count):
        index = parts[own].start + found[name][own].row
        which = f"Episode {own}" if seeds is None else f"Seed {seeds[own]}"
        caption = f"{which}, step {step[index]}: {found[name][own].description}."
        frames.append(WorstFrame(index, name, caption))
    return WorstFrames(tuple(frames), {name: len(by) for name, by in found.items()}, len(parts))


def _missed(
    missed: NDArray[np.bool_], ratio: Floats, chance: Floats, step: NDArray[np.integer]
) -> _Instance | None:
    longest = _longest(stretches_of(missed))
    if longest is None:
        return None
    row = longest.first + int(chance[longest.first : longest.stop].argmax())
    return _Instance(
        row,
        longest.rows,
        f"the target is visible but not attended from step {step[longest.first]} to "
        f"{step[longest.stop - 1]}; the attention on it here is {ratio[row]:.1f} × chance",
    )


def _lost(chance: Floats, step: NDArray[np.integer]) -> _Instance | None:
    longest = _longest([stretch for stretch in stretches_of(chance == 0) if stretch.first > 0])
    if longest is None:
        return None
    end = "the end" if longest.stop == len(chance) else f"step {step[longest.stop]}"
    return _Instance(longest.first - 1, longest.rows, f"the target is then out of view until {end}")


def _dropped(rewards: NDArray[np.float64], min_drop: float, step: NDArray[np.integer]) -> _Instance | None:
    drop = largest_drop(rewards, min_drop=min_drop)
    if drop is None:
        return None
    start, stop = (float(rewards[row]) for row in drop)
    description = f"the reward has dropped from {start:.2f} to {stop:.2f} since step {step[drop.start]}"
    return _Instance(drop.stop, start - stop, description)


def _failed(rows: int, own: float, median: float) -> _Instance:
    description = f"the episode ends without success, with a return of {own:.3g} (median {median:.3g})"
    return _Instance(rows - 1, -own, description)


def _longest(found: list[Stretch]) -> Stretch | None:
    longest = max(found, key=lambda stretch: stretch.rows, default=None)
    return longest if longest is not None and longest.rows >= MIN_STEPS else None


def _chosen(found: Mapping[Failure, Mapping[int, _Instance]], count: int) -> list[tuple[Failure, int]]:
    """Alternate between failure types, taking the worst instance from an episode not yet selected.

    The first of a type may be from any episode if it is at least `MIN_STEPS` rows from every selected frame.
    """
    chosen: list[tuple[Failure, int]] = []
    remaining = {name: sorted(by, key=lambda own: -by[own].severity) for name, by in found.items()}
    for turn in range(count):
        for name, episodes in remaining.items():

            def far(own: int, name: Failure = name) -> bool:
                rows = [found[kind][own].row for kind, shown in chosen if shown == own]
                return all(abs(found[name][own].row - row) >= MIN_STEPS for row in rows)

            shown = {own for _, own in chosen}
            candidates = [own for own in episodes if own not in shown]
            if not candidates and turn == 0:
                candidates = [own for own in episodes if far(own)]
            if candidates and len(chosen) < count:
                chosen.append((name, candidates[0]))
                episodes.remove(candidates[0])
    return chosen


class Condition(NamedTuple):
    """Attention on the target over the frames of one condition."""

    name: str
    """Variable that defines the condition, such as "target's size"."""
    level: str
    """Value of that variable, such as "small (up to 12 pixels)"."""
    means: RatioOfSums
    """Mean over the frames of this condition: sum per episode and number of frames per episode, each [E]."""


def focus_by_condition(
    on_target: Floats | NDArray[np.bool_],
    masks: NDArray[np.bool_],
    episode: NDArray[np.integer],
    step: NDArray[np.integer],
) -> tuple[Condition, ...]:
    """Compute how often a policy attends to its target, by the target's size and position and by time.

    Sizes are split at the terciles over frames. Positions are those of the target's centre: up to a third of
    the way from the frame's centre to its border is "centre", up to two thirds "middle", beyond "edge".
    Frames with the target out of view count in no condition, and conditions without a frame are omitted.

    Args:
        on_target: float or bool [N], in [0, 1], such as `pointing_game` or `mass_on_target` of one map; NaN
            where unknown.
        masks: bool [N, H, W], True on the target.
        episode: int [N], episode of each row, from 0.
        step: int [N], step of each row within its episode, from 0.

    Returns:
        One entry per condition with at least one frame, in the order size, position, time.

    Raises:
        ValueError: arrays of different lengths.
    """
    _check(len(on_target), masks=masks, episode=episode, step=step)
    values = np.asarray(on_target, np.float64)
    size = masks.sum(axis=(1, 2))
    counted = (size > 0) & np.isfinite(values)
    half = np.array(masks.shape[1:]) / 2
    with np.errstate(invalid="ignore"):
        offset = (np.abs(target_places(masks) - (half - 0.5)) / half).max(axis=1)
    low, high = np.quantile(size[counted], [1 / 3, 2 / 3]).astype(int) if counted.any() else (0, 0)
    conditions: dict[str, dict[str, NDArray[np.bool_]]] = {
        "target's size": {
            f"small (up to {low} pixels)": size <= low,
            f"medium (up to {high} pixels)": (size > low) & (size <= high),
            f"large (over {high} pixels)": size > high,
        },
        "target's position": {
            "centre": offset <= 1 / 3,
            "middle": (offset > 1 / 3) & (offset <= 2 / 3),
            "edge": offset > 2 / 3,
        },
        "time": {f"first {EARLY_STEPS} steps": step < EARLY_STEPS, "later": step >= EARLY_STEPS},
    }
    total = _episodes(episode)
    return tuple(
        Condition(
            name,
            level,
            RatioOfSums(
                np.bincount(episode[rows], values[rows], total).astype(np.float64),
                np.bincount(episode[rows], minlength=total).astype(np.float64),
            ),
        )
        for name, levels in conditions.items()
        for level, chosen in levels.items()
        if (rows := chosen & counted).any()
    )


def _episodes(episode: NDArray[np.integer]) -> int:
    return int(episode.max(initial=-1)) + 1


def _check(rows: int, **arrays: NDArray[np.generic] | None) -> None:
    for name, array in arrays.items():
        if array is not None and len(array) != rows:
            raise ValueError(f"expected {rows} rows of {name}, one per frame, got {len(array)}")
