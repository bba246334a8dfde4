"""Explanations of what a policy does, and tests of whether they explain anything."""

from __future__ import annotations

from robot_attn.explain._clusters import Clusters as Clusters
from robot_attn.explain._clusters import cluster_maps as cluster_maps
from robot_attn.explain._failures import FAILURES as FAILURES
from robot_attn.explain._failures import LEAST_FALL as LEAST_FALL
from robot_attn.explain._failures import ON_TARGET as ON_TARGET
from robot_attn.explain._failures import WINDOW as WINDOW
from robot_attn.explain._failures import Condition as Condition
from robot_attn.explain._failures import Failure as Failure
from robot_attn.explain._failures import Fall as Fall
from robot_attn.explain._failures import WorstFrame as WorstFrame
from robot_attn.explain._failures import WorstFrames as WorstFrames
from robot_attn.explain._failures import focus_by_condition as focus_by_condition
from robot_attn.explain._failures import largest_fall as largest_fall
from robot_attn.explain._failures import worst_frames as worst_frames
from robot_attn.explain._gradients import METHODS as METHODS
from robot_attn.explain._gradients import Method as Method
from robot_attn.explain._gradients import attention_gradient as attention_gradient
from robot_attn.explain._gradients import gradient_maps as gradient_maps
from robot_attn.explain._gradients import rank_agreement as rank_agreement
from robot_attn.explain._gradients import top_agreement as top_agreement
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
from robot_attn.explain._randomise import randomised as randomised
from robot_attn.explain._time import Delay as Delay
from robot_attn.explain._time import Stretch as Stretch
from robot_attn.explain._time import attention_delay as attention_delay
from robot_attn.explain._time import best_lag as best_lag
from robot_attn.explain._time import dwells as dwells
from robot_attn.explain._time import entropy as entropy
from robot_attn.explain._time import expected_places as expected_places
from robot_attn.explain._time import jumps as jumps
from robot_attn.explain._time import peak_places as peak_places
from robot_attn.explain._time import stretches as stretches
from robot_attn.explain._time import stretches_of as stretches_of
from robot_attn.explain._time import target_places as target_places
