"""The record of one episode in NumPy arrays, one row per step: frames, attention, actions, rewards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn.maps import AttentionGrid, AttentionMaps
from robot_attn.things import TARGET_ONLY

MAPS: dict[str, str] = {"attention": "attention", "causal": "causal map", "gradient": "gradient"}
"""Accepted values of `Episode.maps`, with their names in text."""
_NAME = re.compile(r"\w+(/\w+){0,2}")  # name of a part of the simulator's state


class EpisodeError(ValueError):
    """Arrays that do not form an episode, or a file that does not contain one."""


class Column(NamedTuple):
    """Name, dtype and shape of an array of an episode, which has one row per step.

    Attributes:
        name: name of the dataset in a file, in robomimic's convention.
        dtype: dtype of the array.
        axes: lengths of a row's axes: a number, or a name that stands for one length throughout the episode.
    """

    name: str
    dtype: type[np.generic]
    axes: tuple[str | int, ...]


COLUMNS: dict[str, Column] = {
    "actions": Column("actions", np.float32, ("A",)),
    "rewards": Column("rewards", np.float64, ()),
    "dones": Column("dones", np.bool_, ()),
    "states": Column("states", np.float64, ("D",)),
    "values": Column("values", np.float64, ()),
    "images": Column("obs/image", np.uint8, ("H", "W", 3)),
    "state": Column("obs/state", np.float32, ("S",)),
    "attention": Column("attention", np.float32, ("heads", "rows", "cols")),
    "target_masks": Column("target_mask", np.bool_, ("H", "W")),
    "things": Column("things", np.uint8, ("H", "W")),
}
"""The arrays of an episode by field name, in the order in which they are stored in a file."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps: row t holds the observation before action t, the action, and its reward.

    Raises:
        EpisodeError: arrays whose shapes, dtypes or values do not form an episode. The message has an array's
            name in a file (`COLUMNS`).
    """

    images: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    actions: NDArray[np.float32]
    """[T, A]."""
    rewards: NDArray[np.float64]
    """[T]."""
    dones: NDArray[np.bool_]
    """[T], True at the last step only; nowhere in a truncated file."""
    attention: NDArray[np.float32]
    """[T, heads, rows, cols], as returned by the policy, zeros and NaN included; heads is 0 if unknown."""
    grid: AttentionGrid
    """Positions of the cells of `attention` in the frames."""
    env_args: Mapping[str, Any]
    """Arguments that recreate the environment, `env_name` and `env_kwargs`; plain JSON."""
    seed: int
    """Seed of the episode's reset."""
    target_masks: NDArray[np.bool_] | None = None
    """[T, H, W], True on the target; None if unknown."""
    state: NDArray[np.float32] | None = None
    """[T, S] vector of the observation; None if it has none."""
    states: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """[T, D] state of the simulator; [T, 0] if the environment does not provide it."""
    simulator: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Every part of the environment's state, each [T, ...]; a name may contain up to two "/"."""
    success: bool | None = None
    """Whether the episode succeeded; None if the task does not define success."""
    dt: float | None = None
    """Seconds per step; None if unknown."""
    best_head: int = 0
    """Index of the head selected on calibration episodes."""
    uniform: bool = False
    """True if the attention is uniform by construction, as that of the control "cnn"."""
    action_names: tuple[str, ...] = ()
    """Names of the A action dimensions; empty if they have none."""
    policy: str = ""
    """Description of the policy, for the title of a replay."""
    values: NDArray[np.float64] | None = None
    """[T] return expected by the critic from each step on; None without a critic."""
    maps: str = "attention"
    """Kind of the maps in `attention`: "attention"; "causal", how much the action changes when pixels are
    removed; or "gradient" of the action."""
    cut: int | None = None
    """Number of steps of the whole episode, if its file was truncated to these; else None."""
    camera: str = ""
    """Name of the camera of `images` if the policy sees several; each has an episode of its frames."""
    other_cameras: tuple[str, ...] = ()
    """Names of the other cameras that the policy sees; empty if it sees one."""
    things: NDArray[np.uint8] | None = None
    """[T, H, W] index into `thing_names` of what each pixel shows; None if unknown."""
    thing_names: tuple[str, ...] = ()
    """Names of the labels in `things`, such as "backdrop", "target", "distractor 1"; empty without it."""
    thing_descriptions: tuple[str, ...] = ()
    """What the things look like, such as "red sphere", in the order of `thing_names`; "" for one that is not
    part of the episode."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or 0 in self.images.shape:
            raise EpisodeError(
                "expected obs/image [T, H, W, 3] with at least one step, got "
                f"{list(self.images.shape)}: stack RGB frames"
            )
        steps = len(self.images)
        if self.states.size == 0:
            object.__setattr__(self, "states", np.zeros((steps, 0)))
        rows, cols = self.grid.shape
        sides = {"H": self.images.shape[1], "W": self.images.shape[2], "rows": rows, "cols": cols}
        for name, column in COLUMNS.items():
            array: NDArray[Any] | None = getattr(self, name)
            expected = (steps, *(sides.get(axis) if isinstance(axis, str) else axis for axis in column.axes))
            if array is not None and (array.dtype != column.dtype or not _fits(array.shape, expected)):
                shown = [side if side is not None else "any" for side in expected]
                raise EpisodeError(
                    f"expected {column.name} {np.dtype(column.dtype)} {shown}, got {array.dtype} "
                    f"{list(array.shape)}: give one row per step"
                )
        if self.grid.image_size != self.image_size:
            raise EpisodeError(
                f"expected a grid in frames of {list(self.image_size)} pixels, as obs/image, got one in "
                f"frames of {list(self.grid.image_size)}: use `grid.resized`"
            )
        for name, array in self.simulator.items():
            if (
                array.ndim == 0
                or len(array) != steps
                or array.dtype.kind not in "biuf"
                or not _NAME.fullmatch(name)
            ):
                raise EpisodeError(
                    f"expected simulator/{name} with numbers [{steps}, ...] and a name of up to three words "
                    f"separated by '/', got {array.dtype} {list(array.shape)}"
                )
        self._check_things()
        last_head = max(self.attention.shape[1] - 1, 0)
        if not 0 <= self.best_head <= last_head:
            raise EpisodeError(f"expected best_head from 0 to {last_head}, got {self.best_head}")
        if self.cut is not None and self.cut <= steps:
            raise EpisodeError(
                f"expected cut to be more than the {steps} steps that are left, got {self.cut}: use None for "
                "a whole episode"
            )
        if self.maps not in MAPS:
            raise EpisodeError(f"expected maps to be one of {', '.join(MAPS)}, got {self.maps!r}")
        if self.action_names and len(self.action_names) != self.actions.shape[1]:
            raise EpisodeError(
                f"expected one name for each of {self.actions.shape[1]} action dimensions, got "
                f"{self.action_names}"
            )
        for name in ("actions", "rewards", "values"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise EpisodeError(
                    f"expected {name} of finite numbers, got NaN or infinity: check what computes them"
                )

    def _check_things(self) -> None:
        names, described = self.thing_names, self.thing_descriptions
        if bool(names) != (self.things is not None) or len(described) != len(names):
            raise EpisodeError(
                f"expected things, with a name and a description for each, or none of them, got "
                f"{'no' if self.things is None else 'the'} things, {len(names)} thing_names and "
                f"{len(described)} thing_descriptions"
            )
        if self.things is not None and int(self.things.max()) >= len(names):
            raise EpisodeError(
                f"expected things below {len(names)}, as there are thing_names, got {int(self.things.max())}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def attention_maps(self) -> AttentionMaps:
        """The attention [T, heads, rows, cols] with its grid."""
        return AttentionMaps(self.attention, self.grid)

    def mass_by_thing(self) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Compute the attention mass on each thing at every step.

        Returns:
            Names of the things, and mass float64 [T, heads, things] of sum 1 over the things, NaN where a map
            is not usable. Without `things` they are the backdrop and the target.

        Raises:
            ValueError: neither `things` nor `target_masks`.
        """
        if self.things is not None:
            return self.thing_names, self.attention_maps.mass_by_label(self.things, len(self.thing_names))
        if self.target_masks is None:
            raise ValueError(
                "expected an episode with things or target_masks, got neither: record it in an environment "
                "made with masks=True"
            )
        return TARGET_ONLY, self.attention_maps.mass_by_label(self.target_masks.astype(np.uint8), 2)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    return all(length is None or side == length for side, length in zip(shape, expected, strict=True))
