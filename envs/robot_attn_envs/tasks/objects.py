"""The target and the distractors of a task: their geoms and colours in each episode."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.tasks.instructions import (
    COLORS,
    MAX_TOKENS,
    SHAPES,
    InstructionOption,
    check_instruction,
    may_be_distractor,
    may_be_target,
    tokens,
)

MAX_DISTRACTORS = 32
_NAMES = tuple(COLORS)
_JITTER = 0.06  # largest offset of each channel from the named colour, in [0, 1]


class Objects:
    """The objects of a scene, one per slot. Without an instruction, the target is slot 0.

    The first `1 + distractors` slots are part of every episode. The spare slots after them are used only in
    episodes in which a shift adds distractors.

    Args:
        num_worlds: number of worlds.
        names: names of the objects' geoms in the scene, one per slot.
        shapes: geom types, as MuJoCo calls them, one per slot.
        distractors: number of distractors in every episode: the slots after the first.
        instruction: False: the target is slot 0, in the colour that the scene gives it, and no distractor has
            a similar hue. True: the target is the one object with the colour and shape that `words` names.
            "held_out": the same, with the pairs that True never shows.

    Attributes:
        names: names of the geoms, one per slot.
        shapes: geom types, one per slot.
        base: number of slots that are part of every episode, the target's included.
        instruction: the option, as given.
        geoms: geom ids in the model, int64 [slots]; -1 before `bind`.
        target: slot of the target, int64 [num_worlds].
        colors: indices into `COLORS`, int64 [num_worlds, slots]; -1 for a colour without a name.
        present: which slots are part of the episode, bool [num_worlds, slots].
        tokens: the instruction as token ids, int64 [num_worlds, MAX_TOKENS]; zeros without one.
        episode: the arrays above that are sampled for each episode, by name.

    Raises:
        ValueError: an unknown kind of instruction, or shapes none of which it can name.
    """

    def __init__(
        self,
        num_worlds: int,
        names: Sequence[str],
        shapes: Sequence[str],
        *,
        distractors: int,
        instruction: InstructionOption = False,
    ) -> None:
        self.names, self.shapes = tuple(names), tuple(shapes)
        self.base = 1 + distractors
        self.instruction = check_instruction(instruction)
        self._possible_targets = [
            (slot, color)
            for slot, shape in enumerate(self.shapes[: self.base])
            for color, name in enumerate(_NAMES)
            if shape in SHAPES and may_be_target(name, shape, self.instruction)
        ]
        if self.instruction and not self._possible_targets:
            raise ValueError(
                f"expected a shape that instruction={self.instruction!r} can name, got "
                f"{sorted(set(self.shapes))}: add distractors"
            )
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
        """Look up the geoms in the compiled model.

        Args:
            model: the compiled scene.
            geom_rgba: the colours of every world, float32 [num_worlds, ngeom, 4] in [0, 1]. `sample` and
                `add` write the objects' rows.
        """
        self.geoms = np.array([model.geom(name).id for name in self.names])
        self._geom_rgba = geom_rgba
        self._default_rgba = model.geom_rgba[self.geoms[0]]

    def sample(self, world: int, rng: np.random.Generator) -> None:
        """Sample the target and the objects' colours for a world's new episode.

        Args:
            world: index of the world.
            rng: the world's generator.
        """
        self.present[world] = np.arange(len(self.names)) < self.base
        self.colors[world] = -1
        if self.instruction:
            slot, color = self._possible_targets[rng.integers(len(self._possible_targets))]
            self.target[world], self.colors[world, slot] = slot, color
            self._name_colors(world, [i for i in range(self.base) if i != slot], rng)
            self.tokens[world] = tokens(self.words(world))
        else:
            self._geom_rgba[world, self.geoms[0]] = self._default_rgba
            self._paint(world, np.arange(1, self.base), away_from_red(rng, self.base - 1))

    def add(self, world: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Add spare distractors to a world's episode and sample their colours.

        Args:
            world: index of the world.
            count: number to add; all spare ones if there are fewer.
            rng: generator of the shift that adds them.

        Returns:
            The slots added, int64 [added].
        """
        slots = self.base + np.arange(min(count, len(self.names) - self.base))
        self.present[world, slots] = True
        if self.instruction:
            self._name_colors(world, slots.tolist(), rng)
        else:
            self._paint(world, slots, away_from_red(rng, len(slots)))
        return slots

    def target_geoms(self) -> NDArray[np.int64]:
        """The target's geom id in each world, int64 [num_worlds]."""
        return self.geoms[self.target]

    def geoms_of(self, slot: int) -> NDArray[np.int64]:
        """The id of the geom of an object, int64 [1]."""
        return self.geoms[slot : slot + 1]

    def distractors(self, world: int) -> NDArray[np.int64]:
        """The slots of the distractors in a world's episode, int64 [present]."""
        return np.flatnonzero(self.present[world] & (np.arange(len(self.names)) != self.target[world]))

    def words(self, world: int) -> str:
        """The instruction of a world's episode, such as "the red sphere"; "" without one."""
        target = self.target[world]
        color = self.colors[world, target]
        return f"the {_NAMES[color]} {self.shapes[target]}" if self.instruction else ""

    def _name_colors(self, world: int, slots: Sequence[int], rng: np.random.Generator) -> None:
        """Sample named colours for these slots so that the instruction matches the target alone."""
        target = int(self.target[world])
        named = (_NAMES[self.colors[world, target]], self.shapes[target])
        for slot in slots:
            shape = self.shapes[slot]
            choices = [
                color
                for color, name in enumerate(_NAMES)
                if (name, shape) != named and may_be_distractor(name, shape, self.instruction)
            ]
            self.colors[world, slot] = choices[rng.integers(len(choices))]
        self.paint_named(world, np.array([target, *slots]), rng)

    def paint_named(self, world: int, slots: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Paint these slots in their named `colors`, with a small random offset in each channel."""
        rgb = np.array([COLORS[_NAMES[color]] for color in self.colors[world, slots]])
        self._paint(world, slots, np.clip(rgb + rng.uniform(-_JITTER, _JITTER, rgb.shape), 0.0, 1.0))

    def _paint(self, world: int, slots: NDArray[np.int64], rgb: NDArray[np.float64]) -> None:
        self._geom_rgba[world, self.geoms[slots], :3] = rgb


def object_names(distractors: int, spare_distractors: int) -> list[str]:
    """Geom names of a target and its distractors, one per slot, the spare ones last.

    Args:
        distractors: number of distractors in every episode, 0 to 32.
        spare_distractors: number of spare ones, 0 to 32.

    Raises:
        ValueError: a number is out of range.
    """
    count = check_distractors(distractors) + check_distractors(spare_distractors)
    return ["target", *(f"distractor{i}" for i in range(count))]


def check_distractors(distractors: int) -> int:
    """Check the option `distractors` and return it.

    Raises:
        ValueError: it is not an integer from 0 to 32.
    """
    if not isinstance(distractors, int | np.integer) or not 0 <= distractors <= MAX_DISTRACTORS:
        raise ValueError(
            f"expected distractors to be an integer from 0 to {MAX_DISTRACTORS}, got {distractors!r}"
        )
    return int(distractors)


def away_from_red(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random colours at least 50 degrees of hue away from red.

    Saturation is 0.45 to 1 and value 0.4 to 0.95: pale and dark colours are left to the shifts.

    Returns:
        RGB, float64 [count, 3] in [0, 1].
    """
    hue = rng.uniform(50.0, 310.0, count)
    saturation, value = rng.uniform(0.45, 1.0, count), rng.uniform(0.4, 0.95, count)
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(
    hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Convert HSV colours to RGB.

    Args:
        hue: degrees, float64 [count].
        saturation: float64 [count] in [0, 1].
        value: float64 [count] in [0, 1].

    Returns:
        RGB, float64 [count, 3] in [0, 1].
    """
    # Each channel falls below `value` in proportion to how far the hue is from the channel's plateau.
    offset = (np.array([5.0, 3.0, 1.0]) + hue[:, None] / 60.0) % 6.0
    away: NDArray[np.float64] = np.clip(np.minimum(offset, 4.0 - offset), 0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * away)
