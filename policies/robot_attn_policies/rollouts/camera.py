"""One camera of an environment with several: the same batch, whose masks and labels are those of the camera.

The infos of an environment with several cameras have `target_mask/NAME`, bool [N, H, W], and `things/NAME`,
uint8 [N, H, W], for the image NAME. `target_mask` and `things` alone are those of the only camera that a
policy uses, or of the image "image".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from robot_attn_policies.sb3.images import image_entries

MASK = "target_mask"
"""Key of the target masks in infos."""
THINGS = "things"
"""Key of the labels of what each pixel shows in infos."""


def at_camera(env: Any, image: str | None, *, only: bool) -> Any:
    """Return a batch of environments with the target masks and labels of one camera.

    Args:
        env: a batch of environments, as `rollout_episodes` takes it.
        image: key of the camera's image.
        only: whether the policy uses no other camera.

    Returns:
        The environment itself if it has one image.
    """
    inner = env if isinstance(env, VectorEnv) else env.env
    space = inner.single_observation_space if isinstance(inner, VectorEnv) else inner.observation_space
    if len(image_entries(space)) < 2:
        return env
    return (_VectorAtCamera if isinstance(env, VectorEnv) else _BatchAtCamera)(env, image, only)


def _at(key: str, info: Mapping[str, Any], image: str | None, only: bool) -> NDArray[Any] | None:
    if any(name.startswith(f"{key}/") for name in info):
        return info.get(f"{key}/{image}")
    return info.get(key) if only or image == "image" else None


def camera_info(info: Mapping[str, Any], image: str | None, only: bool) -> dict[str, Any]:
    """Return infos whose target masks and labels are those of one camera; without them if it has none.

    Args:
        info: infos of a batch of environments.
        image: key of the camera's image.
        only: whether the policy uses no other camera.
    """
    rest = {name: value for name, value in info.items() if name not in (MASK, THINGS)}
    found = {key: _at(key, info, image, only) for key in (MASK, THINGS)}
    return rest | {key: value for key, value in found.items() if value is not None}


class _VectorAtCamera(VectorWrapper[Any, Any, Any, Any, Any]):
    def __init__(self, env: VectorEnv[Any, Any, Any], image: str | None, only: bool) -> None:
        super().__init__(env)
        self._camera = image, only

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return observation, camera_info(info, *self._camera)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        *results, info = self.env.step(actions)
        return (*results, camera_info(info, *self._camera))


class _BatchAtCamera:
    """The same for a batch that is not a `VectorEnv`."""

    def __init__(self, env: Any, image: str | None, only: bool) -> None:
        self._env, self._camera = env, (image, only)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self._env.reset(**options)
        return observation, camera_info(info, *self._camera)

    def step(self, actions: Any) -> tuple[Any, ...]:
        *results, info = self._env.step(actions)
        return (*results, camera_info(info, *self._camera))
