"""Cameras of an environment: those of its model, and the free camera as Gymnasium places it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.anymujoco.simulation import simulation
from robot_attn_envs.errors import unknown_name
from robot_attn_envs.render.scene import FreeCamera

CameraOption: TypeAlias = str | int | Sequence[str | int] | None
FREE = "free"
"""Name of the free camera, unless a camera of the model has it."""


@dataclass(frozen=True)
class SceneCamera:
    """A camera that is drawn from.

    Attributes:
        name: its name, or "camera" and its index.
        camera: index of a camera of the model, or the free camera.
        xpos: place of the free camera, m, float64 [3].
        xmat: its axes x, y and z as columns, float64 [9]; it looks along -z.
    """

    name: str
    camera: int | FreeCamera
    xpos: NDArray[np.float64] | None = None
    xmat: NDArray[np.float64] | None = None


def camera_names(model: mujoco.MjModel) -> list[str]:
    """The names of all cameras that can be chosen, the free one last: "camera2" for one without a name."""
    names = [model.camera(index).name or f"camera{index}" for index in range(model.ncam)]
    return names if FREE in names else [*names, FREE]


def find_cameras(env: gymnasium.Env[Any, Any], choice: CameraOption) -> list[SceneCamera]:
    """The cameras that an option names.

    Args:
        env: the environment, after a reset: Gymnasium places the free camera by the state of that time.
        choice: name or index of a camera of the model, "free", or several; None for the camera that the
            environment renders from.

    Raises:
        ValueError: the model has no such camera, or one is named twice.
    """
    if choice is None:
        choice = _rendered_from(env)
    chosen = [choice] if isinstance(choice, str | int) else list(choice)
    if not chosen:
        raise ValueError("expected at least one camera, got none: name one, or leave the option out")
    cameras = [find_camera(env, one) for one in chosen]
    names = [camera.name for camera in cameras]
    if len(set(names)) < len(names):
        raise ValueError(f"expected different cameras, got {', '.join(names)}: name each once")
    return cameras


def find_camera(env: gymnasium.Env[Any, Any], choice: str | int) -> SceneCamera:
    """The camera of that name or index; see `find_cameras`."""
    model, _ = simulation(env)
    names = camera_names(model)[: model.ncam]
    if isinstance(choice, bool) or not isinstance(choice, str | int | np.integer):
        raise ValueError(f"expected the name or the index of a camera, got {choice!r}")
    if isinstance(choice, str):
        if choice in names:
            return SceneCamera(choice, names.index(choice))
        if choice == FREE:
            return _free_camera(env)
        raise unknown_name("camera", choice, camera_names(model))
    if choice == -1:
        return _free_camera(env)
    if not 0 <= choice < model.ncam:
        raise ValueError(
            f"expected the index of one of {model.ncam} camera(s), or -1 for the free one, got {choice}: "
            f"choose among {', '.join(camera_names(model))}"
        )
    return SceneCamera(names[choice], int(choice))


def _rendered_from(env: gymnasium.Env[Any, Any]) -> int:
    """The index of the camera that an environment renders from; -1 for the free one."""
    renderer = _renderer(env)
    chosen = getattr(renderer, "camera_id", None)
    return -1 if chosen is None else int(chosen)


def _renderer(env: gymnasium.Env[Any, Any]) -> Any:
    """Gymnasium's renderer of an environment, or of one that it keeps inside; None if there is none.

    Mazes and kitchens of gymnasium-robotics are such environments around a robot's.
    """
    inner = env.unwrapped
    inside = [value.unwrapped for value in vars(inner).values() if isinstance(value, gymnasium.Env)]
    return next((one.mujoco_renderer for one in (inner, *inside) if hasattr(one, "mujoco_renderer")), None)


def _free_camera(env: gymnasium.Env[Any, Any]) -> SceneCamera:
    """The free camera with its pose; see `free_view`."""
    model, _ = simulation(env)
    view = free_view(env)
    azimuth, elevation = math.radians(view.azimuth), math.radians(view.elevation)
    ahead = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, ahead), -ahead], axis=1)
    settings = model.vis.global_
    free = FreeCamera(FREE, float(settings.fovy), bool(settings.orthographic))
    return SceneCamera(FREE, free, view.lookat - view.distance * ahead, axes.ravel())


def free_view(env: gymnasium.Env[Any, Any]) -> mujoco.MjvCamera:
    """Gymnasium's free camera, placed by the model's extent, the current state and its renderer's settings.

    Without Gymnasium's renderer it is placed as MuJoCo's viewer does: by the model's statistics.

    Args:
        env: the environment, after a reset.
    """
    model, data = simulation(env)
    renderer = _renderer(env)
    view = mujoco.MjvCamera()
    if renderer is None:
        mujoco.mjv_defaultFreeCamera(model, view)
    else:
        view.lookat[:] = np.median(data.geom_xpos, axis=0)
        view.distance = model.stat.extent
        for name, value in (getattr(renderer, "default_cam_config", None) or {}).items():
            if isinstance(value, np.ndarray):
                getattr(view, name)[:] = value
            else:
                setattr(view, name, value)
    # Gymnasium sets the type itself, whatever its settings say: the camera stays where it is.
    view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FREE, -1
    return view
