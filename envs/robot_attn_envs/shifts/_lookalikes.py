"""The shift "lookalikes": distractors that could be taken for the target."""

from __future__ import annotations

import math

import numpy as np

from robot_attn_envs.shifts._hues import hue_of
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.instructions import COLORS, may_show
from robot_attn_envs.tasks.objects import hsv_to_rgb

# Shapes whose outlines are alike in a small frame.
ALIKE = (frozenset({"sphere", "ellipsoid", "capsule"}), frozenset({"box", "cylinder"}))
# Degrees of hue from the target's colour, at intensities 0 and 1, of distractors that look ...
OF_ITS_SHAPE = ((50.0, 70.0), (28.0, 45.0))
OF_ANOTHER_SHAPE = ((35.0, 50.0), (12.0, 22.0))


class Lookalikes(Shift):
    """Distractors in a colour near the target's: a share `intensity` of them, at least one.

    Where the shape is another one the hue is 12 to 50 degrees from the target's; where it is the same, or
    looks alike, 28 to 70 degrees: the nearer, the higher the intensity.

    Where there is an instruction it stays true: such a distractor has the asked colour and another shape, or
    the asked shape and the named colour that is nearest.
    """

    def reset(self, world: int, rng: np.random.Generator) -> None:
        objects = self._task.objects
        slots = rng.permutation(objects.distractors(world))
        for slot in slots[: math.ceil(self.intensity * len(slots))].tolist():
            if objects.instruction:
                self._rename(world, slot, rng)
            else:
                self._recolor(world, slot, rng)

    def _recolor(self, world: int, slot: int, rng: np.random.Generator) -> None:
        rgba, objects = self._task.geom_rgba[world], self._task.objects
        target = objects.target[world]
        target_rgb = rgba[objects.geoms[target], :3]
        pair = {objects.shapes[slot], objects.shapes[target]}
        alike = len(pair) == 1 or any(pair <= group for group in ALIKE)
        mild, strong = np.array(OF_ITS_SHAPE if alike else OF_ANOTHER_SHAPE)
        away = rng.uniform(*(mild + self.intensity * (strong - mild))) * rng.choice([-1.0, 1.0])
        high, low = float(target_rgb.max()), float(target_rgb.min())
        hue, value = (hue_of(target_rgb) + away) % 360.0, min(1.0, high * rng.uniform(0.8, 1.1))
        rgba[objects.geoms[slot], :3] = hsv_to_rgb(*np.array([[hue], [1.0 - low / high], [value]]))[0]

    def _rename(self, world: int, slot: int, rng: np.random.Generator) -> None:
        objects, names = self._task.objects, list(COLORS)
        target = objects.target[world]
        asked, shape = int(objects.colors[world, target]), objects.shapes[slot]
        hues = np.array([hue_of(np.array(rgb)) for rgb in COLORS.values()])
        apart = np.abs((hues - hues[asked] + 180.0) % 360.0 - 180.0)
        for color in np.argsort(apart).tolist():
            same = color == asked and shape == objects.shapes[target]
            if not same and may_show(names[color], shape, objects.instruction):
                break
        objects.colors[world, slot] = color
        objects.paint_named(world, np.array([slot]), rng)
