"""Run a trained policy in a task and record its episodes with their attention maps."""

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
    """A policy and its environment.

    Attributes:
        policy: the policy.
        env: batch of one environment.
        env_args: arguments that recreate the environment, as in `Episode.env_args`.
        best_heads: index of the head that was chosen on calibration episodes, by the key of the camera's
            image; 0 if there are no target masks.
    """

    policy: _loaded_run.LoadedPolicy
    env: Any
    env_args: Mapping[str, Any]
    best_heads: Mapping[str | None, int]

    def play(self, seed: int, on_step: Callable[[Step], None] | None = None) -> list[Episode]:
        """Run the episode of a seed and record it at every camera, calling `on_step` after every step."""
        from robot_attn_policies.recording.cameras import record_probes
        from robot_attn_policies.recording.record import RGBConverter

        probes = self.policy.probes
        recorded = record_probes(
            probes,
            self.env,
            seed,
            to_rgb={key: RGBConverter(self.env, probe) for key, probe in probes.items()},
            best_heads=self.best_heads,
            env_args=self.env_args,
            policy=self.policy.name,
            on_step=on_step,
        )
        return list(recorded.values())


@contextmanager
def make_player(
    policy: _loaded_run.LoadedPolicy,
    task: str,
    scene: Mapping[str, Json],
    *,
    seeds: Sequence[int],
    calibration_episodes: int,
    progress: Console,
) -> Iterator[Player]:
    """Create the environment of a policy and choose its best heads; close the environment at the end.

    Args:
        policy: the policy. Its best head is chosen in the scene of its training.
        task: task, as for `_tasks.env_id`.
        scene: options of the environment.
        seeds: seeds of the episodes, which are not used for calibration.
        calibration_episodes: number of calibration episodes, at least 1.
        progress: console for the progress bar.

    Raises:
        ValueError: the task or an option is unknown, or the policy does not fit the task.
    """
    from robot_attn_policies.evaluation.evaluate import CALIBRATION_SEED
    from robot_attn_scripts._tasks import env_id

    with closing(policy.make_env(task, scene, 1)) as env:
        check_fit(policy.policy.observation_space, policy.policy.action_space, env, env_id(task))
        count = max(1, calibration_episodes)
        others = range(CALIBRATION_SEED, CALIBRATION_SEED + count + len(seeds))
        chosen = [seed for seed in others if seed not in seeds][:count]
        best_heads = dict.fromkeys(policy.probes, 0)
        for key, probe in policy.probes.items():
            if probe.num_heads > 1 and _loaded_run.has_masks(env, probe):
                with _loaded_run.step_bar(progress) as start_progress:
                    calibration = _loaded_run.calibrate_policy(policy, probe, chosen, 32, start_progress)
                best_heads[key] = calibration.best_head
        yield Player(policy, env, {"env_name": env_id(task), "env_kwargs": dict(scene)}, best_heads)


def check_fit(
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    task: str,
) -> None:
    """Check that a policy fits the observations and actions of a task.

    Args:
        observations: observation space of the policy; its images may have their axes in another order.
        actions: action space of the policy.
        env: batch of environments of the task.
        task: name of the task, for the error.

    Raises:
        ValueError: a space differs.
    """
    trained, offered = _parts(observations), _parts(env.single_observation_space)
    trained["action"], offered["action"] = _form(actions), _form(env.single_action_space)
    different = [
        f"{name} {offered.get(name, 'nothing')} where the policy has {trained.get(name, 'nothing')}"
        for name in sorted(trained.keys() | offered.keys())
        if trained.get(name) != offered.get(name)
    ]
    if different:
        raise ValueError(
            f"expected a task with the policy's spaces, got {task} with {'; '.join(different)}: name a task "
            "with the same observations and actions, or change the task's with --env"
            f"{_stack_advice(observations, env.single_observation_space)}"
        )


def _parts(space: spaces.Space[Any]) -> dict[str, str]:
    """Describe each entry of an observation space; images as (C, H, W), stacked frames as channels."""
    from robot_attn_policies.sb3.images import entries_of, image_entries

    images = image_entries(space)
    return {
        name or "observation": f"{entry.dtype} {list(images[name].image_shape)}"
        if name in images
        else _form(entry)
        for name, entry in entries_of(space).items()
    }


def _stack_advice(trained: spaces.Space[Any], offered: spaces.Space[Any]) -> str:
    """Advise to stack frames if that is what an environment lacks, else an empty string."""
    from robot_attn_policies.sb3.images import image_entries

    images = image_entries(offered)
    for name, layout in image_entries(trained).items():
        if name in images and layout.image_size == images[name].image_size:
            count, rest = divmod(layout.image_shape[0], images[name].image_shape[0])
            if count > 1 and rest == 0:
                return (
                    f"; the policy has {count} frames in one observation: register the environment in "
                    f'gymnasium.wrappers.FrameStackObservation(env, {count}, padding_type="zero"), and name '
                    "its module with --module"
                )
    return ""


def _form(space: spaces.Space[Any]) -> str:
    """Describe what two spaces must share: dtype and shape, or the choices."""
    return f"{space.dtype} {list(space.shape or ())}" if isinstance(space, spaces.Box) else str(space)
