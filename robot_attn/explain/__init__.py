"""Explanations of what a policy does, and tests of whether they explain anything."""

from __future__ import annotations

from robot_attn.explain._perturb import ActionCurves as ActionCurves
from robot_attn.explain._perturb import HeadInputs as HeadInputs
from robot_attn.explain._perturb import action_change as action_change
from robot_attn.explain._perturb import action_curves as action_curves
from robot_attn.explain._perturb import centred_places as centred_places
from robot_attn.explain._perturb import discs as discs
from robot_attn.explain._perturb import erase as erase
from robot_attn.explain._perturb import head_inputs as head_inputs
from robot_attn.explain._perturb import random_places as random_places
from robot_attn.explain._perturb import spread as spread
from robot_attn.explain._perturb import top_pixels as top_pixels
