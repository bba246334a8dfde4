"""Environments that know nothing of us, made to observe images: any that is registered with Gymnasium."""

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
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import AddRenderObservation, RescaleAction, ResizeObservation

from robot_attn_scripts._render_peers import opengl

IMAGE_SIZE = 64
"""Height and width of drawn frames in pixels, where `image_size` asks for no other."""

EGL = "libEGL.so.1"
"""The library that draws where there is no display."""

Env = gymnasium.Env[Any, Any]


class Batch(VectorWrapper[Any, Any, Any, Any, Any]):
    """A batch of environments, with what those of our own tasks tell of themselves."""

    def __init__(self, env: SyncVectorEnv) -> None:
        super().__init__(env)
        spec = env.envs[0].spec
        assert spec is not None and spec.max_episode_steps is not None, "make_env sees to it"
        self.horizon = spec.max_episode_steps
        fps = env.metadata.get("render_fps")
        self.dt = 1 / fps if fps else None


def make_batch(name: str, options: Mapping[str, Any], num_envs: int) -> Batch:
    """As many of `make_env`, stepped one after the other, each reset in the step that ends its episode.

    Raises:
        ValueError: as `make_env`.
    """
    _choose_opengl()
    return Batch(
        SyncVectorEnv([lambda: make_env(name, **options)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    )


def make_env(name: str, *, image_size: Any = None, **options: Any) -> Env:
    """The environment with the id `name`, with images for observations, and actions in [-1, 1].

    One that observes images (uint8, height x width x RGB, alone or in a `Dict`) is left as it is. Any other
    observes the frames that it renders, and nothing else. Actions without finite bounds stay as they are.

    Args:
        name: id in Gymnasium's registry.
        image_size: of the frames, pixels or [height, width]: MuJoCo tasks of Gymnasium draw at that size,
            others are scaled to it. An environment that has an option of this name gets it.
        **options: of the environment, and of `gymnasium.make`, such as max_episode_steps.

    Raises:
        ValueError: it gives no images, or there is no OpenGL to draw them; its episodes have no limit.
    """
    entry = gymnasium.spec(name).entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    if image_size is not None and "image_size" in inspect.signature(creator).parameters:
        options["image_size"], image_size = image_size, None
    height, width = _sides(IMAGE_SIZE if image_size is None else image_size)
    drawing: dict[str, Any] = {}
    if _renders(creator):
        drawing["render_mode"] = "rgb_array"
        if _is_mujoco(creator):
            drawing |= {"height": height, "width": width}
    env: Env = gymnasium.make(name, **{**drawing, **options})
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(
            f"{name} sets no limit of steps, so that an episode of an untrained policy may never end: give "
            "it one, such as --env max_episode_steps=1000"
        )
    if not _has_images(env.observation_space):
        env = _seeing(env, name, (height, width))
    elif image_size is not None:
        raise ValueError(f"{name} observes images of a fixed size: leave image_size out")
    actions = env.action_space
    if isinstance(actions, spaces.Box) and actions.is_bounded() and np.issubdtype(actions.dtype, np.floating):
        env = RescaleAction(env, np.float32(-1), np.float32(1))
    return env


class OwnContext(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Render in the environment's own OpenGL context, and delete its objects there.

    Gymnasium's MuJoCo renderer renders in the current context: that of the environment which rendered its
    first frame last, and none once that environment is closed. It deletes its OpenGL objects in the current
    context too, whenever the garbage collector finds them. They are numbers that mean another environment's
    objects there, whose frames are black from then on.
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


def _seeing(env: Env, name: str, size: tuple[int, int]) -> Env:
    """The environment with the frames that it renders, of `size`, for observations."""
    if env.render_mode != "rgb_array":
        modes = env.metadata.get("render_modes", [])
        raise ValueError(
            f"{name} neither observes images nor renders them: expected 'rgb_array' among its render modes, "
            f"got {modes}"
        )
    # MuJoCo's free camera is placed at the first frame, by the state that it finds: always the same one.
    env.reset(seed=0)
    if env.has_wrapper_attr("mujoco_renderer"):
        env = OwnContext(env)
        with opengl():
            if os.environ["MUJOCO_GL"] == "egl":
                ctypes.CDLL(EGL)  # ahead of a viewer, which also fails at its end if it was never whole
            env.render()
    env = AddRenderObservation(env)
    return env if env.observation_space.shape == (*size, 3) else ResizeObservation(env, size)


def _has_images(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return any(_has_images(entry) for entry in space.spaces.values())
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def _sides(image_size: Any) -> tuple[int, int]:
    sides = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"image_size is a number of pixels or [height, width], got {image_size!r}")
    return sides[0], sides[1]


def _renders(creator: Any) -> bool:
    """Whether what makes the environment takes render_mode="rgb_array", as far as it says."""
    modes = getattr(creator, "metadata", {}).get("render_modes", ["rgb_array"])
    taken = inspect.signature(creator).parameters.values()
    return "rgb_array" in modes and any(
        parameter.name == "render_mode" or parameter.kind is parameter.VAR_KEYWORD for parameter in taken
    )


def _is_mujoco(creator: Any) -> bool:
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    return isinstance(creator, type) and issubclass(creator, MujocoEnv)


def _choose_opengl() -> None:
    """Have MuJoCo draw with EGL, which needs no display, where there is one and MUJOCO_GL names no other.

    Here, since mujoco reads the variable when it is imported, and that fails where what it names is missing.

    Raises:
        ValueError: MUJOCO_GL names EGL, and there is none.
    """
    if os.environ.get("MUJOCO_GL") == "egl":
        with opengl():
            ctypes.CDLL(EGL)
    elif "MUJOCO_GL" not in os.environ:
        with contextlib.suppress(OSError):
            ctypes.CDLL(EGL)
            os.environ["MUJOCO_GL"] = "egl"
