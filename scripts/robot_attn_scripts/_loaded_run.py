"""Load the policy of a run, create environments for it, and run it: shared by several commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self
from urllib.parse import quote

from robot_attn_scripts._name_value import parse_pairs
from robot_attn_scripts.options._groups import is_zip

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

    from robot_attn_policies.evaluation.evaluate import Calibration, Focus
    from robot_attn_policies.probing.probe import MapChoice, PolicyProbe
    from robot_attn_policies.rollouts.actor import Actor
    from robot_attn_policies.rollouts.rollout import Rollouts, StartProgress, Step
    from robot_attn_policies.training.presets import Json, TrainConfig


class Baselines(NamedTuple):
    """Rollouts that define the normalised score, on the same seeds.

    Attributes:
        random: rollouts of the random policy, whose mean return has score 0.
        oracle: rollouts of the scripted oracle, whose mean return has score 1; None if there is no oracle.
    """

    random: Rollouts
    oracle: Rollouts | None


class Setting(Protocol):
    """What a policy was trained for."""

    @property
    def task(self) -> str:
        """The task."""

    @property
    def perception(self) -> str:
        """Name of the perception."""

    @property
    def env(self) -> Mapping[str, Json]:
        """Options of the environment."""


@dataclass(frozen=True)
class LoadedPolicy:
    """A trained policy.

    Attributes:
        probes: the policy, which returns actions and attention, at each of its cameras by the key of its
            image; None for a policy whose observation is the image.
        config: what it was trained for.
        name: where it is from, for titles.
        which: the checkpoint, or the algorithm of a zip.
        algorithm: the algorithm that trained it.
    """

    probes: Mapping[str | None, PolicyProbe]
    config: Setting
    name: str
    which: str
    algorithm: str

    @property
    def probe(self) -> PolicyProbe:
        """The probe of the only camera; errors as `check_one_camera`."""
        self.check_one_camera()
        (probe,) = self.probes.values()
        return probe

    def check_one_camera(self) -> None:
        """Check that the policy has one camera, for a command that takes no more.

        Raises:
            ValueError: it has several.
        """
        if len(self.probes) > 1:
            raise ValueError(
                f"expected a policy with one camera for this command, got {self.name} with the cameras "
                f"{', '.join(map(str, self.probes))}: use replay, explain or evaluate, which take all of them"
            )

    @property
    def policy(self) -> BasePolicy:
        """The policy itself."""
        return next(iter(self.probes.values())).policy

    def with_fast_maps(self) -> Self:
        """The policy with maps that cost less, for rollouts that need one at every step."""
        return replace(self, probes={key: probe.with_fast_maps() for key, probe in self.probes.items()})

    @property
    def held_out_from(self) -> set[int]:
        """Seeds that training used, as far as they are known."""
        return set()

    def make_env(self, task: str, options: Mapping[str, Json], num_envs: int) -> Any:
        """Create a batch of environments for the policy, with target masks if the task has them."""
        return make_env(task, options, num_envs)


@dataclass(frozen=True)
class LoadedRun(LoadedPolicy):
    """A trained policy from a run folder.

    Attributes:
        config: configuration of its training.
    """

    config: TrainConfig

    @property
    def held_out_from(self) -> set[int]:
        """Seeds that training used, for its environments and its evaluations."""
        config = self.config
        return {
            *range(config.seed, config.seed + config.ppo.n_envs),
            *range(config.eval_seed, config.eval_seed + config.eval_episodes),
        }


def open_policy(path: Path, options: Any, *, maps: MapChoice | None = "attention") -> LoadedPolicy:
    """Load a policy from a run folder or from a zip of Stable-Baselines3.

    Args:
        path: run folder or zip.
        options: options of the command, with the groups `Policy` or `Source`, `Zip` and `Scene`.
        maps: kind of the maps, as for `load`.

    Raises:
        ValueError: an error of `load` or `_loaded_zip.load_zip`.
    """
    if not is_zip(path):
        return load(path, options.which, options.module, maps=maps)
    from robot_attn_scripts._loaded_zip import load_zip

    import_modules(options.module)
    return load_zip(
        path,
        (options.task_name, parse_pairs(options.pairs)),
        trust=options.trust,
        vecnormalize=options.vecnormalize,
        algorithm=options.algorithm,
        maps=maps,
    )


def load(
    run: Path,
    which: Literal["best", "last"],
    modules: Sequence[str] = (),
    *,
    maps: MapChoice | None = "attention",
) -> LoadedRun:
    """Load the policy of a run folder.

    Args:
        run: run folder.
        which: checkpoint to load, the best one or the last.
        modules: modules to import first, such as those that define the run's task and perception. A module
            that only the run folder names is not imported, as that would run its code.
        maps: kind of the maps, as `probe_policy` takes it. "attention" costs nothing, and is uniform for a
            policy that has none.

    Raises:
        ValueError: a module cannot be imported; the folder is incomplete, damaged or edited; or its task or
            perception is in a module that is not in `modules`.
    """
    from robot_attn_policies.probing.probe import probe_cameras
    from robot_attn_policies.training.run_folder import load_policy, read_config

    config = read_config(run).config
    named = [place.rpartition(":")[0] for place in (config.task, config.perception)]
    needed = [module for module in dict.fromkeys(named) if module and module not in modules]
    if needed:
        raise ValueError(
            f"the task of {run} is {config.task!r} and its perception {config.perception!r}; importing "
            f"{' and '.join(needed)} runs code: if you trust it, add --module {' '.join(needed)}"
        )
    import_modules(modules)
    policy, config = load_policy(run, which=which, modules=modules)
    return LoadedRun(probe_cameras(policy, maps=maps), config, f"{run} ({which})", which, "PPO")


def scene(
    trained: Mapping[str, Json], pairs: Sequence[str] = (), suite: str | None = None
) -> dict[str, Json]:
    """Make the options of an environment from those of training.

    Args:
        trained: options in training.
        pairs: NAME=VALUE for each option to change.
        suite: suite of visual shifts, which replaces the shifts of training. Default: the shifts of training.

    Raises:
        ValueError: as `parse_pairs`.
    """
    options = {**trained, **parse_pairs(pairs)}
    if suite is None:
        return options
    return {name: options[name] for name in options if name not in ("shift", "intensity")} | {"suite": suite}


def import_modules(names: Sequence[str]) -> None:
    """Import the modules of `--module`.

    Raises:
        ValueError: a module cannot be imported.
    """
    if names:
        from robot_attn_scripts._tasks import import_module

        for name in names:
            import_module(name, f"the module {name!r}")


def make_env(task: str, options: Mapping[str, Json], num_envs: int, *, scale_actions: bool = True) -> Any:
    """Create a batch of environments of a task, with target masks if the task has them.

    Args:
        task: the task.
        options: options of the environment.
        num_envs: number of environments.
        scale_actions: whether bounded actions of an environment that is not ours are scaled to [-1, 1].
    """
    from robot_attn_scripts._tasks import make_batch, with_masks

    return make_batch(task, with_masks(task, options), num_envs, scale_actions=scale_actions)


def batch_size(task: str, episodes: int, envs: int | None = None, *, many: int = 32) -> int:
    """Return the number of parallel environments: `envs` or the task's default, at most one per episode.

    Args:
        task: the task.
        episodes: number of episodes.
        envs: number of environments that was asked for, or None.
        many: the default where environments are stepped together.
    """
    from robot_attn_scripts._tasks import steps_many

    return min(envs or (many if steps_many(task) else 8), episodes)


def has_masks(env: Any, probe: PolicyProbe) -> bool:
    """Return whether the environments' infos have target masks for a camera."""
    from robot_attn_policies.rollouts.camera import at_camera

    seen = at_camera(env, probe.image, only=probe.only_camera)
    return "target_mask" in seen.reset(seed=0)[1]


def has_oracle(env: Any) -> bool:
    """Return whether the environments have a scripted oracle."""
    from robot_attn_policies.rollouts.protocols import HasOracle, ability

    return ability(env, HasOracle) is not None


def calibrate_policy(
    policy: LoadedPolicy,
    probe: PolicyProbe,
    seeds: Sequence[int],
    num_envs: int,
    start_progress: StartProgress,
) -> Calibration:
    """Choose the best head at a camera, in the scene of training even if the policy is scored in another."""
    from robot_attn_policies.evaluation.evaluate import calibrate
    from robot_attn_policies.rollouts.camera import at_camera

    with closing(policy.make_env(policy.config.task, policy.config.env, min(num_envs, len(seeds)))) as env:
        on_step = start_progress("calibration: choosing a head", len(seeds) * int(env.horizon))
        return calibrate(
            probe.act, at_camera(env, probe.image, only=probe.only_camera), seeds, probe.grid, on_step=on_step
        )


def score(
    policy: LoadedPolicy,
    probe: PolicyProbe,
    env: Any,
    seeds: Sequence[int],
    calibration_seeds: Sequence[int],
    start_progress: StartProgress,
) -> tuple[Rollouts, Focus]:
    """Run a policy for one episode per seed; score its return and its attention on the target at a camera."""
    from robot_attn_policies.evaluation.evaluate import evaluate_policy
    from robot_attn_policies.rollouts.camera import at_camera

    calibration = calibrate_policy(policy, probe, calibration_seeds, env.num_envs, start_progress)
    on_step = start_progress("evaluation: the policy", len(seeds) * int(env.horizon))
    seen = at_camera(env, probe.image, only=probe.only_camera)
    to_rgb = _converter(seen, probe)
    return evaluate_policy(probe.act, seen, seeds, probe.grid, calibration, to_rgb=to_rgb, on_step=on_step)


def _converter(env: Any, probe: PolicyProbe) -> Callable[[Any], Any] | None:
    """What converts frames to RGB; None for channels that are no colours, which have no names either."""
    from robot_attn_policies.recording.record import RGBConverter

    try:
        return RGBConverter(env, probe)
    except ValueError:
        return None


def camera_path(path: Path, image: str | None, several: bool) -> Path:
    """Return the file of a camera: replay.hdf5 -> replay-wrist.hdf5; the path itself for the only camera."""
    return path.with_stem(f"{path.stem}-{quote(str(image), safe='')}") if several else path


def baselines(env: Any, seeds: Sequence[int], start_progress: StartProgress) -> Baselines:
    """Run the random policy, and the oracle if there is one, for one episode per seed."""
    from robot_attn_policies.rollouts.rollout import oracle_actor, random_actor

    random = play("random", random_actor(env.action_space), env, seeds, start_progress)
    if not has_oracle(env):
        return Baselines(random, None)
    return Baselines(random, play("oracle", oracle_actor(env), env, seeds, start_progress))


def play(name: str, act: Actor, env: Any, seeds: Sequence[int], start_progress: StartProgress) -> Rollouts:
    """Run a policy for one episode per seed; `name` is for the progress bar."""
    from robot_attn_policies.rollouts.rollout import rollout_episodes

    on_step = start_progress(f"evaluation: {name}", len(seeds) * int(env.horizon))
    return rollout_episodes(act, env, seeds, on_step=on_step)


def seeds_from(first: int, count: int, used: set[int], what: str) -> list[int]:
    """Return `count` consecutive seeds.

    Args:
        first: first seed.
        count: number of seeds.
        used: seeds that may not be among them.
        what: purpose of the seeds, for the error.

    Raises:
        ValueError: a seed is in `used`.
    """
    seeds = list(range(first, first + count))
    shared = sorted(used.intersection(seeds))
    if shared:
        raise ValueError(
            f"expected {what} seeds that training and calibration have not used, got {shared[0]}: choose "
            "other seeds"
        )
    return seeds


@contextmanager
def step_bar(console: Any) -> Iterator[StartProgress]:
    """Show progress bars: yields a function that starts one and returns its `on_step` callback."""
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
