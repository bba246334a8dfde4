"""`CameraVectorEnv`: many Gymnasium environments whose frames are drawn together by our renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robot_attn_envs.anymujoco.episodes import Episodes
from robot_attn_envs.anymujoco.frames import SceneFrames
from robot_attn_envs.anymujoco.infos import batch_infos, target_infos
from robot_attn_envs.anymujoco.observation import frame_entries, observation_space, own_entries
from robot_attn_envs.anymujoco.simulation import control_step, simulation

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]


class CameraVectorEnv(gymnasium.vector.VectorEnv[dict[str, Any], Any, Any]):
    """Many MuJoCo environments as a Gymnasium vector environment, observed through their cameras.

    Environments are stepped one after the other; the frames of all are drawn in one call, on every core.
    Frames, rewards and masks are those of separate `CameraObservation`s, bit for bit, at any number of
    environments and threads. An environment whose episode ends starts the next one in the same step
    (`AutoresetMode.SAME_STEP`): the last observation and info of the episode are in `infos["final_obs"]` and
    `infos["final_info"]`, arrays over all environments whose rows are valid where `infos["_final_obs"]` is
    True. Observations and infos have the entries of `CameraObservation`.

    Args:
        env_fns: functions that make one environment each, all of one kind. Each is reset with seed 0, as
            Gymnasium places the free camera by the state of its first frame.
        masks: whether `infos` has `target_mask`.
        state: whether the environments' own observations are kept.
        **options: options of `SceneFrames`, such as camera, image_size, target, distractors, backdrop, shift.

    Attributes:
        envs: the environments.
        frames: the cameras.
        horizon: largest number of steps of an episode; None if there is no limit.
        dt: duration of a step, s.

    Raises:
        ValueError: no environments, or as `CameraObservation`.
    """

    def __init__(
        self, env_fns: Sequence[MakeEnv], *, masks: bool = True, state: bool = True, **options: Any
    ) -> None:
        if not env_fns:
            raise ValueError("expected at least one environment, got none")
        self.envs = [make() for make in env_fns]
        self.num_envs = len(self.envs)
        for env in self.envs:
            simulation(env)
            env.reset(seed=0)
        self.frames = SceneFrames(self.envs, **options)
        first = self.envs[0]
        self.dt = control_step(first)
        self.horizon = None if first.spec is None else first.spec.max_episode_steps
        self.spec, self.render_mode = first.spec, "rgb_array"
        self.metadata = {
            **first.metadata,
            "autoreset_mode": AutoresetMode.SAME_STEP,
            "render_modes": ["rgb_array"],
            "render_fps": round(1 / self.dt),
            "renderer": "tiled",
        }
        self._names = [camera.name for camera in self.frames.cameras]
        self._masks, self._state = masks, state
        self.thing_names = self.frames.thing_names
        self._episodes = Episodes(self.num_envs)
        self.single_observation_space = observation_space(
            first.observation_space, self._names, self.frames.image_size, state=state
        )
        self.single_action_space = first.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._own: list[Any] = [None] * self.num_envs

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a new episode in every environment.

        Args:
            seed: an int seeds environment i with seed + i; a sequence has one seed (or None) per environment;
                None keeps the generators.
            options: passed on to each environment.

        Returns:
            Observations and infos, arrays [num_envs, ...] by name.

        Raises:
            ValueError: another number of seeds than environments.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected one seed or {self.num_envs} seeds, got {len(seeds)}")
        infos: list[Mapping[str, Any]] = []
        for index, (env, one) in enumerate(zip(self.envs, seeds, strict=True)):
            self._own[index], info = env.reset(seed=one, options=options)
            infos.append(info)
        self._episodes.seed({index: one for index, one in enumerate(seeds) if one is not None})
        every = np.arange(self.num_envs)
        self.frames.begin_episodes(every, self._episodes.begin(every.tolist()))
        self.frames.draw(self._episodes.steps)
        return self.observe(), self._infos(infos)

    def step(
        self, actions: Any
    ) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Advance every environment by one step.

        Args:
            actions: actions of all environments, as `action_space` has them.

        Returns:
            Observations, rewards float64, terminated and truncated bool [num_envs], and infos.
        """
        rewards = np.zeros(self.num_envs)
        terminated, truncated = (np.zeros(self.num_envs, np.bool_) for _ in range(2))
        infos: list[Mapping[str, Any]] = []
        each = gymnasium.vector.utils.iterate(self.action_space, actions)
        for index, (env, action) in enumerate(zip(self.envs, each, strict=True)):
            own, reward, terminated[index], truncated[index], info = env.step(action)
            self._own[index], rewards[index] = own, reward
            infos.append(info)
        self._episodes.steps += 1
        self.frames.draw(self._episodes.steps)
        observation, batch = self.observe(), self._infos(infos)
        ended = terminated | truncated
        if ended.any():
            final = {"final_obs": observation, "_final_obs": ended}
            final |= {"final_info": batch, "_final_info": ended.copy()}
            over = np.flatnonzero(ended)
            for index in over.tolist():
                self._own[index], infos[index] = self.envs[index].reset()
            self.frames.begin_episodes(over, self._episodes.begin(over.tolist()))
            self.frames.draw(self._episodes.steps, over)
            observation, batch = self.observe(), self._infos(infos) | final
        return observation, rewards, terminated, truncated, batch

    def observe(self) -> dict[str, Any]:
        """The current observations, new arrays [num_envs, ...] by name."""
        observation: dict[str, Any] = frame_entries(self.frames.rgb, self._names)
        if not self._state:
            return observation
        space = self.envs[0].observation_space
        out = gymnasium.vector.utils.create_empty_array(space, self.num_envs)
        own = gymnasium.vector.utils.concatenate(space, self._own, cast(Any, out))
        return {**observation, **own_entries(own)}

    def view(
        self, camera: str | int | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Render the current state from any camera at any size; see `SceneFrames.view`.

        Args:
            camera: name or index of a camera; None for the first.
            image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048; None
                for the policy's.

        Returns:
            RGB, uint8 [num_envs, H, W, 3], and the target's pixels, bool [num_envs, H, W].

        Raises:
            ValueError: a camera that the model does not have, or a size out of range.
        """
        return self.frames.view(self._episodes.steps, camera, image_size)

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels of `things` stand for in each environment; see `SceneFrames.describe_things`."""
        return self.frames.describe_things()

    def render_counterfactual(self, what: Literal["target", "distractor"], **edit: Any) -> dict[str, Any]:
        """Render the current frames with one object changed; the simulation does not change.

        Args:
            what: the target, or the distractor with the most visible pixels.
            **edit: one of `shift=(right, up)` in frame heights, `rgba=(r, g, b, a)` in [0, 1], and
                `removed=True`.

        Returns:
            `image`, the first camera's counterfactual frames, uint8 [num_envs, H, W, 3], with several cameras
            also the entry of each, and four masks of the first camera, bool [num_envs, H, W]: `before`, the
            object's pixels as it is (empty if no distractor is visible); `after`, the changed object's;
            `target`, the target's as it is; `target_after`, the target's in `image`.

        Raises:
            ValueError: no target was named.
        """
        image, masks = self.frames.render_counterfactual(self._episodes.steps, what, **edit)
        return {"image": image[:, 0].copy(), **frame_entries(image, self._names), **masks}

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """The first camera's frame of each environment, 480 pixels high, uint8 [480, W, 3]."""
        height, width = self.frames.image_size
        return tuple(self.view(image_size=(480, round(480 * width / height)))[0])

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the cameras' threads and close the environments."""
        self.frames.close()
        for env in self.envs:
            env.close()

    def _infos(self, infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The environments' infos and the target's, as arrays with Gymnasium's masks of valid rows."""
        seen = target_infos(self.frames, masks=self._masks)
        return {
            **batch_infos(infos),
            **seen,
            **{f"_{name}": np.ones(self.num_envs, np.bool_) for name in seen},
        }
