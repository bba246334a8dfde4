"""Verdicts on a policy's attention: figures, the thresholds that they are compared with, and outcomes.

The thresholds were fixed before anything was measured with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_attn.focus import FocusTotals
from robot_attn_policies.evaluation.statistics import Interval, bootstrap_interval, ratio_of_sums
from robot_attn_policies.probing.faithfulness import PIXEL_ABLATIONS, PixelAblation
from robot_attn_policies.probing.interventions import INTERVENTIONS, InterventionEffect
from robot_attn_policies.rollouts.protocols import Thing

Outcome: TypeAlias = Literal["yes", "no", "undecided"]

POINTING, OVER_CENTRE = 0.5, 2.0
"""Localised: in at least half of the frames in which the target is visible, the most-attended pixel is on it;
and the attention mass on the target is at least twice that of a centre-bias map."""
MAX_DELETION_RETURN, MIN_INSERTION_RETURN = 0.25, 0.85
"""Faithful, with returns on a scale from 0 (random policy) to 1 (no ablation): at most 0.25 with the
most-attended pixels deleted, and at least 0.85 with only those kept, or with as many others deleted."""
SHARE_OF_CHANGE = 0.75
"""Causally specific: an intervention on the target changes actions and attention at least three times as much
as the same one on a distractor, so that three quarters of both changes are due to the target. In at least
half of the frames the most-attended pixel is on the target after it was moved."""
MAX_RANK_CORRELATION = 0.5
"""Weight-dependent: largest rank correlation between the policy's maps and those of random weights (parameter
randomisation: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""


@dataclass(frozen=True)
class Check:
    """A figure, and the threshold that was fixed before it was measured.

    Attributes:
        text: what the figure is.
        figure: its value and confidence interval.
        limit: the threshold.
        at_least: True if the figure must be at least the threshold, False if at most.
    """

    text: str
    figure: Interval
    limit: float
    at_least: bool

    @property
    def outcome(self) -> Outcome:
        """Return "yes" or "no" if the whole interval is on one side of the limit, else "undecided"."""
        low, high = (
            (self.figure.low, self.figure.high) if self.at_least else (-self.figure.high, -self.figure.low)
        )
        limit = self.limit if self.at_least else -self.limit
        return "yes" if low >= limit else "no" if high < limit else "undecided"

    def __str__(self) -> str:
        value, low, high = self.figure
        required = f"at {'least' if self.at_least else 'most'} {self.limit:g} required"
        return f"{self.text}: {value:.2f} [{low:.2f}, {high:.2f}], {required}: {self.outcome}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a test, with its checks.

    Attributes:
        question: name of the test.
        checks: the checks that decide it.
    """

    question: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """Return "no" if a check fails, "undecided" if one is undecided or there are none, else "yes"."""
        outcomes = {check.outcome for check in self.checks} or {"undecided"}
        return "no" if "no" in outcomes else "undecided" if "undecided" in outcomes else "yes"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks whose outcome is not "yes"."""
        return tuple(check for check in self.checks if check.outcome != "yes")

    def __str__(self) -> str:
        return "\n".join([f"{self.question}: {self.outcome}", *(f"- {check}" for check in self.checks)])


def judge_focus(focus: FocusTotals) -> Verdict:
    """Judge whether attention is localised on the target, from `PixelAblation.focus`."""
    pointing = bootstrap_interval(np.stack(focus.pointing(0), axis=1), ratio_of_sums)
    over = bootstrap_interval(np.stack(focus.mass_over(0, 1), axis=1), ratio_of_sums)
    return Verdict(
        "Localised",
        (
            Check("share of the frames whose most-attended pixel is on the target", pointing, POINTING, True),
            Check("attention mass on the target, relative to a centre-bias map", over, OVER_CENTRE, True),
        ),
    )


def judge_faithfulness(ablation: PixelAblation, mediation: Sequence[Check] = ()) -> Verdict:
    """Judge whether the return depends on the attended pixels.

    A policy whose return does not exceed that of random actions is not tested further: there is no return to
    lose.

    Args:
        ablation: the pixel ablation.
        mediation: further checks, of actions and returns with the attention weights forced.
    """
    gain = Check("return above the random policy's", ablation.gain, 0.0, True)
    if gain.figure.value <= 0:
        return Verdict("Faithful (deletion and insertion)", (gain,))
    limits = {
        "deleted": (MAX_DELETION_RETURN, False),
        "kept": (MIN_INSERTION_RETURN, True),
        "random": (MIN_INSERTION_RETURN, True),
        "centred": (MIN_INSERTION_RETURN, True),
    }
    return Verdict(
        "Faithful (deletion and insertion)",
        (
            gain,
            *(
                Check(
                    f"share of the return that remains with {PIXEL_ABLATIONS[name]}",
                    ablation.normalised_return(name),
                    limit,
                    at_least,
                )
                for name, (limit, at_least) in limits.items()
            ),
            *mediation,
        ),
    )


def judge_interventions(effects: Mapping[tuple[Thing, str], InterventionEffect]) -> Verdict:
    """Judge whether actions and attention respond to the target and not to distractors."""
    checks = []
    for edit in INTERVENTIONS:
        target, distractor = effects["target", edit], effects["distractor", edit]
        for name, target_change, distractor_change in (
            ("action", target.action, distractor.action),
            ("attention", target.attention, distractor.attention),
        ):
            rows = np.stack([target_change, target.frames, distractor_change, distractor.frames], axis=1)
            text = (
                f"change in {name} with the target {edit}, as a share of the sum over target and distractor"
            )
            checks.append(Check(text, bootstrap_interval(rows, _share_of_change), SHARE_OF_CHANGE, True))
    moved = effects["target", "moved"]
    found = bootstrap_interval(np.stack([moved.hits, moved.frames], axis=1), ratio_of_sums)
    text = "share of the frames whose most-attended pixel is on the target where it was moved to"
    return Verdict(
        "Causally specific (interventions in the simulator)", (*checks, Check(text, found, POINTING, True))
    )


def judge_weights(correlation: Interval) -> Verdict:
    """Judge whether the maps depend on the learned weights.

    Args:
        correlation: rank correlation of the maps with those of random weights, in [-1, 1].
    """
    text = "rank correlation of the maps with those of random weights"
    return Verdict(
        "Weight-dependent (parameter randomisation)", (Check(text, correlation, MAX_RANK_CORRELATION, False),)
    )


def _share_of_change(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Share of the first of two ratios in their sum; 0.5 if both are 0.

    Args:
        rows: [..., 4], numerators and denominators of the two ratios, to be summed over `axis`.
        axis: axis of the episodes.
    """
    ours, theirs = ratio_of_sums(rows[..., :2], axis), ratio_of_sums(rows[..., 2:], axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ours + theirs == 0, 0.5, ours / (ours + theirs))
