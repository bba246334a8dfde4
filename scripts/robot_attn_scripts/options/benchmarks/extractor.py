"""Options of `robot-attn benchmark extractor`."""

from __future__ import annotations

from dataclasses import dataclass

from robot_attn_scripts.options import _groups
from robot_attn_scripts.options._groups import Checked, Output


@dataclass(frozen=True)
class Amount:
    """How much to measure."""

    batches: tuple[int, ...] = (64, 512)
    """Frames in a batch."""
    rounds: int = 15
    """Repetitions of each measurement, at each batch size."""
    decisions: int = 500
    """Observations that each policy acts on, one at a time."""


@dataclass(frozen=True)
class Options(Amount, Output, Checked):
    """The cost of each perception family, beside Stable-Baselines3's NatureCNN, on one thread.

    Forward and backward passes, attention maps included, are timed on the same frames for all peers: 64 x 64
    RGB, floats in [0, 1], as SB3 passes them to NatureCNN. Each measurement of a family directly follows one
    of NatureCNN in the same process and is divided by it; the median of these ratios is shown. A decision is
    one call of the policy's `predict` with NumPy arrays, on one observation of the Track task.
    """

    def check(self) -> None:
        _groups.check_some(self, "batches")
        _groups.check_range(self, ("batches",), 1, 1 << 14)
        _groups.check_range(self, ("rounds", "decisions"), 1)
