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
from gymnasium.vector import VectorEnv

from robot_attn.optional import import_optional
from robot_attn_scripts._episodes import RecordedEpisode, dataset_errors
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
def new_dataset(name: str, info: DatasetInfo) -> Iterator[Callable[[Sequence[RecordedEpisode]], None]]:
    """Write a new dataset.

    On leaving the context, also by an error or Ctrl-C, the episodes added so far become the dataset. Without
    any episode, or if they cannot be written, there is no dataset and nothing is left behind.

    Args:
        name: name of the dataset, such as "track/query-v0".
        info: metadata.

    Yields:
        A function that adds episodes.

    Raises:
        ValueError: as `new_dataset_folder`.
        OSError: the dataset cannot be written; there is none then.
    """
    folder = new_dataset_folder(name)
    root = folder.parents[name.count("/")]
    staged = Path(tempfile.mkdtemp(prefix=".robot-attn-", dir=root))
    dataset: Any = None
    complete = False

    def add(episodes: Sequence[RecordedEpisode]) -> None:
        nonlocal complete
        complete = False
        with dataset_errors(folder):
            _check_space(staged, episodes)
            _add(episodes)
        complete = True

    def _add(episodes: Sequence[RecordedEpisode]) -> None:
        nonlocal dataset
        buffers = [_as_buffer(episode) for episode in episodes]
        if dataset is None:
            dataset = _create(name, staged, buffers, info)
        else:
            dataset.update_dataset_from_buffer(buffers)

    try:
        yield add
    finally:
        try:
            if complete:
                _move(name, staged / name, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _check_space(folder: Path, episodes: Sequence[RecordedEpisode]) -> None:
    """Check that there is space for episodes, since HDF5 crashes the process on a full disk.

    Raises:
        OSError: there is not.
    """
    arrays = [array for episode in episodes for array in episode.arrays()]
    # HDF5 stores whole chunks and an index of them: it took up to 1.4 times the bytes of long episodes, and
    # up to 4 KiB an array of short ones.
    size = sum(2 * array.nbytes + 8192 for array in arrays)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)


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


def _as_buffer(episode: RecordedEpisode) -> Any:
    from minari.data_collector import EpisodeBuffer

    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=episode.truncations,
        infos=dict(episode.infos),
    )
