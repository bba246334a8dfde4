"""The section that compares attention with the causal map, on planted steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from stable_baselines3 import PPO
from test_probe import H, W, linear
from torch import zeros

from robot_attn import AttentionMaps
from robot_attn_policies.pages.report import Section
from robot_attn_policies.probing.causal_section import causal_section
from robot_attn_policies.probing.probe import PolicyProbe, probe_policy
from robot_attn_policies.probing.steps import StepBatch

COUNT = 4
TARGET = np.zeros((H, W), np.bool_)
TARGET[20:26, 30:36] = True


def planted(attended: NDArray[np.bool_], *, masks: bool = True) -> tuple[PolicyProbe, StepBatch]:
    """A policy that follows the brightness of the target, and steps in which it attends to other pixels."""
    weights = zeros(2, 3, H, W)
    weights[0, :, 20:26, 30:36] = 1.0
    model = linear(weights)
    assert isinstance(model, PPO)
    probe = probe_policy(model)
    frames = np.full((COUNT, H, W, 3), 20, np.uint8)
    frames[:, TARGET] = 220
    pixels = np.broadcast_to(attended / attended.sum(), (COUNT, 1, H, W))
    steps = StepBatch(
        frames,
        AttentionMaps.pooled(pixels, probe.grid).normalised(),
        np.ones(1),
        np.zeros((COUNT, 2)),
        np.zeros(COUNT),
        np.broadcast_to(TARGET, (COUNT, H, W)) if masks else None,
        np.arange(COUNT) // 2,
        np.arange(COUNT) % 2,
    )
    return replace(probe, kind="attention"), steps


def figures_of(section: Section) -> dict[str, float]:
    (table,) = section.tables
    return {str(name): cell.value for name, cell in table.rows if isinstance(cell, tuple)}


@pytest.mark.parametrize("right", [True, False])
def test_attention_on_what_decides_agrees_with_the_causal_map(right: bool) -> None:
    near = np.zeros((H, W), np.bool_)
    near[(slice(16, 30), slice(26, 40)) if right else (slice(0, 10), slice(0, 12))] = True
    figures = figures_of(causal_section(*planted(near)))
    agreement = figures["rank correlation of attention with the causal map"]
    assert agreement > 0.3 if right else agreement < 0.05
    share = TARGET.sum() / (H * W)
    assert figures["mass of the causal map on the target"] > 10 * share
    assert (figures["mass of attention on the target"] > 5 * share) == right
    assert figures["the target's share of the frame"] == pytest.approx(share)


def test_without_target_masks_there_is_the_agreement_alone() -> None:
    section = causal_section(*planted(TARGET, masks=False))
    assert [row[0] for row in section.tables[0].rows] == [
        "rank correlation of attention with the causal map",
        "frames with a significant pixel",
    ]
    assert section.tables[0].rows[1][1] == f"{COUNT} of {COUNT}"
