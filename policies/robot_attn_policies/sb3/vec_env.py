"""A Stable-Baselines3 `VecEnv` around a Gymnasium `VectorEnv` that steps all environments in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from robot_attn.frames import channels_to_front
from robot_attn_policies.compat.stable_baselines3 import (
    clear_requests,
    env_indices,
    requested_options,
    requested_seeds,
)
from robot_attn_policies.rollouts.protocols import HasState, ability
from robot_attn_policies.sb3.images import entries_of, image_entries

_NOT_INFO = ("final_obs", "final_info")
_ENV_PREFIX = "env/"


class BatchVecEnv(VecEnv):
    """Adapts a vector environment to SB3, with the same frames, rewards and masks, bit for bit.

    The wrapped environment resets an environment in the step that ends its episode
    (`AutoresetMode.SAME_STEP`), as SB3 does. `infos[i]` has row `i` of every array in the batch's `infos`. In
    the step that ends an episode it describes that last step, as everywhere in SB3, and also has

    - `terminal_observation`: the last observation of the episode (the returned one is the next episode's
      first);
    - `TimeLimit.truncated`: True if the episode was truncated by the time limit, so that its last value is
      bootstrapped;
    - `is_success`: the last step's `success` or `is_success`, if the environment reports one;
    - `episode`: `r` (return), `l` (length in steps) and `t` (seconds since this object was made), as from
      `Monitor`.

    The info of a new episode's first observation, with its `target_mask`, is `reset_infos[i]`.

    Args:
        env: a vector environment with `metadata["autoreset_mode"]` `SAME_STEP` and a `Box` or `Dict`
            observation space.
        channels_first: return images of shape (H, W, C) as (C, H, W), without a copy. Otherwise SB3 does this
            with `VecTransposeImage` for uint8 images, which copies observations twice.

    Attributes:
        env: the wrapped environment.
        channels_first: as given.

    Raises:
        ValueError: another autoreset mode; or, from `reset` and `step`, an observation with NaN or infinity.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], *, channels_first: bool = False) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"expected a vector environment with autoreset mode {AutoresetMode.SAME_STEP}, got {mode}: "
                "make it with autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
            )
        self.env = env
        self.channels_first = channels_first
        space = (
            _channels_first_space(env.single_observation_space)
            if channels_first
            else env.single_observation_space
        )
        super().__init__(env.num_envs, space, env.single_action_space)
        self._images = _channels_last_images(env.single_observation_space)
        self._floats = _entries(env.single_observation_space, _is_float)
        self._returns = np.zeros(env.num_envs, np.float64)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._started = time.monotonic()
        self._actions: NDArray[Any] | None = None

    def reset(self) -> VecEnvObs:
        """Reset every environment, with the seeds and options given to `seed` and `set_options`.

        Returns:
            The observations, [N, ...].

        Raises:
            ValueError: different options for different environments, or an observation that is not finite.
        """
        options = requested_options(self)
        if any(wanted != options[0] for wanted in options):
            raise ValueError(
                "expected one set of options for all environments, got several: pass a dict to set_options"
            )
        seeds: Any = list(requested_seeds(self))
        if all(seed is None for seed in seeds):
            seeds = None
        observation, infos = self.env.reset(seed=seeds, options=options[0] or None)
        clear_requests(self)
        self._returns[:] = 0
        self._lengths[:] = 0
        self.reset_infos = _rows(infos, self.num_envs)
        converted: VecEnvObs = self._convert(observation)
        return converted

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions, [N, ...], for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments with the actions of `step_async`.

        Returns:
            Observations [N, ...], rewards float32 [N], dones bool [N], and a list of N info dicts.

        Raises:
            ValueError: an observation with NaN or infinity.
        """
        observation, rewards, terminated, truncated, batch = self.env.step(self._actions)
        rewards = np.array(rewards, np.float32)  # a copy: SB3 adds the bootstrapped value to it in place
        self._returns += rewards
        self._lengths += 1
        dones = terminated | truncated
        infos = _rows(batch, self.num_envs)
        ended = np.flatnonzero(dones)
        if ended.size:
            finals = _rows(batch.get("final_info", {}), self.num_envs)
            for i in ended.tolist():
                self.reset_infos[i] = infos[i]
                infos[i] = finals[i]
                infos[i]["terminal_observation"] = self._convert(_row(batch["final_obs"], i))
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
                if "success" in infos[i]:
                    infos[i]["is_success"] = infos[i]["success"]
                infos[i]["episode"] = {
                    "r": float(self._returns[i]),
                    "l": int(self._lengths[i]),
                    "t": round(time.monotonic() - self._started, 6),
                }
            self._returns[ended] = 0
            self._lengths[ended] = 0
        return self._convert(observation), rewards, dones, infos

    @property
    def stateful(self) -> bool:
        """Whether the environment has `get_state` and `set_state`, so that its state can be restored."""
        return ability(self.env, HasState) is not None

    @property
    def _simulator(self) -> HasState:
        simulator = ability(self.env, HasState)
        if simulator is None:
            raise ValueError(
                "expected an environment that can go back to a state, got "
                f"{type(self.env.unwrapped).__name__}: give its class get_state and set_state"
            )
        return simulator

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next step depends on, running returns and lengths included.

        Returns:
            Numeric arrays by name.
        """
        state: dict[str, NDArray[Any]] = {
            _ENV_PREFIX + key: value for key, value in self._simulator.get_state().items()
        }
        return state | {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore a state from `get_state`; the following steps are bit-identical.

        Args:
            state: numeric arrays by name.

        Raises:
            ValueError: the state of another number of environments.
        """
        own = {key: value for key, value in state.items() if not key.startswith(_ENV_PREFIX)}
        if set(own) != {"returns", "lengths"} or any(len(value) != self.num_envs for value in own.values()):
            raise ValueError(
                f"expected the state of {self.num_envs} environments, with running returns and lengths, got "
                + ", ".join(f"{key} {np.shape(value)}" for key, value in own.items())
            )
        self._simulator.set_state(
            {
                key.removeprefix(_ENV_PREFIX): value
                for key, value in state.items()
                if key.startswith(_ENV_PREFIX)
            }
        )
        self._returns = np.array(own["returns"], np.float64)
        self._lengths = np.array(own["lengths"], np.int64)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the batch, repeated for each environment in `indices`: they share it."""
        value = (
            getattr(self.env, attr_name)
            if hasattr(self.env, attr_name)
            else getattr(self.env.unwrapped, attr_name)
        )
        return [value for _ in env_indices(self, indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batch, which all environments share.

        Raises:
            ValueError: `indices` are only some of the environments.
        """
        self._check_all(indices, "set an attribute")
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once.

        Returns:
            One result per environment: the rows of what the method returned, or the same value for all.

        Raises:
            ValueError: `indices` are only some of the environments.
        """
        self._check_all(indices, "call a method")
        result = getattr(self.env.unwrapped, method_name)(*method_args, **method_kwargs)
        if isinstance(result, np.ndarray | list | tuple) and len(result) == self.num_envs:
            return list(result)
        return [result] * self.num_envs

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for `Monitor`, whose `infos[i]["episode"]` this class provides; otherwise False."""
        return [wrapper_class is Monitor for _ in env_indices(self, indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """The frames that the batch renders, one per environment; None without a render mode."""
        frames: Any = self.env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def observe(self) -> VecEnvObs:
        """The current observations: those of the last `reset` or `step`, or of the state set since."""
        converted: VecEnvObs = self._convert(self.env.unwrapped.observe())  # type: ignore[attr-defined]
        return converted

    def _convert(self, observation: Any) -> Any:
        """An observation of the batch or of one environment, as SB3 gets it."""
        for key in self._floats:
            values = observation if key is None else observation[key]
            if not np.isfinite(values).all():
                name = "an observation" if key is None else f"observation {key!r}"
                raise ValueError(
                    f"expected finite observations from the environment, got NaN or infinity in {name}"
                )
        if not self.channels_first or not self._images:
            return observation
        if self._images == [None]:
            return _channels_first(observation)
        return {key: _channels_first(v) if key in self._images else v for key, v in observation.items()}

    def _check_all(self, indices: VecEnvIndices, what: str) -> None:
        if indices is not None and list(env_indices(self, indices)) != list(range(self.num_envs)):
            raise ValueError(
                f"expected to {what} on all environments of a batch, got indices {indices!r}: leave "
                "`indices` out"
            )


def _entries(space: spaces.Space[Any], selects: Callable[[spaces.Space[Any]], bool]) -> list[str | None]:
    """Keys of the entries of a `Dict` space that `selects` accepts; [None] for an accepted plain space."""
    if isinstance(space, spaces.Dict):
        return [key for key, entry in space.spaces.items() if selects(entry)]
    return [None] if selects(space) else []


def _channels_first(frames: NDArray[Any]) -> NDArray[Any]:
    return channels_to_front(frames)


def _channels_last_images(space: spaces.Space[Any]) -> list[str | None]:
    return [key for key, layout in image_entries(space).items() if layout.order == "HWC"]


def _channels_first_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    entries = entries_of(space)
    for key in _channels_last_images(space):
        box: Any = entries[key]
        low, high = channels_to_front(box.low), channels_to_front(box.high)
        entries[key] = spaces.Box(low, high, dtype=box.dtype)
    return entries[None] if None in entries else spaces.Dict(list(entries.items()))  # type: ignore[arg-type]


def _is_float(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _rows(infos: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Split Gymnasium's vectorised infos into one dict per environment; `_key` masks mark the rows set."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in infos.items():
        if key.startswith("_") or key in _NOT_INFO:
            continue
        items: Any = values
        if isinstance(values, Mapping):
            items = _rows(values, num_envs)
        elif isinstance(values, np.ndarray) and values.ndim == 1:
            items = values.tolist()
        mask = infos.get("_" + key)
        present: Iterable[int] = range(num_envs) if mask is None else np.flatnonzero(mask).tolist()
        for i in present:
            rows[i][key] = items[i]
    return rows


def _row(batch: Any, i: int) -> Any:
    return {key: values[i] for key, values in batch.items()} if isinstance(batch, Mapping) else batch[i]
