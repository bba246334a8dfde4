"""Tasks by the name that a person types: ours, those of other packages, and whatever Gymnasium knows.

Two kinds of environments are made: those that step many worlds in one call (every task registered with
`robot_attn_envs`, and any vector environment that says so), and all others, one beside the other.
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
"""Ids in it have a short name too, as all of `TASKS` have."""


def import_module(name: str, what: str) -> None:
    """Import a module that a person named.

    Raises:
        ValueError: it cannot be imported; `what` says whose it is.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{what} cannot be imported ({error}): install it, or put its folder in PYTHONPATH"
        ) from error


def env_id(task: str) -> str:
    """The Gymnasium id of a task's newest version: "track" -> "RobotAttn/Track-v0".

    A task of another package has a short name too, "dot" for "Mine/Dot-v0". Any other id stays as it is;
    "module:id" names one that importing the module registers.

    Raises:
        ValueError: no such task, the nearest is named; or several of that name.
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
            raise ValueError(f"several tasks are called {task!r}: give the id, {' or '.join(ids.values())}")
        return ids.get(NAMESPACE) or next(iter(ids.values()))
    # Ours have one name each, so that a run folder, a seed and a result are found again by it.
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
    """Whether the task's environment steps many worlds in one call, as `spec_steps_many`.

    Raises:
        ValueError: as `env_id`.
    """
    return spec_steps_many(gymnasium.spec(env_id(task)))


def spec_steps_many(spec: EnvSpec) -> bool:
    """Whether an environment steps many worlds in one call, each reset in the step that ends its episode.

    Every task of `robot_attn_envs.register_task` does. So does any id whose vector environment says so: its
    class has the metadata `autoreset_mode` `SAME_STEP`. An id without a single environment leaves no choice.
    """
    return spec.id in TASKS or _vector_class(spec) is not None


def training_of(task: str) -> Mapping[str, Any]:
    """What the task says of how a policy is trained on it: its class attribute `training`, or nothing.

    Raises:
        ValueError: as `env_id`; or its class cannot be imported.
    """
    found = getattr(_class(gymnasium.spec(env_id(task))), "training", None)
    return found if isinstance(found, Mapping) else {}


def with_masks(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and `masks=True` where the task takes it: where the target is, is then among its infos.

    Raises:
        ValueError: as `env_id`; or its class cannot be imported.
    """
    spec = gymnasium.spec(env_id(task))
    takes = spec.id in TASKS or _takes(_class(spec), "masks")
    return {**options, "masks": True} if takes else dict(options)


def make_batch(task: str, options: Mapping[str, Any], num_envs: int) -> VectorEnv[Any, Any, Any]:
    """A batch of environments that reset in the step that ends an episode.

    It has `horizon`, the most steps of an episode, and `dt`, the seconds of one, None where they are not
    known.

    Raises:
        ValueError: as `env_id`; an unknown option; or as `_third_party.make_batch`.
    """
    name = env_id(task)
    if not steps_many(task):
        from robot_attn_scripts import _third_party

        with explained(name, options):
            return _third_party.make_batch(name, options, num_envs)
    with explained(name, options):
        env: Any = gymnasium.make_vec(name, num_envs=num_envs, **options)
    if not isinstance(getattr(env, "horizon", None), int):
        env.close()
        raise ValueError(
            f"expected the vector environment of {name} to have a `horizon`, the most steps of an episode: "
            "give its class one"
        )
    if not hasattr(env, "dt"):
        env.dt = None
    made: VectorEnv[Any, Any, Any] = env
    return made


@contextmanager
def explained(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Have whatever an environment raises when it is made as one sentence: each fails in its own way.

    Raises:
        ValueError: it was raised; or the environment could not be made.
    """
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        told = f" with {', '.join(f'{key}={value!r}' for key, value in options.items())}" if options else ""
        raise ValueError(f"{name} cannot be made{told}: {error}") from error


def _class(spec: EnvSpec) -> Any:
    """What a task is made by: the class of a task of `robot_attn_envs`, or what makes the environment."""
    if spec.id in TASKS:
        from robot_attn_envs.make import load_task

        return load_task(TASKS[spec.id])
    many, one = _vector_class(spec), spec.entry_point
    if many is not None or not isinstance(one, str):
        return one if many is None else many
    with explained(spec.id, {}):
        return load_env_creator(one)


def _vector_class(spec: EnvSpec) -> Any:
    """What makes the vector environment of an id; None where a single one is to be made.

    It is preferred where it resets in the step that ends an episode, and where there is no single one.
    """
    creator: Any = spec.vector_entry_point
    if isinstance(creator, str):
        try:
            creator = load_env_creator(creator)
        except (ImportError, AttributeError, gymnasium.error.Error):
            return None  # some of Gymnasium's own need a library that is not there
    mode = getattr(creator, "metadata", {}).get("autoreset_mode")
    return creator if mode == AutoresetMode.SAME_STEP or spec.entry_point is None else None


def _takes(creator: Any, option: str) -> bool:
    return creator is not None and option in inspect.signature(creator).parameters
