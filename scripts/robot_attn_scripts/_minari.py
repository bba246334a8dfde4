"""Episodes as a Minari dataset, whole and lossless, through Minari's own functions.

The format is HDF5: it keeps the shape and the type of every array as they are, and reading it takes nothing
that our own episodes do not. Frames are left out of Minari's JPEG encoding, which is lossy and its default.
A dataset is made in a hidden folder beside its place, and put there once what is in it is whole.
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
from robot_attn_policies.rollouts.rollout import ObservationBatch, Step
from robot_attn_policies.rollouts.single_env import as_batch
from robot_attn_scripts.compat.minari import DATA_FOLDER, dataset_path, make_namespace, namespace_of

_PATH = "MINARI_DATASETS_PATH"
_REQUIRED = ("robot-attn", "mujoco", "mujoco-warp", "gymnasium")


def minari_module() -> Any:
    """Minari, if it is installed and can keep frames as they are.

    Raises:
        ModuleNotFoundError: it is not, or is too old.
    """
    # Its HDF5 storage needs h5py, and Minari asks for it too late.
    import_optional("h5py", needs="--minari needs h5py", extra="minari")
    minari = import_optional("minari", needs="--minari needs Minari", extra="minari")
    if tuple(map(int, minari.__version__.split(".")[:3])) < (0, 5, 4):
        raise ModuleNotFoundError(
            f"--minari needs Minari 0.5.4 or newer, as older ones damage frames, got {minari.__version__}; "
            'run pip install --upgrade "robot-attn[minari]"'
        )
    return minari


def place_of(name: str) -> Path:
    """Where the dataset called `name` goes: below MINARI_DATASETS_PATH, or ~/.minari/datasets.

    Raises:
        ValueError: Minari takes no such name, or there is something already.
    """
    parts = name.split("/")
    try:
        whole = namespace_of(name) is None or all(part not in ("", DATA_FOLDER) for part in parts)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(
            "a Minari dataset has a name like track/query-v0, of letters, digits, - and _: namespaces of two "
            f"letters or more if any, a name, and a version, got {name!r}"
        )
    place = dataset_path(name)
    if place.exists():
        raise ValueError(
            f"there is a Minari dataset {name} already, at {place}: name another version, or delete it with "
            f"minari delete {name}"
        )
    for end in range(1, len(parts)):
        if (dataset_path("/".join(parts[:end])) / DATA_FOLDER).exists():
            raise ValueError(f"{'/'.join(parts[:end])} is a Minari dataset, and no namespace for {name}")
    return place


# ---- The dataset ----


@dataclass(frozen=True)
class About:
    """What a dataset says of itself."""

    env: gymnasium.Env[Any, Any] | None
    """The environment, as `recover_environment` is to make it; None where that cannot be done."""
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    algorithm: str
    description: str
    more: Mapping[str, Any]
    """Further entries of its metadata, plain JSON."""


@contextmanager
def new_dataset(name: str, about: About) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Give what takes episodes, as Minari's buffers, into the dataset called `name`.

    However the block is left, by an error or Ctrl-C too, the episodes that were taken are then a dataset;
    where there are none there is no dataset, and nothing is left behind.

    Raises:
        ValueError: as `place_of`.
        OSError: it cannot be written; then there is no dataset.
    """
    place = place_of(name)
    root = place.parents[name.count("/")]
    staged = Path(tempfile.mkdtemp(prefix=".robot-attn-", dir=root))
    dataset: Any = None
    whole = False

    def add(episodes: Sequence[Any]) -> None:
        nonlocal dataset, whole
        whole = False
        if dataset is None:
            dataset = _create(name, staged, episodes, about)
        else:
            dataset.update_dataset_from_buffer(list(episodes))
        whole = True

    try:
        yield add
    finally:
        try:
            if whole:
                _put(name, staged / name, place)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _create(name: str, staged: Path, episodes: Sequence[Any], about: About) -> Any:
    before = os.environ.get(_PATH)
    os.environ[_PATH] = str(staged)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # about the author and the like, which we do not know
            dataset = minari_module().create_dataset_from_buffers(
                name,
                list(episodes),
                env=about.env,
                algorithm_name=about.algorithm,
                observation_space=about.observation_space,
                action_space=about.action_space,
                description=about.description,
                data_format="hdf5",
                requirements=_requirements(),
                jpeg_encoding=False,
            )
    finally:
        if before is None:
            del os.environ[_PATH]
        else:
            os.environ[_PATH] = before
    dataset.storage.update_metadata(dict(about.more))
    return dataset


def _put(name: str, made: Path, place: Path) -> None:
    namespace, _, _ = name.rpartition("/")
    if namespace:
        make_namespace(namespace)
    made.rename(place)


def _requirements() -> list[str]:
    import importlib.metadata

    return [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIRED]


def recoverable(env: VectorEnv[Any, Any, Any], options: Mapping[str, Any]) -> gymnasium.Env[Any, Any] | None:
    """One environment like those of a batch, made of nothing but a spec that JSON can hold.

    Args:
        env: the batch.
        options: those that it was made with, where it steps many worlds in one call.

    Returns:
        The environment, or None where no such spec says enough.
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
            if wrapper.kwargs is not None  # ours, which is for several environments in one process
        )
        plain = replace(spec, kwargs=_plain(spec.kwargs), additional_wrappers=wrappers)
        plain.to_json()
        return gymnasium.make(plain)
    except Exception:  # whatever another's environment raises
        return None


def _plain(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(json.dumps(options or {}, default=lambda value: value.tolist())))


# ---- Episodes ----


class Collector(VectorWrapper[Any, Any, Any, Any, Any]):
    """A batch of environments, and all that it gives while `rollout_episodes` plays one episode a seed.

    The infos of an episode, one for every observation, the last one included, are those that the environment
    gives with every observation, as numbers of one shape; and the policy's maps, under the name of their
    kind.

    Args:
        env: the batch.
        eyes: the policy's.
        seeds: of the episodes.
        take: gets the episodes as Minari's buffers, in the order of their seeds.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        probe: PolicyProbe,
        seeds: Sequence[int],
        take: Callable[[Sequence[Any]], None],
    ) -> None:
        super().__init__(env)
        self._eyes, self._seeds, self._take = probe, seeds, take
        self._step: Any = None
        self._open: dict[int, _Recording] = {}
        self._done: dict[int, _Recording] = {}

    def step(self, actions: NDArray[Any]) -> Any:
        self._step = super().step(actions)
        return self._step

    def watch(self, step: Step) -> None:
        """Keep a step; to `watch` with."""
        _, _, terminated, truncated, after = self._step
        for i in np.flatnonzero(step.running).tolist():
            episode = self._open.setdefault(int(step.episode[i]), _Recording())
            maps = None if step.percept is None else step.percept.attention[i].numpy(force=True)
            episode.see(_row(step.observation, i), self._infos(_row_of_infos(step.info, i), maps))
            episode.actions.append(np.array(step.actions[i]))
            episode.rewards.append(step.rewards[i])
            episode.terminations.append(bool(terminated[i]))
            episode.truncations.append(bool(truncated[i]))
            if step.done[i]:
                last = _row(after["final_obs"], i)
                _, percept = self._eyes.act(as_batch(last))
                maps = None if percept is None else percept.attention[0].numpy(force=True)
                episode.see(last, self._infos(_row_of_infos(after["final_info"], i), maps))
                self._done[int(step.episode[i])] = self._open.pop(int(step.episode[i]))
        if not self._open:
            self.flush()

    def flush(self) -> int:
        """Hand on the episodes that have ended; how many of them there are."""
        done, self._done = self._done, {}
        if done:
            self._take([done[i].as_buffer(int(self._seeds[i])) for i in sorted(done)])
        return len(done)

    def _infos(self, infos: dict[str, Any], maps: NDArray[np.float32] | None) -> dict[str, Any]:
        return infos if maps is None or self._eyes.uniform else {**infos, self._eyes.kind: maps}


class _Recording:
    """An episode as it grows."""

    def __init__(self) -> None:
        self.observations: list[Any] = []
        self.infos: list[dict[str, Any]] = []
        self.actions: list[NDArray[Any]] = []
        self.rewards: list[Any] = []
        self.terminations: list[bool] = []
        self.truncations: list[bool] = []

    def see(self, observation: Any, infos: dict[str, Any]) -> None:
        self.observations.append(observation)
        self.infos.append(infos)

    def as_buffer(self, seed: int) -> Any:
        from minari.data_collector import EpisodeBuffer

        names = [
            name
            for name, first in self.infos[0].items()
            if all(name in row and _alike(row[name], first) for row in self.infos)
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
    """Observation i of a batch, copied: an environment may write the next one where this one lies."""
    if isinstance(observation, Mapping):
        return {name: np.array(entry[i]) for name, entry in observation.items()}
    row = observation[i]  # Gymnasium's batches keep the last observations as one object each
    return (
        {name: np.array(entry) for name, entry in row.items()} if isinstance(row, Mapping) else np.array(row)
    )


def _row_of_infos(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """What the infos of a batch tell of environment i in numbers."""
    return {
        name: np.array(values[i])
        for name, values in infos.items()
        if isinstance(values, np.ndarray)
        and not name.startswith("_")
        and values.dtype.kind in "biuf"
        and infos.get(f"_{name}", {i: True})[i]
    }


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _stack(observations: Sequence[Any]) -> Any:
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: np.stack([row[name] for row in observations]) for name in first}
    return np.stack(observations)
