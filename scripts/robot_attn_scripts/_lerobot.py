"""Write episodes as a LeRobotDataset, format v3.0, without the package lerobot.

    meta/info.json                          features, counts, frame rate, the patterns of the paths below
    meta/stats.json                         statistics of every feature, for normalisation
    meta/tasks.parquet                      the tasks in words
    meta/episodes/chunk-000/file-000.parquet    a row per episode: where its steps and frames are, statistics
    meta/robot-attn.json                    what the format has no place for: environment, policy, seeds, grid
    data/chunk-000/file-000.parquet         a row per step; frames as PNG, unless there are videos
    videos/KEY/chunk-000/file-000.mp4       H.264, the episodes one after the other

Each call that adds episodes writes one file of each kind, so that a file is complete as soon as it is there.
The dataset is written to a hidden folder and moved to its place once it is complete.

Cadene et al. 2024, https://github.com/huggingface/lerobot.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

import robot_attn
from robot_attn.optional import import_cv2, import_optional
from robot_attn.video import write_video
from robot_attn_scripts._episodes import RecordedEpisode, dataset_errors
from robot_attn_scripts._lerobot_stats import Stats, aggregate, image_stats, vector_stats

VERSION = "v3.0"
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{CHUNK}.parquet", f"meta/episodes/{CHUNK}.parquet"
VIDEO = f"videos/{{video_key}}/{CHUNK}.mp4"
FILES_PER_CHUNK = 1000
MAX_AXES = 5
"""The format has arrays of at most as many axes."""
KEYFRAME_INTERVAL = 2
"""As in LeRobot's own videos: training reads single frames."""

_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def import_pyarrow() -> Any:
    """Import pyarrow, with its reader and writer of Parquet files.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    import_optional("pyarrow.parquet", needs="--lerobot needs pyarrow", extra="lerobot")
    return import_optional("pyarrow", needs="--lerobot needs pyarrow", extra="lerobot")


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of a dataset.

    Attributes:
        observation_space: space of a single observation.
        action_space: space of a single action.
        action_names: names of the action's components, or None.
        seconds_per_step: duration of a step; None if unknown.
        task: the task of an episode without an instruction, in words.
        maps: names of the infos with the policy's maps.
        video: whether frames are stored as video.
        more: further metadata, plain JSON.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    action_names: Sequence[str] | None
    seconds_per_step: float | None
    task: str
    maps: Sequence[str]
    video: bool
    more: Mapping[str, Any]


@contextmanager
def new_dataset(folder: Path, info: DatasetInfo) -> Iterator[Callable[[Sequence[RecordedEpisode]], None]]:
    """Write a new dataset.

    On leaving the context, also by an error or Ctrl-C, the episodes added so far become the dataset. Without
    any episode, or if they cannot be written, there is no dataset and nothing is left behind.

    Args:
        folder: the dataset's folder, which does not exist or is empty.
        info: metadata.

    Yields:
        A function that adds episodes.

    Raises:
        ValueError: an environment without a known duration of a step, or an entry that the format does not
            have a place for.
        ModuleNotFoundError: pyarrow is not installed.
        OSError: the dataset cannot be written.
    """
    import_pyarrow()
    layout = _Layout(info)
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    writer = _Writer(staged, info, layout)
    complete = False

    def add(episodes: Sequence[RecordedEpisode]) -> None:
        nonlocal complete
        complete = False
        with dataset_errors(folder):
            writer.add(episodes)
        complete = True

    try:
        try:
            yield add
        finally:
            if complete:
                with dataset_errors(folder):
                    writer.finish()
                    staged.chmod(0o777 & ~_umask())  # mkdtemp's folder is private
                    staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if not folder.exists():
            for parent in made:
                with suppress(OSError):  # another process may be using it by now
                    parent.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- Features ----


@dataclass(frozen=True)
class _Layout:
    """The features of a dataset: which array of an episode goes where."""

    info: DatasetInfo
    images: dict[str, str | None] = field(default_factory=dict)
    """Feature -> key of the observation, None for an observation that is a single array."""
    vectors: dict[str, str | None] = field(default_factory=dict)
    """As `images`, for all other entries of the observation."""

    def __post_init__(self) -> None:
        space = self.info.observation_space
        entries: list[tuple[str | None, spaces.Space[Any]]] = [(None, space)]
        if isinstance(space, spaces.Dict):
            entries = list(space.spaces.items())
        for key, entry in entries:
            if key is not None and "/" in key:
                raise ValueError(
                    f"expected observation entries without '/' for --lerobot, got {key!r}: rename the entry"
                )
            if len(entry.shape or ()) > MAX_AXES:
                raise ValueError(
                    f"expected arrays of at most {MAX_AXES} axes for --lerobot, got {key or 'observation'!r} "
                    f"of shape {entry.shape}: record with --minari"
                )
            if _is_image(entry):
                self._check_image(key, entry.shape or ())
                self.images["observation.image" if key is None else f"observation.images.{key}"] = key
            else:
                self.vectors["observation.state" if key is None else f"observation.{key}"] = key
        if not self.info.seconds_per_step:
            raise ValueError(
                "expected an environment that states the duration of a step for --lerobot, got one that does "
                "not: give its metadata render_fps, or record with --minari"
            )

    def _check_image(self, key: str | None, shape: Sequence[int]) -> None:
        if self.info.video and (shape[2] != 3 or shape[0] % 2 or shape[1] % 2):
            raise ValueError(
                f"expected RGB frames with even sides for --lerobot-video, got {key or 'frames'!r} of "
                f"{list(shape)}: leave --lerobot-video out, which stores PNG"
            )

    @property
    def fps(self) -> float:
        """Steps per second; a whole number where it is one up to rounding."""
        assert self.info.seconds_per_step is not None
        fps = 1 / self.info.seconds_per_step
        return round(fps) if abs(fps - round(fps)) < 1e-6 else fps

    def arrays(self, episode: RecordedEpisode) -> dict[str, NDArray[Any]]:
        """The arrays of an episode by feature, [T, ...] with at least one axis more, without the images."""
        steps = len(episode)
        arrays = {name: _entry(episode, key)[:steps] for name, key in self.vectors.items()}
        arrays |= {
            "action": episode.actions,
            "next.reward": episode.rewards,
            "next.terminated": episode.terminations,
            "next.truncated": episode.truncations,
            "next.done": episode.terminations | episode.truncations,
        }
        if "success" in episode.infos or "is_success" in episode.infos:
            name = "success" if "success" in episode.infos else "is_success"
            arrays["next.success"] = episode.infos[name][1:]
        # Flat, since LeRobot's tools that merge and edit datasets fail on arrays of several axes.
        arrays |= {
            name: episode.infos[name][:steps].reshape(steps, -1)
            for name in self.info.maps
            if name in episode.infos
        }
        return {name: array[:, None] if array.ndim == 1 else array for name, array in arrays.items()}

    def features(self, episode: RecordedEpisode) -> dict[str, dict[str, Any]]:
        """The dataset's features, as `meta/info.json` describes them."""
        features: dict[str, dict[str, Any]] = {}
        for name, key in self.images.items():
            height, width, channels = _entry(episode, key).shape[1:]
            features[name] = {
                "dtype": "video" if self.info.video else "image",
                "shape": [height, width, channels],
                "names": ["height", "width", "channels"],
            }
            if self.info.video:
                features[name]["info"] = {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self.fps,
                    "video.channels": channels,
                    "has_audio": False,
                }
        for name, array in self.arrays(episode).items():
            features[name] = {"dtype": str(array.dtype), "shape": list(array.shape[1:]), "names": None}
        names = self.info.action_names
        if names is not None and [len(names)] == features["action"]["shape"]:
            features["action"]["names"] = list(names)
        dtypes = ("float32", "int64", "int64", "int64", "int64")
        for name, dtype in zip(_INDICES, dtypes, strict=True):
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return features


def _is_image(space: spaces.Space[Any]) -> bool:
    return space.dtype == np.uint8 and len(space.shape or ()) == 3 and (space.shape or ())[2] in (1, 3)


def _entry(episode: RecordedEpisode, key: str | None) -> NDArray[Any]:
    entry: NDArray[Any] = episode.observations if key is None else episode.observations[key]
    return entry


# ---- Files ----


class _Writer:
    """Writes the files of a dataset into a folder."""

    def __init__(self, root: Path, info: DatasetInfo, layout: _Layout) -> None:
        self._root, self._info, self._layout = root, info, layout
        self._features: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, int] = {}
        self._seeds: list[int] = []
        self._stats: list[dict[str, Stats]] = []
        self._files = self._steps = 0

    def add(self, episodes: Sequence[RecordedEpisode]) -> None:
        """Write episodes as the next file of each kind."""
        self._features = self._features or self._layout.features(episodes[0])
        place = dict(zip(("chunk_index", "file_index"), divmod(self._files, FILES_PER_CHUNK), strict=True))
        columns: dict[str, list[Any]] = {name: [] for name in self._features}
        rows: list[dict[str, Any]] = []
        offset = 0
        for episode in episodes:
            task = self._info.task if episode.instruction is None else episode.instruction
            arrays = self._layout.arrays(episode) | self._indices(len(episode), task)
            for name, array in arrays.items():
                columns[name].append(array)
            rows.append(self._row(episode, arrays, task, place, offset))
            self._seeds.append(episode.seed)
            self._steps += len(episode)
            offset += len(episode)
        frames = {
            name: [_entry(episode, key)[: len(episode)] for episode in episodes]
            for name, key in self._layout.images.items()
        }
        if self._info.video:
            for name, parts in frames.items():
                path = self._path(VIDEO.format(video_key=name, **place))
                every = (frame for part in parts for frame in part)
                write_video(path, every, self._layout.fps, keyframe_interval=KEYFRAME_INTERVAL)
        else:
            columns |= {name: _as_png(parts) for name, parts in frames.items()}
        self._write_table(DATA.format(**place), self._table(columns))
        self._write_table(EPISODES.format(**place), import_pyarrow().Table.from_pylist(rows))
        self._files += 1

    def finish(self) -> None:
        """Write what describes the whole dataset."""
        pyarrow = import_pyarrow()
        tasks = pyarrow.table(
            {"task_index": list(self._tasks.values()), "__index_level_0__": list(self._tasks)}
        )
        self._write_table("meta/tasks.parquet", tasks.replace_schema_metadata({"pandas": _TASKS_INDEX}))
        self._write_json("meta/stats.json", aggregate(self._stats))
        self._write_json(
            "meta/info.json",
            {
                "codebase_version": VERSION,
                "robot_type": None,
                "total_episodes": len(self._seeds),
                "total_frames": self._steps,
                "total_tasks": len(self._tasks),
                "chunks_size": FILES_PER_CHUNK,
                "data_files_size_in_mb": 100,  # LeRobot's default, used if it adds episodes
                "video_files_size_in_mb": 200,
                "fps": self._layout.fps,
                "splits": {"train": f"0:{len(self._seeds)}"},
                "data_path": DATA,
                "video_path": VIDEO if self._info.video else None,
                "features": self._features,
            },
        )
        self._write_json(
            "meta/robot-attn.json",
            {"version": robot_attn.__version__, "seeds": self._seeds, **self._info.more},
        )

    def _indices(self, steps: int, task: str) -> dict[str, NDArray[Any]]:
        frame = np.arange(steps)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        columns: tuple[NDArray[Any], ...] = (
            (frame / self._layout.fps).astype(np.float32),
            frame,
            np.full(steps, len(self._seeds)),
            self._steps + frame,
            np.full(steps, task_index),
        )
        return {name: column[:, None] for name, column in zip(_INDICES, columns, strict=True)}

    def _row(
        self,
        episode: RecordedEpisode,
        arrays: Mapping[str, NDArray[Any]],
        task: str,
        place: Mapping[str, int],
        offset: int,
    ) -> dict[str, Any]:
        """Describe an episode, whose frames begin at frame `offset` of this file's video."""
        steps, fps = len(episode), self._layout.fps
        row: dict[str, Any] = {"episode_index": len(self._seeds), "tasks": [task], "length": steps}
        row |= {"dataset_from_index": self._steps, "dataset_to_index": self._steps + steps}
        for prefix in ("data", "meta/episodes"):
            row |= {f"{prefix}/{name}": index for name, index in place.items()}
        if self._info.video:
            for key in self._layout.images:
                row |= {f"videos/{key}/{name}": index for name, index in place.items()}
                row[f"videos/{key}/from_timestamp"] = offset / fps
                row[f"videos/{key}/to_timestamp"] = (offset + steps) / fps
        stats = {name: image_stats(_entry(episode, key)[:steps]) for name, key in self._layout.images.items()}
        # Normalisation needs them of vectors and images; maps are as they are.
        stats |= {
            name: vector_stats(array)
            for name, array in arrays.items()
            if array.ndim == 2 and name not in self._info.maps
        }
        self._stats.append(stats)
        for name, values in stats.items():
            row |= {f"stats/{name}/{kind}": value.tolist() for kind, value in values.items()}
        return row

    def _table(self, columns: Mapping[str, list[Any]]) -> Any:
        pyarrow = import_pyarrow()
        arrays: dict[str, Any] = {}
        for name, feature in self._features.items():
            if feature["dtype"] == "image":
                kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
                arrays[name] = pyarrow.array([{"bytes": png, "path": None} for png in columns[name]], kind)
            elif feature["dtype"] != "video":
                arrays[name] = _as_arrow(np.concatenate(columns[name]))
        return pyarrow.table(arrays)

    def _path(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_table(self, name: str, table: Any) -> None:
        import_pyarrow().parquet.write_table(table, self._path(name))

    def _write_json(self, name: str, data: object) -> None:
        self._path(name).write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8")


_TASKS_INDEX = json.dumps(
    {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {
                "name": None,
                "field_name": "__index_level_0__",
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            },
        ],
        "pandas_version": "2.2.0",
    }
)
"""Tells pandas, with which LeRobot reads the file, that the tasks are the index of their table."""


def _as_arrow(array: NDArray[Any]) -> Any:
    """Convert [T, ...] to a column of T nested lists of fixed size, or of T numbers where a row is one."""
    pyarrow = import_pyarrow()
    column = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
    if array.shape[1:] == (1,):
        return column
    for size in reversed(array.shape[2:]):
        column = pyarrow.FixedSizeListArray.from_arrays(column, size)
    return pyarrow.FixedSizeListArray.from_arrays(column, array.shape[1])


def _as_png(parts: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    cv2 = import_cv2()
    # OpenCV's colours are in the order blue, green, red.
    return [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for part in parts for frame in part]
