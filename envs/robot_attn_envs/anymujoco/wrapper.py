"""`CameraObservation`: one Gymnasium environment with frames from our renderer."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn_envs.anymujoco.episodes import Episodes
from robot_attn_envs.anymujoco.frames import SceneFrames
from robot_attn_envs.anymujoco.infos import target_infos
from robot_attn_envs.anymujoco.observation import frame_entries, observation_space, own_entries
from robot_attn_envs.anymujoco.simulation import control_step, simulation

ONE = np.arange(1)


class CameraObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observe a MuJoCo environment through its cameras, without OpenGL.

    The observation is a `Dict`: `image`, uint8 (H, W, 3), or an entry for each of several cameras, named
    after it; and the environment's own observation, as `state` or, if it is a `Dict`, with its own names.
    With a target, `info` has `target_visible` and, with `masks=True`, `target_mask`, bool (H, W), of the
    first camera and with several cameras also `target_mask/NAME` of each.

    Args:
        env: an environment whose `unwrapped` has MuJoCo's `model` and `data`. It is reset with seed 0, as
            Gymnasium places the free camera by the state of its first frame.
        masks: whether `info` has `target_mask` and `things`.
        state: whether the environment's own observation is kept.
        **options: options of `SceneFrames`, such as camera, image_size, target, distractors, backdrop, shift.

    Attributes:
        frames: the cameras.
        dt: duration of a step, s.

    Raises:
        ValueError: an environment without MuJoCo, an option that is unknown or out of range, or something in
            the model that is not drawn.
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], *, masks: bool = True, state: bool = True, **options: Any
    ) -> None:
        super().__init__(env)
        simulation(env)
        env.reset(seed=0)
        self.frames = SceneFrames([env], **options)
        self.dt = control_step(env)
        self._names = [camera.name for camera in self.frames.cameras]
        self._masks, self._state = masks, state
        self.thing_names = self.frames.thing_names
        self._episodes = Episodes(1)
        self.observation_space = observation_space(
            env.observation_space, self._names, self.frames.image_size, state=state
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        own, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._episodes.seed({0: seed})
        self.frames.begin_episodes(ONE, self._episodes.begin([0]))
        return self._observe(own, info)

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        own, reward, terminated, truncated, info = self.env.step(action)
        self._episodes.steps += 1
        observation, info = self._observe(own, info)
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """The first camera's frame, uint8 (H, W, 3), with the environment's render mode "rgb_array"."""
        if self.env.render_mode not in (None, "rgb_array"):
            return self.env.render()
        return self.frames.rgb[0, 0].copy()

    def view(self, camera: str | int | None = None, image_size: Any = None) -> tuple[NDArray[np.uint8], Any]:
        """Render the current state from any camera at any size; see `SceneFrames.view`.

        Args:
            camera: name or index of a camera; None for the first.
            image_size: side in pixels, or (height, width), each from 32 to 2048; None for the policy's.

        Returns:
            RGB, uint8 [1, H, W, 3], and the target's pixels, bool [1, H, W].
        """
        return self.frames.view(self._episodes.steps, camera, image_size)

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels of `things` stand for in each environment; see `SceneFrames.describe_things`."""
        return self.frames.describe_things()

    def render_counterfactual(self, what: Literal["target", "distractor"], **edit: Any) -> dict[str, Any]:
        """Render the current frame with one object changed; see `CameraVectorEnv.render_counterfactual`."""
        image, masks = self.frames.render_counterfactual(self._episodes.steps, what, **edit)
        return {"image": image[:, 0], **frame_entries(image, self._names), **masks}

    def close(self) -> None:
        self.frames.close()
        self.env.close()

    def _observe(self, own: Any, info: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        self.frames.draw(self._episodes.steps)
        frames = {name: values[0] for name, values in frame_entries(self.frames.rgb, self._names).items()}
        seen = {name: values[0] for name, values in target_infos(self.frames, masks=self._masks).items()}
        if "target_visible" in seen:
            seen["target_visible"] = bool(seen["target_visible"])
        return {**frames, **(own_entries(own) if self._state else {})}, {**info, **seen}
