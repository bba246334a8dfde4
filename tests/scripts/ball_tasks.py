"""Registers the toy ball of the policies' tests as Gymnasium environments, as a person's own module would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.wrappers import FrameStackObservation

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
from toy_ball import Ball

STEPS = 5


def stacked(steps: int) -> gymnasium.Env[Any, Any]:
    """Two frames in one observation, as `VecFrameStack` has them."""
    return FrameStackObservation(Ball(steps=steps), 2, padding_type="zero")


for name, options in {
    "Ball/Box-v0": {"target": True},
    "Ball/Dict-v0": {"state": True},
    "Ball/Masked-v0": {"discrete": True, "masked": True},
}.items():
    if name not in gymnasium.registry:
        gymnasium.register(name, Ball, max_episode_steps=100, kwargs={"steps": STEPS, **options})
if "Ball/Stack-v0" not in gymnasium.registry:
    gymnasium.register("Ball/Stack-v0", stacked, max_episode_steps=100, kwargs={"steps": STEPS})
