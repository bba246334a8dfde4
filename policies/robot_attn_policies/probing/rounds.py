"""Episodes in growing rounds, until every verdict is decided or the budget ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_attn.explain import describe_sinks, find_sinks
from robot_attn_policies.evaluation.sequential import MIN_EPISODES, error_at, look_sizes
from robot_attn_policies.probing.faithfulness import PixelAblation
from robot_attn_policies.probing.interventions import InterventionEffect
from robot_attn_policies.probing.localisation import Localisation, measure_localisation
from robot_attn_policies.probing.mediation import Mediation
from robot_attn_policies.probing.setup import Setup
from robot_attn_policies.probing.steps import StepBatch, StepCollector
from robot_attn_policies.probing.verdicts import (
    ERROR,
    NOT_FORCED,
    Verdict,
    judge_faithfulness,
    judge_focus,
    judge_interventions,
)
from robot_attn_policies.rollouts.protocols import Thing

Effects = Mapping[tuple[Thing, str], InterventionEffect]
T = TypeVar("T")

SINK_FRAMES = 512
"""Most frames in which sinks are looked for."""


@dataclass
class Evidence:
    """What was measured in the episodes played so far.

    Attributes:
        setup: the policy and the episodes, with the sinks that were found in the first round.
        steps: the steps of the unchanged episodes.
        localisation: focus; None where the environment gives no target masks.
        ablation: the pixel ablation; None if it failed.
        mediation: effects of forced attention; None if it failed, or for maps that are not attention.
        effects: the interventions; None if they failed, or if the environment renders no counterfactuals.
        failed: the error of each measurement that failed, by the name of its section.
        verdicts: the verdicts, by the name of their section.
        stopped: why the budget was not used up, in words; empty if it was.
    """

    setup: Setup
    steps: StepBatch
    localisation: Localisation | None = None
    ablation: PixelAblation | None = None
    mediation: Mediation | None = None
    effects: Effects | None = None
    failed: dict[str, Exception] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    stopped: str = ""

    def verdict(self, name: str) -> Verdict | None:
        """Return the verdict of a section, None if the environment does not allow it.

        Raises:
            Exception: the error of its measurement, if that failed.
        """
        self.raise_failure(name)
        return self.verdicts.get(name)

    def raise_failure(self, name: str) -> None:
        """Raise the error of the measurement of a section, if that failed."""
        if name in self.failed:
            raise self.failed[name]


def play_rounds(setup: Setup, names: Sequence[str]) -> Evidence:
    """Play the episodes of `setup.seeds` in rounds, each as large as all before it, and judge after each.

    A measurement that fails costs its own verdict; the others go on.

    Args:
        setup: the policy and its episodes; all of them are the budget.
        names: the pixel ablations to run.

    Raises:
        ValueError: the unchanged episodes or those of random actions cannot be run.
    """
    seeds = list(setup.seeds)
    sizes = look_sizes(len(seeds), max(MIN_EPISODES, setup.env.num_envs))
    collector = StepCollector(setup.probe.grid)
    evidence: Evidence | None = None
    played = 0
    for look, size in enumerate(sizes):
        prefix = f"episodes {played + 1} to {size}: " if len(sizes) > 1 else ""
        part = replace(setup, seeds=seeds[played:size], prefix=prefix)
        random = part.play_random()
        full = part.play_unchanged(collector, played)
        steps = collector.batch(setup.weights)
        if evidence is None:
            setup = replace(setup, sinks=_sinks(steps))
            evidence = Evidence(setup, steps)
        evidence.setup, evidence.steps = replace(setup, seeds=seeds[:size]), steps
        _measure(evidence, replace(part, sinks=setup.sinks), names, full, random, seed=played)
        played = size
        _judge(evidence, error_at(look, sizes, ERROR))
        if all(verdict.outcome != "undecided" for verdict in evidence.verdicts.values()):
            evidence.stopped = "every verdict was decided" if size < len(seeds) else ""
            break
    assert evidence is not None
    return evidence


def _sinks(steps: StepBatch) -> NDArray[np.bool_] | None:
    if steps.masks is None:
        return None
    sample = steps.subsample(SINK_FRAMES)
    assert sample.masks is not None
    sinks = find_sinks(sample.maps, sample.masks)
    return sinks if sinks.any() else None


def _measure(
    evidence: Evidence,
    part: Setup,
    names: Sequence[str],
    full: NDArray[np.float64],
    random: NDArray[np.float64],
    seed: int,
) -> None:
    """Add a round's measurements to those before it."""

    def attempt(
        name: str, before: T | None, measure: Callable[[], T | None], join: Callable[[T, T], T]
    ) -> T | None:
        if name in evidence.failed:
            return None
        try:
            found = measure()
            return found if before is None or found is None else join(before, found)
        except Exception as error:  # the section raises it again, and says so: `guarded_section`
            evidence.failed[name] = error
            return None

    evidence.ablation = attempt(
        "faithful",
        evidence.ablation,
        lambda: part.ablate_pixels(names, full, random, seed=seed),
        PixelAblation.joined,
    )
    evidence.mediation = attempt(
        "mediation",
        evidence.mediation,
        lambda: part.mediate(evidence.steps, full, random, seed=seed),
        Mediation.joined,
    )
    evidence.effects = attempt("interventions", evidence.effects, part.intervene, _join_effects)
    sinks = evidence.setup.sinks
    phrases = () if sinks is None else describe_sinks(sinks, part.probe.grid)
    evidence.localisation = attempt(
        "focus",
        None,
        lambda: measure_localisation(evidence.steps, len(evidence.setup.seeds), sinks=sinks, names=phrases),
        lambda before, found: found,
    )


def _join_effects(before: Effects, found: Effects) -> Effects:
    return {which: effect.joined(found[which]) for which, effect in before.items()}


def _judge(evidence: Evidence, error: float) -> None:
    """Judge what has been measured so far."""
    verdicts: dict[str, Verdict] = {}
    if evidence.localisation is not None:
        verdicts["focus"] = judge_focus(evidence.localisation, error=error)
    if evidence.ablation is not None:
        verdict = judge_faithfulness(evidence.ablation, evidence.mediation, error=error)
        if "mediation" in evidence.failed and verdict.outcome == "yes":
            verdict = replace(verdict, reason=NOT_FORCED)
        verdicts["faithful"] = verdict
    if evidence.effects is not None:
        verdicts["interventions"] = judge_interventions(evidence.effects, error=error)
    evidence.verdicts = verdicts
