"""Episodes as HDF5 files in robomimic's convention, without loss, with the attention of every step.

The file of an episode of T steps, in format 2:

    data                attrs: total, env_args (JSON), robot_attn_format, robot_attn_versions (JSON)
    data/demo_0         attrs: num_samples, seed, robot_attn (JSON: what else is known of the episode)
      actions           float32 (T, A)
      rewards           float64 (T,)
      dones             bool (T,)
      states            float64 (T, D)          state of the simulator before each action
      values            float64 (T,)            absent if the policy has no value function
      simulator/<name>  (T, ...)                full state of the environment, for `set_state`
      obs/image         uint8 (T, H, W, 3)      frames that the policy observed
      obs/state         float32 (T, S)          absent if the task has none
      attention         float32 (T, heads, rows, cols)
      token_centers/ys  float32 (rows,)         in pixels; xs likewise
      target_mask       bool (T, H, W)          absent if unknown
      things            uint8 (T, H, W)         absent if unknown; named in the JSON
      sha256            uint8 (blocks, 32)      of each block of steps

The descriptions of the arrays come first in the file. The data follow in blocks of `BLOCK` steps, so that the
blocks before the cut can be read from a truncated file, for example after an interrupted download. The
`sha256` of a block covers its rows, the attributes and the centres of the cells: a damaged file is rejected.

Reading runs no code, follows no link out of the file, and allocates no more than the file can hold. Files of
format 1, which have one checksum for everything, are read only if they are complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionGrid
from robot_attn.episode import COLUMNS, Episode, EpisodeError
from robot_attn.files import replacing
from robot_attn.optional import import_optional
from robot_attn_policies.rollouts.actor import Actor, ChangedActor, ObservationBatch
from robot_attn_policies.rollouts.camera import MASK, THINGS
from robot_attn_policies.rollouts.rollout import Step, rollout_episodes
from robot_attn_policies.rollouts.things import describe_things, thing_names

FORMAT = 2
BLOCK = 8
"""Steps per block; a truncated file loses whole blocks."""
_DEMO = "data/demo_0"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = 48  # bytes
_LEAST_LEFT = 1000  # a file with less than 1/1000 of its size left is not read
_YS, _XS, _SIMULATOR = "token_centers/ys", "token_centers/xs", "simulator/"
_ALWAYS = ("actions", "rewards", "dones", "states", "obs/image", "attention", _YS, _XS)
_PLAIN = ("success", "dt", "best_head", "uniform", "action_names", "policy")
"""Fields of an episode stored as JSON, in this order; `_SINCE_2` are those that format 1 lacks."""
_SINCE_2 = ("maps", "cut")
_OF_SEVERAL = ("camera", "other_cameras")
"""Fields that are stored for a policy with several cameras only."""
_OF_THINGS = ("thing_names", "thing_descriptions")
"""Fields that are stored with `things` only."""
_DEEPEST = 3  # simulator/<name>/<name>/<name>
_MOST_PACKED = 1100  # deflate compresses at most 1032 to 1


def _arrays(episode: Episode) -> dict[str, NDArray[Any]]:
    """Return the arrays of an episode by their names in a file, in the order of the file."""
    named: dict[str, NDArray[Any] | None] = {
        column.name: getattr(episode, field) for field, column in COLUMNS.items()
    }
    last = [COLUMNS[field].name for field in ("target_masks", "things")]
    named |= {_YS: episode.grid.ys, _XS: episode.grid.xs, **{name: named.pop(name) for name in last}}
    named |= {f"{_SIMULATOR}{name}": array for name, array in episode.simulator.items()}
    return {name: array for name, array in named.items() if array is not None}


def _attributes(episode: Episode) -> dict[str, Any]:
    """Return the attributes of a demo as JSON values, so that the hash covers exactly what is read back."""
    return {
        "num_samples": len(episode),
        **{name: getattr(episode, name) for name in ("seed", *_PLAIN, *_SINCE_2)},
        "action_names": list(episode.action_names),
        **({name: getattr(episode, name) for name in _OF_SEVERAL} if episode.camera else {}),
        **({name: list(getattr(episode, name)) for name in _OF_THINGS} if episode.thing_names else {}),
        "env_args": json.dumps(episode.env_args, sort_keys=True),
    }


def _digest(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _block_digest(
    arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any], first: int
) -> NDArray[np.uint8]:
    """SHA-256 of the block of steps that starts with `first`, uint8 [32]."""
    rows = slice(first, first + BLOCK)
    block = {name: array[rows] if _by_step(name) else array for name, array in arrays.items()}
    return np.frombuffer(bytes.fromhex(_digest(block, {**attributes, "first": first})), np.uint8)


def _by_step(name: str) -> bool:
    return name != "sha256" and not name.startswith("token_centers/")


def _h5py() -> Any:
    return import_optional("h5py", needs="an episode's file needs h5py", extra="video")


def save_episode(
    path: str | os.PathLike[str], episode: Episode, versions: Mapping[str, str] | None = None
) -> None:
    """Write an episode, in one piece or not at all.

    Args:
        path: file to write.
        episode: the episode.
        versions: versions of the libraries that made it, by name, stored with it.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = _h5py()
    arrays, attributes = _arrays(episode), _attributes(episode)
    steps = len(episode)
    sums = [_block_digest(arrays, attributes, first) for first in range(0, steps, BLOCK)]
    blocked = [name for name, array in arrays.items() if _by_step(name) and array.size > 0]
    # Made in memory first: on a full disk HDF5 aborts the process and leaves half a file.
    content = io.BytesIO()
    version = ("v110", "v110")  # the first version with checksums of the descriptions
    with h5py.File(content, "w", libver=version) as file:
        data = file.create_group("data")
        data.attrs["total"] = steps
        data.attrs["env_args"] = attributes["env_args"]
        data.attrs["robot_attn_format"] = FORMAT
        data.attrs["robot_attn_versions"] = json.dumps(dict(versions or {}), sort_keys=True)
        demo = file.create_group(_DEMO)
        demo.attrs["num_samples"] = steps
        demo.attrs["robot_attn"] = json.dumps(attributes)
        demo.attrs["seed"] = episode.seed  # also outside the JSON, for readers of robomimic's convention
        demo.create_dataset("sha256", data=np.stack(sums))
        for name, array in arrays.items():
            if name not in blocked:
                demo.create_dataset(name, data=array)
                continue
            chunks = (min(BLOCK, steps), *array.shape[1:])
            demo.create_dataset(
                name, array.shape, array.dtype, chunks=chunks, compression="gzip", compression_opts=4
            )
    # The descriptions are in place; the blocks follow in the order of writing, since a dataset opened for one
    # block is flushed when it is closed.
    with h5py.File(content, "r+", libver=version) as file:
        for first in range(0, steps, BLOCK):
            for name in blocked:
                file[_DEMO][name][first : first + BLOCK] = arrays[name][first : first + BLOCK]
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_episode(path: str | os.PathLike[str]) -> Episode:
    """Read and check an episode that `save_episode` wrote.

    From a truncated file, the blocks of steps before the cut are read; the episode's `cut` then has the
    original number of steps.

    Args:
        path: file to read.

    Returns:
        The episode.

    Raises:
        EpisodeError: the file is not HDF5, is damaged, was cut within its first block, has another format
            version, or a part is missing or has another shape.
        OSError: no such file, or it cannot be read.
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = _h5py()
    source = Path(path)
    with source.open("rb") as file:
        head = file.read(_SUPERBLOCK)
    if not head:
        raise EpisodeError(f"expected an episode in {source}, got an empty file: record it again")
    if not head.startswith(_SIGNATURE):
        raise EpisodeError(
            f"expected an HDF5 file, got {source}, which is not one or is damaged: record it again"
        )
    size = source.stat().st_size
    whole = _whole_size(head) if len(head) == _SUPERBLOCK else _SUPERBLOCK
    try:
        if size >= whole:
            with h5py.File(source, "r") as file:
                return _read(h5py, file, size, cut=False)
        if whole > _LEAST_LEFT * size:
            raise OverflowError(f"more than {_LEAST_LEFT} bytes are missing for each that is left")
        # HDF5 opens no file that is shorter than its header says: pad it with zeros, which take no memory.
        with mmap.mmap(-1, whole) as padded:
            padded.write(source.read_bytes())
            with h5py.File(padded, "r") as file:
                return _read(h5py, file, size, cut=True)
    except EpisodeError as error:
        raise EpisodeError(f"{source}: {error}") from None
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        # h5py raises any of these for a damaged file.
        what = "is damaged"
        if size < whole:
            what = f"was cut after {size} of {whole} bytes, too early for its first {BLOCK} steps, or damaged"
        raise EpisodeError(f"{source} {what}: {_first_line(error)}") from error


def _whole_size(head: bytes) -> int:
    """Size of the complete file, from its superblock (HDF5 File Format Specification 3.0, II.A)."""
    at = 40 if head[8] == 0 else 28
    return int.from_bytes(head[at : at + 8], "little")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(h5py: Any, file: Any, size: int, *, cut: bool) -> Episode:
    """Read the episode in a file of `size` bytes; if it was cut, the blocks that are complete."""
    if "data" not in file or "robot_attn_format" not in file["data"].attrs:
        raise EpisodeError(
            "expected an episode of robot-attn, got an HDF5 file without data/robot_attn_format: record one "
            "with `robot-attn replay`"
        )
    version = file["data"].attrs["robot_attn_format"]
    if version not in (1, FORMAT):
        raise EpisodeError(f"expected format 1 to {FORMAT}, got format {version}: update robot-attn")
    if cut and version == 1:
        raise EpisodeError("expected a complete file of format 1, got one that was cut: record it again")
    if _DEMO not in file:
        raise EpisodeError(f"{_DEMO} is missing")
    demo = file[_DEMO]
    attributes = json.loads(demo.attrs["robot_attn"])
    if not isinstance(attributes, dict):
        raise EpisodeError(
            f"expected attributes as a JSON object, got {type(attributes).__name__}: record it again"
        )
    items = _items(h5py, demo)
    for name in _ALWAYS:
        if name not in items:
            raise EpisodeError(f"{name} is missing")
    steps = len(items["obs/image"])
    if attributes.get("num_samples") != steps or int(demo.attrs["num_samples"]) != steps:
        raise EpisodeError(f"expected {attributes.get('num_samples')} steps, got {steps}: record it again")
    available = _steps_before(size, items) if cut else steps
    if available == 0:
        raise EpisodeError(
            f"expected at least {min(BLOCK, steps)} steps before the cut, got fewer: record it again"
        )

    budget, arrays = _MOST_PACKED * size, {}
    for name, item in items.items():
        rows = min(available, len(item)) if _by_step(name) else len(item)
        unpacked = max(rows, item.chunks[0] if item.chunks else 0)
        claim = math.prod((unpacked, *item.shape[1:])) * item.dtype.itemsize
        budget -= claim
        if budget < 0:
            raise EpisodeError(
                f"expected {name} to fit into the file, got one that claims {claim} bytes, more than this "
                "file can hold"
            )
        arrays[name] = item[:rows]
    if version == 1:
        matches = attributes.pop("sha256", None) == _digest(arrays, attributes)
    else:
        sums = arrays.pop("sha256")
        matches = len(sums) == math.ceil(steps / BLOCK) and all(
            np.array_equal(sums[i], _block_digest(arrays, attributes, i * BLOCK))
            for i in range(math.ceil(available / BLOCK))
        )
    if not matches:
        raise EpisodeError(
            "expected content that matches its checksum, got other content: it was damaged or edited, "
            "record it again"
        )
    return _episode(arrays, attributes, cut=steps if available < steps else None)


def _items(h5py: Any, demo: Any) -> dict[str, Any]:
    """Return the datasets by name, after checking that reading them is safe."""
    items: dict[str, Any] = {}

    def walk(group: Any, prefix: str) -> None:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise EpisodeError(
                    f"expected data at {prefix}{name}, got a link to elsewhere, which is not followed"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                if prefix.count("/") >= _DEEPEST:
                    raise EpisodeError(f"expected an array at {prefix}{name}, got a group")
                walk(item, f"{prefix}{name}/")
                continue
            if item.is_virtual or item.external is not None:
                raise EpisodeError(
                    f"expected the data of {prefix}{name} in this file, got another file, which is not opened"
                )
            if item.dtype.kind not in "biuf" or item.dtype.names:
                raise EpisodeError(f"expected plain numbers in {prefix}{name}, got {item.dtype}")
            if item.chunks and any(chunk > side for chunk, side in zip(item.chunks, item.shape, strict=True)):
                raise EpisodeError(f"expected chunks within {prefix}{name}, got chunks that are larger")
            filters = item.id.get_create_plist()
            if any(
                filters.get_filter(i)[0] != h5py.h5z.FILTER_DEFLATE for i in range(filters.get_nfilters())
            ):
                raise EpisodeError(
                    f"expected gzip in {prefix}{name}, got the filter of a plug-in, which is not loaded"
                )
            items[f"{prefix}{name}"] = item

    walk(demo, "")
    return items


def _steps_before(size: int, items: Mapping[str, Any]) -> int:
    """Number of steps whose blocks are complete, in every dataset, within the first `size` bytes."""
    steps = len(items["obs/image"])
    for item in items.values():
        if item.chunks is None:
            start = item.id.get_offset()
            if start is not None and start + item.id.get_storage_size() > size:
                return 0
            continue
        for first in range(0, steps, BLOCK):
            chunk = item.id.get_chunk_info_by_coord((first, *[0] * (item.ndim - 1)))
            if chunk.byte_offset is None or chunk.byte_offset + chunk.size > size:
                steps = first
                break
    return steps


def _episode(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any], cut: int | None) -> Episode:
    fields: dict[str, Any] = {name: attributes[name] for name in _PLAIN}
    fields |= {name: attributes[name] for name in _SINCE_2 if name in attributes}
    fields["camera"] = str(attributes.get("camera", ""))
    for name in _OF_THINGS:
        fields[name] = tuple(str(word) for word in attributes.get(name, ()))
    fields["other_cameras"] = tuple(str(name) for name in attributes.get("other_cameras", ()))
    fields |= {field: arrays[column.name] for field, column in COLUMNS.items() if column.name in arrays}
    fields["simulator"] = {
        name.removeprefix(_SIMULATOR): array for name, array in arrays.items() if name.startswith(_SIMULATOR)
    }
    fields["env_args"] = json.loads(attributes["env_args"])
    for name, kind in {"seed": int, "best_head": int, "uniform": bool, "policy": str}.items():
        fields[name] = kind(attributes[name])
    fields["action_names"] = tuple(str(name) for name in attributes["action_names"])
    if cut is not None:
        fields |= {"cut": attributes.get("cut") or cut, "success": None}
    for name in (_YS, _XS):
        if arrays[name].dtype != np.float32:
            raise EpisodeError(f"expected {name} float32, got {arrays[name].dtype}: record it again")
    try:
        grid = AttentionGrid(arrays[_YS], arrays[_XS], fields["images"].shape[1:3])
    except ValueError as error:
        raise EpisodeError(f"token_centers: {error}") from error
    return Episode(grid=grid, **fields)


def record_episode(
    act: Actor,
    env: Any,
    seed: int,
    grid: AttentionGrid,
    *,
    env_args: Mapping[str, Any],
    image: str = "image",
    to_rgb: Callable[[ObservationBatch], NDArray[np.uint8]] | None = None,
    best_head: int = 0,
    uniform: bool = False,
    policy: str = "",
    values: Callable[[ObservationBatch], NDArray[Any] | None] | None = None,
    maps: str = "attention",
    on_step: Callable[[Step], None] | None = None,
) -> Episode:
    """Run and record one episode in a batch of one environment.

    The environment's state is recorded if it has `get_state()`; likewise its `action_names` and `dt`. Actions
    are recorded as vectors, one-hot if discrete.

    Args:
        act: the policy; it must return a `Percept`.
        env: a batch of one environment.
        seed: seed of the episode.
        grid: positions of the maps' cells in the frame.
        env_args: `env_name` and `env_kwargs`, from which the environment can be made.
        image: key of the frames in dict observations.
        to_rgb: converts observations to frames uint8 [1, H, W, 3], such as `RGBConverter`; None for
            observations whose frames are so already.
        best_head: head that a replay shows large.
        uniform: whether the attention is uniform by construction.
        policy: name of the policy.
        values: maps observations to value estimates [1], or to None where there are none.
        maps: kind of the maps, a key of `robot_attn.episode.MAPS`.
        on_step: called after each step.

    Returns:
        The episode.

    Raises:
        ValueError: an error of `rollout_episodes`; a batch of several environments; no attention; or no
            frames.
    """
    if env.num_envs != 1:
        raise ValueError(f"expected a batch of one environment, got {env.num_envs}: record one at a time")
    steps: list[dict[str, Any]] = []
    simulator: list[Mapping[str, NDArray[Any]]] = []
    described: tuple[str, ...] = ()

    def act_and_record_state(observation: ObservationBatch) -> tuple[NDArray[Any], Any]:
        nonlocal described
        # Before the first step: an episode of one step is followed by another with other things.
        described = described or tuple(describe_things(env)[0])
        if hasattr(env, "get_state"):
            simulator.append({name: np.array(part) for name, part in env.get_state().items()})
        return act(observation)

    def record_step(step: Step) -> None:
        if step.percept is None:
            raise ValueError("expected attention to record, got none: give an actor that returns a Percept")
        entries = step.observation if isinstance(step.observation, Mapping) else {image: step.observation}
        if to_rgb is None and image not in entries:
            raise ValueError(
                f"expected an observation with {image!r}, got the entries {sorted(entries)}: name the entry "
                "with the frames"
            )
        action = gymnasium.spaces.flatten(env.single_action_space, step.actions[0])
        value = None if values is None else values(step.observation)
        steps.append(
            {
                "images": np.array((entries[image] if to_rgb is None else to_rgb(step.observation))[0]),
                "state": np.ravel(entries["state"][0]).astype(np.float32) if "state" in entries else None,
                "actions": np.array(action, dtype=np.float32),
                "rewards": float(step.rewards[0]),
                "values": None if value is None else float(value[0]),
                "dones": bool(step.done[0]),
                "attention": step.percept.attention.numpy(force=True)[0].astype(np.float32),
                "target_masks": np.array(step.info[MASK][0]) if MASK in step.info else None,
                "things": np.array(step.info[THINGS][0]) if THINGS in step.info else None,
            }
        )
        if on_step is not None:
            on_step(step)

    rollouts = rollout_episodes(ChangedActor(act, act_and_record_state), env, [seed], on_step=record_step)

    columns = {
        name: None if first is None else np.stack([step[name] for step in steps])
        for name, first in steps[0].items()
    }
    parts = {name: np.stack([row[name] for row in simulator]) for name in (simulator[0] if simulator else ())}
    physics = parts.get("physics")
    if physics is not None:
        columns["states"] = physics.reshape(len(steps), -1).astype(np.float64)
    return Episode(
        **cast(Any, columns),
        grid=grid,
        env_args=dict(env_args),
        seed=seed,
        simulator=parts,
        success=None if rollouts.successes is None else bool(rollouts.successes[0]),
        dt=getattr(env, "dt", None),
        best_head=best_head,
        uniform=uniform,
        action_names=tuple(env.action_names) if hasattr(env, "action_names") else (),
        policy=policy,
        maps=maps,
        thing_names=() if columns["things"] is None else thing_names(env),
        thing_descriptions=() if columns["things"] is None else described,
    )
