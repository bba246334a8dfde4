"""Frames of any MuJoCo environment from our renderer, with masks, visual shifts and counterfactuals.

`CameraObservation` wraps one Gymnasium environment, `CameraVectorEnv` many: Gymnasium's, gymnasium-robotics',
Meta-World's or one's own, as long as `env.unwrapped` has MuJoCo's `model` and `data`.
"""

from robot_attn_envs.anymujoco.vector import CameraVectorEnv
from robot_attn_envs.anymujoco.wrapper import CameraObservation

__all__ = ["CameraObservation", "CameraVectorEnv"]
