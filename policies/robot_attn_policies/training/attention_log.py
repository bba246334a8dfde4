"""What a policy in training attends to in its evaluations: the attention trajectories of a training."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.policies import BasePolicy

from robot_attn import AttentionMaps
from robot_attn.things import ThingMeter, sum_by_kind, thing_kinds
from robot_attn_policies.rollouts.camera import camera_info
from robot_attn_policies.rollouts.rollout import Step
from robot_attn_policies.rollouts.things import pixel_labels, thing_names
from robot_attn_policies.sb3.extractor import find_extractor, perceive

EVERY = 5
"""Steps between those whose attention is measured: consecutive frames differ little, and training waits."""
ATTENTION_COLUMNS = tuple(
    f"attention/{name}" for name in ("target", "distractors", "robot", "backdrop", "best_head")
)
"""Columns of progress.csv. A kind of thing that the task lacks has no figure."""


class AttentionLog:
    """Callback for the rollouts of an evaluation that measures the attention mass on each kind of thing.

    It looks at every `EVERY`-th step, at all cameras whose attention is learned and whose frames the infos
    label. The policy and its actions do not change.

    Args:
        policy: the policy, with a `PerceptionExtractor`.
        env: the environments; without target masks or labels in their infos, nothing is measured.
    """

    def __init__(self, policy: BasePolicy, env: Any) -> None:
        self._policy, self._names = policy, thing_names(env)
        extractor = find_extractor(policy)
        modules = {image: extractor.perception_of(image) for image in extractor.image_keys}
        self._only = len(modules) == 1
        self._grids = {image: module.grid for image, module in modules.items() if not module.uniform}
        self._meters: dict[str | None, ThingMeter] = {}
        self._calls = 0

    def __call__(self, step: Step) -> None:
        """Measure the running environments' attention, in every `EVERY`-th call."""
        self._calls += 1
        if (self._calls - 1) % EVERY:
            return
        for image, grid in self._grids.items():
            labels = pixel_labels(camera_info(step.info, image, self._only))
            if labels is None:
                continue
            percept = perceive(self._policy, step.observation, image=image)
            attention = percept.attention.numpy(force=True)[step.running].astype(np.float32)
            maps = AttentionMaps(attention, grid).normalised().upsampled()
            meter = self._meters.setdefault(image, ThingMeter(1, maps.shape[1], self._names))
            meter.add(np.zeros(len(maps), np.int64), maps, labels[step.running])

    def figures(self) -> dict[str, float]:
        """Return the figures of the steps measured so far.

        Returns:
            `attention/KIND` for each kind of thing, the mass on it as a mean over frames, heads and cameras;
            and `attention/best_head`, the mass of the head that has most of it on the target. Empty without
            labels.
        """
        means = [meter.totals().mass[0] / meter.totals().frames[0] for meter in self._meters.values()]
        if not means:
            return {}
        heads = np.concatenate(means)
        kinds, by_kind = thing_kinds(self._names), sum_by_kind(heads, self._names)
        figures = {f"attention/{kind}": float(by_kind[:, k].mean()) for k, kind in enumerate(kinds)}
        return {**figures, "attention/best_head": float(by_kind[:, kinds.index("target")].max())}
