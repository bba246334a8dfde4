"""A task in many worlds: physics, camera, counters and random generators, stepped together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from mujoco.batch import Batch
from numpy.typing import NDArray

from .camera import KINEMATICS, BatchCamera, available_cores
from .task import Floats, Task

MIN_SIZE, MAX_SIZE = 32, 512
_WORD = (1 << 64) - 1


class Worlds:
    """`num_worlds` independent worlds of one task, without automatic resets.

    What happens in a world depends on its own seed and actions alone, not on how many worlds or threads
    there are.

    Args:
        task: the task, made for as many worlds.
        num_worlds: number of worlds, at least 1.
        image_size: side of the square frames in pixels, or (height, width); each from 32 to 512.
        depth: whether observations have a `depth` entry.
        threads: threads for physics and camera; None for every core this process may use.
        device: Warp device of the camera, "cpu" or e.g. "cuda".
    """

    def __init__(
        self,
        task: Task,
        num_worlds: int,
        *,
        image_size: int | Sequence[int] = 64,
        depth: bool = False,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.task, self.num_worlds, self.threads = task, num_worlds, threads or available_cores()
        self.image_size = check_image_size(image_size)
        height, width = self.image_size
        self.model = mujoco.MjModel.from_xml_string(task.mjcf())
        self.batch = Batch(self.model, num_worlds, min(self.threads, num_worlds))
        self._kinematics = {name: self.batch.bind(name) for name in KINEMATICS}
        self._device = device
        self.camera = BatchCamera(
            self.model,
            num_worlds,
            task.camera,
            self.image_size,
            threads=self.threads,
            depth=depth,
            device=device,
        )
        self._close_up: BatchCamera | None = None
        task.geom_rgba = self.camera.geom_rgba
        task.bind(self.model, self.batch, width / height)
        self._target_geom = self.model.geom(task.target_geom).id
        self.steps = np.zeros(num_worlds, np.int64)
        self.generators: list[np.random.Generator] = [seeding.np_random(None)[0] for _ in range(num_worlds)]

        spaces: dict[str, gymnasium.Space[Any]] = {
            "image": gymnasium.spaces.Box(0, 255, (height, width, 3), np.uint8)
        }
        if depth:
            farthest = self.model.vis.map.zfar * self.model.stat.extent
            spaces["depth"] = gymnasium.spaces.Box(0.0, farthest, (height, width, 1), np.float32)
        if task.state_table:
            self._state_low = np.array([row.low for row in task.state_table], np.float32)
            self._state_high = np.array([row.high for row in task.state_table], np.float32)
            spaces["state"] = gymnasium.spaces.Box(self._state_low, self._state_high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(task.action_table),), np.float32)

    @property
    def dt(self) -> float:
        """Seconds in one control step."""
        return float(self.model.opt.timestep * self.task.substeps)

    def seed(self, seeds: Iterable[int | None]) -> None:
        """Give each world a new random generator where its seed is not None."""
        for world, seed in enumerate(seeds):
            if seed is not None:
                self.generators[world] = seeding.np_random(seed)[0]

    def reset(self, worlds: NDArray[np.intp]) -> None:
        """Begin a new episode in the given worlds (sorted indices) and draw them."""
        self.batch.reset(worlds, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for world in worlds:
            self.task.reset(int(world), self.generators[world])
        self.steps[worlds] = 0
        self._refresh(worlds)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Advance every world by one control step and draw it.

        Args:
            actions: [num_worlds, A], finite; clipped to [-1, 1].

        Returns:
            (reward, terminated, truncated, success), each [num_worlds].

        Raises:
            ValueError: actions of another shape or dtype, or not finite.
        """
        self.task.act(self._check_actions(actions), self.steps)
        # Positions are brought up to date after the last substep: the frame and the reward show the present.
        self.batch.step(nstep=self.task.substeps, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self.steps += 1
        reward, terminated, success = self.task.score(self.steps)
        self.draw()
        return reward, terminated, (self.steps >= self.task.horizon) & ~terminated, success

    def draw(self) -> None:
        """Draw every world as the physics has it; `step` and `reset` do so themselves."""
        self.camera.render(self._kinematics)

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observations of all worlds as fresh arrays, [num_worlds, ...] each."""
        observation: dict[str, NDArray[Any]] = {"image": self.camera.rgb.copy()}
        if self.camera.depth is not None:
            observation["depth"] = self.camera.depth[..., None].copy()
        if self.task.state_table:
            state = self.task.state().astype(np.float32)
            observation["state"] = np.clip(state, self._state_low, self._state_high)
        return observation

    def target_mask(self) -> NDArray[np.bool_]:
        """Where the target is seen in the last frames, bool [num_worlds, H, W]."""
        return np.asarray(self.camera.geom_id == self._target_geom)

    def oracle(self) -> NDArray[np.float32]:
        """The scripted expert's actions for the present state, float32 [num_worlds, A]."""
        return self.task.oracle(self.steps).astype(np.float32)

    def picture(self, size: int = 480) -> NDArray[np.uint8]:
        """The policy's view drawn larger, by the same renderer, uint8 [num_worlds, size, width, 3]."""
        height, width = self.image_size
        shape = (size, round(size * width / height))
        if self._close_up is None or self._close_up.rgb.shape[1:3] != shape:
            self._close_up = BatchCamera(
                self.model,
                self.num_worlds,
                self.task.camera,
                shape,
                threads=self.threads,
                device=self._device,
            )
        self._close_up.geom_rgba[:] = self.camera.geom_rgba
        self._close_up.render(self._kinematics, recolor=True)
        return self._close_up.rgb.copy()

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what happens next, as plain numeric arrays."""
        state: dict[str, NDArray[Any]] = {
            "physics": self.batch.state.copy(),
            "steps": self.steps.copy(),
            "generators": np.stack([_pack_generator(g) for g in self.generators]),
            "geom_rgba": self.camera.geom_rgba.copy(),
        }
        return state | {f"episode/{name}": values.copy() for name, values in self.task.episode.items()}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Return to a state that `get_state` gave; what follows is bit-identical.

        Raises:
            ValueError: the state is of another task, another number of worlds, or another version.
        """
        mine = self.get_state()
        for name in sorted(mine.keys() | state.keys()):
            got = np.shape(state[name]) if name in state else "nothing"
            want = mine[name].shape if name in mine else "nothing"
            if got != want:
                raise ValueError(
                    f"state entry {name!r}: expected {want}, got {got}; it was saved from another environment"
                )
        self.batch.state[:] = state["physics"]
        self.steps[:] = state["steps"]
        self.generators = [_unpack_generator(words) for words in np.asarray(state["generators"], np.uint64)]
        self.camera.geom_rgba[:] = state["geom_rgba"]
        for name, values in self.task.episode.items():
            values[...] = state[f"episode/{name}"]
        self._refresh(np.arange(self.num_worlds))

    def close(self) -> None:
        """Stop the camera's threads."""
        self.camera.close()
        if self._close_up is not None:
            self._close_up.close()

    def _refresh(self, worlds: NDArray[np.intp]) -> None:
        """Bring positions and frames of these worlds up to date with their physics state."""
        self.batch.forward(worlds, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self.camera.render(self._kinematics, worlds, recolor=True)

    def _check_actions(self, actions: NDArray[Any]) -> Floats:
        shape = (self.num_worlds, *(self.action_space.shape or ()))
        try:
            values = np.asarray(actions, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"actions must be numbers of shape {shape}, got {actions!r}") from error
        if values.shape != shape:
            raise ValueError(f"actions must have shape {shape}, got {values.shape}")
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
            raise ValueError(f"actions must be finite; they are NaN or infinite in worlds {bad}")
        return np.clip(values, -1.0, 1.0)


def check_image_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one number or two, each from 32 to 512 pixels, or a ValueError."""
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size, image_size]
    if len(sides) != 2 or not all(isinstance(s, int) and MIN_SIZE <= s <= MAX_SIZE for s in sides):
        raise ValueError(
            "image_size is one side or (height, width), whole numbers of pixels "
            f"from {MIN_SIZE} to {MAX_SIZE}, got {image_size!r}"
        )
    return sides[0], sides[1]


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
