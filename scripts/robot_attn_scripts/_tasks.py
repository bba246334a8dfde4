"""Find tasks by name and create their environments: ours, those of other packages, and any of Gymnasium's.

There are two kinds of batches. Some environments step many worlds in one call: every task registered with
`robot_attn_envs`, and vector environments that reset in the last step of an episode. All others are created
as single environments and stepped one by one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, VectorEnv

from robot_attn_envs import TASKS
from robot_attn_scripts._errors import unknown_name

NAMESPACE = "RobotAttn"
"""Namespace of our tasks. Its ids also have a short name, as all ids in `TASKS` have."""


def import_module(name: str, what: str) -> None:
    """Import a module that an option names.

    Args:
        name: name of the module.
        what: description of the module for the error.

    Raises:
        ValueError: the module cannot be imported.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{what} cannot be imported ({error}): install it, or put its folder in PYTHONPATH"
        ) from error


def env_id(task: str) -> str:
    """Return the Gymnasium id of a task: "track" -> "RobotAttn/Track-v0".

    Args:
        task: a short name, which stands for the newest version; an id in Gymnasium's registry; or
            "module:id" for an id that importing the module registers. Tasks of other packages have short
            names too, such as "dot" for "Mine/Dot-v0".

    Raises:
        ValueError: the task is unknown, or several tasks have that name.
    """
    module, colon, name = task.rpartition(":")
    if colon:
        import_module(module, f"the module of {task!r}")
    short: dict[str, dict[str | None, str]] = {}
    for spec in sorted(gymnasium.registry.values(), key=lambda spec: spec.version or 0):
        if spec.id in TASKS or spec.namespace == NAMESPACE:
            short.setdefault(spec.name.lower(), {})[spec.namespace] = spec.id
    if task in short:
        ids = short[task]
        if NAMESPACE not in ids and len(ids) > 1:
            raise ValueError(
                f"expected one task called {task!r}, got {len(ids)}: give the id, {' or '.join(ids.values())}"
            )
        return ids.get(NAMESPACE) or next(iter(ids.values()))
    # Ours go by their short name only, as run folders and results are named after it.
    whole = {spec.id: spec.id for spec in gymnasium.registry.values() if spec.namespace != NAMESPACE}
    if name in whole:
        return name
    raise unknown_name(
        "task",
        name,
        sorted(short),
        also=whole | {full: known for known, ids in short.items() for full in ids.values()},
        more=" and the ids registered with Gymnasium (module:id where importing a module registers one)",
    )


def steps_many(task: str) -> bool:
    """Return whether the task's environment steps many worlds in one call.

    Raises:
        ValueError: as `env_id`.
    """
    return spec_steps_many(gymnasium.spec(env_id(task)))


def spec_steps_many(spec: EnvSpec) -> bool:
    """Return whether an environment steps many worlds in one call and resets each in its last step.

    This holds for every task of `robot_attn_envs.register_task`, for vector environments whose class has the
    metadata `autoreset_mode` `SAME_STEP`, and for ids that have no single environment.
    """
    return spec.id in TASKS or _vector_class(spec) is not None


def training_of(task: str) -> Mapping[str, Any]:
    """Return the training presets of a task: the attribute `training` of its class, or an empty mapping.

    Raises:
        ValueError: as `env_id`, or the task's class cannot be imported.
    """
    training = getattr(_class(gymnasium.spec(env_id(task))), "training", None)
    return training if isinstance(training, Mapping) else {}


def action_names(task: str) -> list[str] | None:
    """Return the names of the action's components, or None if the task's class does not have any.

    Raises:
        ValueError: as `training_of`.
    """
    creator = _class(gymnasium.spec(env_id(task)))
    table = getattr(creator, "action_table", None)
    names = getattr(creator, "action_names", None) if table is None else [row.name for row in table]
    return None if names is None else [str(name) for name in names]


def with_masks(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Add `masks=True` to the options of a task that accepts it, so that its infos have target masks.

    So does any MuJoCo environment whose options name a target.

    Raises:
        ValueError: as `env_id`, or the task's class cannot be imported.
    """
    spec = gymnasium.spec(env_id(task))
    creator = _class(spec)
    named = "target" in options and not _takes(creator, "target")
    takes = spec.id in TASKS or named or _takes(creator, "masks")
    return {**options, "masks": True} if takes else dict(options)


def make_batch(
    task: str, options: Mapping[str, Any], num_envs: int, *, scale_actions: bool = True
) -> VectorEnv[Any, Any, Any]:
    """Create a batch of environments. Each resets in the last step of its episode.

    Args:
        task: task, as for `env_id`.
        options: options of the environment.
        num_envs: number of environments.
        scale_actions: whether bounded actions of environments that are stepped one by one are scaled to
            [-1, 1].

    Returns:
        The batch. It has the attributes `horizon`, the largest number of steps of an episode, and `dt`, the
        seconds of a step or None if unknown.

    Raises:
        ValueError: as `env_id` or `_third_party.make_batch`, or an option is unknown.
    """
    name = env_id(task)
    if not steps_many(task):
        from robot_attn_scripts import _third_party

        with creation_errors(name, options):
            return _third_party.make_batch(name, options, num_envs, scale_actions=scale_actions)
    with creation_errors(name, options):
        env: Any = gymnasium.make_vec(name, num_envs=num_envs, **options)
    if not isinstance(getattr(env, "horizon", None), int):
        env.close()
        raise ValueError(
            f"expected the vector environment of {name} to have a `horizon`, the largest number of steps of "
            "an episode, got none: give its class one"
        )
    if not hasattr(env, "dt"):
        env.dt = None
    batch: VectorEnv[Any, Any, Any] = env
    return batch


@contextmanager
def creation_errors(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn any exception from the creation of an environment into a ValueError of one sentence.

    Args:
        name: id of the environment.
        options: its options.

    Raises:
        ValueError: the environment could not be created.
    """
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        pairs = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ValueError(f"{name} cannot be made{f' with {pairs}' if pairs else ''}: {error}") from error


def creator_of(name: str) -> Any:
    """Return the class or function that makes single environments of an id.

    Raises:
        ValueError: it cannot be imported.
    """
    entry = gymnasium.spec(name).entry_point
    with creation_errors(name, {}):
        return load_env_creator(entry) if isinstance(entry, str) else entry


def _class(spec: EnvSpec) -> Any:
    """Return the class of a task of `robot_attn_envs`, or the creator of any other environment."""
    if spec.id in TASKS:
        from robot_attn_envs.make import load_task

        return load_task(TASKS[spec.id])
    many, one = _vector_class(spec), spec.entry_point
    if many is not None or not isinstance(one, str):
        return one if many is None else many
    with creation_errors(spec.id, {}):
        return load_env_creator(one)


def _vector_class(spec: EnvSpec) -> Any:
    """Return the creator of an id's vector environment, or None if single environments are to be used.

    The vector environment is used if it resets in the last step of an episode, or if there is no single one.
    """
    creator: Any = spec.vector_entry_point
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except (ImportError, AttributeError, gymnasium.error.Error):
            return None  # some of Gymnasium's own need a library that is not installed
    mode = getattr(creator, "metadata", {}).get("autoreset_mode")
    return creator if mode == AutoresetMode.SAME_STEP or spec.entry_point is None else None


def _takes(creator: Any, option: str) -> bool:
    return creator is not None and option in inspect.signature(creator).parameters
