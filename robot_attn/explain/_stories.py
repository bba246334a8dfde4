"""The story of a failure: what took attention away from the target, and what came of it.

    found = frame_states(maps, masks, frames=frames)
    print(captures(found, episode, step))
    # Attention was captured in 12 of 32 episodes: by the green cylinder in 8, by a red region in 4; ...

`frame_states` reduces each frame to a few numbers, so that rollouts need not be kept; `captures` finds the
stretches in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn.color_names import COLOR_NAMES, color_indices
from robot_attn.explain._states import (
    ATTENDED,
    ELSEWHERE,
    HIDDEN,
    block_pixels,
    check_frames,
    compare_places,
)
from robot_attn.maps import AttentionMaps
from robot_attn.stretches import Stretch, stretches, stretches_of

MIN_CAPTURE = 5
"""Fewest steps in which another place must hold attention: shorter ones are flicker, which moves no robot. As
many steps on the target are needed for attention to have come back, and out of view for a lost target."""
SMOOTHING = 2
"""Each frame is given the commonest state of the frames up to this many steps before and after it. This keeps
the step of a change, and ignores single frames of another state."""
NAMED = 3
"""Most kinds of things that the summary names."""
_CHUNK = 64  # frames at a time, since maps of the frame's size are large


class FrameStates(NamedTuple):
    """Where attention is in each of N frames, and what holds it where it is not on the target.

    Attributes:
        states: uint8 [N], as `attention_states`.
        mass: float32 [N], share of the map in the place that holds more than the target's; else 0.
        things: uint8 [N], label of the thing with most of that mass; 0 for the backdrop.
        colors: int8 [N], index into `COLOR_NAMES` of the colour with most of that mass; -1 if unknown.
        places: float32 [N, 2], centre of that mass (y, x) as fractions of the frame's sides; NaN if none.
    """

    states: NDArray[np.uint8]
    mass: NDArray[np.float32]
    things: NDArray[np.uint8]
    colors: NDArray[np.int8]
    places: NDArray[np.float32]

    def take(self, rows: NDArray[np.integer]) -> FrameStates:
        """Select the frames with these indices."""
        return FrameStates(*(column[rows] for column in self))

    @classmethod
    def concatenate(cls, parts: Sequence[FrameStates]) -> FrameStates:
        """Join the frames of several batches."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def frame_states(
    maps: AttentionMaps,
    masks: NDArray[np.bool_],
    *,
    frames: NDArray[np.uint8] | None = None,
    labels: NDArray[np.uint8] | None = None,
    allowed: Sequence[int] = (),
) -> FrameStates:
    """Determine the state of each frame, and what holds attention where it is not on the target.

    Args:
        maps: attention maps [N, rows, cols].
        masks: bool [N, H, W], True on the target.
        frames: uint8 [N, H, W, 3], RGB, for the colours; None if there are none.
        labels: uint8 [N, H, W], as `attention_states`.
        allowed: likewise.

    Raises:
        ValueError: arrays of different frames.
    """
    check_frames(maps, masks, labels)
    if maps.weights.ndim != 3:
        raise ValueError(f"expected maps [N, rows, cols], got {list(maps.weights.shape)}: give one head's")
    if frames is not None and (frames.dtype != np.uint8 or frames.shape != (*masks.shape, 3)):
        raise ValueError(
            f"expected frames uint8 {[*masks.shape, 3]}, as the masks, got {frames.dtype} "
            f"{list(frames.shape)}: convert them to RGB"
        )
    count = len(masks)
    found = FrameStates(
        np.zeros(count, np.uint8),
        np.zeros(count, np.float32),
        np.zeros(count, np.uint8),
        np.full(count, -1, np.int8),
        np.full((count, 2), np.nan, np.float32),
    )
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        places = compare_places(maps[rows], masks[rows], None if labels is None else labels[rows], allowed)
        found.states[rows], found.mass[rows] = places.states, places.other
        pixels = maps[rows].normalised().upsampled()
        for index in np.flatnonzero(places.other > 0):
            row = start + int(index)
            box = block_pixels(places.boxes[index], maps.grid.image_size)
            things = np.where(masks[row][box], 1, 0) if labels is None else labels[row][box]
            others = ~np.isin(things, [1, *allowed])
            weights = np.where(others, pixels[index][box], 0.0)
            thing = int(np.bincount(things.reshape(-1), weights.reshape(-1)).argmax())
            weights = np.where(things == thing, weights, 0.0)
            found.things[row], found.places[row] = thing, _center(weights, box, maps.grid.image_size)
            if frames is not None:
                colors = color_indices(frames[row][box]).reshape(-1)
                found.colors[row] = np.bincount(colors, weights.reshape(-1)).argmax()
    return found


def _center(
    weights: NDArray[np.floating], box: tuple[slice, slice], image_size: tuple[int, int]
) -> list[float]:
    """Centre of the weights in a box of pixels, (y, x) as fractions of the frame's sides."""
    total = weights.sum()
    if total <= 0:
        return [np.nan, np.nan]
    return [
        float(weights.sum(axis=1 - axis) @ (np.arange(inside.start, inside.stop) + 0.5) / (total * length))
        for axis, (inside, length) in enumerate(zip(box, image_size, strict=True))
    ]


@dataclass(frozen=True)
class Capture:
    """Attention taken from a target in view, or kept from it, by another place.

    Attributes:
        episode: the episode.
        row: the first frame among the N frames.
        worst_row: the frame in which the place holds most of the map.
        start: step of the first frame.
        thing: label of what took attention, 0 for the backdrop.
        what: what it is: a thing's description, such as "green cylinder", or for the backdrop the colour that
            most of the attention lies on, such as "orange region".
        where: its place in the frame, such as "at the left".
        mass: mean share of the map in that place.
        lost: steps from the start until the target was out of view; None if it stayed in view.
        back: steps from the start until attention was on the target again; None if it never was.
    """

    episode: int
    row: int
    worst_row: int
    start: int
    thing: int
    what: str
    where: str
    mass: float
    lost: int | None
    back: int | None

    @property
    def taker(self) -> str:
        """What took attention, with its article and place: "a red region at the left"."""
        return f"{_with_article(self)} {self.where}"

    @property
    def outcome(self) -> str:
        """What came of it: "target lost 9 steps later, not back"."""
        lost = "target stayed in view" if self.lost is None else f"target lost {_steps(self.lost)} later"
        return f"{lost}, {'not back' if self.back is None else f'back after {_steps(self.back)}'}"

    def __str__(self) -> str:
        """Tell the capture in one clause."""
        return f"captured by {self.taker} at step {self.start}, {self.outcome}"


@dataclass(frozen=True)
class CaptureGroup:
    """Captures by the same kind of thing.

    Attributes:
        what: as in `Capture`.
        captures: the captures.
    """

    what: str
    captures: tuple[Capture, ...]

    def __str__(self) -> str:
        """Name the thing, with its article."""
        return _with_article(self.captures[0])

    @property
    def episodes(self) -> int:
        """Number of episodes with such a capture."""
        return len({capture.episode for capture in self.captures})

    @property
    def start(self) -> float:
        """Median step at which it took attention."""
        return float(np.median([capture.start for capture in self.captures]))

    @property
    def lost(self) -> tuple[int, ...]:
        """Steps until the target was lost, of the captures after which it was."""
        return tuple(capture.lost for capture in self.captures if capture.lost is not None)

    @property
    def back(self) -> tuple[int, ...]:
        """Steps until attention came back, of the captures after which it did."""
        return tuple(capture.back for capture in self.captures if capture.back is not None)


@dataclass(frozen=True)
class Captures:
    """The captures in a set of episodes.

    Attributes:
        captures: ordered by episode and step.
        episodes: number of episodes.
        seen: number of episodes in which the target was in view at least once.
        lost: how often the target, in view before, was out of view for `MIN_CAPTURE` steps or more.
    """

    captures: tuple[Capture, ...]
    episodes: int
    seen: int
    lost: int

    @property
    def captured(self) -> int:
        """Number of episodes with a capture."""
        return len({capture.episode for capture in self.captures})

    def groups(self) -> list[CaptureGroup]:
        """Group the captures by what took attention, those of most episodes first."""
        names = dict.fromkeys(capture.what for capture in self.captures)
        groups = [
            CaptureGroup(name, tuple(capture for capture in self.captures if capture.what == name))
            for name in names
        ]
        return sorted(groups, key=lambda group: -group.episodes)

    def worst(self) -> list[Capture]:
        """One capture per episode, the most harmful first.

        Captures after which the target was lost come first, then those from which attention did not come
        back, then those by the largest share of the map.
        """
        ranked = sorted(
            self.captures, key=lambda capture: (capture.lost is None, capture.back is not None, -capture.mass)
        )
        first: dict[int, Capture] = {}
        for capture in ranked:
            first.setdefault(capture.episode, capture)
        return list(first.values())

    def __str__(self) -> str:
        """Summarise the captures in a few sentences."""
        if self.seen == 0:
            return "The target was never in view: no capture could be found."
        found = f"Attention was captured in {self.captured} of {_count(self.episodes, 'episode')}"
        if self.captures:
            parts = [f"by {group} in {group.episodes}" for group in self.groups()[:NAMED]]
            start = float(np.median([capture.start for capture in self.worst()]))
            found += f": {', '.join(parts)}; median step {start:.0f}"
        delays = [capture.lost for capture in self.captures if capture.lost is not None]
        lost = f"The target was lost {_count(self.lost, 'time')}"
        if delays:
            lost += f", {len(delays)} of them during a capture"
            lost += f", {_steps(float(np.median(delays)))} after its start"
        return f"{found}. {lost}."


def captures(
    found: FrameStates,
    episode: NDArray[np.integer],
    step: NDArray[np.integer],
    *,
    descriptions: Sequence[Sequence[str]] = (),
) -> Captures:
    """Find where attention left the target, what took it, and what came of it.

    A capture starts with `MIN_CAPTURE` steps or more in which another place holds more of the map than the
    target in view, and lasts until attention is back on the target for as many steps, or to the end of the
    episode. States are smoothed first (`SMOOTHING`). Frames in which the target is out of view start none.

    Args:
        found: the states of N frames, ordered by episode and step, one step apart.
        episode: int [N], episode of each frame.
        step: int [N], step of each frame in its episode.
        descriptions: for each episode, the description of each label, such as "green cylinder"; if empty, or
            "", a thing is called by its colour and label.

    Raises:
        ValueError: arrays of different lengths.
    """
    rows = len(found.states)
    for name, array in (("episode", episode), ("step", step)):
        if len(array) != rows:
            raise ValueError(f"expected {rows} rows of {name}, one per frame, got {len(array)}")
    collected: list[Capture] = []
    parts = stretches(episode)
    seen = losses = 0
    for part in parts:
        states = found.states[part.first : part.stop]
        seen += bool((states != HIDDEN).any())
        losses += sum(stretch.first > 0 for stretch in _long(states == HIDDEN))
        words = descriptions[int(episode[part.first])] if len(descriptions) else ()
        steps = step[part.first : part.stop]
        for interval in _intervals(states):
            held = np.arange(interval.first, interval.stop if interval.lost is None else interval.lost)
            held = part.first + held[states[held] == ELSEWHERE]
            thing = int(np.bincount(found.things[held]).argmax())
            held = held[found.things[held] == thing]
            start = int(steps[interval.first])
            lost, back = (
                None if row is None else int(steps[row]) - start for row in (interval.lost, interval.back)
            )
            collected.append(
                Capture(
                    episode=int(episode[part.first]),
                    row=part.first + interval.first,
                    worst_row=int(held[found.mass[held].argmax()]),
                    start=start,
                    thing=thing,
                    what=_thing_in_words(thing, found.colors[held], words),
                    where=_place_in_words(found.places[held]),
                    mass=float(found.mass[held].mean()),
                    lost=lost,
                    back=back,
                )
            )
    return Captures(tuple(collected), len(parts), seen, losses)


class _Interval(NamedTuple):
    """Rows of a capture within its episode."""

    first: int
    stop: int
    lost: int | None
    back: int | None


def _intervals(states: NDArray[np.uint8]) -> list[_Interval]:
    smooth = _smoothed(states)
    lost = [stretch.first for stretch in _long(states == HIDDEN)]
    back = [stretch.first for stretch in _long(smooth == ATTENDED)]
    intervals: list[_Interval] = []
    for stretch in _long(smooth == ELSEWHERE):
        if intervals and stretch.first < intervals[-1].stop:
            continue  # the same capture, after an interruption in which attention did not come back
        returned = next((row for row in back if row > stretch.first), None)
        stop = len(states) if returned is None else returned
        gone = next((row for row in lost if stretch.first < row < stop), None)
        intervals.append(_Interval(stretch.first, stop, gone, returned))
    return intervals


def _long(flags: NDArray[np.bool_]) -> list[Stretch]:
    return [stretch for stretch in stretches_of(flags) if stretch.rows >= MIN_CAPTURE]


def _smoothed(states: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace each state by the commonest within `SMOOTHING` rows; a frame out of view stays one."""
    kernel = np.ones(2 * SMOOTHING + 1)
    counts = np.stack([np.convolve(states == state, kernel, "same")[: len(states)] for state in range(4)])
    counts[states, np.arange(len(states))] += 0.5  # of ties, the frame's own
    return np.where(states == HIDDEN, HIDDEN, counts.argmax(axis=0)).astype(np.uint8)


def _thing_in_words(thing: int, colors: NDArray[np.int8], words: Sequence[str]) -> str:
    """Describe a thing in frames in which most of its attention lies on `colors`."""
    if thing > 0 and thing < len(words) and words[thing]:
        return words[thing]
    known = colors[colors >= 0]
    color = COLOR_NAMES[int(np.bincount(known).argmax())] if len(known) else ""
    if thing == 0:
        return f"{color} region" if color else "region without a colour"
    return f"{color} thing {thing}".strip()


def _place_in_words(places: NDArray[np.float32]) -> str:
    """Name the median of places [N, 2], (y, x), by thirds of the frame."""
    y, x = np.nanmedian(places, axis=0)
    down = ("top", "", "bottom")[min(int(3 * y), 2)]
    across = ("left", "", "right")[min(int(3 * x), 2)]
    return f"at the {f'{down} {across}'.strip() or 'centre'}"


def _with_article(capture: Capture) -> str:
    article = "the" if capture.thing else "an" if capture.what[0] in "aeiou" else "a"
    return f"{article} {capture.what}"


def _steps(number: float) -> str:
    return _count(round(number), "step")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
