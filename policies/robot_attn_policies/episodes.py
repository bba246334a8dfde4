"""Episodes as HDF5 files, lossless, in robomimic's convention, with what the policy looked at.

    data                          attrs: total, env_args (JSON), robot_attn_format, robot_attn_versions (JSON)
    data/demo_0                   attrs: num_samples, seed, success, dt, best_head, uniform, action_names,
    sha256 actions                   float32 (T, A) rewards                   float64 (T,) dones
    bool    (T,) states                    float64 (T, D)            the simulator's state before each action
    simulator/<name>          (T, ...)                  all of the environment's state, for `set_state`
    obs/image                 uint8   (T, H, W, 3)      what the policy saw obs/state                 float32
    (T, S)            absent where the task gives none attention                 float32 (T, heads, rows,
    cols) token_centers/ys, xs      float32 (rows,), (cols,)  in pixels of the frame target_mask
    bool    (T, H, W)         absent where it is not known

`sha256` covers the arrays and the attributes, so that a damaged file is refused and not drawn. Reading runs
no code, follows no link out of the file, and allocates nothing that the file is too small to hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robot_attn._files import replacing
from robot_attn_policies.evaluate import Actor, Cells, Observation, Step, rollout_episodes

FORMAT = 1
_DEMO = "data/demo_0"
_NAME = re.compile(r"\w+(/\w+)?")  # of a part of the simulator's state
_DEEPEST = 2  # simulator/<name>/<name>
_MOST_PACKED = 1100  # deflate packs at most 1032 bytes into one


class EpisodeError(ValueError):
    """A file that is not a whole episode of ours; the message is one sentence."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps: step t is what was seen before action t, that action, and its reward."""

    images: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    actions: NDArray[np.float32]
    """[T, A]."""
    rewards: NDArray[np.float64]
    """[T]."""
    dones: NDArray[np.bool_]
    """[T], True at the last step alone."""
    attention: NDArray[np.float32]
    """[T, heads, rows, cols]."""
    ys: NDArray[np.float32]
    """[rows] token centres in pixels."""
    xs: NDArray[np.float32]
    """[cols] token centres in pixels."""
    env_args: Mapping[str, Any]
    """What makes the environment again: `env_name`, `env_kwargs`; plain JSON."""
    seed: int
    target_masks: NDArray[np.bool_] | None = None
    """[T, H, W], True on the target."""
    state: NDArray[np.float32] | None = None
    """[T, S] the observation's vector."""
    states: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """[T, D] the simulator's state; [T, 0] where the environment does not give it."""
    simulator: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Every part of the environment's state, each [T, ...]; a name may hold one "/"."""
    success: bool | None = None
    dt: float | None = None
    """Seconds a step."""
    best_head: int = 0
    """The head chosen on calibration episodes."""
    uniform: bool = False
    """The attention says nothing, as that of the control "cnn"."""
    action_names: tuple[str, ...] = ()
    policy: str = ""
    """What acted, for the title of a replay."""

    def __post_init__(self) -> None:
        """Check that the arrays belong together.

        Raises:
            EpisodeError: a shape or dtype that does not fit; the message names it.
        """
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or 0 in self.images.shape:
            raise EpisodeError(f"obs/image should be [T, H, W, 3], is {list(self.images.shape)}")
        steps, height, width, _ = self.images.shape
        if self.states.size == 0:
            object.__setattr__(self, "states", np.zeros((steps, 0)))
        rows, cols = self.ys.shape, self.xs.shape
        heads = self.attention.shape[1:2]
        checks: list[tuple[str, NDArray[Any] | None, type, tuple[int | None, ...]]] = [
            ("obs/image", self.images, np.uint8, (steps, height, width, 3)),
            ("actions", self.actions, np.float32, (steps, None)),
            ("rewards", self.rewards, np.float64, (steps,)),
            ("dones", self.dones, np.bool_, (steps,)),
            ("attention", self.attention, np.float32, (steps, *heads, *rows, *cols)),
            ("token_centers/ys", self.ys, np.float32, (None,)),
            ("token_centers/xs", self.xs, np.float32, (None,)),
            ("target_mask", self.target_masks, np.bool_, (steps, height, width)),
            ("obs/state", self.state, np.float32, (steps, None)),
            ("states", self.states, np.float64, (steps, None)),
        ]
        for name, array, dtype, shape in checks:
            if array is not None and (array.dtype != dtype or not _fits(array.shape, shape)):
                wanted = [side if side is not None else "any" for side in shape]
                raise EpisodeError(
                    f"{name} should be {np.dtype(dtype)} {wanted}, is {array.dtype} {list(array.shape)}"
                )
        for name, array in self.simulator.items():
            if (
                array.ndim == 0
                or len(array) != steps
                or array.dtype.kind not in "biuf"
                or not _NAME.fullmatch(name)
            ):
                raise EpisodeError(
                    f"simulator/{name} should hold numbers [{steps}, ...], is {list(array.shape)}"
                )
        if self.attention.ndim != 4 or not 0 <= self.best_head < self.attention.shape[1]:
            raise EpisodeError(f"there is no head {self.best_head} in attention {list(self.attention.shape)}")
        if self.action_names and len(self.action_names) != self.actions.shape[1]:
            raise EpisodeError(f"{self.actions.shape[1]} action dimensions, but names {self.action_names}")
        for name, array in (
            ("attention", self.attention),
            ("actions", self.actions),
            ("rewards", self.rewards),
        ):
            if not np.isfinite(array).all():
                raise EpisodeError(f"{name} holds numbers that are NaN or infinite")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.images.shape[1], self.images.shape[2]


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))


def _arrays(episode: Episode) -> dict[str, NDArray[Any]]:
    named: dict[str, NDArray[Any] | None] = {
        "actions": episode.actions,
        "rewards": episode.rewards,
        "dones": episode.dones,
        "states": episode.states,
        "obs/image": episode.images,
        "obs/state": episode.state,
        "attention": episode.attention,
        "token_centers/ys": episode.ys,
        "token_centers/xs": episode.xs,
        "target_mask": episode.target_masks,
        **{f"simulator/{name}": array for name, array in episode.simulator.items()},
    }
    return {name: array for name, array in named.items() if array is not None}


def _attributes(episode: Episode) -> dict[str, Any]:
    """The attributes of a demo as JSON values, so that what is hashed is what is read back."""
    return {
        "num_samples": len(episode),
        "seed": episode.seed,
        "success": episode.success,
        "dt": episode.dt,
        "best_head": episode.best_head,
        "uniform": episode.uniform,
        "action_names": list(episode.action_names),
        "policy": episode.policy,
        "env_args": json.dumps(episode.env_args, sort_keys=True),
    }


def _digest(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'episodes need h5py, which is not installed; run pip install "robot-attn[video]"', name=error.name
        ) from error
    return h5py


def save_episode(
    path: str | os.PathLike[str], episode: Episode, versions: Mapping[str, str] | None = None
) -> None:
    """Write an episode; the file appears whole, under its name, or not at all.

    Args:
        path: where to.
        episode: what to write.
        versions: of the libraries that made it, for the record.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = _h5py()
    arrays, attributes = _arrays(episode), _attributes(episode)
    # Made in memory and written by us: on a full disk HDF5 aborts the process and leaves half a file.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = len(episode)
        data.attrs["env_args"] = attributes["env_args"]
        data.attrs["robot_attn_format"] = FORMAT
        data.attrs["robot_attn_versions"] = json.dumps(dict(versions or {}), sort_keys=True)
        demo = file.create_group(_DEMO)
        demo.attrs["num_samples"] = len(episode)
        demo.attrs["robot_attn"] = json.dumps({**attributes, "sha256": _digest(arrays, attributes)})
        demo.attrs["seed"] = episode.seed  # beside the JSON, for readers of robomimic's convention
        for name, array in arrays.items():
            packed = {"compression": "gzip", "compression_opts": 4} if array.size > 0 else {}
            demo.create_dataset(name, data=array, **packed)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_episode(path: str | os.PathLike[str]) -> Episode:
    """Read an episode that `save_episode` wrote, checking all of it.

    Raises:
        EpisodeError: not HDF5, truncated, damaged, another format version, a part missing or of the wrong
        shape.
        OSError: no such file, or it cannot be read.
        ModuleNotFoundError: h5py is not installed.
    """
    h5py = _h5py()
    source = Path(path)
    with source.open("rb") as file:
        if not file.read(1):
            raise EpisodeError(f"{source} is empty")
    if not h5py.is_hdf5(source):
        raise EpisodeError(f"{source} is not an HDF5 file, or its beginning is damaged")
    try:
        with h5py.File(source, "r") as file:
            return _read(h5py, file, source.stat().st_size)
    except EpisodeError as error:
        raise EpisodeError(f"{source}: {error}") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        # h5py raises any of these for a file whose inside is damaged.
        raise EpisodeError(f"{source} is damaged or truncated: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(h5py: Any, file: Any, file_size: int) -> Episode:
    if "data" not in file or "robot_attn_format" not in file["data"].attrs:
        raise EpisodeError("this HDF5 file holds no episode of robot-attn: it has no data/robot_attn_format")
    version = file["data"].attrs["robot_attn_format"]
    if version != FORMAT:
        raise EpisodeError(
            f"written in format {version}, this version reads format {FORMAT}; update robot-attn"
        )
    if _DEMO not in file:
        raise EpisodeError(f"{_DEMO} is missing")
    demo = file[_DEMO]
    attributes = json.loads(demo.attrs["robot_attn"])
    if not isinstance(attributes, dict):
        raise EpisodeError("its attributes are not what robot-attn writes")
    digest = attributes.pop("sha256", None)
    arrays: dict[str, NDArray[Any]] = {}
    budget = _MOST_PACKED * file_size

    def read(group: Any, prefix: str) -> None:
        nonlocal budget
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise EpisodeError(f"{prefix}{name} is a link to elsewhere, which is never followed")
            item = group[name]
            if isinstance(item, h5py.Group):
                if prefix.count("/") >= _DEEPEST:
                    raise EpisodeError(f"{prefix}{name} is a group where only arrays belong")
                read(item, f"{prefix}{name}/")
                continue
            if item.is_virtual or item.external is not None:
                raise EpisodeError(f"{prefix}{name} keeps its numbers in another file, which is never opened")
            if item.dtype.kind not in "biuf" or item.dtype.names:
                raise EpisodeError(f"{prefix}{name} holds {item.dtype}, not plain numbers")
            filters = item.id.get_create_plist()
            if any(
                filters.get_filter(i)[0] != h5py.h5z.FILTER_DEFLATE for i in range(filters.get_nfilters())
            ):
                raise EpisodeError(
                    f"{prefix}{name} is packed by a plug-in, which is never loaded; only gzip is"
                )
            size = math.prod(item.shape) * item.dtype.itemsize
            budget -= size
            if budget < 0:
                raise EpisodeError(f"{prefix}{name} claims {size} bytes, more than this file can hold")
            arrays[f"{prefix}{name}"] = item[()]

    read(demo, "")
    for name in ("actions", "rewards", "dones", "states", "obs/image", "attention"):
        if name not in arrays:
            raise EpisodeError(f"{name} is missing")
    for name in ("token_centers/ys", "token_centers/xs"):
        if name not in arrays:
            raise EpisodeError(f"{name} is missing")
    steps = len(arrays["obs/image"])
    if attributes.get("num_samples") != steps or int(demo.attrs["num_samples"]) != steps:
        raise EpisodeError(f"it should have {attributes.get('num_samples')} steps and has {steps}")
    if digest != _digest(arrays, attributes):
        raise EpisodeError("its content does not match its checksum: it was damaged or edited")
    names = attributes["action_names"]
    return Episode(
        images=arrays["obs/image"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        dones=arrays["dones"],
        attention=arrays["attention"],
        ys=arrays["token_centers/ys"],
        xs=arrays["token_centers/xs"],
        env_args=json.loads(attributes["env_args"]),
        seed=int(attributes["seed"]),
        target_masks=arrays.get("target_mask"),
        state=arrays.get("obs/state"),
        states=arrays["states"],
        simulator={name[10:]: array for name, array in arrays.items() if name.startswith("simulator/")},
        success=attributes["success"],
        dt=attributes["dt"],
        best_head=int(attributes["best_head"]),
        uniform=bool(attributes["uniform"]),
        action_names=tuple(str(name) for name in names),
        policy=str(attributes["policy"]),
    )


def record_episode(
    act: Actor,
    env: Any,
    seed: int,
    cells: Cells,
    *,
    env_args: Mapping[str, Any],
    image: str = "image",
    best_head: int = 0,
    uniform: bool = False,
    policy: str = "",
    watch: Callable[[Step], None] | None = None,
) -> Episode:
    """Play the episode of `seed` in a batch of one environment, and keep all of it.

    The environment's state is kept where it has `get_state()`; its `action_names` and `dt` likewise. Of
    observations that are a dict the entry `image` is the frames. Actions are kept flat, one-hot where
    discrete.

    Raises:
        ValueError: as `rollout_episodes`; a batch of several environments; or no attention, or no frames, to
        record.
    """
    if env.num_envs != 1:
        raise ValueError(f"an episode is recorded in a batch of one environment, got {env.num_envs}")
    steps: list[dict[str, Any]] = []
    simulator: list[Mapping[str, NDArray[Any]]] = []

    def act_and_remember(observation: Observation) -> tuple[NDArray[Any], Any]:
        if hasattr(env, "get_state"):
            simulator.append({name: np.array(part) for name, part in env.get_state().items()})
        return act(observation)

    def see(step: Step) -> None:
        if step.percept is None:
            raise ValueError("the policy gave no attention to record; give an actor that returns a Percept")
        vectors = step.observation if isinstance(step.observation, Mapping) else {image: step.observation}
        if image not in vectors:
            raise ValueError(f"expected an observation with {image!r}, got the entries {sorted(vectors)}")
        action = gymnasium.spaces.flatten(env.single_action_space, step.actions[0])
        steps.append(
            {
                "images": np.array(vectors[image][0]),
                "state": np.ravel(vectors["state"][0]).astype(np.float32) if "state" in vectors else None,
                "actions": np.array(action, dtype=np.float32),
                "rewards": float(step.rewards[0]),
                "dones": bool(step.done[0]),
                "attention": step.percept.attention.numpy(force=True)[0].astype(np.float32),
                "target_masks": np.array(step.info["target_mask"][0]) if "target_mask" in step.info else None,
            }
        )
        if watch is not None:
            watch(step)

    rollouts = rollout_episodes(act_and_remember, env, [seed], watch=see)

    def column(name: str) -> Any:
        return None if steps[0][name] is None else np.stack([step[name] for step in steps])

    parts = {name: np.stack([row[name] for row in simulator]) for name in (simulator[0] if simulator else ())}
    physics = parts.get("physics")
    return Episode(
        images=column("images"),
        state=column("state"),
        actions=column("actions"),
        rewards=column("rewards").astype(np.float64),
        dones=column("dones"),
        attention=column("attention"),
        ys=cells.ys,
        xs=cells.xs,
        env_args=dict(env_args),
        seed=seed,
        target_masks=column("target_masks"),
        states=np.zeros((0, 0)) if physics is None else physics.reshape(len(steps), -1).astype(np.float64),
        simulator=parts,
        success=None if rollouts.successes is None else bool(rollouts.successes[0]),
        dt=getattr(env, "dt", None),
        best_head=best_head,
        uniform=uniform,
        action_names=tuple(env.action_names) if hasattr(env, "action_names") else (),
        policy=policy,
    )
