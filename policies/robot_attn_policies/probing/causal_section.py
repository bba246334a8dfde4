"""The report's section on whether what a policy attends to matters, by its causal map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_attn import AttentionMaps
from robot_attn.explain import rank_agreement
from robot_attn.focus import chance
from robot_attn_policies.pages.report import Cell, Section, Table
from robot_attn_policies.probing.episode_intervals import mean_over_episodes
from robot_attn_policies.probing.policy_maps import policy_causal_maps
from robot_attn_policies.probing.probe import PolicyProbe
from robot_attn_policies.probing.sections import TITLES
from robot_attn_policies.probing.steps import StepBatch

FRAMES = 32
"""Most frames whose causal maps are measured."""


def causal_section(probe: PolicyProbe, steps: StepBatch) -> Section:
    """Report whether attention and the causal map agree, and how much of each is on the target."""
    sample = steps.subsample(FRAMES)
    maps = policy_causal_maps(probe.policy, sample.observation, probe.image, context=sample.context)
    significant = maps.significant()
    known = significant.any(axis=(1, 2))
    # Cells without a significant pixel tie: their order would be noise.
    pooled = AttentionMaps.pooled(significant, probe.grid).weights
    agreement = rank_agreement(sample.combined.weights, pooled)
    rows: list[tuple[Cell, ...]] = [
        ("rank correlation of attention with the causal map", mean_over_episodes(agreement, sample.episode)),
        ("frames with a significant pixel", f"{known.sum()} of {len(sample)}"),
    ]
    if sample.masks is not None:
        masks = sample.masks
        shown = masks.any(axis=(1, 2)) & known
        attended = sample.combined.upsampled()
        values: dict[str, NDArray[np.float64]] = {
            "mass of the causal map on the target": (significant * masks).sum(axis=(1, 2)),
            "mass of attention on the target": (attended * masks).sum(axis=(1, 2)),
            "the target's share of the frame": chance(masks),
        }
        rows += [
            (name, mean_over_episodes(np.asarray(value)[shown], sample.episode[shown]))
            for name, value in values.items()
        ]
    return Section(
        "causal",
        TITLES["causal"],
        (
            f"In {len(sample)} frames, random pixels were removed, and the change in action was measured: "
            "the causal map, which does not depend on attention. A correlation of 1 means that both rank the "
            "cells equally, 0 that they are unrelated. Masses are over frames that show the target and in "
            "which a pixel matters: its importance is three standard errors above 0.",
        ),
        tables=(Table("Attention and the causal map", ("", "mean"), tuple(rows)),),
    )
