"""The shift "colors": distractors, walls and floor in colours that training does not show."""

from __future__ import annotations

import mujoco
import numpy as np

from robot_attn_envs.shifts._appearance import Appearance
from robot_attn_envs.shifts._hues import held_out_colors, hue_of, hues_apart
from robot_attn_envs.shifts._shift import Shift
from robot_attn_envs.tasks.objects import hsv_to_rgb

UNSET = 0.5  # MuJoCo's default geom_rgba: a geom of this grey takes its material's colour


class Colors(Shift):
    """Recolour scenery and distractors.

    Each scenery geom is blended from its own colour towards a random one, with weight `intensity`. A fraction
    `intensity` of the distractors takes a held-out colour, pale or dark. With an instruction, distractors
    keep the colours that they are named by. All random hues are at least 50 degrees from the target's.
    """

    stream = 1

    def lacks(self, model: mujoco.MjModel, task: Appearance) -> str:
        named = len(task.backdrop_geoms(model)) or len(task.objects.shapes) > 1
        return "" if named else "geoms to recolour: name some with backdrop= or distractors="

    def bind(self, model: mujoco.MjModel, task: Appearance, aspect: float) -> None:
        super().bind(model, task, aspect)
        self._scenery = task.backdrop_geoms(model)
        rgba, material = model.geom_rgba[self._scenery], model.geom_matid[self._scenery]
        of_material = (material >= 0) & (rgba == (UNSET, UNSET, UNSET, 1.0)).all(axis=1)
        if of_material.any():
            rgba[of_material] = model.mat_rgba[material[of_material]]
        self._trained = rgba[:, :3]

    def reset(self, world: int, rng: np.random.Generator) -> None:
        rgba, objects = self._task.geom_rgba[world], self._task.objects
        target = objects.geoms_of(int(objects.target[world]))
        hue = hue_of(rgba[target[0], :3]) if len(target) else float(rng.uniform(0.0, 360.0))
        count = len(self._scenery)
        hues = hues_apart(rng, count, hue)
        sampled = hsv_to_rgb(hues, rng.uniform(0.1, 0.6, count), rng.uniform(0.3, 0.9, count))
        rgba[self._scenery, :3] = self._trained + self.intensity * (sampled - self._trained)
        if not objects.instruction:
            slots = rng.permutation(objects.distractors(world))
            slots = slots[: round(self.intensity * len(slots))]
            for slot, color in zip(slots.tolist(), held_out_colors(rng, len(slots), hue), strict=True):
                rgba[objects.geoms_of(slot), :3] = color
