"""The target and the distractors of a task: which geom is which in an episode, and of what colour."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.instructions import (
    COLORS,
    MAX_TOKENS,
    SHAPES,
    Instruct,
    check_instruct,
    may_ask,
    may_show,
    tokens,
)

MAX_DISTRACTORS = 32
_NAMES = tuple(COLORS)
_JITTER = 0.06  # of each channel of a named colour


class Objects:
    """The objects of a scene, each in a slot of its own. Slot 0 holds the one that is the target untold.

    The first `1 + distractors` slots are in every episode. Spare ones come after them, and are there only
    in episodes in which a shift adds distractors.

    Args:
        num_worlds: number of worlds.
        names: the objects' geoms in the scene, one a slot.
        shapes: their shapes, as MuJoCo calls them.
        distractors: how many of the slots after the first are in every episode.
        instruction: False: the target is slot 0, of the colour that the scene gives it, and no distractor is
            of a similar hue. True: the target is an object that `words` names by colour and shape, and no
            other object is of both. "held_out": the same, of the pairs that True never shows.

    Attributes:
        geoms: int64 [slots], their ids in the model.
        target: int64 [num_worlds], the target's slot.
        colors: int64 [num_worlds, slots], places in `COLORS`; -1 for a colour without a name.
        present: bool [num_worlds, slots], which are in the episode.
        tokens: int64 [num_worlds, MAX_TOKENS], the instruction as tokens; zeros without one.

    Raises:
        ValueError: an unknown kind of instruction; or one that none of the shapes could follow.
    """

    def __init__(
        self,
        num_worlds: int,
        names: Sequence[str],
        shapes: Sequence[str],
        *,
        distractors: int,
        instruction: Instruct = False,
    ) -> None:
        self.names, self.shapes = tuple(names), tuple(shapes)
        self.base = 1 + distractors
        self.instruction = check_instruct(instruction)
        self._askable = [
            (slot, color)
            for slot, shape in enumerate(self.shapes[: self.base])
            for color, name in enumerate(_NAMES)
            if shape in SHAPES and may_ask(name, shape, self.instruction)
        ]
        if self.instruction and not self._askable:
            raise ValueError(f"none of the shapes {sorted(set(self.shapes))} is asked for; add distractors")
        slots = len(self.names)
        self.geoms: NDArray[np.int64] = np.full(slots, -1)
        self.target: NDArray[np.int64] = np.zeros(num_worlds, np.int64)
        self.colors: NDArray[np.int64] = np.full((num_worlds, slots), -1)
        self.present: NDArray[np.bool_] = np.zeros((num_worlds, slots), np.bool_)
        self.tokens: NDArray[np.int64] = np.zeros((num_worlds, MAX_TOKENS), np.int64)
        self.episode = {
            "target": self.target,
            "colors": self.colors,
            "present": self.present,
            "tokens": self.tokens,
        }

    def bind(self, model: mujoco.MjModel, geom_rgba: NDArray[np.float32]) -> None:
        """Look up the geoms, whose colours [num_worlds, ngeom, 4] `draw` and `add` write."""
        self.geoms = np.array([model.geom(name).id for name in self.names])
        self._geom_rgba = geom_rgba
        self._untold_rgba = model.geom_rgba[self.geoms[0]]

    def draw(self, world: int, rng: np.random.Generator) -> None:
        """Choose the target of a world's new episode, and the colours of what is in it."""
        self.present[world] = np.arange(len(self.names)) < self.base
        self.colors[world] = -1
        if self.instruction:
            slot, color = self._askable[rng.integers(len(self._askable))]
            self.target[world], self.colors[world, slot] = slot, color
            self._name_colors(world, [i for i in range(self.base) if i != slot], rng)
            self.tokens[world] = tokens(self.words(world))
        else:
            self._geom_rgba[world, self.geoms[0]] = self._untold_rgba
            self._paint(world, np.arange(1, self.base), away_from_red(rng, self.base - 1))

    def add(self, world: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Bring `count` of the spare slots (or all, if fewer) into a world's episode; returns their slots."""
        slots = self.base + np.arange(min(count, len(self.names) - self.base))
        self.present[world, slots] = True
        if self.instruction:
            self._name_colors(world, slots.tolist(), rng)
        else:
            self._paint(world, slots, away_from_red(rng, len(slots)))
        return slots

    def target_geoms(self) -> NDArray[np.int64]:
        """The geom that is the target in each world, int64 [num_worlds]."""
        return self.geoms[self.target]

    def distractors(self, world: int) -> NDArray[np.int64]:
        """The slots of the distractors that are in a world's episode."""
        return np.flatnonzero(self.present[world] & (np.arange(len(self.names)) != self.target[world]))

    def words(self, world: int) -> str:
        """The instruction of a world's episode, such as "the red sphere"; "" where there is none."""
        target = self.target[world]
        color = self.colors[world, target]
        return f"the {_NAMES[color]} {self.shapes[target]}" if self.instruction else ""

    def _name_colors(self, world: int, slots: Sequence[int], rng: np.random.Generator) -> None:
        """Give these slots named colours, so that what the target is called holds for the target alone."""
        target = int(self.target[world])
        asked = (_NAMES[self.colors[world, target]], self.shapes[target])
        for slot in slots:
            shape = self.shapes[slot]
            fit = [
                color
                for color, name in enumerate(_NAMES)
                if (name, shape) != asked and may_show(name, shape, self.instruction)
            ]
            self.colors[world, slot] = fit[rng.integers(len(fit))]
        self.paint_named(world, np.array([target, *slots]), rng)

    def paint_named(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Give these slots about the colours that `colors` names them by."""
        rgb = np.array([COLORS[_NAMES[color]] for color in self.colors[world, slots]])
        self._paint(world, slots, np.clip(rgb + rng.uniform(-_JITTER, _JITTER, rgb.shape), 0.0, 1.0))

    def _paint(self, world: int, slots: NDArray[np.int64], rgb: NDArray[np.float64]) -> None:
        self._geom_rgba[world, self.geoms[slots], :3] = rgb


def object_names(distractors: int, spare_distractors: int) -> list[str]:
    """The slots of a target and its distractors by name, spare ones last.

    Raises:
        ValueError: as `check_distractors`.
    """
    count = check_distractors(distractors) + check_distractors(spare_distractors)
    return ["target", *(f"distractor{i}" for i in range(count))]


def check_distractors(distractors: int) -> int:
    """The option `distractors`, or a ValueError that says what it may be."""
    if not isinstance(distractors, int) or not 0 <= distractors <= MAX_DISTRACTORS:
        raise ValueError(f"distractors is a whole number from 0 to {MAX_DISTRACTORS}, got {distractors!r}")
    return distractors


def away_from_red(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random colours at least 50 degrees of hue away from red, float [count, 3] in [0, 1].

    Saturation is 0.45 to 1 and value 0.4 to 0.95: pale and dark colours are left for shifts.
    """
    hue = rng.uniform(50.0, 310.0, count)
    saturation, value = rng.uniform(0.45, 1.0, count), rng.uniform(0.4, 0.95, count)
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(
    hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Hue in degrees, saturation and value in [0, 1], [count] each -> RGB [count, 3] in [0, 1]."""
    # A channel loses as much of value * saturation as the hue is away from its plateau.
    offset = (np.array([5.0, 3.0, 1.0]) + hue[:, None] / 60.0) % 6.0
    away: NDArray[np.float64] = np.clip(np.minimum(offset, 4.0 - offset), 0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * away)
