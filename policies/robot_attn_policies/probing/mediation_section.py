"""Report section on forced attention: does forcing the attention force the action?"""

from __future__ import annotations

from robot_attn.forcing import Point
from robot_attn_policies.pages.report import Cell, Section, Table
from robot_attn_policies.probing.mediation import FORCED, Mediation
from robot_attn_policies.probing.sections import TITLES

NOT_FORCED = (
    "These maps are computed beside the policy, from what its actions depend on. There is no attention in it "
    "that could be forced, so this test cannot tell whether a policy was built to mislead such maps."
)
"""Text for maps that are not attention."""

POINTS: dict[Point, str] = {
    "declared": "The module declares the weights that were forced.",
    "found": "The module declares no weights. The outputs of the operations that have the values of the map "
    "were replaced.",
    "none": "No operation of the module has the values of the map: it has no path to the action. A module "
    "that computes it from its weights for display can declare them by `robot_attn.forceable`.",
}
"""Where the attention was forced."""


def mediation_section(mediation: Mediation | None) -> Section:
    """Report whether the action follows forced attention.

    Args:
        mediation: what was measured; None for maps that are not attention.
    """
    name = "mediation"
    if mediation is None:
        return Section(name, TITLES[name], (NOT_FORCED,))
    text = [
        "The policy acts while its attention is replaced inside its forward pass. A map that is only shown "
        "changes nothing. Changes in action are compared with the change that the frame of another episode "
        "makes.",
        POINTS[mediation.point],
    ]
    if not any(effect.size.any() for change, effect in mediation.effects.items() if change != "held"):
        text.append("The action is the same whatever the attention: the map has no path to the action.")
    all_heads: list[tuple[Cell, ...]] = [
        (FORCED[change], mediation.relative_size(change), mediation.follows(change))
        for change in mediation.effects
    ]
    heads: list[tuple[Cell, ...]] = [
        (
            f"head {head}",
            mediation.mediated(head),
            mediation.follows("borrowed", head),
            mediation.relative_size("uniform", head),
        )
        for head in range(len(mediation.heads))
    ]
    tables = [
        Table(
            "All heads forced",
            ("frame and attention", "change in action (1: another frame)", "in that direction"),
            tuple(all_heads),
        )
    ]
    if heads:
        tables.append(
            Table(
                "Each head forced alone, as a share of the change by another frame",
                (
                    "head",
                    "lost with its attention held",
                    "made by another frame's attention",
                    "change with uniform attention",
                ),
                tuple(heads),
            )
        )
    if mediation.full.sum() > mediation.random.sum():
        rows: list[tuple[Cell, ...]] = [
            (FORCED[change].removeprefix("this frame, with "), mediation.remaining_return(change))
            for change in mediation.returns
        ]
        tables.append(
            Table(
                "Whole episodes with forced attention",
                ("attention in every frame", "remaining return (0: random policy, 1: unchanged)"),
                tuple(rows),
            )
        )
    return Section(name, TITLES[name], tuple(text), tables=tuple(tables))
