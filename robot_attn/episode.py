"""The record of one episode, as NumPy arrays: frames, attention, actions and rewards, a row a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_attn.maps import AttentionGrid, AttentionMaps

MAPS = ("attention", "gradient")
"""What the maps of an episode may be."""
_NAME = re.compile(r"\w+(/\w+){0,2}")  # of a part of the simulator's state


class EpisodeError(ValueError):
    """Arrays that do not form an episode, or a file without one; the message is one sentence."""


class Column(NamedTuple):
    """How an array of an episode is stored: a row a step."""

    name: str
    """Of the data set in a file, in robomimic's convention."""
    dtype: type[np.generic]
    axes: tuple[str | int, ...]
    """Of a row: a number, or a letter that stands for any, the same wherever it occurs."""


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
}
"""The arrays of an episode by the name of their field, in the order of a file."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps: row t holds the observation before action t, that action, and its reward.

    Raises:
        EpisodeError: a shape or dtype that does not fit; the message names the array as a file does.
    """

    images: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""
    actions: NDArray[np.float32]
    """[T, A]."""
    rewards: NDArray[np.float64]
    """[T]."""
    dones: NDArray[np.bool_]
    """[T], True at the last step alone; nowhere in an episode that was cut."""
    attention: NDArray[np.float32]
    """[T, heads, rows, cols], as the policy gave it, zeros and NaN too; no heads where not known."""
    grid: AttentionGrid
    """Where the cells of `attention` lie in the frames."""
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
    """Every part of the environment's state, each [T, ...]; a name may hold two "/"."""
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
    values: NDArray[np.float64] | None = None
    """[T] the return that the policy expected from each step on, where it says so."""
    maps: str = "attention"
    """What `attention` holds: "attention", or "gradient" where the policy has none."""
    cut: int | None = None
    """How many steps the whole episode had, where its file was cut and these are the first of them."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or 0 in self.images.shape:
            raise EpisodeError(f"obs/image should be [T, H, W, 3], is {list(self.images.shape)}")
        steps = len(self.images)
        if self.states.size == 0:
            object.__setattr__(self, "states", np.zeros((steps, 0)))
        rows, cols = self.grid.shape
        sides = {"H": self.images.shape[1], "W": self.images.shape[2], "rows": rows, "cols": cols}
        for name, column in COLUMNS.items():
            array: NDArray[Any] | None = getattr(self, name)
            wanted = (steps, *(sides.get(axis) if isinstance(axis, str) else axis for axis in column.axes))
            if array is not None and (array.dtype != column.dtype or not _fits(array.shape, wanted)):
                shown = [side if side is not None else "any" for side in wanted]
                raise EpisodeError(
                    f"{column.name} should be {np.dtype(column.dtype)} {shown}, is {array.dtype} "
                    f"{list(array.shape)}"
                )
        if self.grid.image_size != self.image_size:
            raise EpisodeError(
                f"its grid lies in frames of {list(self.grid.image_size)} pixels, obs/image in frames of "
                f"{list(self.image_size)}"
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
        if not 0 <= self.best_head < max(self.attention.shape[1], 1):
            raise EpisodeError(f"there is no head {self.best_head} in attention {list(self.attention.shape)}")
        if self.cut is not None and self.cut <= steps:
            raise EpisodeError(f"an episode that was cut had more than its {steps} steps, got {self.cut}")
        if self.maps not in MAPS:
            raise EpisodeError(f"maps are one of {', '.join(MAPS)}, got {self.maps!r}")
        if self.action_names and len(self.action_names) != self.actions.shape[1]:
            raise EpisodeError(f"{self.actions.shape[1]} action dimensions, but names {self.action_names}")
        for name in ("actions", "rewards", "values"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise EpisodeError(f"{name} holds numbers that are NaN or infinite")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def attention_maps(self) -> AttentionMaps:
        """[T, heads, rows, cols] the attention, and where it lies."""
        return AttentionMaps(self.attention, self.grid)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))
