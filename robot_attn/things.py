"""Things in a frame: what attention can fall on besides the target, by the names that environments give.

An environment labels each pixel with the thing it shows, an index into its tuple of names. Label 0 is the
backdrop and label 1 the target; there may be a robot, occluders, distractors ("distractor 1", "distractor 2"
and so on), and other things that a task is about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_attn.focus import RatioOfSums, mass_by_label

TARGET_ONLY = ("backdrop", "target")
"""Names of the labels of an environment that gives target masks alone."""
DISTRACTORS = "distractors"
"""The kind of all distractors."""
CANNOT_MATTER = ("backdrop", DISTRACTORS, "occluder")
"""Kinds of things on which no decision can depend; the target, the robot and a task's landmarks can."""
_DISTRACTOR = re.compile(r"distractor \d+")


def thing_kind(name: str) -> str:
    """The kind of a thing: "distractors" for "distractor 3", and otherwise the name itself."""
    return DISTRACTORS if _DISTRACTOR.fullmatch(name) else name


def thing_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds of these things, each once, in the order of their first thing."""
    return tuple(dict.fromkeys(thing_kind(name) for name in names))


def sum_by_kind(mass: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float64]:
    """Add up the mass on things of the same kind.

    Args:
        mass: float [..., things], such as `mass_by_label` returns.
        names: names of the things.

    Returns:
        float64 [..., kinds], in the order of `thing_kinds(names)`.

    Raises:
        ValueError: another number of names than things.
    """
    if mass.shape[-1:] != (len(names),):
        raise ValueError(f"expected mass [..., {len(names)}], one for each name, got {list(mass.shape)}")
    kinds = thing_kinds(names)
    membership = np.array([[thing_kind(name) == kind for kind in kinds] for name in names], np.float64)
    return np.asarray(mass @ membership, np.float64)


def cannot_matter(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which things no decision can depend on, bool [things]: backdrop, distractors and occluders."""
    return np.array([thing_kind(name) in CANNOT_MATTER for name in names])


@dataclass(frozen=True)
class ThingTotals:
    """Sums over all frames of each of E episodes, for K maps; also those without the target in view."""

    names: tuple[str, ...]
    """Names of the things."""
    mass: NDArray[np.float64]
    """[E, K, things] sum of the mass on each thing."""
    area: NDArray[np.float64]
    """[E, things] sum of each thing's share of the frame: the mass of an uninformative map."""
    frames: NDArray[np.int64]
    """[E] number of frames."""

    def mean_mass(self, index: int, thing: str) -> RatioOfSums:
        """Mean mass of map `index` on a thing or on all things of a kind, in [0, 1].

        Raises:
            ValueError: no thing has that name or kind.
        """
        return RatioOfSums(self.mass[:, index, self._columns(thing)].sum(axis=1), self._frames)

    def mean_area(self, thing: str) -> RatioOfSums:
        """Mean share of the frame that a thing or all things of a kind cover, in [0, 1].

        Raises:
            ValueError: no thing has that name or kind.
        """
        return RatioOfSums(self.area[:, self._columns(thing)].sum(axis=1), self._frames)

    @property
    def _frames(self) -> NDArray[np.float64]:
        return self.frames.astype(np.float64)

    def _columns(self, thing: str) -> list[int]:
        columns = [i for i, name in enumerate(self.names) if thing in (name, thing_kind(name))]
        if not columns:
            raise ValueError(f"expected one of {', '.join(self.names)}, got {thing!r}: name one of them")
        return columns


class ThingMeter:
    """Accumulates the mass on each thing over batches of frames, for E episodes and K maps.

    Args:
        episodes: E, number of episodes.
        maps: K, number of maps per frame.
        names: names of the things.
    """

    def __init__(self, episodes: int, maps: int, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._mass = np.zeros((episodes, maps, len(self._names)))
        self._area = np.zeros((episodes, len(self._names)))
        self._frames = np.zeros(episodes, dtype=np.int64)

    def add(
        self, episode: NDArray[np.integer], maps: NDArray[np.floating], labels: NDArray[np.uint8]
    ) -> None:
        """Add a batch of frames.

        Args:
            episode: int [B], episode of each frame.
            maps: float [B, K, H, W], each of sum 1.
            labels: uint8 [B, H, W], which thing each pixel shows.

        Raises:
            ValueError: an error of `mass_by_label`.
        """
        np.add.at(self._mass, episode, mass_by_label(maps, labels, len(self._names)))
        np.add.at(self._area, episode, thing_areas(labels, len(self._names)))
        np.add.at(self._frames, episode, 1)

    def totals(self) -> ThingTotals:
        """Return the sums over all frames added so far."""
        return ThingTotals(self._names, self._mass.copy(), self._area.copy(), self._frames.copy())


def thing_areas(labels: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Compute the share of the frame that each thing covers.

    Args:
        labels: uint8 [T, H, W], label of the thing in each pixel.
        count: number of labels.

    Returns:
        float64 [T, count], of sum 1 over the labels.
    """
    counts = [np.bincount(frame.reshape(-1), minlength=count) for frame in labels]
    pixels = max(labels.shape[1] * labels.shape[2], 1)
    return np.asarray(np.stack([np.zeros(count), *counts])[1:] / pixels)


def allowed_labels(names: Sequence[str]) -> list[int]:
    """Labels of things besides the target that a policy may look at, such as the robot: they can matter."""
    return [label for label in range(2, len(names)) if thing_kind(names[label]) not in CANNOT_MATTER]
