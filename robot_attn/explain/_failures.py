"""Where a policy fails: the frames that show it, and how often it looks at its target in which frames."""

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
    "missed": "the target in view without attention on it",
    "lost": "the target lost from view",
    "reward": "a fall of the reward",
    "failed": "an end without success",
}
"""What is looked for, by name."""

ON_TARGET = 2.0
"""Attention counts as on the target from this multiple of chance on."""
LEAST_STEPS = 5
"""A target missed or lost for less is no failure."""
WINDOW = 10
"""Steps within which a fall of the reward or the value is looked for."""
LEAST_FALL = 0.1
"""The smallest fall worth a mark, as a share of the largest magnitude in the series."""
FAILING_FALL = 0.25
"""The smallest fall that is a failure, as a share of the largest reward of all episodes."""
EARLY = 20
"""Steps that count as the beginning of an episode."""


class Fall(NamedTuple):
    """A series went down from step `start` to step `stop`."""

    start: int
    stop: int


def largest_fall(
    series: NDArray[np.float64], window: int = WINDOW, *, least: float | None = None
) -> Fall | None:
    """Where `series` [T] fell most within `window` steps; None where that is no more than `least`.

    That is `LEAST_FALL` of its largest magnitude, unless given. What is not finite is left out.
    """
    if least is None:
        least = LEAST_FALL * float(np.abs(series[np.isfinite(series)]).max(initial=0.0))
    best, deepest = None, least
    for stop in range(1, len(series)):
        recent = series[max(0, stop - window) : stop][::-1]
        start = stop - 1 - int(np.where(np.isfinite(recent), recent, -np.inf).argmax())  # of equals the last
        if series[start] - series[stop] > deepest:
            best, deepest = Fall(start, stop), float(series[start] - series[stop])
    return best


@dataclass(frozen=True)
class WorstFrame:
    """A frame to show: which of the N rows, what fails there, and that in words and numbers."""

    index: int
    failure: Failure
    caption: str


@dataclass(frozen=True)
class WorstFrames:
    """A handful of frames in which a policy fails, none where it does not."""

    frames: tuple[WorstFrame, ...]
    counts: dict[Failure, int]
    """In how many episodes each was found; without those that could not be looked for."""
    episodes: int
    """That were examined."""

    def __str__(self) -> str:
        """What was found, in one sentence."""
        episodes = f"{self.episodes} episode{'' if self.episodes == 1 else 's'}"
        found = [f"{FAILURES[name]} in {count}" for name, count in self.counts.items() if count]
        if not found:
            sought = ", ".join(FAILURES[name] for name in self.counts)
            return f"No failure was found in {episodes}; looked for: {sought}."
        return f"Of {episodes}: {', '.join(found)}."


class _Found(NamedTuple):
    """The worst of one kind in one episode."""

    row: int
    severity: float
    words: str


def worst_frames(
    rewards: NDArray[np.float64],
    episode: NDArray[np.integer],
    step: NDArray[np.integer],
    *,
    mass: Floats | None = None,
    chance: Floats | None = None,
    successes: NDArray[np.bool_] | None = None,
    seeds: NDArray[np.integer] | None = None,
    count: int = 6,
) -> WorstFrames:
    """Choose frames that show where a policy fails: of each kind in turn, and each from another episode.

    - "missed": the target is in view, and the map gives it less than `ON_TARGET` times chance, for
      `LEAST_STEPS` or more; of the longest such stretch the frame that shows most of the target.
    - "lost": the target, once seen, is out of view for `LEAST_STEPS` or more; the last frame that shows it.
    - "reward": the largest fall within `WINDOW` steps; the frame after it.
    - "failed": the episode ends without success; its last frame. The lowest return comes first.

    Args:
        rewards: [N], rows in the order of episodes and of time.
        episode: [N] which episode, from 0.
        step: [N] which step of it.
        mass: [N] the share of the map that is on the target, NaN where that is not known; None with `chance`
            where target masks are not known.
        chance: [N] the target's share of the frame, 0 where it is out of view.
        successes: [E], or None where the task does not say.
        seeds: [E] for the captions.
        count: frames at most.

    Raises:
        ValueError: arrays of different rows, or `mass` without `chance`.
    """
    _check(len(rewards), episode=episode, step=step, mass=mass, chance=chance)
    if (mass is None) != (chance is None):
        raise ValueError("give mass and chance, or neither: one says nothing without the other")
    parts = {int(episode[part.first]): slice(*part) for part in stretches(episode)}
    returns = {own: float(rewards[part].sum()) for own, part in parts.items()}
    scale = float(np.abs(rewards[np.isfinite(rewards)]).max(initial=0.0))
    sought: dict[Failure, Callable[[int, slice], _Found | None]] = {}
    if mass is not None and chance is not None:
        sought["missed"] = lambda own, part: _missed(mass[part], chance[part], step[part])
        sought["lost"] = lambda own, part: _lost(chance[part], step[part])
    sought["reward"] = lambda own, part: _fallen(rewards[part], FAILING_FALL * scale, step[part])
    if successes is not None:
        usual = float(np.median(list(returns.values()))) if returns else 0.0
        sought["failed"] = lambda own, part: (
            None if successes[own] else _failed(part.stop - part.start, returns[own], usual)
        )
    found = {
        name: {own: one for own, part in parts.items() if (one := find(own, part)) is not None}
        for name, find in sought.items()
    }
    frames = []
    for name, own in _chosen(found, count):
        index = parts[own].start + found[name][own].row
        which = f"Episode {own}" if seeds is None else f"Seed {seeds[own]}"
        words = f"{which}, step {step[index]}: {found[name][own].words}."
        frames.append(WorstFrame(index, name, words))
    return WorstFrames(tuple(frames), {name: len(by) for name, by in found.items()}, len(parts))


def _missed(mass: Floats, chance: Floats, step: NDArray[np.integer]) -> _Found | None:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = mass / chance
    longest = _longest(stretches_of((chance > 0) & (ratio < ON_TARGET)))
    if longest is None:
        return None
    row = longest.first + int(chance[longest.first : longest.stop].argmax())
    return _Found(
        row,
        longest.rows,
        f"the target is in view and attention not on it from step {step[longest.first]} to "
        f"{step[longest.stop - 1]}; here it gets {ratio[row]:.1f} × chance",
    )


def _lost(chance: Floats, step: NDArray[np.integer]) -> _Found | None:
    longest = _longest([stretch for stretch in stretches_of(chance == 0) if stretch.first > 0])
    if longest is None:
        return None
    end = "the end" if longest.stop == len(chance) else f"step {step[longest.stop]}"
    words = f"the target is then out of view until {end}"
    return _Found(longest.first - 1, longest.rows, words)


def _fallen(rewards: NDArray[np.float64], least: float, step: NDArray[np.integer]) -> _Found | None:
    fall = largest_fall(rewards, least=least)
    if fall is None:
        return None
    start, stop = (float(rewards[row]) for row in fall)
    words = f"the reward has fallen from {start:.2f} to {stop:.2f} since step {step[fall.start]}"
    return _Found(fall.stop, start - stop, words)


def _failed(rows: int, own: float, usual: float) -> _Found:
    words = f"the episode ends without success, with a return of {own:.3g} (median of all {usual:.3g})"
    return _Found(rows - 1, -own, words)


def _longest(found: list[Stretch]) -> Stretch | None:
    longest = max(found, key=lambda stretch: stretch.rows, default=None)
    return longest if longest is not None and longest.rows >= LEAST_STEPS else None


def _chosen(found: Mapping[Failure, Mapping[int, _Found]], count: int) -> list[tuple[Failure, int]]:
    """Of each kind in turn the worst that is from an episode not shown yet.

    The first of a kind may be from any, if its frame is not within `LEAST_STEPS` of one that is shown.
    """
    chosen: list[tuple[Failure, int]] = []
    left = {name: sorted(by, key=lambda own: -by[own].severity) for name, by in found.items()}
    for turn in range(count):
        for name, episodes in left.items():

            def far(own: int, name: Failure = name) -> bool:
                rows = [found[kind][own].row for kind, shown in chosen if shown == own]
                return all(abs(found[name][own].row - row) >= LEAST_STEPS for row in rows)

            shown = {own for _, own in chosen}
            fresh = [own for own in episodes if own not in shown]
            if not fresh and turn == 0:
                fresh = [own for own in episodes if far(own)]
            if fresh and len(chosen) < count:
                chosen.append((name, fresh[0]))
                episodes.remove(fresh[0])
    return chosen


class Condition(NamedTuple):
    """Frames of one kind, and how the policy does in them."""

    name: str
    """What the kinds differ in, such as "target's size"."""
    level: str
    """Which of them this is, such as "small (1 to 12 pixels)"."""
    means: RatioOfSums
    """Sums over these frames of each episode, and how many frames those are: each [E]."""


def focus_by_condition(
    on_target: Floats | NDArray[np.bool_],
    masks: NDArray[np.bool_],
    episode: NDArray[np.integer],
    step: NDArray[np.integer],
) -> tuple[Condition, ...]:
    """How often a policy looks at its target, by the target's size, its place, and the time.

    Sizes are thirds of the frames. Places are those of the target's centre: up to a third of the way from the
    frame's centre to its border is "centre", up to two thirds "middle". Frames without the target in view are
    in none of them, and a level without a frame is left out.

    Args:
        on_target: [N] in [0, 1], such as `pointing_game` or `mass_on_target` of one map; NaN: not known.
        masks: bool [N, H, W], True on the target.
        episode: [N] which episode, from 0.
        step: [N] which step of it, from 0.

    Raises:
        ValueError: arrays of different rows.
    """
    _check(len(on_target), masks=masks, episode=episode, step=step)
    values = np.asarray(on_target, np.float64)
    size = masks.sum(axis=(1, 2))
    counted = (size > 0) & np.isfinite(values)
    half = np.array(masks.shape[1:]) / 2
    with np.errstate(invalid="ignore"):
        away = (np.abs(target_places(masks) - (half - 0.5)) / half).max(axis=1)
    low, high = np.quantile(size[counted], [1 / 3, 2 / 3]).astype(int) if counted.any() else (0, 0)
    conditions: dict[str, dict[str, NDArray[np.bool_]]] = {
        "target's size": {
            f"small (up to {low} pixels)": size <= low,
            f"medium (up to {high} pixels)": (size > low) & (size <= high),
            f"large (over {high} pixels)": size > high,
        },
        "target's place": {
            "centre": away <= 1 / 3,
            "middle": (away > 1 / 3) & (away <= 2 / 3),
            "edge": away > 2 / 3,
        },
        "time": {f"first {EARLY} steps": step < EARLY, "later": step >= EARLY},
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
            raise ValueError(f"expected {rows} rows of {name}, one a frame, got {len(array)}")
