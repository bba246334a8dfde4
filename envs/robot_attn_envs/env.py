"""The two faces of a task: one environment (`gymnasium.make`) and the batch (`gymnasium.make_vec`)."""

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
FPS = 20  # of a class; an environment's own is that of its task


class TaskEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One world of a task as a Gymnasium environment.

    `info` has `success`, `target_visible`, `end` (why the episode has ended: "success", "failure",
    "time limit", or "diverged" where the simulation broke down; "" while it goes on), `instruction` (text)
    where the task is instructed, and `target_mask`, bool (H, W), the target's pixels in the observation,
    with `masks=True`.

    Args:
        task: the task's class.
        masks: whether `info` has `target_mask`.
        threads: threads to simulate and draw with; None for every core.
        render_mode: None or "rgb_array".
        **options: of `Worlds`, such as image_size or shift, and the task's own.

    Raises:
        ValueError: an option that is unknown or out of its range.
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
        self.horizon, self.dt = task.horizon, self.worlds.dt
        self.metadata = {**self.metadata, "render_fps": round(1 / self.dt)}
        self.action_names = tuple(row.name for row in task.action_table)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.worlds.seed([seed])
        # Gymnasium's own generator and the world's are one, so that `env.np_random` tells the truth.
        self.np_random = self.worlds.generators[0]
        self.worlds.reset(np.arange(1))
        self._running = True
        return self._observe(), self._info("", success=False)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode has ended: call reset before the next step")
        reward, terminated, truncated, success = self.worlds.step(np.asarray(action)[None])
        self._running = not (terminated[0] or truncated[0])
        end = _ends(self.worlds, terminated, truncated, success)[0]
        info = self._info(end, success=bool(success[0]))
        return self._observe(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        return self.worlds.picture()[0] if self.render_mode == "rgb_array" else None

    def oracle_action(self) -> NDArray[np.float32]:
        """The scripted expert's action for the present state, float32 [A]."""
        action: NDArray[np.float32] = self.worlds.oracle()[0]
        return action

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what happens next, as plain numeric arrays."""
        return self.worlds.get_state()

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Return to a state that `get_state` gave."""
        self.worlds.set_state(state)
        self.np_random, self._running = self.worlds.generators[0], True

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Of a copy too, Gymnasium's own generator and the world's are one."""
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
        return info | {"target_mask": mask} if self._masks else info


class BatchEnv(gymnasium.vector.VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]):
    """Many worlds of a task as a Gymnasium vector environment, stepped and drawn together.

    Frames, rewards and masks are bit-identical to those of as many `TaskEnv`, at any number of worlds and
    threads. An episode that ends is followed at once by the next (`AutoresetMode.SAME_STEP`): its last
    observation and info are in `infos["final_obs"]` and `infos["final_info"]`, arrays over all worlds whose
    rows hold where `infos["_final_obs"]` is True.

    Args:
        task: the task's class.
        num_envs: number of worlds, at least 1.
        masks: whether `infos` has `target_mask`, bool (num_envs, H, W).
        threads: threads to simulate and draw with; None for every core.
        render_mode: None or "rgb_array".
        **options: of `Worlds`, such as image_size or shift, and the task's own.

    Raises:
        ValueError: an option that is unknown or out of its range.
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
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        _check_render_mode(render_mode)
        self.num_envs, self.render_mode, self._masks = num_envs, render_mode, masks
        self.worlds = Worlds(task, num_envs, threads=threads, **options)
        self.single_observation_space = self.worlds.observation_space
        self.single_action_space = self.worlds.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.horizon, self.dt = task.horizon, self.worlds.dt
        self.metadata = {**self.metadata, "render_fps": round(1 / self.dt)}
        self.action_names = tuple(row.name for row in task.action_table)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode in every world; an int seeds world i with seed + i."""
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected one seed or {self.num_envs}, got {len(seeds)}")
        self.worlds.seed(seeds)
        self.worlds.reset(np.arange(self.num_envs))
        false = np.zeros(self.num_envs, np.bool_)
        return self.worlds.observe(), self._infos(false, false, false)

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Advance every world by one control step; actions are float [num_envs, A] in [-1, 1]."""
        reward, terminated, truncated, success = self.worlds.step(actions)
        observation, infos = self.worlds.observe(), self._infos(terminated, truncated, success)
        ended = terminated | truncated
        if ended.any():
            final = {"final_obs": observation, "_final_obs": ended}
            final |= {"final_info": infos, "_final_info": ended.copy()}
            self.worlds.reset(np.flatnonzero(ended))
            on = ~ended
            observation = self.worlds.observe()
            infos = self._infos(terminated & on, truncated & on, success & on) | final
        return observation, reward, terminated, truncated, infos

    def observe(self) -> Observation:
        """The present observations again, as after `set_state`."""
        return self.worlds.observe()

    def oracle_actions(self) -> NDArray[np.float32]:
        """The scripted expert's actions for the present states, float32 [num_envs, A]."""
        return self.worlds.oracle()

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what happens next, as plain numeric arrays."""
        return self.worlds.get_state()

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Return to a state that `get_state` gave; what follows is bit-identical."""
        self.worlds.set_state(state)

    def render_counterfactual(
        self,
        what: Literal["target", "distractor"],
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        rgba: Sequence[float] | None = None,
        removed: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """What would be seen at this moment with one thing changed; nothing else changes, now or later.

        Args:
            what: the target, or the distractor of which most is seen; `before` is empty where none is.
            shift: how far it is moved to the right and up, in heights of the frame.
            rgba: its colour, in [0, 1].
            removed: whether it is out of sight.

        Returns:
            `image`, uint8 [num_envs, H, W, 3]; and where things are seen, bool [num_envs, H, W]: `before` the
            thing as it is, `after` the thing changed, `target` the target as it is, `target_after` the target
            in `image`.
        """
        worlds, objects = self.worlds, self.worlds.task.objects
        seen, target = worlds.camera.geom_id.copy(), objects.target_geoms()[:, None, None]
        geoms = target
        if what == "distractor":
            pixels = (seen[:, None] == objects.geoms[:, None, None]).sum(axis=(2, 3))
            pixels[np.arange(self.num_envs), objects.target] = -1
            geoms = objects.geoms[pixels.argmax(axis=1)][:, None, None]
        image, ids = worlds.render_counterfactual(geoms[:, 0, 0], shift=shift, rgba=rgba, removed=removed)
        return {
            "image": image,
            "before": (seen == geoms) & ((geoms != target) | (what == "target")),
            "after": ids == geoms,
            "target": seen == target,
            "target_after": ids == target,
        }

    def view(
        self, camera: str | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The present scene from any camera of the model, at any size, as `Worlds.view`.

        Returns:
            rgb uint8 [num_envs, H, W, 3], and where the target is seen, bool [num_envs, H, W].

        Raises:
            ValueError: no such camera, or a size out of its range.
        """
        return self.worlds.view(camera, image_size)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One larger frame a world, where `render_mode` is "rgb_array"."""
        return tuple(self.worlds.picture()) if self.render_mode == "rgb_array" else None

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
            infos["target_mask"] = mask
        # Gymnasium's convention: beside each entry, which worlds it holds for.
        return infos | {f"_{name}": np.ones(self.num_envs, np.bool_) for name in infos}


def _ends(
    worlds: Worlds, terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], success: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Why each world's episode has ended, or "", object [num_worlds]."""
    ends = np.full(worlds.num_worlds, "", object)
    ends[terminated] = "failure"
    ends[terminated & success] = "success"
    ends[truncated] = "time limit"
    ends[truncated & worlds.diverged] = "diverged"
    return ends


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode is None or "rgb_array", got {render_mode!r}')
