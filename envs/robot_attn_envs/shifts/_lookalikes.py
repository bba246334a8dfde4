"""The shift "lookalikes": distractors that resemble the target."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._hues import hue_of
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.instructions import COLORS, may_be_distractor
from robot_attn_envs.tasks.objects import Objects, hsv_to_rgb

# Shapes with similar outlines in a small frame.
SIMILAR_SHAPES = (frozenset({"sphere", "ellipsoid", "capsule"}), frozenset({"box", "cylinder"}))
# Difference in hue from the target, degrees (low, high), at intensities 0 and 1.
HUES_OF_SIMILAR_SHAPES = ((50.0, 70.0), (28.0, 45.0))
HUES_OF_OTHER_SHAPES = ((35.0, 50.0), (12.0, 22.0))


class Lookalikes(Shift):
    """Give a fraction `intensity` of the distractors, at least one, a colour near the target's.

    A distractor of the target's shape, or of a similar one, has a hue 28 to 70 degrees from the target's; one
    of another shape 12 to 50 degrees. The higher the intensity, the smaller the difference.

    With an instruction, the instruction still names one object: such a distractor has the target's colour and
    another shape, or the target's shape and the nearest other named colour.
    """

    stream = 2

    def lacks(self, model: mujoco.MjModel, task: Appearance) -> str:
        named = len(task.objects.geoms_of(0)) and len(task.objects.shapes) > 1
        return (
            "" if named else "a target and distractors to recolour: name them with target= and distractors="
        )

    def reset(self, world: int, rng: np.random.Generator) -> None:
        objects = self._task.objects
        slots = rng.permutation(objects.distractors(world))
        for slot in slots[: math.ceil(self.intensity * len(slots))].tolist():
            if isinstance(objects, Objects) and objects.instruction:
                self._rename(objects, world, slot, rng)
            else:
                self._recolor(world, slot, rng)

    def _recolor(self, world: int, slot: int, rng: np.random.Generator) -> None:
        rgba, objects = self._task.geom_rgba[world], self._task.objects
        target = int(objects.target[world])
        target_rgb = rgba[objects.geoms_of(target)[0], :3]
        pair = {objects.shapes[slot], objects.shapes[target]}
        similar = len(pair) == 1 or any(pair <= group for group in SIMILAR_SHAPES)
        mild, strong = np.array(HUES_OF_SIMILAR_SHAPES if similar else HUES_OF_OTHER_SHAPES)
        away = rng.uniform(*(mild + self.intensity * (strong - mild))) * rng.choice([-1.0, 1.0])
        high, low = float(target_rgb.max()), float(target_rgb.min())
        hue, value = (hue_of(target_rgb) + away) % 360.0, min(1.0, high * rng.uniform(0.8, 1.1))
        rgba[objects.geoms_of(slot), :3] = hsv_to_rgb(*np.array([[hue], [1.0 - low / high], [value]]))[0]

    def _rename(self, objects: Objects, world: int, slot: int, rng: np.random.Generator) -> None:
        names = list(COLORS)
        target = objects.target[world]
        target_color, shape = int(objects.colors[world, target]), objects.shapes[slot]
        hues = np.array([hue_of(np.array(rgb)) for rgb in COLORS.values()])
        apart = np.abs((hues - hues[target_color] + 180.0) % 360.0 - 180.0)
        for color in np.argsort(apart).tolist():
            same = color == target_color and shape == objects.shapes[target]
            if not same and may_be_distractor(names[color], shape, objects.instruction):
                break
        objects.colors[world, slot] = color
        objects.paint_named(world, np.array([slot]), rng)
