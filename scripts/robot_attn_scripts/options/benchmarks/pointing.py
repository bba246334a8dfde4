"""Options of `robot-attn benchmark pointing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, default

Supervision = Literal["map", "position"]

SEEDS = 1_000_000
"""Number of seeds, one per world, that are reserved for each split of the frames."""


@dataclass(frozen=True)
class Amount:
    """Families, supervision and budget."""

    families: Annotated[
        tuple[str, ...],
        default("all", metavar="FAMILY ...", help=f"Families to train: {', '.join(_choices.families())}."),
    ] = ()
    supervise: tuple[Supervision, ...] = ("map", "position")
    """Loss: attention mass on the target and its position, or its position alone."""
    seconds: float = 180.0
    """Largest time of each training, in seconds of one core, validation included."""
    train_worlds: int = 1024
    """Worlds of the training frames, with about ten frames each."""
    validation_worlds: int = 64
    """Worlds of the validation frames."""
    test_worlds: int = 128
    """Worlds of the test frames."""
    seed: int = 0
    """Seed of weights and minibatches."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """Pointing game of each perception family, trained with supervision to find the target among distractors.

    Frames are rendered once, from Track, and shared by all families; validation and test frames come from
    held-out worlds. They are from episodes of the oracle with a random error for every frame, so that the
    target can be anywhere in the frame. At least 8 of its pixels are visible. Each family is trained for the
    same time on one core, with two kinds of supervision:

    - `map`: the loss is -log of the attention mass on the target, for the head with the largest mass in the
      minibatch, plus the squared error of the target's position, which a linear layer predicts from the
      features;
    - `position`: that squared error alone, so that the attention map is not supervised.

    A hit, as in the pointing game, is a frame in which the maximum of the upsampled map lies on the target. A
    cell of the map covers several pixels, and a target that is partly hidden or at the edge is often smaller:
    the ceiling is the share of hits of a map that always chooses the best cell. Within 1 px, pixels next to
    the target count too. Before training, the best of a family's heads may score well already, if red stands
    out in its random map. Validation chooses the head, the checkpoint, and when to stop; the test frames are
    used for the figures only. A family with uniform attention hits by chance: compare its position error
    alone.
    """

    def check(self) -> None:
        for family in self.families:
            _choices.check_name("perception family", family, _choices.families(), owner="robot_attn")
        _groups.check_some(self, "supervise")
        _groups.check_range(self, ("seconds",), 0.001)
        _groups.check_range(self, ("train_worlds", "validation_worlds", "test_worlds"), 1, SEEDS)
        _groups.check_seeds(self.seed)
