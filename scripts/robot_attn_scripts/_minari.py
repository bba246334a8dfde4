"""Write episodes as a Minari dataset, complete and lossless, with Minari's own functions.

The format is HDF5, which keeps the shape and dtype of every array. Minari's JPEG encoding, its default, is
lossy and is switched off. A dataset is written to a hidden folder and moved to its final place once it is
complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from robot_attn.optional import import_optional
from robot_attn_policies.probing.probe import PolicyProbe
from robot_attn_policies.rollouts.actor import ObservationBatch, peek
from robot_attn_policies.rollouts.env_batch import as_batch
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.sb3.context import Context
from robot_attn_scripts.compat.minari import DATA_FOLDER, dataset_path, make_namespace, namespace_of

_PATH = "MINARI_DATASETS_PATH"
_REQUIRED = ("robot-attn", "mujoco", "mujoco-warp", "gymnasium")


def import_minari() -> Any:
    """Import Minari, in a version that keeps frames unchanged.

    Raises:
        ModuleNotFoundError: Minari or h5py is not installed, or Minari is too old.
    """
    # Minari's HDF5 storage needs h5py, and Minari imports it only once there are episodes to write.
    import_optional("h5py", needs="--minari needs h5py", extra="minari")
    minari = import_optional("minari", needs="--minari needs Minari", extra="minari")
    if tuple(map(int, minari.__version__.split(".")[:3])) < (0, 5, 4):
        raise ModuleNotFoundError(
            f"--minari needs Minari 0.5.4 or newer, as older ones damage frames, got {minari.__version__}; "
            'run pip install --upgrade "robot-attn[minari]"'
        )
    return minari


def new_dataset_folder(name: str) -> Path:
    """Return the folder of a new dataset, below MINARI_DATASETS_PATH or ~/.minari/datasets.

    Raises:
        ValueError: Minari does not accept the name, or the dataset exists.
    """
    parts = name.split("/")
    try:
        valid = namespace_of(name) is None or all(part not in ("", DATA_FOLDER) for part in parts)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            "expected the name of a Minari dataset such as track/query-v0 (letters, digits, - and _; any "
            f"namespaces of two letters or more; a version), got {name!r}"
        )
    folder = dataset_path(name)
    if folder.exists():
        raise ValueError(
            f"expected the name of a new Minari dataset, got {name}, which exists at {folder}: name another "
            f"version, or delete it with minari delete {name}"
        )
    for end in range(1, len(parts)):
        if (dataset_path("/".join(parts[:end])) / DATA_FOLDER).exists():
            raise ValueError(
                f"expected a namespace for {name}, got the Minari dataset {'/'.join(parts[:end])}: name "
                "another namespace"
            )
    return folder


# ---- The dataset ----


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of a dataset.

    Attributes:
        env: the environment that `recover_environment` recreates; None if that is not possible.
        observation_space: space of a single observation.
        action_space: space of a single action.
        algorithm: name of the policy.
        description: text about the dataset.
        more: further metadata, plain JSON.
    """

    env: gymnasium.Env[Any, Any] | None
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    algorithm: str
    description: str
    more: Mapping[str, Any]


@contextmanager
def new_dataset(name: str, info: DatasetInfo) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Write a new dataset.

    On leaving the context, also by an error or Ctrl-C, the episodes added so far become the dataset. Without
    any episode there is no dataset and nothing is left behind.

    Args:
        name: name of the dataset, such as "track/query-v0".
        info: metadata.

    Yields:
        A function that adds episodes, given as Minari's `EpisodeBuffer`s.

    Raises:
        ValueError: as `new_dataset_folder`.
        OSError: the dataset cannot be written; there is none then.
    """
    folder = new_dataset_folder(name)
    root = folder.parents[name.count("/")]
    staged = Path(tempfile.mkdtemp(prefix=".robot-attn-", dir=root))
    dataset: Any = None
    complete = False

    def add(episodes: Sequence[Any]) -> None:
        nonlocal dataset, complete
        complete = False
        if dataset is None:
            dataset = _create(name, staged, episodes, info)
        else:
            dataset.update_dataset_from_buffer(list(episodes))
        complete = True

    try:
        yield add
    finally:
        try:
            if complete:
                _move(name, staged / name, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _create(name: str, staged: Path, episodes: Sequence[Any], info: DatasetInfo) -> Any:
    before = os.environ.get(_PATH)
    os.environ[_PATH] = str(staged)
    try:
        with warnings.catch_warnings():
            # Minari warns of missing metadata that we do not know, such as the author.
            warnings.simplefilter("ignore", UserWarning)
            dataset = import_minari().create_dataset_from_buffers(
                name,
                list(episodes),
                env=info.env,
                algorithm_name=info.algorithm,
                observation_space=info.observation_space,
                action_space=info.action_space,
                description=info.description,
                data_format="hdf5",
                requirements=_requirements(),
                jpeg_encoding=False,
            )
    finally:
        if before is None:
            del os.environ[_PATH]
        else:
            os.environ[_PATH] = before
    dataset.storage.update_metadata(dict(info.more))
    return dataset


def _move(name: str, source: Path, folder: Path) -> None:
    namespace, _, _ = name.rpartition("/")
    if namespace:
        make_namespace(namespace)
    source.rename(folder)


def _requirements() -> list[str]:
    import importlib.metadata

    return [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIRED]


def recoverable_env(
    env: VectorEnv[Any, Any, Any], options: Mapping[str, Any]
) -> gymnasium.Env[Any, Any] | None:
    """Make a single environment like those of a batch from a spec that can be stored as JSON.

    Args:
        env: batch of environments.
        options: options of the batch, if one call steps all of its worlds.

    Returns:
        The environment, or None if a JSON spec cannot describe it.
    """
    single = getattr(env.unwrapped, "envs", [None])[0]
    spec = None if single is None else single.spec
    if spec is None:
        assert env.spec is not None, "batches are made by id"
        spec = gymnasium.spec(env.spec.id)
        spec = replace(spec, kwargs={**spec.kwargs, **options})
    try:
        wrappers = tuple(
            replace(wrapper, kwargs=_plain(wrapper.kwargs))
            for wrapper in spec.additional_wrappers
            if wrapper.kwargs is not None  # our wrapper, needed only for several environments in a process
        )
        plain = replace(spec, kwargs=_plain(spec.kwargs), additional_wrappers=wrappers)
        plain.to_json()
        return gymnasium.make(plain)
    except Exception:  # environments of other packages may raise anything
        return None


def _plain(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(json.dumps(options or {}, default=lambda value: value.tolist())))


# ---- Episodes ----


class EpisodeCollector(VectorWrapper[Any, Any, Any, Any, Any]):
    """Collect whole episodes from a batch of environments during `rollout_episodes`.

    Every observation of an episode, its last one included, has infos: the numeric arrays that the environment
    returns with every observation in one shape and dtype, and the policy's maps under the name of their kind.

    Args:
        env: batch of environments.
        probe: the policy.
        seeds: seeds of the episodes.
        on_episodes: called with finished episodes as Minari's `EpisodeBuffer`s, in the order of their seeds.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        probe: PolicyProbe,
        seeds: Sequence[int],
        on_episodes: Callable[[Sequence[Any]], None],
    ) -> None:
        super().__init__(env)
        self._probe, self._seeds, self._on_episodes = probe, seeds, on_episodes
        self._step: Any = None
        self._open: dict[int, _Recording] = {}
        self._done: dict[int, _Recording] = {}

    def step(self, actions: NDArray[Any]) -> Any:
        self._step = super().step(actions)
        return self._step

    def on_step(self, step: Step) -> None:
        """Keep a step; the `on_step` callback of `rollout_episodes`."""
        _, _, terminated, truncated, after = self._step
        for i in np.flatnonzero(step.running).tolist():
            episode = self._open.setdefault(int(step.episode[i]), _Recording())
            maps = None if step.percept is None else step.percept.attention[i].numpy(force=True)
            episode.add(_row(step.observation, i), self._infos(_row_of_infos(step.info, i), maps))
            episode.actions.append(np.array(step.actions[i]))
            episode.rewards.append(step.rewards[i])
            episode.terminations.append(bool(terminated[i]))
            episode.truncations.append(bool(truncated[i]))
            if step.done[i]:
                last = _row(after["final_obs"], i)
                _, percept = peek(self._probe.act, as_batch(last), Context())
                maps = None if percept is None else percept.attention[0].numpy(force=True)
                episode.add(last, self._infos(_row_of_infos(after["final_info"], i), maps))
                self._done[int(step.episode[i])] = self._open.pop(int(step.episode[i]))
        if not self._open:
            self.flush()

    def flush(self) -> int:
        """Pass the finished episodes to `on_episodes` and return their number."""
        done, self._done = self._done, {}
        if done:
            self._on_episodes([done[i].as_buffer(int(self._seeds[i])) for i in sorted(done)])
        return len(done)

    def _infos(self, infos: dict[str, Any], maps: NDArray[np.float32] | None) -> dict[str, Any]:
        return infos if maps is None or self._probe.uniform else {**infos, self._probe.kind: maps}


class _Recording:
    """An unfinished episode."""

    def __init__(self) -> None:
        self.observations: list[Any] = []
        self.infos: list[dict[str, Any]] = []
        self.actions: list[NDArray[Any]] = []
        self.rewards: list[Any] = []
        self.terminations: list[bool] = []
        self.truncations: list[bool] = []

    def add(self, observation: Any, infos: dict[str, Any]) -> None:
        self.observations.append(observation)
        self.infos.append(infos)

    def as_buffer(self, seed: int) -> Any:
        from minari.data_collector import EpisodeBuffer

        names = [
            name
            for name, first in self.infos[0].items()
            if all(name in row and _same_form(row[name], first) for row in self.infos)
        ]
        return EpisodeBuffer(
            seed=seed,
            observations=_stack(self.observations),
            actions=np.stack(self.actions),
            rewards=np.stack(self.rewards),
            terminations=np.array(self.terminations),
            truncations=np.array(self.truncations),
            infos={name: np.stack([row[name] for row in self.infos]) for name in names},
        )


def _row(observation: ObservationBatch, i: int) -> Any:
    """Copy observation i of a batch, as an environment may reuse the memory for the next one."""
    if isinstance(observation, Mapping):
        return {name: np.array(entry[i]) for name, entry in observation.items()}
    row = observation[i]  # Gymnasium's final observations are an array of objects
    return (
        {name: np.array(entry) for name, entry in row.items()} if isinstance(row, Mapping) else np.array(row)
    )


def _row_of_infos(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Copy the numeric infos of environment i in a batch."""
    return {
        name: np.array(values[i])
        for name, values in infos.items()
        if isinstance(values, np.ndarray)
        and not name.startswith("_")
        and values.dtype.kind in "biuf"
        and infos.get(f"_{name}", {i: True})[i]
    }


def _same_form(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _stack(observations: Sequence[Any]) -> Any:
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: np.stack([row[name] for row in observations]) for name in first}
    return np.stack(observations)
