"""Gymnasium interfaces of a task: one environment (`gymnasium.make`) and a batch (`gymnasium.make_vec`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robot_attn_envs.tasks.task import Task
from robot_attn_envs.worlds import Worlds

Observation = dict[str, NDArray[Any]]
FPS = 20  # render_fps of the classes; an instance has its task's control rate


class TaskEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One world of a task as a Gymnasium environment.

    `info` has

    - `success`: whether the task is solved;
    - `target_visible`: whether any pixel of the target is visible;
    - `end`: why the episode ended, "success", "failure", "time limit", or "diverged" if the simulation
      diverged; "" while it is running;
    - `instruction`: the instruction as text, if the task has one;
    - with `masks=True`, `target_mask`: the target's pixels in the observation, bool (H, W); and `things`:
      what every pixel shows, uint8 (H, W), labels into `thing_names`.

    Args:
        task: the task's class.
        masks: whether `info` has `target_mask` and `things`.
        threads: threads for physics and rendering; None for every core.
        render_mode: None or "rgb_array".
        **options: options of `Worlds`, such as image_size or shift, and of the task.

    Attributes:
        worlds: the simulation.
        horizon: control steps in an episode.
        dt: duration of a control step, s.
        action_names: names of the action's components.
        thing_names: what the labels of `things` stand for: "backdrop", "target", "robot", "occluder",
            "distractor 1" and so on, and the task's landmarks, such as the "goal" of `Push`.

    Raises:
        ValueError: an option that is unknown or out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012

    def __init__(
        self,
        task: type[Task],
        *,
        masks: bool = False,
        threads: int | None = 1,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        _check_render_mode(render_mode)
        self.render_mode = render_mode
        self._masks = masks
        self._running = False
        self.worlds = Worlds(task, 1, threads=threads, **options)
        self.observation_space: gymnasium.Space[Any] = self.worlds.observation_space
        self.action_space = self.worlds.action_space
        self.horizon, self.dt = self.worlds.horizon, self.worlds.dt
        drawn = {"render_fps": round(1 / self.dt), "renderer": self.worlds.camera.renderer}
        self.metadata = {**self.metadata, **drawn}
        self.action_names = tuple(row.name for row in task.action_table)
        self.thing_names = self.worlds.thing_names

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.worlds.seed([seed])
        # The world's generator is Gymnasium's, so that `env.np_random` is the one in use.
        self.np_random = self.worlds.generators[0]
        self.worlds.reset(np.arange(1))
        self._running = True
        return self._observe(), self._info("", success=False)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if not self._running:
            raise gymnasium.error.ResetNeeded(
                "expected a running episode, got a step after its end: call reset before the next step"
            )
        reward, terminated, truncated, success = self.worlds.step(np.asarray(action)[None])
        self._running = not (terminated[0] or truncated[0])
        end = _ends(self.worlds, terminated, truncated, success)[0]
        info = self._info(end, success=bool(success[0]))
        return self._observe(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        return self.worlds.large_frames()[0] if self.render_mode == "rgb_array" else None

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted expert's action for the current state, float32 [A] in [-1, 1]."""
        action: NDArray[np.float32] = self.worlds.oracle()[0]
        return action

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels of `things` stand for in each world, such as "red sphere"; "" for an absent one."""
        return self.worlds.describe_things()

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The complete state as numeric arrays by name; see `set_state`."""
        return self.worlds.get_state()

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore a state from `get_state`; everything that follows is bit-identical.

        Raises:
            ValueError: the state of another task or version.
        """
        self.worlds.set_state(state)
        self.np_random, self._running = self.worlds.generators[0], True

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restore a copy, whose Gymnasium generator has to be its world's again."""
        self.__dict__.update(kept)
        self.np_random = self.worlds.generators[0]

    def close(self) -> None:
        self.worlds.close()

    def _observe(self) -> Observation:
        return {name: values[0] for name, values in self.worlds.observe().items()}

    def _info(self, end: str, *, success: bool) -> dict[str, Any]:
        mask = self.worlds.target_mask()[0]
        info: dict[str, Any] = {"success": success, "target_visible": bool(mask.any()), "end": str(end)}
        if self.worlds.task.objects.instruction:
            info["instruction"] = self.worlds.task.objects.words(0)
        return info | {"target_mask": mask, "things": self.worlds.things()[0]} if self._masks else info


class BatchEnv(gymnasium.vector.VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """Many worlds of a task as a Gymnasium vector environment, stepped and rendered together.

    Frames, rewards and masks are bit-identical to those of separate `TaskEnv`s, at any number of worlds and
    threads. A world whose episode ends starts the next one in the same step (`AutoresetMode.SAME_STEP`). The
    last observation and info of the episode are in `infos["final_obs"]` and `infos["final_info"]`, arrays
    over all worlds whose rows are valid where `infos["_final_obs"]` is True. `infos` has the entries of
    `TaskEnv`, as arrays.

    Args:
        task: the task's class.
        num_envs: number of worlds, at least 1.
        masks: whether `infos` has `target_mask`, bool (num_envs, H, W), and `things`, uint8
            (num_envs, H, W).
        threads: threads for physics and rendering; None for every core.
        render_mode: None or "rgb_array".
        **options: options of `Worlds`, such as image_size or shift, and of the task.

    Attributes:
        worlds: the simulation.
        horizon: control steps in an episode.
        dt: duration of a control step, s.
        action_names: names of the action's components.
        thing_names: what the labels of `things` stand for: "backdrop", "target", "robot", "occluder",
            "distractor 1" and so on, and the task's landmarks, such as the "goal" of `Push`.

    Raises:
        ValueError: an option that is unknown or out of range.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: type[Task],
        num_envs: int = 1,
        *,
        masks: bool = False,
        threads: int | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"expected num_envs to be at least 1, got {num_envs}")
        _check_render_mode(render_mode)
        self.num_envs, self.render_mode, self._masks = num_envs, render_mode, masks
        self.worlds = Worlds(task, num_envs, threads=threads, **options)
        self.single_observation_space = self.worlds.observation_space
        self.single_action_space = self.worlds.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.horizon, self.dt = self.worlds.horizon, self.worlds.dt
        drawn = {"render_fps": round(1 / self.dt), "renderer": self.worlds.camera.renderer}
        self.metadata = {**self.metadata, **drawn}
        self.action_names = tuple(row.name for row in task.action_table)
        self.thing_names = self.worlds.thing_names

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode in every world.

        Args:
            seed: an int seeds world i with seed + i; a sequence has one seed (or None) per world; None keeps
                the generators.
            options: ignored.

        Returns:
            Observations and infos, arrays [num_envs, ...] by name.

        Raises:
            ValueError: another number of seeds than worlds.
        """
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected one seed or {self.num_envs} seeds, got {len(seeds)}")
        self.worlds.seed(seeds)
        self.worlds.reset(np.arange(self.num_envs))
        false = np.zeros(self.num_envs, np.bool_)
        return self.worlds.observe(), self._infos(false, false, false)

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Advance every world by one control step.

        Args:
            actions: float [num_envs, A] in [-1, 1].

        Returns:
            Observations, rewards, terminated, truncated [num_envs], and infos.

        Raises:
            ValueError: actions of another shape or dtype, not finite, or out of range.
        """
        reward, terminated, truncated, success = self.worlds.step(actions)
        observation, infos = self.worlds.observe(), self._infos(terminated, truncated, success)
        ended = terminated | truncated
        if ended.any():
            final = {"final_obs": observation, "_final_obs": ended}
            final |= {"final_info": infos, "_final_info": ended.copy()}
            self.worlds.reset(np.flatnonzero(ended))
            running = ~ended
            observation = self.worlds.observe()
            infos = self._infos(terminated & running, truncated & running, success & running) | final
        return observation, reward, terminated, truncated, infos

    def observe(self) -> Observation:
        """The current observations, for example after `set_state`."""
        return self.worlds.observe()

    def oracle_actions(self) -> NDArray[np.float32]:
        """The scripted expert's actions for the current states, float32 [num_envs, A] in [-1, 1]."""
        return self.worlds.oracle()

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels of `things` stand for in each world, such as "red sphere"; "" for an absent one."""
        return self.worlds.describe_things()

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The complete state as numeric arrays by name; see `set_state`."""
        return self.worlds.get_state()

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore a state from `get_state`; everything that follows is bit-identical.

        Raises:
            ValueError: the state of another task, number of worlds or version.
        """
        self.worlds.set_state(state)

    def render_counterfactual(
        self,
        what: Literal["target", "distractor"],
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        rgba: Sequence[float] | None = None,
        removed: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Render the current frames with one object changed; the simulation does not change.

        Args:
            what: the target, or the distractor with the most visible pixels.
            shift: displacement to the right and up, in frame heights.
            rgba: new colour in [0, 1]; None keeps it.
            removed: whether to remove the object from the image.

        Returns:
            `image`, the counterfactual frames, uint8 [num_envs, H, W, 3], and four masks, bool
            [num_envs, H, W]: `before`, the object's pixels as it is (empty if no distractor is visible);
            `after`, the changed object's; `target`, the target's as it is; `target_after`, the target's in
            `image`.
        """
        worlds, objects = self.worlds, self.worlds.task.objects
        current, target = worlds.camera.geom_id.copy(), objects.target_geoms()[:, None, None]
        geoms = target
        if what == "distractor":
            pixels = (current[:, None] == objects.geoms[:, None, None]).sum(axis=(2, 3))
            pixels[np.arange(self.num_envs), objects.target] = -1
            geoms = objects.geoms[pixels.argmax(axis=1)][:, None, None]
        image, ids = worlds.render_counterfactual(geoms[:, 0, 0], shift=shift, rgba=rgba, removed=removed)
        return {
            "image": image,
            "before": (current == geoms) & ((geoms != target) | (what == "target")),
            "after": ids == geoms,
            "target": current == target,
            "target_after": ids == target,
        }

    def view(
        self, camera: str | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Render the current state from any camera of the model at any size; see `Worlds.view`.

        Args:
            camera: name of the camera in the model; None for the policy's.
            image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048; None
                for the policy's.

        Returns:
            RGB, uint8 [num_envs, H, W, 3], and the target's pixels, bool [num_envs, H, W].

        Raises:
            ValueError: a camera that the model does not have, or a size out of range.
        """
        return self.worlds.view(camera, image_size)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One large frame per world, uint8 [480, W, 3], with render mode "rgb_array"; otherwise None."""
        return tuple(self.worlds.large_frames()) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the camera's threads."""
        self.worlds.close()

    def _infos(
        self, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], success: NDArray[np.bool_]
    ) -> dict[str, Any]:
        mask = self.worlds.target_mask()
        infos: dict[str, Any] = {
            "success": success,
            "target_visible": mask.any(axis=(1, 2)),
            "end": _ends(self.worlds, terminated, truncated, success),
        }
        if self.worlds.task.objects.instruction:
            words = [self.worlds.task.objects.words(world) for world in range(self.num_envs)]
            infos["instruction"] = np.array(words, object)
        if self._masks:
            infos |= {"target_mask": mask, "things": self.worlds.things()}
        # Gymnasium's convention: each entry has a mask of the worlds that it is valid for.
        return infos | {f"_{name}": np.ones(self.num_envs, np.bool_) for name in infos}


def _ends(
    worlds: Worlds, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], success: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Why each world's episode ended, "" while it is running; object [num_worlds]."""
    ends = np.full(worlds.num_worlds, "", object)
    ends[terminated] = "failure"
    ends[terminated & success] = "success"
    ends[truncated] = "time limit"
    ends[truncated & worlds.diverged] = "diverged"
    return ends


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'expected render_mode to be None or "rgb_array", got {render_mode!r}')
