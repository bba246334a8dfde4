"""Verdicts on a policy's attention: figures, the thresholds that they are compared with, and outcomes.

A verdict is wrong in at most 5 % of the cases, whatever the number of looks at growing data: "yes" needs all
of its checks, so each may be wrong with the whole 5 % (an intersection-union test, Berger 1982,
https://doi.org/10.1080/00401706.1982.10487790); "no" needs one of them, so they share the 5 %. An interval's
two ends therefore hold with different probabilities. Fewer than `MIN_EPISODES` episodes decide nothing.

The thresholds were chosen by reasoning, before anything was measured with them, but for `MIN_MEDIATED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_attn_policies.evaluation.sequential import MIN_EPISODES, jackknife_interval
from robot_attn_policies.evaluation.statistics import Interval, Statistic, mean, ratio_of_sums
from robot_attn_policies.probing.faithfulness import PIXEL_ABLATIONS, PixelAblation
from robot_attn_policies.probing.interventions import INTERVENTIONS, InterventionEffect
from robot_attn_policies.probing.localisation import Localisation
from robot_attn_policies.rollouts.protocols import Thing

if TYPE_CHECKING:  # it imports the report, which has verdicts
    from robot_attn_policies.probing.mediation import Mediation

Outcome: TypeAlias = Literal["yes", "no", "undecided"]

ERROR = 0.05
"""Probability with which a verdict may be wrong."""
POINTING = 0.5
"""Localised: the most-attended pixel is on the target in at least half of the frames in which it is visible,
and in half of those in which it is off its usual place, more often than its average place is."""
MIN_DELAY = 1.5
"""A map is late if the interval of its delay begins at this many steps: a delay of one is that of the control
loop of a policy that acts on the frame before."""
MAX_DELETION_RETURN, MIN_INSERTION_RETURN = 0.25, 0.85
"""Faithful, with returns on a scale from 0 (random policy) to 1 (no ablation): at most 0.25 with the
most-attended pixels deleted, and at least 0.85 with only those kept, or with as many others deleted."""
SHARE_OF_CHANGE = 0.75
"""Causally specific: an intervention on the target changes actions and attention at least three times as much
as the same one on a distractor, so that three quarters of both changes are due to the target. In at least
half of the frames the most-attended pixel is on the target after it was moved."""
MIN_MEDIATED, MIN_SHOWN = 0.25, 0.5
"""Faithful, with forced attention: at least a quarter of the change in action by another frame is lost if the
attention is held, since otherwise more than three quarters pass by another way; not more than a quarter,
since what is read at the held places changes with the frame too. At least half of the change in the shown map
is lost, since otherwise the map does not stand for the attention that is held. With the attention of other
frames in every step, less than `MIN_INSERTION_RETURN` of the return remains: at that share, other pixels do
not matter either.

`MIN_MEDIATED` was a half at first, and was lowered when a trained policy had 0.55 [0.46, 0.74]. A map that is
only shown has 0."""
MAX_RANK_CORRELATION = 0.5
"""Weight-dependent: largest rank correlation between the policy's maps and those of random weights (parameter
randomisation: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292)."""

QUESTIONS: dict[str, str] = {
    "focus": "Localised",
    "faithful": "Faithful (deletion and insertion)",
    "interventions": "Causally specific (interventions in the simulator)",
    "weights": "Weight-dependent (parameter randomisation)",
}
"""The question of each verdict, by the name of its section."""
NOTHING_TO_LOSE = "its return is not above that of random actions, so there is nothing to lose"
NEVER_VISIBLE = "the target was never visible"
NOT_FORCED = "its attention could not be forced, so whether the shown map decides is not known"
NO_FRAMES = "no frame counted for interventions on the "


@dataclass(frozen=True)
class Check:
    """A figure, and the threshold that was fixed before it was measured.

    Attributes:
        text: what the figure is.
        figure: its value and confidence interval.
        limit: the threshold.
        at_least: True if the figure must be at least the threshold, False if at most.
        reason: why it stays undecided whatever the interval; empty if the interval decides.
        failure: what is wrong if it fails, as the end of a sentence on the policy's attention.
    """

    text: str
    figure: Interval
    limit: float
    at_least: bool
    reason: str = ""
    failure: str = ""

    @property
    def outcome(self) -> Outcome:
        """Return "yes" or "no" if the whole interval is on one side of the limit, else "undecided"."""
        if self.reason:
            return "undecided"
        low, high = (
            (self.figure.low, self.figure.high) if self.at_least else (-self.figure.high, -self.figure.low)
        )
        limit = self.limit if self.at_least else -self.limit
        return "yes" if low >= limit else "no" if high < limit else "undecided"

    def __str__(self) -> str:
        value, low, high = self.figure
        required = f"at {'least' if self.at_least else 'most'} {self.limit:g} required"
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.text}: {value:.2f} [{low:.2f}, {high:.2f}], {required}: {self.outcome}{why}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a test, with its checks.

    Attributes:
        question: name of the test.
        checks: the checks that decide it.
        qualifiers: what else is to be said of the map, such as "with a delay of 10 steps".
        reason: why it stays undecided whatever the checks; empty if they decide.
    """

    question: str
    checks: tuple[Check, ...]
    qualifiers: tuple[str, ...] = ()
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        """Return "no" if a check fails, "undecided" if one is undecided or there are none, else "yes"."""
        outcomes = {check.outcome for check in self.checks} or {"undecided"}
        if self.reason:
            return "undecided"
        return "no" if "no" in outcomes else "undecided" if "undecided" in outcomes else "yes"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks whose outcome is not "yes"."""
        return tuple(check for check in self.checks if check.outcome != "yes")

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        lines = [f"{self.question}: {self.outcome}{why}", *self.qualifiers, *map(str, self.checks)]
        return "\n- ".join(lines)


@dataclass(frozen=True)
class _Figure:
    """What a check is made from: rows of a statistic, one per episode."""

    text: str
    rows: ArrayLike
    statistic: Statistic
    support: tuple[float, float]
    limit: float
    at_least: bool = True
    failure: str = ""
    every: bool = False  # whether an episode whose rows are 0 counts: it shows something

    def check(self, error: float, checks: int) -> Check:
        """Compute the interval: one end decides a yes; the other, of this or another check, a no."""
        rows = np.asarray(self.rows, np.float64)
        to_yes, to_no = error, error / checks
        interval = jackknife_interval(
            rows,
            self.statistic,
            support=self.support,
            error_low=to_yes if self.at_least else to_no,
            error_high=to_no if self.at_least else to_yes,
        )
        counted = len(rows) if self.every else int(np.count_nonzero(rows.any(axis=1)))
        return Check(self.text, interval, self.limit, self.at_least, too_few(counted), self.failure)


def too_few(episodes: int) -> str:
    """Say why that many episodes decide nothing; empty if they do."""
    if episodes >= MIN_EPISODES:
        return ""
    return f"{episodes} episode{'s' * (episodes != 1)} with a figure: at least {MIN_EPISODES} are needed"


def judge_focus(found: Localisation, *, error: float = ERROR) -> Verdict:
    """Judge whether attention is localised on the target.

    Args:
        found: focus in the unchanged episodes.
        error: probability with which the verdict may be wrong.
    """
    heads, off = found.heads, found.off_place
    visible = heads.visible.astype(np.float64)
    question = QUESTIONS["focus"]
    if not visible.any():
        return Verdict(question, (), (), NEVER_VISIBLE)
    # The pseudo-episodes have as many frames as the others, all of them misses or all of them hits.
    figures = [
        _Figure(
            "share of the frames whose most-attended pixel is on the target",
            np.stack([heads.hits[:, -2], visible], axis=1),
            ratio_of_sums,
            (0.0, 1.0),
            POINTING,
            failure="its maximum is elsewhere in most frames",
        ),
        _Figure(
            "the same share, in the frames in which the target is off its usual place",
            np.stack([off.hits[:, 0], off.visible.astype(np.float64)], axis=1),
            ratio_of_sums,
            (0.0, 1.0),
            POINTING,
            failure="it misses the target where that is off its usual place",
        ),
        _Figure(
            "that share, less that of the target's average place in the same frames",
            np.stack([off.hits[:, 0] - off.hits[:, 1], off.visible.astype(np.float64)], axis=1),
            ratio_of_sums,
            (-1.0, 1.0),
            0.0,
            failure="the target's average place would do as well",
        ),
    ]
    checks = [figure.check(error, len(figures)) for figure in figures]
    if not off.visible.any():
        checks = [checks[0]]
        reason = "the target never left its usual place, so a map that does not look would do as well"
        return Verdict(question, tuple(checks), (), reason if checks[0].outcome == "yes" else "")
    verdict = Verdict(question, tuple(checks))
    return replace(verdict, qualifiers=_qualifiers(found, verdict.outcome))


def _qualifiers(found: Localisation, outcome: Outcome) -> tuple[str, ...]:
    """Say what else is to be said of a map: that it is on its target but coarse, late, or has sinks."""
    texts = []
    if outcome == "yes" and found.mass.sum() < found.references[found.hardest].sum():
        texts.append(f"coarsely: less of its mass is on the target than that of {found.hardest}")
    delay = found.delay
    if len(found.delays) >= MIN_EPISODES and delay.low >= MIN_DELAY:
        texts.append(f"with a delay of {delay.value:.0f} steps [{delay.low:.0f}, {delay.high:.0f}]")
    return (*texts, *found.sinks)


def judge_faithfulness(
    ablation: PixelAblation, mediation: Mediation | None = None, *, error: float = ERROR
) -> Verdict:
    """Judge whether the return depends on the attended pixels.

    A policy whose return is not above that of random actions by more than noise is not tested further: it
    has nothing to lose.

    Args:
        ablation: the pixel ablation.
        mediation: effects of forced attention; None for maps that are not attention.
        error: probability with which the verdict may be wrong.
    """
    limits = {
        "deleted": (MAX_DELETION_RETURN, False, "acting without the most-attended pixels costs little"),
        "kept": (MIN_INSERTION_RETURN, True, "the most-attended pixels are not enough to act on"),
        "random": (MIN_INSERTION_RETURN, True, "other pixels matter too"),
        "centred": (MIN_INSERTION_RETURN, True, "other pixels near the centre matter too"),
    }
    above = ablation.full - ablation.random
    forced = [] if mediation is None else _mediation_figures(mediation, ablation.random, above)
    count = 1 + len(limits) + len(forced)
    most = float(np.abs(above).max(initial=0.0))
    gain = _Figure("return above the random policy's", above, mean, (-most, most), 0.0, every=True).check(
        error, count
    )
    if not gain.reason and not gain.figure.low > 0:
        gain = replace(gain, reason="not above it by more than noise")
    question = QUESTIONS["faithful"]
    if gain.outcome != "yes":
        return Verdict(question, (gain,), (), "" if "episode" in gain.reason else NOTHING_TO_LOSE)
    checks = [
        _Figure(
            f"share of the return that remains with {PIXEL_ABLATIONS[name]}",
            np.stack([ablation.ablated[name] - ablation.random, above], axis=1),
            ratio_of_sums,
            (0.0, 1.0),
            limit,
            at_least,
            failure,
            every=True,
        ).check(error, count)
        for name, (limit, at_least, failure) in limits.items()
    ]
    return Verdict(question, (gain, *checks, *(figure.check(error, count) for figure in forced)))


def _mediation_figures(
    mediation: Mediation, random: NDArray[np.float64], above: NDArray[np.float64]
) -> list[_Figure]:
    """Whether the attention that is shown decides the actions."""
    text = "share of the change in {} by another frame that is lost if the attention is held"
    action, shown = mediation.action_rows(), mediation.map_rows
    figures = [
        _Figure(
            text.format("action"),
            action,
            ratio_of_sums,
            _support(action),
            MIN_MEDIATED,
            failure="actions hardly change when the attention is forced, so the map is only shown",
        )
    ]
    if shown[:, 1].any():  # the maps are not the same for all frames
        failure = "the map hardly depends on the attention weights that the policy uses"
        figures.append(
            _Figure(text.format("the map"), shown, ratio_of_sums, _support(shown), MIN_SHOWN, failure=failure)
        )
    figures.append(
        _Figure(
            "share of the return that remains with the attention of other frames",
            np.stack([mediation.returns["borrowed"] - random, above], axis=1),
            ratio_of_sums,
            (0.0, 1.0),
            MIN_INSERTION_RETURN,
            at_least=False,
            failure="acting with the attention of other frames costs little",
            every=True,
        )
    )
    return figures


def _support(rows: NDArray[np.float64]) -> tuple[float, float]:
    """Possible shares in a pseudo-episode; without any effect there is no path, and 0 is the only one."""
    return (0.0, 1.0) if rows[:, 0].any() else (0.0, 0.0)


def judge_interventions(
    effects: Mapping[tuple[Thing, str], InterventionEffect], *, error: float = ERROR
) -> Verdict:
    """Judge whether actions and attention respond to the target and not to distractors.

    Args:
        effects: by (object, intervention).
        error: probability with which the verdict may be wrong.
    """
    question = QUESTIONS["interventions"]
    missing = sorted({thing for (thing, _), effect in effects.items() if not effect.frames.any()})
    if missing:
        return Verdict(question, (), (), NO_FRAMES + " and the ".join(missing))
    figures = []
    for edit in INTERVENTIONS:
        target, distractor = effects["target", edit], effects["distractor", edit]
        for name, target_change, distractor_change in (
            ("action", target.action, distractor.action),
            ("attention", target.attention, distractor.attention),
        ):
            rows = np.stack([target_change, target.frames, distractor_change, distractor.frames], axis=1)
            figures.append(
                _Figure(
                    f"change in {name} with the target {edit}, as a share of the sum over target and "
                    "distractor",
                    rows,
                    _share_of_change,
                    (0.0, 1.0),
                    SHARE_OF_CHANGE,
                    failure=_UNSPECIFIC[name],
                )
            )
    moved = effects["target", "moved"]
    figures.append(
        _Figure(
            "share of the frames whose most-attended pixel is on the target where it was moved to",
            np.stack([moved.hits, moved.frames], axis=1),
            ratio_of_sums,
            (0.0, 1.0),
            POINTING,
            failure="its maximum does not follow a moved target",
        )
    )
    return Verdict(question, tuple(figure.check(error, len(figures)) for figure in figures))


_UNSPECIFIC = {
    "action": "actions respond to distractors as well, or not to the target",
    "attention": "attention responds to distractors as well, or not to the target",
}


def judge_weights(correlation: Interval, episodes: int) -> Verdict:
    """Judge whether the maps depend on the learned weights.

    Args:
        correlation: rank correlation of the maps with those of random weights, in [-1, 1].
        episodes: number of episodes that it was measured in.
    """
    text = "rank correlation of the maps with those of random weights"
    failure = "random weights give similar maps"
    check = Check(text, correlation, MAX_RANK_CORRELATION, False, too_few(episodes), failure)
    return Verdict(QUESTIONS["weights"], (check,))


def _share_of_change(rows: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Share of the first of two ratios in their sum; 0.5 if both are 0.

    Args:
        rows: [..., 4], numerators and denominators of the two ratios, to be summed over `axis`.
        axis: axis of the episodes.
    """
    ours, theirs = ratio_of_sums(rows[..., :2], axis), ratio_of_sums(rows[..., 2:], axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ours + theirs == 0, 0.5, ours / (ours + theirs))
