"""Give any environment of Gymnasium's registry image observations and actions in [-1, 1]."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import AddRenderObservation, RescaleAction, ResizeObservation

from robot_attn_policies.sb3.images import entries_of, image_entries
from robot_attn_scripts._render_peers import opengl
from robot_attn_scripts._tasks import creator_of

IMAGE_SIZE = 64
"""Default height and width of rendered frames in pixels."""

MIN_SHADOW_MAP = 1024
"""Width of the shadow map in texels, at least, if frames are small."""

EGL = "libEGL.so.1"
"""The OpenGL library that renders without a display."""

Env = gymnasium.Env[Any, Any]


class Batch(VectorWrapper[Any, Any, Any, Any, Any]):
    """A batch of environments with the attributes of our own tasks' batches.

    Args:
        env: batch of environments made by `make_env`.

    Attributes:
        horizon: largest number of steps of an episode.
        dt: seconds of a step; None if unknown.
    """

    def __init__(self, env: SyncVectorEnv) -> None:
        super().__init__(env)
        spec = env.envs[0].spec
        assert spec is not None and spec.max_episode_steps is not None, "make_env checks it"
        self.horizon = spec.max_episode_steps
        fps = env.metadata.get("render_fps")
        self.dt = 1 / fps if fps else None


def make_batch(
    name: str, options: Mapping[str, Any], num_envs: int, *, scale_actions: bool = True
) -> VectorEnv[Any, Any, Any]:
    """Create a batch of environments, stepped one by one; each resets in the last step of its episode.

    Environments with a MuJoCo model and without images of their own are drawn by our renderer
    (`CameraVectorEnv`); others, and all with renderer="opengl", are those of `make_env`.

    Args:
        name: id in Gymnasium's registry.
        options: options of `CameraVectorEnv`, of the environment and of `gymnasium.make`. An environment that
            has an option of the same name gets it.
        num_envs: number of environments.
        scale_actions: as for `make_env`.

    Raises:
        ValueError: an unknown renderer, or an error of `CameraVectorEnv` or `make_env`.
    """
    _choose_opengl()
    from robot_attn_envs import CameraVectorEnv
    from robot_attn_scripts import _mujoco_cameras  # not above: it imports mujoco

    split = _mujoco_cameras.split_options(creator_of(name), options)
    reason = "with renderer=opengl"
    if split.renderer != "opengl":
        first = gymnasium.make(name, **split.own)
        has_images = _has_images(first.observation_space, name)
        if _mujoco_cameras.draws(first, has_images=has_images, camera=split.camera):
            _check_limit(first, name)
            made = [first]  # the one that was looked at is the first of the batch

            def make() -> Env:
                env = made.pop() if made else gymnasium.make(name, **split.own)
                return _scale_actions(env) if scale_actions else env

            return CameraVectorEnv([make] * num_envs, **{"masks": False, **split.camera})
        first.close()
        reason = "without a MuJoCo model"
    _mujoco_cameras.check_drawn_by_us(name, split, reason)
    options = {**split.own, **split.camera}
    options.pop("masks", None)
    return Batch(
        SyncVectorEnv(
            [lambda: make_env(name, scale_actions=scale_actions, **options)] * num_envs,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )


def make_env(name: str, *, image_size: Any = None, scale_actions: bool = True, **options: Any) -> Env:
    """Create an environment with image observations and actions in [-1, 1].

    An environment with image observations keeps them and what comes with them, whatever their axes and
    dtype. Any other one gets the frames that it renders as its only observation. Actions without finite
    bounds are kept.

    Args:
        name: id in Gymnasium's registry.
        image_size: size of the frames in pixels, a number or [height, width]. Gymnasium's MuJoCo tasks render
            at that size, other frames are scaled to it. An environment with an option of this name gets it.
        scale_actions: False for the actions that the environment itself has, as policies of Stable-Baselines3
            are trained with.
        **options: options of the environment and of `gymnasium.make`, such as max_episode_steps.

    Raises:
        ValueError: the environment has no images or has them in a nested space, or OpenGL is missing, or its
            episodes have no limit of steps.
    """
    creator = creator_of(name)
    if image_size is not None and "image_size" in inspect.signature(creator).parameters:
        options["image_size"], image_size = image_size, None
    height, width = _sides(IMAGE_SIZE if image_size is None else image_size)
    drawing: dict[str, Any] = {}
    if _renders(creator):
        drawing["render_mode"] = "rgb_array"
        if _is_mujoco(creator):
            drawing |= {"height": height, "width": width}
    env: Env = gymnasium.make(name, **{**drawing, **options})
    _shrink_shadows(env, max(height, width))
    _check_limit(env, name)
    if not _has_images(env.observation_space, name):
        env = _observe_frames(env, name, (height, width))
    elif image_size is not None:
        raise ValueError(
            f"expected no image_size for {name}, whose images have a fixed size, got one: omit it"
        )
    return _scale_actions(env) if scale_actions else env


def _check_limit(env: Env, name: str) -> None:
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(
            f"expected an environment with a limit of steps, got {name} without one, in which an untrained "
            "policy's episode may never end: set it, such as --env max_episode_steps=1000"
        )


def _scale_actions(env: Env) -> Env:
    """Scale actions with finite bounds to [-1, 1]."""
    actions = env.action_space
    if isinstance(actions, spaces.Box) and actions.is_bounded() and np.issubdtype(actions.dtype, np.floating):
        return RescaleAction(env, np.float32(-1), np.float32(1))
    return env


class OwnContext(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Make the environment's own OpenGL context current to render and to delete its OpenGL objects.

    Gymnasium's MuJoCo renderer uses the current context. That belongs to the environment that was the last to
    render its first frame, and there is none after that environment is closed. It also deletes its OpenGL
    objects in the current context, whenever the garbage collector finds them. They are numbers that stand for
    another environment's objects there, whose frames are black from then on.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._deleted = False

    def render(self) -> Any:
        viewer = self._viewer
        if viewer is not None:
            viewer.make_context_current()
        return self.env.render()

    def close(self) -> None:
        self._delete_objects()
        self.env.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # as the interpreter ends, OpenGL may be gone already
            self._delete_objects()

    @property
    def _viewer(self) -> Any:
        return self.get_wrapper_attr("mujoco_renderer").viewer

    def _delete_objects(self) -> None:
        viewer = self._viewer
        if viewer is not None and not self._deleted:
            viewer.make_context_current()
            viewer.con.free()  # later calls, by the garbage collector, do nothing
            self._deleted = True


def _observe_frames(env: Env, name: str, size: tuple[int, int]) -> Env:
    """Replace the observations of an environment by the frames that it renders, of size (height, width)."""
    if env.render_mode != "rgb_array":
        modes = env.metadata.get("render_modes", [])
        raise ValueError(
            f"expected an environment that observes or renders images, got {name} with render modes {modes}: "
            "choose one with 'rgb_array'"
        )
    # The first frame places MuJoCo's free camera by the state at that time, so use a fixed one.
    env.reset(seed=0)
    if env.has_wrapper_attr("mujoco_renderer"):
        env = OwnContext(env)
        with opengl():
            if os.environ["MUJOCO_GL"] == "egl":
                ctypes.CDLL(EGL)  # a viewer without it would raise again when it is deleted
            env.render()
    env = AddRenderObservation(env)
    return env if env.observation_space.shape == (*size, 3) else ResizeObservation(env, size)


def _shrink_shadows(env: Env, side: int) -> None:
    """Give an environment's OpenGL renderer a shadow map that suits its frames.

    MuJoCo's default of 4096 x 4096 texels is drawn for every frame: in software that takes ten times as long
    as the rest of a frame of 64 x 64 pixels. The renderer takes the size from the model when it draws the
    first.

    Args:
        env: the environment, before its first frame.
        side: largest side of a frame in pixels.
    """
    model = getattr(env.unwrapped, "model", None)
    quality = getattr(getattr(model, "vis", None), "quality", None)
    if quality is not None:
        quality.shadowsize = min(quality.shadowsize, max(MIN_SHADOW_MAP, 4 * side))


def _has_images(space: spaces.Space[Any], name: str) -> bool:
    entries = entries_of(space).values()
    if any(isinstance(entry, spaces.Dict | spaces.Tuple) for entry in entries):
        raise ValueError(
            f"expected observations in a Dict of arrays, got {name} with a space inside another, {space}: "
            "flatten it in a wrapper, such as gymnasium.wrappers.TransformObservation"
        )
    return bool(image_entries(space))


def _sides(image_size: Any) -> tuple[int, int]:
    sides = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"expected image_size in pixels, a number or [height, width], got {image_size!r}")
    return sides[0], sides[1]


def _renders(creator: Any) -> bool:
    """Return whether the creator of an environment accepts render_mode="rgb_array", as far as it declares."""
    modes = getattr(creator, "metadata", {}).get("render_modes", ["rgb_array"])
    parameters = inspect.signature(creator).parameters.values()
    return "rgb_array" in modes and any(
        parameter.name == "render_mode" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters
    )


def _is_mujoco(creator: Any) -> bool:
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    return isinstance(creator, type) and issubclass(creator, MujocoEnv)


def _choose_opengl() -> None:
    """Have MuJoCo render with EGL, which needs no display, if it is installed and MUJOCO_GL is not set.

    This must happen before mujoco is imported: it reads the variable then, and fails if the library is
    missing.

    Raises:
        ValueError: MUJOCO_GL is set to EGL, which is not installed.
    """
    if os.environ.get("MUJOCO_GL") == "egl":
        with opengl():
            ctypes.CDLL(EGL)
    elif "MUJOCO_GL" not in os.environ:
        with contextlib.suppress(OSError):
            ctypes.CDLL(EGL)
            os.environ["MUJOCO_GL"] = "egl"
