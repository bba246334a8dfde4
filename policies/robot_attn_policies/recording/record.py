"""Record an episode of any Stable-Baselines3 policy in any environment with image observations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import FrameStackObservation
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack

from robot_attn.episode import Episode
from robot_attn.layout import image_layout
from robot_attn_policies.probing.probe import MapChoice, PolicyProbe, probe_cameras, probe_policy
from robot_attn_policies.recording.cameras import record_probes
from robot_attn_policies.rollouts.env_batch import EnvBatch, Environment, attribute
from robot_attn_policies.sb3.images import image_entries


def record(
    policy: BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seed: int = 0,
    image: str | None = None,
    maps: MapChoice | None = None,
    best_head: int = 0,
    stack: int | None = None,
    max_steps: int = 10_000,
) -> Episode:
    """Run and record one episode with deterministic actions, at one camera.

        episode = record(PPO("CnnPolicy", env).learn(100_000), env)

    For a policy without attention the recorded maps are causal, and `Episode.maps` says so: how much the
    action changes when random pixels are removed, at about 50 ms of one core for a frame of 64 x 64. A
    recurrent policy carries its state from step to step, and MaskablePPO gets the environment's action masks.
    The environment stays open, at the end of the episode. Normalising wrappers, such as `VecNormalize`, keep
    their statistics; the policy gets their observations, and the recorded rewards are the environment's own.

    Frames are recorded as uint8 RGB: the newest of a stack, grey repeated to RGB, floats scaled from the
    bounds of their space.

    Args:
        policy: an algorithm of Stable-Baselines3 or sb3-contrib, or its policy.
        env: a Gymnasium environment, or a batch of one: a Gymnasium `VectorEnv` or a Stable-Baselines3
            `VecEnv`. Its observations are frames (`Box`) or a `Dict` with frames, channels first or last.
        seed: seed of the episode.
        image: key of the camera's image; None for a policy with one camera. `record_cameras` records all.
        maps: kind of the maps: "attention", "causal" or "gradient"; None for attention where the policy has
            any, otherwise "causal".
        best_head: head that a replay shows large.
        stack: number of frames in one observation, the newest last. None takes it from `VecFrameStack` or
            Gymnasium's `FrameStackObservation` among the wrappers, else 1.
        max_steps: an episode that does not end by itself is truncated after this many steps.

    Returns:
        The episode.

    Raises:
        ValueError: the policy observes no frames, other frames than the environment's, or frames that cannot
            be converted to RGB; a batch of several environments; no `image` for a policy with several
            cameras; or an error of `rollout_episodes`.
    """
    probe = probe_policy(policy, image=image, maps=maps)
    heads = {probe.image: best_head}
    return _record(policy, {probe.image: probe}, env, seed, heads, stack, max_steps)[probe.image]


def record_cameras(
    policy: BaseAlgorithm | BasePolicy,
    env: Environment,
    *,
    seed: int = 0,
    maps: MapChoice | None = None,
    best_heads: Mapping[str | None, int] | None = None,
    stack: int | None = None,
    max_steps: int = 10_000,
) -> dict[str | None, Episode]:
    """Run one episode and record it at every camera of the policy, as `record` does at one.

    Args:
        policy: as for `record`.
        env: as for `record`. Its infos have `target_mask/NAME` for the image NAME.
        seed: seed of the episode.
        maps: as for `record`.
        best_heads: head that a replay shows large, by the key of the camera's image; 0 if missing.
        stack: as for `record`.
        max_steps: as for `record`.

    Returns:
        An episode for each camera by the key of its image, which is None if the observation is the image.

    Raises:
        ValueError: an error of `record`.
    """
    probes = probe_cameras(policy, maps=maps)
    heads = {key: (best_heads or {}).get(key, 0) for key in probes}
    return _record(policy, probes, env, seed, heads, stack, max_steps)


def _record(
    policy: BaseAlgorithm | BasePolicy,
    probes: Mapping[str | None, PolicyProbe],
    env: Environment,
    seed: int,
    best_heads: Mapping[str | None, int],
    stack: int | None,
    max_steps: int,
) -> dict[str | None, Episode]:
    return record_probes(
        probes,
        EnvBatch(env, max_steps),
        seed,
        to_rgb={key: RGBConverter(env, probe, stack) for key, probe in probes.items()},
        best_heads=best_heads,
        env_args=_env_args(env),
        policy=type(policy).__name__,
    )


def _env_args(env: Environment) -> dict[str, Any]:
    """Return `env_name` and `env_kwargs`, from which the environment can be made, as plain JSON values."""
    spec = attribute(env, "spec")
    if spec is None:
        return {"env_name": type(env.unwrapped).__name__, "env_kwargs": {}}
    # `make_vec` adds this option, which `make` does not take.
    options = {name: value for name, value in spec.kwargs.items() if name != "vectorization_mode"}
    return {"env_name": spec.id, "env_kwargs": json.loads(json.dumps(options, default=str))}


class RGBConverter:
    """Converts batches of observations to frames for display, uint8 [B, H, W, 3] RGB.

    Args:
        env: the environment.
        probe: the policy that acts in it.
        stack: number of frames in one observation, as `record` takes it.

    Attributes:
        stack: number of frames in one observation.

    Raises:
        ValueError: the policy and the environment have different frames, or the frames cannot be converted.
    """

    def __init__(self, env: Environment, probe: PolicyProbe, stack: int | None = None) -> None:
        space = env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space
        channels, height, width = image_entries(probe.policy.observation_space)[probe.image].image_shape
        self._image = probe.image
        frames = _image_space(space, probe.image)
        layout = image_layout(frames.shape, (height, width))
        if layout is None or layout.image_shape[0] != channels:
            raise ValueError(
                f"expected frames of {channels} x {height} x {width}, channels first or last, as the policy "
                f"observes, got an environment with frames {list(frames.shape)}: wrap it as in training"
            )
        self._layout = layout
        count = max(layout.stack, _stack_size(env)) if stack is None else stack
        self._colors = channels // count if count >= 1 and channels % count == 0 else 0
        if self._colors not in (1, 3, 4):
            raise ValueError(
                f"expected grey, RGB or RGBA frames, got {channels} channels as a stack of {count}: "
                "stack them by Gymnasium's FrameStackObservation or SB3's VecFrameStack, or set "
                "stack= to the number of frames in one observation"
            )
        self.stack = count
        self._low, self._high = float(frames.low.min()), float(frames.high.max())
        self._is_uint8 = frames.dtype == np.uint8
        if not self._is_uint8 and not np.isfinite(self._high - self._low):
            raise ValueError(
                f"expected frames that are uint8 or bounded, got {frames.dtype} from {self._low:g} to "
                f"{self._high:g}: give the observation space the range of its pixels"
            )

    def __call__(self, observation: Any) -> NDArray[np.uint8]:
        frames = observation if self._image is None else observation[self._image]
        newest = self._layout.to_channels_last(frames)[..., -self._colors :][..., :3]
        if not self._is_uint8:
            scaled = (newest.astype(np.float64) - self._low) / (self._high - self._low)
            newest = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
        return np.broadcast_to(newest, (*newest.shape[:3], 3))


def _image_space(space: spaces.Space[Any], image: str | None) -> spaces.Box:
    """Return the space of the frames."""
    entry = space.spaces.get(image) if isinstance(space, spaces.Dict) and image is not None else space
    if not isinstance(entry, spaces.Box):
        where = "" if image is None else f" under {image!r}"
        raise ValueError(
            f"expected frames{where}, got the observation space {space}: use the environment of the training"
        )
    return entry


def _stack_size(env: Any) -> int:
    """Return the number of frames in one observation, from the wrappers."""
    count = 1
    while isinstance(env, VecEnvWrapper):
        count *= env.stacked_obs.n_stack if isinstance(env, VecFrameStack) else 1
        env = env.venv
    while isinstance(env, VectorWrapper):
        env = env.env
    if isinstance(env, DummyVecEnv | SyncVectorEnv):
        env = env.envs[0]
    while isinstance(env, gymnasium.Wrapper):
        count *= env.stack_size if isinstance(env, FrameStackObservation) else 1
        env = env.env
    return count
