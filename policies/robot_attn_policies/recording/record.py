"""Record an episode of any Stable-Baselines3 policy in any environment that gives frames, ours or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack

from robot_attn.episode import Episode
from robot_attn.frames import channel_axis, channels_to_back
from robot_attn_policies.probing.probe import PolicyProbe, probe_policy, remembering
from robot_attn_policies.recording.episode_file import record_episode
from robot_attn_policies.rollouts.rollout import ObservationBatch
from robot_attn_policies.rollouts.single_env import BatchOfOne, Environment, attribute

_SHOWN, _SEEN = "image", "seen"


def record(
    policy: BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seed: int = 0,
    best_head: int = 0,
    stack: int | None = None,
    max_steps: int = 10_000,
) -> Episode:
    """Play one episode without exploration noise, and keep what was seen, looked at, done and earned.

        episode = record(PPO("CnnPolicy", env).learn(100_000), env)

    Of a policy without attention the maps are gradients of its action, and `Episode.maps` says so. A
    recurrent policy remembers from step to step. The environment stays open, at the end of the episode.

    Frames are kept as uint8 RGB: of a stack of frames the newest, grey as RGB, and floats scaled from the
    bounds of their space.

    Args:
        policy: an algorithm or its policy, of Stable-Baselines3 or sb3-contrib.
        env: a Gymnasium environment, or a batch of one: a Gymnasium `VectorEnv` or a `VecEnv` of
            Stable-Baselines3. It observes a `Box` of frames or a `Dict` with frames, channels first or last.
        seed: of the episode.
        best_head: the head that a replay shows large.
        stack: how many frames one observation holds, the newest last; by default what `VecFrameStack` or
            Gymnasium's `FrameStackObservation` among the wrappers says, else 1.
        max_steps: where an episode that does not end is cut.

    Raises:
        ValueError: a policy that sees no frames, other frames than the environment gives, or frames that
            cannot be shown; a batch of several environments; or as `rollout_episodes`.
    """
    probe = probe_policy(policy)
    act = remembering(probe)
    return record_episode(
        lambda observation: act(_seen(observation)),
        _Shown(env, max_steps, probe, stack),
        seed,
        probe.grid,
        env_args=_env_args(env),
        image=_SHOWN,
        best_head=best_head,
        uniform=probe.uniform,
        policy=type(policy).__name__,
        values=lambda observation: probe.values(_seen(observation)),
        maps="gradient" if probe.kind == "gradient" else "attention",
    )


def _seen(observation: ObservationBatch) -> ObservationBatch:
    return cast(ObservationBatch, cast(Mapping[str, Any], observation)[_SEEN])


class _Shown(BatchOfOne):
    """What it observes is what the policy sees, under `_SEEN`, and the frame to keep, under `_SHOWN`."""

    def __init__(self, env: Environment, max_steps: int, probe: PolicyProbe, stack: int | None) -> None:
        super().__init__(env, max_steps)
        self.show = Show(env, probe, stack)

    def observe(self, observation: Any) -> ObservationBatch:
        seen: Any = super().observe(observation)
        state = {"state": seen["state"]} if isinstance(seen, Mapping) and "state" in seen else {}
        return {_SEEN: seen, _SHOWN: self.show(seen), **state}


def _env_args(env: Environment) -> dict[str, Any]:
    """What makes the environment again, as far as it says: `env_name` and `env_kwargs`, as plain JSON."""
    spec = attribute(env, "spec")
    if spec is None:
        return {"env_name": type(env.unwrapped).__name__, "env_kwargs": {}}
    # How `make_vec` made a batch of it is no option of the environment.
    options = {name: value for name, value in spec.kwargs.items() if name != "vectorization_mode"}
    return {"env_name": spec.id, "env_kwargs": json.loads(json.dumps(options, default=str))}


class Show:
    """The frame to keep of a batch of observations: uint8 [B, H, W, 3] RGB."""

    def __init__(self, env: Environment, probe: PolicyProbe, stack: int | None) -> None:
        given = env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space
        frames, expected = (_entry(space, probe.image) for space in (given, probe.policy.observation_space))
        channels, height, width = expected.shape
        self._image = probe.image
        axis = channel_axis(frames.shape, (height, width))
        if axis is None or frames.shape[axis] != channels:
            raise ValueError(
                f"expected frames of {channels} x {height} x {width}, channels first or last, as the policy "
                f"sees them, got an environment of frames {list(frames.shape)}; wrap it as in training"
            )
        self._channels_first = axis == -3
        count = _stacked(env) if stack is None else stack
        self._colors = channels // count if count >= 1 and channels % count == 0 else 0
        if self._colors not in (1, 3, 4):
            raise ValueError(
                f"expected grey, RGB or RGBA frames, got {channels} channels as a stack of {count}; say in "
                "stack= how many frames one observation holds"
            )
        self._low, self._high = float(frames.low.min()), float(frames.high.max())
        self._whole = frames.dtype == np.uint8
        if not self._whole and not np.isfinite(self._high - self._low):
            raise ValueError(
                f"expected frames of bytes, or between bounds, got {frames.dtype} from {self._low:g} to "
                f"{self._high:g}: what is white is not known"
            )

    def __call__(self, observation: Any) -> NDArray[np.uint8]:
        frames = observation if self._image is None else observation[self._image]
        frames = channels_to_back(frames) if self._channels_first else frames
        newest = frames[..., -self._colors :][..., :3]
        if not self._whole:
            share = (newest.astype(np.float64) - self._low) / (self._high - self._low)
            newest = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
        return np.broadcast_to(newest, (*newest.shape[:3], 3))


def _entry(space: spaces.Space[Any], image: str | None) -> spaces.Box:
    """The space of the frames."""
    entry = space.spaces.get(image) if isinstance(space, spaces.Dict) and image is not None else space
    if not isinstance(entry, spaces.Box) or len(entry.shape) != 3:
        where = "" if image is None else f" under {image!r}"
        raise ValueError(f"expected frames{where} of three axes, got an environment that observes {space}")
    return entry


def _stacked(env: Any) -> int:
    """How many frames one observation holds, as the wrappers say."""
    count = 1
    while isinstance(env, VecEnvWrapper):
        count *= env.stacked_obs.n_stack if isinstance(env, VecFrameStack) else 1
        env = env.venv
    if isinstance(env, DummyVecEnv):
        env = env.envs[0]
    while isinstance(env, gymnasium.Wrapper):
        count *= env.stack_size if isinstance(env, FrameStackObservation) else 1
        env = env.env
    return count
