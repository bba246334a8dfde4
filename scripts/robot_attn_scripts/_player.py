"""A trained policy that plays episodes of a task, which are recorded with what it looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium import spaces

from robot_attn_scripts import _loaded_run

if TYPE_CHECKING:
    from rich.console import Console

    from robot_attn.episode import Episode
    from robot_attn_policies.rollouts.rollout import Step
    from robot_attn_policies.training.presets import Json


@dataclass(frozen=True)
class Player:
    """A policy in the scene in which it plays."""

    policy: _loaded_run.LoadedPolicy
    env: Any
    """A batch of one environment."""
    env_args: Mapping[str, Any]
    """What makes that environment again."""
    best_head: int
    """Chosen on calibration episodes; the first where the target is not known."""

    def play(self, seed: int, on_step: Callable[[Step], None] | None = None) -> Episode:
        """Play the episode of a seed, calling `on_step` after every step, and keep all of it."""
        from robot_attn_policies.recording.episode_file import record_episode

        probe = self.policy.probe
        return record_episode(
            probe.act,
            self.env,
            seed,
            probe.grid,
            env_args=self.env_args,
            image=probe.image or "image",
            best_head=self.best_head,
            uniform=probe.uniform,
            policy=self.policy.name,
            values=probe.values,
            maps="gradient" if probe.kind == "gradient" else "attention",
            on_step=on_step,
        )


@contextmanager
def player_of(
    policy: _loaded_run.LoadedPolicy,
    task: str,
    scene: Mapping[str, Json],
    *,
    seeds: Sequence[int],
    calibration_episodes: int,
    progress: Console,
) -> Iterator[Player]:
    """A player of `policy` in the task with the options `scene`; its environment is closed at the end.

    Args:
        policy: whose head to show is chosen in the scene of its training.
        task: as `_tasks.env_id` takes it.
        scene: options of the environment.
        seeds: those to be played, which calibration leaves alone.
        calibration_episodes: how many, at least 1.
        progress: where the bar goes.

    Raises:
        ValueError: no such task or option; or the policy does not fit the task.
    """
    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED
    from robot_attn_scripts._tasks import env_id

    with closing(_loaded_run.make_env(task, scene, 1)) as env:
        check_fit(policy.probe.policy.observation_space, policy.probe.policy.action_space, env, env_id(task))
        best_head = 0
        if policy.probe.num_heads > 1 and _loaded_run.has_masks(env):
            count = max(1, calibration_episodes)
            others = range(CALIBRATION_SEED, CALIBRATION_SEED + count + len(seeds))
            chosen = [seed for seed in others if seed not in seeds][:count]
            with _loaded_run.step_bar(progress) as watch:
                best_head = _loaded_run.calibrated(policy, chosen, 32, watch).best_head
        yield Player(policy, env, {"env_name": env_id(task), "env_kwargs": dict(scene)}, best_head)


def check_fit(
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    task: str,
) -> None:
    """Check that a policy with these spaces, its images channel-first, can play the task.

    Raises:
        ValueError: it cannot; what differs is named.
    """
    from robot_attn_policies.sb3.vec_env import BatchVecEnv

    seen = BatchVecEnv(env, channels_first=True)
    trained, given = _parts(observations), _parts(seen.observation_space)
    trained["action"], given["action"] = _form(actions), _form(seen.action_space)
    different = [
        f"{name} {trained.get(name, 'nothing')} where {task} has {given.get(name, 'nothing')}"
        for name in sorted(trained.keys() | given.keys())
        if trained.get(name) != given.get(name)
    ]
    if different:
        raise ValueError(
            f"the policy does not fit the task: it was trained with {'; '.join(different)}; name a task with "
            "the same observations and actions, or change the task's with --env"
        )


def _parts(space: spaces.Space[Any]) -> dict[str, str]:
    if isinstance(space, spaces.Dict):
        return {name: _form(entry) for name, entry in space.spaces.items()}
    return {"observation": _form(space)}


def _form(space: spaces.Space[Any]) -> str:
    """What two spaces must have in common: shape and kind of number, or the choices."""
    return f"{space.dtype} {list(space.shape or ())}" if isinstance(space, spaces.Box) else str(space)
