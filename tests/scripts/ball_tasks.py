"""Registers the toy ball of the policies' tests as Gymnasium environments, as a person's own module would."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
from toy_ball import Ball

STEPS = 5
for name, options in {
    "Ball/Box-v0": {"target": True},
    "Ball/Dict-v0": {"state": True},
    "Ball/Masked-v0": {"discrete": True, "masked": True},
}.items():
    if name not in gymnasium.registry:
        gymnasium.register(name, Ball, max_episode_steps=100, kwargs={"steps": STEPS, **options})
