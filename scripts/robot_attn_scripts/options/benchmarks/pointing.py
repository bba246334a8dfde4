"""What `robot-attn benchmark pointing` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from robot_attn_scripts import _choices
from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output, default

Supervision = Literal["map", "position"]

SEEDS = 1_000_000
"""Seeds, a world each, that each split of the frames has to itself."""


@dataclass(frozen=True)
class Amount:
    """What to train, and for how long."""

    families: Annotated[
        tuple[str, ...],
        default("all", metavar="FAMILY ...", help=f"Families to train: {', '.join(_choices.families())}."),
    ] = ()
    supervise: tuple[Supervision, ...] = ("map", "position")
    """What the loss is of: attention mass on the target and its position, or its position alone."""
    seconds: float = 180.0
    """Seconds of one core that each training takes at most, its validation included."""
    train_worlds: int = 1024
    """Worlds of the training frames; each gives about ten."""
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
    held-out worlds. They are taken from episodes in which the oracle steers with an error, sampled for
    every frame, so that the target is anywhere in the frame, with at least 8 of its pixels
    visible. Each family trains for so many seconds of one core, and is supervised in two ways:

    - `map`: the loss is -log of the attention's mass on the target, for the head with the most of it in
      the minibatch, plus the squared error of the target's position, which a linear layer reads from the
      features;
    - `position`: that squared error alone, so that the attention map is not supervised.

    Hits are those of the pointing game: the share of the map's maximum, spread over the frame, that lies on
    the target. A cell of the map covers several pixels, and a target that is partly hidden or at the edge
    is often smaller: the ceiling is what a map would hit that always chose the best cell. Within 1 px, the
    pixels next to the target are hits too. Before training, the best of a family's heads may do well
    already: among random maps, one that red stands out in. Validation chooses the head, the state of the
    weights, and when to stop; the test frames only say how good they are. A family whose attention is
    uniform hits by chance, whatever it learns: compare its position error alone.
    """

    def check(self) -> None:
        for family in self.families:
            _choices.check_name("perception family", family, _choices.families(), owner="robot_attn")
        _groups.check_some(self, "supervise")
        _groups.check_range(self, ("seconds",), 0.001)
        _groups.check_range(self, ("train_worlds", "validation_worlds", "test_worlds"), 1, SEEDS)
        _groups.check_seeds(self.seed)
