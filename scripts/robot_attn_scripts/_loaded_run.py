"""What `evaluate`, `compare` and `replay` share: a run's policy, and the scenes it is put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from robot_attn_scripts._name_value import parse_pairs

if TYPE_CHECKING:
    from robot_attn_policies.evaluation.evaluate import Calibration, Focus
    from robot_attn_policies.probing.probe import PolicyProbe
    from robot_attn_policies.rollouts.rollout import Actor, Rollouts, StartProgress, Step
    from robot_attn_policies.training.presets import Json, TrainConfig


class Baselines(NamedTuple):
    """The two ends of the score, on the same seeds."""

    random: Rollouts
    oracle: Rollouts


@dataclass(frozen=True)
class LoadedPolicy:
    """A trained policy, ready to act."""

    probe: PolicyProbe
    config: TrainConfig
    name: str
    """The run's folder and which policy of it, for titles."""

    @property
    def held_out_from(self) -> set[int]:
        """Seeds that training has used: those of its environments and of its evaluations."""
        config = self.config
        return {
            *range(config.seed, config.seed + config.ppo.n_envs),
            *range(config.eval_seed, config.eval_seed + config.eval_episodes),
        }


def load(
    run: Path, which: Literal["best", "last"], modules: Sequence[str] = (), *, gradients: bool = False
) -> LoadedPolicy:
    """The policy in the run folder `run`.

    Args:
        run: the folder.
        which: the best policy of the run, or its last.
        modules: what is imported first, such as another package's module that registers the environment, or
            has the perception: what a folder names is not imported unless a person names it too.
        gradients: whether to give gradients in place of attention that is uniform by construction.

    Raises:
        ValueError: a module that cannot be imported; the folder is incomplete, damaged or edited; or its
            environment or perception is in a module that is not among `modules`.
    """
    from robot_attn_policies.probing.probe import probe_policy
    from robot_attn_policies.training.run_folder import load_policy, read_config

    config = read_config(run).config
    named = [place.rpartition(":")[0] for place in (config.task, config.perception)]
    needed = [module for module in dict.fromkeys(named) if module and module not in modules]
    if needed:
        raise ValueError(
            f"the task of {run} is {config.task!r} and its perception {config.perception!r}: importing "
            f"{' and '.join(needed)} runs code: if you trust it, add --module {' '.join(needed)}"
        )
    import_modules(modules)
    policy, config = load_policy(run, which=which, modules=modules)
    return LoadedPolicy(probe_policy(policy, gradients=gradients), config, f"{run} ({which})")


def scene(
    trained: Mapping[str, Json], pairs: Sequence[str] = (), suite: str | None = None
) -> dict[str, Json]:
    """Options of the environment: those that a run was trained with, and what is asked for in their place.

    A suite takes the place of the shifts of training.

    Raises:
        ValueError: as `parse_pairs`.
    """
    options = {**trained, **parse_pairs(pairs)}
    if suite is None:
        return options
    return {name: options[name] for name in options if name not in ("shift", "intensity")} | {"suite": suite}


def import_modules(names: Sequence[str]) -> None:
    """Import the modules that `--module` names.

    Raises:
        ValueError: one cannot be imported.
    """
    if names:
        from robot_attn_scripts._tasks import import_module

        for name in names:
            import_module(name, f"the module {name!r}")


def make_env(task: str, options: Mapping[str, Json], num_envs: int) -> Any:
    """A batch of environments of the task, with target masks if it has them to give."""
    from robot_attn_scripts._tasks import make_batch, with_masks

    return make_batch(task, with_masks(task, options), num_envs)


def batch_size(task: str, episodes: int, envs: int | None = None) -> int:
    """How many environments run side by side: `envs`, or as many as suit the task, and no idle ones."""
    from robot_attn_scripts._tasks import steps_many

    return min(envs or (32 if steps_many(task) else 8), episodes)


def has_masks(env: Any) -> bool:
    """Whether the environments tell where the target is."""
    return "target_mask" in env.reset(seed=0)[1]


def has_oracle(env: Any) -> bool:
    """Whether the environments know what to do."""
    from robot_attn_policies.rollouts.protocols import HasOracle, ability

    return ability(env, HasOracle) is not None


def calibrated(
    policy: LoadedPolicy, seeds: Sequence[int], num_envs: int, start_progress: StartProgress
) -> Calibration:
    """The best head, chosen in the scene that the policy was trained in, whatever it is scored in."""
    from robot_attn_policies.evaluation.evaluate import calibrate

    with closing(make_env(policy.config.task, policy.config.env, min(num_envs, len(seeds)))) as env:
        watcher = start_progress("calibration: choosing a head", len(seeds) * int(env.horizon))
        return calibrate(policy.probe.act, env, seeds, policy.probe.grid, on_step=watcher)


def score(
    policy: LoadedPolicy,
    env: Any,
    seeds: Sequence[int],
    calibration_seeds: Sequence[int],
    start_progress: StartProgress,
) -> tuple[Rollouts, Focus]:
    """What the policy earns in `env` on `seeds`, and where it looks."""
    from robot_attn_policies.evaluation.evaluate import evaluate_policy

    calibration = calibrated(policy, calibration_seeds, env.num_envs, start_progress)
    watcher = start_progress("evaluation: the policy", len(seeds) * int(env.horizon))
    return evaluate_policy(policy.probe.act, env, seeds, policy.probe.grid, calibration, on_step=watcher)


def ends(env: Any, seeds: Sequence[int], start_progress: StartProgress) -> Baselines:
    """What the random policy and the oracle earn in `env` on `seeds`.

    Raises:
        ValueError: there is no oracle.
    """
    from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor

    if not has_oracle(env):
        raise ValueError(
            "expected an environment with an oracle to put scores on a scale with, got one without "
            "`oracle_actions`: use another task, or give its class that method"
        )
    random = play("random", random_actor(env.action_space), env, seeds, start_progress)
    return Baselines(random, play("oracle", oracle_actor(env), env, seeds, start_progress))


def play(name: str, act: Actor, env: Any, seeds: Sequence[int], start_progress: StartProgress) -> Rollouts:
    """What `act`, called `name`, earns in `env` on `seeds`."""
    from robot_attn_policies.rollouts.rollout import rollout_episodes

    watcher = start_progress(f"evaluation: {name}", len(seeds) * int(env.horizon))
    return rollout_episodes(act, env, seeds, on_step=watcher)


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
def step_bar(console: Any) -> Iterator[StartProgress]:
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
