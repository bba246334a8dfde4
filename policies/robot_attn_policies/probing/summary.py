"""The summary of a report in sentences, made from the checks of its verdicts."""

from __future__ import annotations

from collections.abc import Mapping

from robot_attn_policies.probing.verdicts import Outcome, Verdict

_CLAIMS: dict[str, tuple[str, str]] = {
    "focus": ("attention is localised on the target", "attention is not localised on the target"),
    "faithful": (
        "the return depends on the attended pixels",
        "the return does not depend on the attended pixels alone",
    ),
    "interventions": (
        "actions and attention respond to the target and not to distractors",
        "actions and attention do not respond to the target alone",
    ),
    "weights": ("the maps depend on the learned weights", "the maps hardly depend on the learned weights"),
}
"""What a verdict's yes and no claim, by the name of its section."""

_WHETHER: dict[str, str] = {
    "focus": "whether attention is localised on the target",
    "faithful": "whether the return depends on the attended pixels",
    "interventions": "whether actions and attention respond to the target alone",
    "weights": "whether the maps depend on the learned weights",
}
"""What is undecided, by the name of the section."""


def summarise(verdicts: Mapping[str, Verdict]) -> str:
    """Say in one sentence what the verdicts claim, and for those that say no, which checks failed.

    Args:
        verdicts: by the name of their section; others than `_CLAIMS` are left out.

    Returns:
        The sentence; empty without verdicts.
    """
    sentence, before = "", None
    for name, verdict in verdicts.items():
        if name not in _CLAIMS:
            continue
        opposite = {before, verdict.outcome} == {"yes", "no"}
        sentence += ("" if not sentence else ", but " if opposite else "; ") + _clause(name, verdict)
        before = verdict.outcome
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def _clause(name: str, verdict: Verdict) -> str:
    outcome: Outcome = verdict.outcome
    if outcome == "undecided":
        undecided = sum(check.outcome == "undecided" for check in verdict.checks)
        reasons = {check.reason for check in verdict.failed if check.reason}
        why = verdict.reason or (
            min(reasons) if reasons else f"{undecided} of {len(verdict.checks)} checks could go either way"
        )
        return ", ".join([f"{_WHETHER[name]} is undecided ({why})", *verdict.qualifiers])
    yes, no = _CLAIMS[name]
    if outcome == "yes":
        return ", ".join([yes, *verdict.qualifiers])
    failures = dict.fromkeys(
        check.failure for check in verdict.checks if check.outcome == "no" and check.failure
    )
    return ", ".join([f"{no} ({_listed(list(failures))})" if failures else no, *verdict.qualifiers])


def _listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
