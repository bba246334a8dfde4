"""A task in many worlds: physics, camera, step counters and random generators, stepped together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from mujoco import mjtWarning as _Warning
from numpy.typing import NDArray

from robot_attn_envs.cores import OwnThreads, usable_cores
from robot_attn_envs.image_size import check_image_size
from robot_attn_envs.labels import (
    OCCLUDER,
    ROBOT,
    backdrop_table,
    color_word,
    label_of_slots,
    label_pixels,
    moved_geoms,
    thing_names,
)
from robot_attn_envs.render.camera import ALL_GROUPS, KINEMATICS, POLICY_GROUPS, BatchCamera
from robot_attn_envs.shifts import ShiftOption, Shifts, chosen_shifts
from robot_attn_envs.tasks.instructions import MAX_TOKENS, TOKENS
from robot_attn_envs.tasks.occluders import Occluders
from robot_attn_envs.tasks.task import Floats, Task, make_task

try:
    from mujoco.batch import Batch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "expected MuJoCo 3.17 or newer, which steps many worlds in one call, for robot-attn's own tasks, got "
        f"{mujoco.__version__}: upgrade mujoco, or use an environment of your own, which 3.10 is enough for"
    ) from error

REMOVED = (0.0, 0.0, -50.0)  # m, position of an object that is removed in a counterfactual
_WORD = (1 << 64) - 1
# MuJoCo's warnings after which it resets a simulation.
_DIVERGED = [int(w) for w in (_Warning.mjWARN_BADQPOS, _Warning.mjWARN_BADQVEL, _Warning.mjWARN_BADQACC)]


class Worlds:
    """`num_worlds` independent worlds of one task, without automatic resets.

    A world depends on its own seed and actions only, not on the number of worlds or threads. A visual shift
    changes the images and nothing else, except for the distractors that it adds: the same seed gives the same
    layout with and without the shift.

    Args:
        task: the task's class.
        num_worlds: number of worlds, at least 1.
        image_size: side of the square frames in pixels, or (height, width); each from 32 to 2048.
        depth: whether observations have a `depth` entry, float32 (H, W, 1), metres along the optical axis.
        threads: threads for physics and camera; None for every core this process may use.
        device: Warp device of the camera, "cpu" or e.g. "cuda".
        renderer: what draws the frames: `tiled`, for CPUs, or `mujoco_warp`; None for `tiled` on a CPU and
            `mujoco_warp` on a GPU.
        shift: a visual shift of `SHIFTS`, several of them, or a mapping from names to intensities.
        intensity: intensity of the shifts that `shift` names without one, from 0 (no change) to 1.
        suite: a standard combination of shifts from `SUITES`, such as "hard", instead of `shift`.
        backgrounds: folder of images and videos for the shift "background", instead of procedural textures.
        occluders: how many times in an episode a screen crosses in front of the target, 0 to 8.
        max_episode_steps: control steps after which an episode is truncated, if fewer than the task's
            `horizon`; None or -1 for the task's.
        **options: options of the task.

    Attributes:
        task: the task.
        shifts: the visual shifts.
        occluders: the screen.
        model: the compiled scene.
        batch: the simulations.
        camera: the policy's camera.
        observation_space: observation space of one world.
        action_space: action space of one world, float32 [A] in [-1, 1].
        thing_names: what the labels of `things` stand for, by label.
        generators: the worlds' random generators.
        steps: control steps done in each world's episode, int64 [num_worlds].
        horizon: control steps in an episode.
        diverged: whether the last `step` made the simulation diverge, bool [num_worlds].

    Raises:
        ValueError: an option that is unknown or out of range.
    """

    def __init__(
        self,
        task: type[Task],
        num_worlds: int,
        *,
        image_size: int | Sequence[int] = 64,
        depth: bool = False,
        threads: int | None = None,
        device: str = "cpu",
        renderer: str | None = None,
        shift: ShiftOption = (),
        intensity: float = 0.5,
        suite: str | None = None,
        backgrounds: str | Path | None = None,
        occluders: int = 0,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        arguments: dict[str, Any] = {"image_size": image_size, "depth": depth, "threads": threads}
        arguments |= {
            "device": device,
            "renderer": renderer,
            "shift": shift,
            "intensity": intensity,
            "suite": suite,
        }
        arguments |= {"backgrounds": backgrounds, "occluders": occluders}
        arguments |= {"max_episode_steps": max_episode_steps}
        self._recreate = partial(type(self), task, num_worlds, **arguments, **options)
        self.num_worlds, self.threads = num_worlds, threads or usable_cores()
        self.image_size = check_image_size(image_size)
        height, width = self.image_size
        self.shifts = Shifts(chosen_shifts(shift, intensity, suite), num_worlds, backgrounds=backgrounds)
        if self.shifts.spare_distractors:
            options = {"spare_distractors": self.shifts.spare_distractors, **options}
        self.task = make_task(task, num_worlds, options)
        self.horizon = min(task.horizon, _check_limit(max_episode_steps) or task.horizon)
        self.occluders = Occluders(num_worlds, occluders)
        spec = mujoco.MjSpec.from_string(self.task.mjcf())
        self.occluders.add_to(spec)
        self.model = spec.compile()
        self.occluders.fit(self.model, self.task)
        self.shifts.fit(self.model, self.task, self.image_size)
        self.batch = Batch(self.model, num_worlds, min(self.threads, num_worlds))
        self._threads_of = OwnThreads(self.batch) if self.batch.nthread > 1 else None
        self._kinematics = {name: self.batch.bind(name) for name in KINEMATICS}
        self._device, self._renderer = device, renderer
        self.camera = BatchCamera(
            self.model,
            num_worlds,
            self.task.camera,
            self.image_size,
            threads=self.threads,
            depth=depth,
            device=device,
            renderer=renderer,
            lens=self.shifts.lens,
        )
        self._other_camera: BatchCamera | None = None
        self.task.geom_rgba = self.camera.geom_rgba
        self.task.bind(self.model, self.batch, width / height)
        self.occluders.bind(self.model, self.batch, self.task)
        self.shifts.bind(self.model, self.task, width / height)
        self.thing_names = thing_names(len(self.task.objects.names) - 1, tuple(self.task.landmarks))
        self._labels = self._label_geoms()
        self.steps = np.zeros(num_worlds, np.int64)
        self.diverged = np.zeros(num_worlds, np.bool_)
        # Each world's seed entropy, and the number of episodes begun since it was seeded.
        self._entropy = np.zeros(num_worlds, np.uint64)
        self._episode = np.zeros(num_worlds, np.int64)
        self.generators: list[np.random.Generator] = [np.random.default_rng(0)] * num_worlds
        for world in range(num_worlds):
            self._seed(world, None)

        spaces: dict[str, gymnasium.Space[Any]] = {
            "image": gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        }
        if depth:
            farthest = self.model.vis.map.zfar * self.model.stat.extent
            spaces["depth"] = gymnasium.spaces.Box(0.0, farthest, (height, width, 1), np.float32)
        if self.task.state_table:
            self._state_low = np.array([row.low for row in self.task.state_table], np.float32)
            self._state_high = np.array([row.high for row in self.task.state_table], np.float32)
            spaces["state"] = gymnasium.spaces.Box(self._state_low, self._state_high, dtype=np.float32)
        if self.task.objects.instruction:
            most = max(TOKENS.values())
            spaces["tokens"] = gymnasium.spaces.Box(0, most, (MAX_TOKENS,), np.int64)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(task.action_table),), np.float32)

    @property
    def dt(self) -> float:
        """Duration of a control step, s."""
        return self.task.control_step(self.model)

    def seed(self, seeds: Iterable[int | None]) -> None:
        """Give each world whose seed is not None a new random generator."""
        for world, seed in enumerate(seeds):
            if seed is not None:
                self._seed(world, seed)

    def _seed(self, world: int, seed: int | None) -> None:
        self.generators[world], resolved = seeding.np_random(seed)
        self._entropy[world] = np.random.SeedSequence(resolved).generate_state(1, np.uint64)[0]
        self._episode[world] = 0

    def reset(self, worlds: NDArray[np.intp]) -> None:
        """Start a new episode in some worlds and render them.

        Args:
            worlds: indices of the worlds, sorted.

        Raises:
            RuntimeError: this process is a fork of the one that made the worlds, with several threads.
        """
        self._check_threads()
        self.batch.reset(worlds, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for world in worlds.tolist():
            self.task.reset(world, self.generators[world])
            self._episode[world] += 1
            # Separate random streams: neither shifts nor the screen change what the task samples.
            entropy = [int(self._entropy[world]), int(self._episode[world])]
            self.occluders.reset(world, np.random.default_rng([*entropy, 1]))
            self.shifts.reset(world, [*entropy, 2])
        self.steps[worlds] = 0
        self.diverged[worlds] = False
        self._refresh(worlds)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Advance every world by one control step and render it.

        A world whose simulation diverges is truncated with reward 0; its frame shows the initial scene.

        Args:
            actions: float [num_worlds, A] in [-1, 1].

        Returns:
            (reward, terminated, truncated, success), float64 and bool [num_worlds].

        Raises:
            ValueError: actions of another shape or dtype, not finite, or out of range.
            RuntimeError: this process is a fork of the one that made the worlds, with several threads.
        """
        self._check_threads()
        self.task.act(self._check_actions(actions), self.steps)
        self.occluders.move(self.steps)
        # Positions are updated after the last substep, so that frame and reward are of the same state.
        before = self.batch.warning[:, _DIVERGED, 1].copy()
        self.batch.step(nstep=self.task.substeps, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self.diverged[:] = (self.batch.warning[:, _DIVERGED, 1] != before).any(axis=1)
        self.steps += 1
        reward, terminated, success = self.task.compute_reward(self.steps)
        reward, sound = np.where(self.diverged, 0.0, reward), ~self.diverged
        terminated, success = terminated & sound, success & sound
        self.render()
        truncated = ((self.steps >= self.horizon) | self.diverged) & ~terminated
        return reward, terminated, truncated, success

    def render(self) -> None:
        """Render the current state of every world into `camera`; `step` and `reset` do this themselves."""
        self._render(self.camera, None)

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observations of all worlds, as new arrays [num_worlds, ...]."""
        observation: dict[str, NDArray[Any]] = {"image": self.camera.rgb.copy()}
        if self.camera.depth is not None:
            observation["depth"] = self.camera.depth[..., None].copy()
        if self.task.state_table:
            state = self.task.state().astype(np.float32)
            observation["state"] = np.clip(state, self._state_low, self._state_high)
        if self.task.objects.instruction:
            observation["tokens"] = self.task.objects.tokens.copy()
        return observation

    def target_mask(self) -> NDArray[np.bool_]:
        """The target's pixels in the last frames, bool [num_worlds, H, W]."""
        return self._target_pixels(self.camera)

    def things(self) -> NDArray[np.uint8]:
        """What the pixels of the last frames show, labels into `thing_names`, uint8 [num_worlds, H, W]."""
        objects = self.task.objects
        self._labels[:, objects.geoms] = label_of_slots(objects.target, len(objects.names))
        return label_pixels(self._labels, self.camera.geom_id)

    def describe_things(self) -> list[tuple[str, ...]]:
        """What the labels of `things` stand for in each world, such as "red sphere"; "" for an absent one."""
        objects = self.task.objects
        labels = label_of_slots(objects.target, len(objects.names))
        described = []
        for world in range(self.num_worlds):
            names = list(self.thing_names)
            for slot, label in enumerate(labels[world].tolist()):
                color = color_word(self.camera.geom_rgba[world, objects.geoms[slot]])
                names[label] = f"{color} {objects.shapes[slot]}" if objects.present[world, slot] else ""
            described.append(tuple(names))
        return described

    def _label_geoms(self) -> NDArray[np.uint8]:
        """The label of every geom but the objects', as `label_pixels` takes them."""
        labels = backdrop_table(self.num_worlds, self.model.ngeom + self.model.nsite)
        labels[:, moved_geoms(self.model)] = ROBOT
        labels[:, [self.model.geom(name).id for name in self.task.fixed_robot]] = ROBOT
        for thing, geoms in self.task.landmarks.items():
            labels[:, [self.model.geom(name).id for name in geoms]] = self.thing_names.index(thing)
        labels[:, self.occluders.geoms(self.model)] = OCCLUDER
        return labels

    def oracle(self) -> NDArray[np.float32]:
        """The scripted expert's actions for the current state, float32 [num_worlds, A] in [-1, 1]."""
        return self.task.oracle(self.steps).astype(np.float32)

    def large_frames(self, size: int = 480) -> NDArray[np.uint8]:
        """Frames of the policy's camera at a larger size, by the same renderer.

        Args:
            size: height in pixels; the aspect ratio is the policy's.

        Returns:
            RGB, uint8 [num_worlds, size, width, 3].
        """
        height, width = self.image_size
        return self.view(image_size=(size, round(size * width / height)))[0]

    def view(
        self, camera: str | None = None, image_size: int | Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Render the current state from any camera of the model at any size, with the same renderer.

        Patches, blur and noise of shifts affect the policy's camera only. Other cameras also see the robot
        that carries it.

        Args:
            camera: name of the camera in the model; None for the policy's.
            image_size: side of the square frames in pixels, or (height, width), each from 32 to 2048; None
                for the policy's.

        Returns:
            RGB, uint8 [num_worlds, H, W, 3], and the target's pixels, bool [num_worlds, H, W].

        Raises:
            ValueError: a camera that the model does not have, or a size out of range.
        """
        name = self.task.camera if camera is None else camera
        size = self.image_size if image_size is None else check_image_size(image_size)
        source = self.camera
        if (name, size) != (self.task.camera, self.image_size):
            source = self._render_from(name, size)
        return source.rgb.copy(), self._target_pixels(source)

    def _target_pixels(self, camera: BatchCamera) -> NDArray[np.bool_]:
        """The target's pixels in a camera's last frames, bool [num_worlds, H, W]."""
        # In one dtype: NumPy would convert every pixel to int64 first, which takes four times as long.
        target = self.task.objects.target_geoms().astype(camera.geom_id.dtype)
        return np.asarray(camera.geom_id == target[:, None, None])

    def _render_from(self, name: str, image_size: tuple[int, int]) -> BatchCamera:
        """Render the current state with another camera or at another size, and return the camera."""
        camera = self._other_camera
        if camera is None or (camera.name, camera.image_size) != (name, image_size):
            camera = BatchCamera(
                self.model,
                self.num_worlds,
                name,
                image_size,
                threads=self.threads,
                device=self._device,
                renderer=self._renderer,
                lens=self.shifts.lens,
                groups=POLICY_GROUPS if name == self.task.camera else ALL_GROUPS,
            )
            self._close_other()
            self._other_camera = camera
        camera.geom_rgba[:] = self.camera.geom_rgba
        kinematics = self.shifts.apply(self._kinematics, self.steps)
        if name != self.task.camera:
            self.shifts.clean_lens()
        camera.render(kinematics, recolor=True)
        return camera

    def render_counterfactual(
        self,
        geoms: NDArray[np.int64],
        *,
        shift: tuple[float, float] = (0.0, 0.0),
        rgba: Sequence[float] | None = None,
        removed: bool = False,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Render the current frames with one geom of each world changed; the simulation does not change.

        Args:
            geoms: id of the geom in each world, int64 [num_worlds].
            shift: displacement to the right and up, in frame heights, at the geom's distance from the camera.
            rgba: new colour in [0, 1]; None keeps it.
            removed: whether to remove the geom from the image.

        Returns:
            RGB, uint8 [num_worlds, H, W, 3], and geom ids, int32 [num_worlds, H, W], as in `BatchCamera`.
        """
        camera, worlds = self.camera, np.arange(self.num_worlds)
        kinematics = self.shifts.apply(self._kinematics, self.steps)
        eye = self.model.camera(self.task.camera).id
        axes = kinematics["cam_xmat"][:, eye].reshape(-1, 3, 3)
        places = kinematics["geom_xpos"].copy()
        depth = np.einsum("ni,ni->n", kinematics["cam_xpos"][:, eye] - places[worlds, geoms], axes[:, :, 2])
        height = 2 * np.abs(depth) * math.tan(math.radians(self.model.cam_fovy[eye]) / 2)
        places[worlds, geoms] += height[:, None] * (axes[:, :, :2] @ np.asarray(shift))
        if removed:
            places[worlds, geoms] = REMOVED
        colors = camera.geom_rgba.copy()
        if rgba is not None:
            camera.geom_rgba[worlds, geoms] = rgba
        camera.render(kinematics | {"geom_xpos": places}, recolor=True)
        counterfactual = camera.rgb.copy(), camera.geom_id.copy()
        camera.geom_rgba[:] = colors
        self._render(camera, None, recolor=True)
        return counterfactual

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The complete state, from which everything that follows is determined.

        Returns:
            Numeric arrays by name, [num_worlds, ...].
        """
        state: dict[str, NDArray[Any]] = {
            "physics": self.batch.state.copy(),
            "steps": self.steps.copy(),
            "entropy": self._entropy.copy(),
            "episode": self._episode.copy(),
            "generators": np.stack([_pack_generator(g) for g in self.generators]),
            "geom_rgba": self.camera.geom_rgba.copy(),
        }
        return state | {name: values.copy() for name, values in self._episode_arrays().items()}

    def _episode_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays sampled for the running episodes, of task, objects, screen and shifts."""
        owners: dict[str, dict[str, NDArray[Any]]] = {
            "task": self.task.episode,
            "objects": self.task.objects.episode,
            "occluders": self.occluders.episode,
            "shifts": self.shifts.episode,
        }
        return {
            f"{owner}/{name}": values for owner, arrays in owners.items() for name, values in arrays.items()
        }

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore a state from `get_state`; everything that follows is bit-identical.

        Args:
            state: numeric arrays by name.

        Raises:
            ValueError: the state of another task, number of worlds or version.
        """
        own = self.get_state()
        for name in sorted(own.keys() | state.keys()):
            found = np.shape(state[name]) if name in state else "nothing"
            expected = own[name].shape if name in own else "nothing"
            if found != expected:
                raise ValueError(
                    f"state entry {name!r}: expected {expected}, got {found}: restore a state of the same "
                    "task, options and number of worlds"
                )
        self.batch.state[:] = state["physics"]
        self.steps[:] = state["steps"]
        self._entropy[:], self._episode[:] = state["entropy"], state["episode"]
        self.generators = [_unpack_generator(words) for words in np.asarray(state["generators"], np.uint64)]
        self.camera.geom_rgba[:] = state["geom_rgba"]
        for name, values in self._episode_arrays().items():
            values[...] = state[name]
        self._refresh(np.arange(self.num_worlds))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as options and state: the simulations and the camera are created again."""
        return self._recreate, (), {"state": self.get_state(), "diverged": self.diverged.copy()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.set_state(kept["state"])
        self.diverged[:] = kept["diverged"]

    def close(self) -> None:
        """Stop the camera's threads."""
        self.camera.close()
        self._close_other()

    def _close_other(self) -> None:
        if self._other_camera is not None:
            self._other_camera.close()
            self._other_camera = None

    def _check_threads(self) -> None:
        if self._threads_of is not None:
            self._threads_of.check()

    def _refresh(self, worlds: NDArray[np.intp]) -> None:
        """Update positions and frames of some worlds after their physics state was written."""
        self._check_threads()
        self.batch.forward(worlds, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._render(self.camera, worlds, recolor=True)

    def _render(self, camera: BatchCamera, worlds: NDArray[np.intp] | None, *, recolor: bool = False) -> None:
        camera.render(self.shifts.apply(self._kinematics, self.steps), worlds, recolor=recolor)

    def _check_actions(self, actions: NDArray[Any]) -> Floats:
        shape = (self.num_worlds, *(self.action_space.shape or ()))
        try:
            values = np.asarray(actions, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected numeric actions of shape {shape}, got {actions!r}") from error
        if values.shape != shape:
            raise ValueError(f"expected actions of shape {shape}, got {values.shape}")
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
            raise ValueError(f"expected finite actions, got NaN or infinity in worlds {bad}")
        if (np.abs(values) > 1.0).any():
            bad = np.flatnonzero((np.abs(values) > 1.0).any(axis=1)).tolist()
            raise ValueError(
                f"expected actions in [-1, 1], got up to {np.abs(values).max():.6g} in worlds {bad}: "
                "clip them"
            )
        return values


def _check_limit(max_episode_steps: int | None) -> int | None:
    """Check a limit of steps and return it; None for none."""
    if max_episode_steps is None or max_episode_steps == -1:
        return None
    if not isinstance(max_episode_steps, int | np.integer) or max_episode_steps < 1:
        raise ValueError(f"expected max_episode_steps of at least 1, got {max_episode_steps!r}")
    return int(max_episode_steps)


def _pack_generator(generator: np.random.Generator) -> NDArray[np.uint64]:
    """The state of a PCG64 generator as six 64-bit words."""
    raw = generator.bit_generator.state
    state, increment = raw["state"]["state"], raw["state"]["inc"]
    words = [state >> 64, state & _WORD, increment >> 64, increment & _WORD]
    return np.array([*words, raw["has_uint32"], raw["uinteger"]], np.uint64)


def _unpack_generator(words: NDArray[np.uint64]) -> np.random.Generator:
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(w) for w in words)
    bit_generator = np.random.PCG64()
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bit_generator)
