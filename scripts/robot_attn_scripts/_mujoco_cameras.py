"""Options of environments with a MuJoCo model: those of our cameras, and those of the environment.

Importing this module imports MuJoCo, which chooses its OpenGL at that time.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium

from robot_attn_envs import CameraVectorEnv
from robot_attn_envs.anymujoco.frames import SceneFrames
from robot_attn_scripts._errors import unknown_name

RENDERERS = ("tiled", "opengl")
"""What draws an environment with a MuJoCo model: ours, which is the default, or its own renderer."""

CAMERA_OPTIONS = frozenset(
    {
        name
        for made in (CameraVectorEnv, SceneFrames)
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
)
"""Options of `CameraVectorEnv`."""


class Split(NamedTuple):
    """The options of an environment with a MuJoCo model.

    Attributes:
        renderer: a name from `RENDERERS`; None if none was chosen.
        camera: options of our cameras.
        own: options of the environment and of `gymnasium.make`.
    """

    renderer: str | None
    camera: dict[str, Any]
    own: dict[str, Any]


def split_options(creator: Any, options: Mapping[str, Any]) -> Split:
    """Tell the options of our cameras from those of an environment, which gets all that its creator names.

    Args:
        creator: class or function that makes the environment.
        options: all options.

    Raises:
        ValueError: an unknown renderer.
    """
    takes = inspect.signature(creator).parameters
    ours = {key: value for key, value in options.items() if key not in takes}
    renderer = ours.get("renderer")
    if renderer is not None and renderer not in RENDERERS:
        raise unknown_name("renderer", str(renderer), RENDERERS)
    camera = {key: value for key, value in ours.items() if key in CAMERA_OPTIONS}
    used = {*camera, *({"renderer"} & ours.keys())}
    return Split(renderer, camera, {key: value for key, value in options.items() if key not in used})


def check_drawn_by_us(name: str, split: Split, reason: str) -> None:
    """Check that an environment that our renderer does not draw has no option of our cameras but the size.

    Args:
        name: id of the environment.
        split: its options.
        reason: why it is not drawn by our renderer.

    Raises:
        ValueError: it has one.
    """
    given = [key for key in split.camera if key not in ("image_size", "masks")]
    if given:
        raise ValueError(
            f"expected an environment that our renderer draws, for {', '.join(given)}, got {name} {reason}: "
            "leave them out"
        )


def draws(env: gymnasium.Env[Any, Any], *, has_images: bool, camera: Mapping[str, Any]) -> bool:
    """Return whether our renderer draws an environment: one with a MuJoCo model, unless it observes images.

    Args:
        env: the environment.
        has_images: whether it observes images itself.
        camera: options of our cameras, any of which asks for frames beside its own.
    """
    from robot_attn_envs.anymujoco.simulation import has_simulation

    return has_simulation(env) and (bool(camera) or not has_images)
