"""What `evaluate` and `replay` share: a run's policy, and the environment it was trained in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from robot_attn_policies.evaluate import Actor, Cells, Step
    from robot_attn_policies.presets import TrainConfig


@dataclass(frozen=True)
class LoadedPolicy:
    """A trained policy, ready to act."""

    act: Actor
    cells: Cells
    heads: int
    uniform: bool
    """Its attention says nothing, by construction."""
    config: TrainConfig
    name: str
    """The run's folder and which policy of it, for titles."""

    def make_env(self, num_envs: int) -> Any:
        """The batch of environments that the policy was trained in, with target masks."""
        import gymnasium

        options: dict[str, Any] = {**self.config.env, "masks": True}
        return gymnasium.make_vec(self.env_id, num_envs=num_envs, **options)

    @property
    def env_id(self) -> str:
        """The environment's name: `RobotAttn/Track-v0` for the task `track`."""
        from robot_attn_scripts._tasks import env_id

        return env_id(self.config.task)

    @property
    def held_out_from(self) -> set[int]:
        """Seeds that training has used: those of its environments and of its evaluations."""
        config = self.config
        return {
            *range(config.seed, config.seed + config.ppo.n_envs),
            *range(config.eval_seed, config.eval_seed + config.eval_episodes),
        }


def load(run: Path, which: Literal["best", "last"]) -> LoadedPolicy:
    """The policy in the run folder `run`.

    Raises:
        ValueError: the folder is incomplete, damaged or edited.
    """
    import numpy as np

    from robot_attn_policies.evaluate import Cells, policy_actor
    from robot_attn_policies.extractor import find_extractor
    from robot_attn_policies.run_folder import load_policy

    policy, config = load_policy(run, which=which)
    perception = find_extractor(policy).perception
    ys, xs = (
        np.asarray(centers.numpy(force=True), dtype=np.float32) for centers in perception.token_centers()
    )
    return LoadedPolicy(
        act=policy_actor(policy),
        cells=Cells(ys, xs, perception.image_shape[1:]),
        heads=perception.heads,
        uniform=perception.uniform,
        config=config,
        name=f"{run} ({which})",
    )


def seeds_from(first: int, count: int, used: set[int], what: str) -> list[int]:
    """`count` seeds from `first` on, none of which is in `used`.

    Raises:
        ValueError: one of them is.
    """
    seeds = list(range(first, first + count))
    shared = sorted(used.intersection(seeds))
    if shared:
        raise ValueError(
            f"{what} seed {shared[0]} has been used before, in training or calibration; name another"
        )
    return seeds


@contextmanager
def step_bar(console: Any) -> Iterator[Callable[[str, int], Callable[[Step], None]]]:
    """A progress bar: call it with a name and a number of steps to get something to `watch` with."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:

        def start(name: str, steps: int) -> Callable[[Step], None]:
            task = progress.add_task(name, total=steps)
            return lambda step: progress.advance(task, int(step.running.sum()))

        yield start
