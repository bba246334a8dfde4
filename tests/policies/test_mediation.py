"""Mediation: what passes through the attention of a policy, on frames made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from robot_attn import Percept, Perception
from robot_attn.explain import InsensitivePolicyError
from robot_attn.families import Keypoints
from robot_attn_policies.probing.mediation import FORCED, run_mediation
from robot_attn_policies.probing.probe import PolicyProbe, probe_policy
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.sb3.extractor import PerceptionExtractor
from robot_attn_policies.sb3.policy import PerceptionPolicy

SIZE, EPISODES, STEPS = 37, 5, 7
BOX, DISCRETE = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)


class OneOfThree(Perception):
    """Three keypoints: all are used and shown, or the last one is shown and the other two are used."""

    def __init__(
        self, image_shape: tuple[int, int, int], context_dim: int = 0, *, honest: bool = True
    ) -> None:
        super().__init__(image_shape, context_dim)
        self.points = Keypoints(image_shape, features_dim=6, num_heads=3)
        self.features_dim, self.grid = 6, self.points.grid
        self.num_heads = 3 if honest else 1
        if not honest:
            with torch.no_grad():
                self.points.project.weight[:, 4:] = 0.0

    def perceive(self, frames: Tensor, context: Tensor | None) -> Percept:
        features, maps = self.points(frames)
        return Percept(features, maps[:, -self.num_heads :])


def probe_of(action_space: spaces.Space, perception: object = OneOfThree, **options: bool) -> PolicyProbe:
    torch.manual_seed(0)
    policy = PerceptionPolicy(
        spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8),
        action_space,
        lambda _: 1e-3,
        net_arch=[],
        ortho_init=False,
        features_extractor_class=PerceptionExtractor,
        features_extractor_kwargs={"perception": perception, **options},
    )
    policy.set_training_mode(False)
    with torch.no_grad():
        for keypoints in (each for each in policy.modules() if isinstance(each, Keypoints)):
            keypoints.maps.weight *= 50.0  # sharp maps, whose places differ from frame to frame
            keypoints.project.bias.zero_()
        policy.action_net.bias.zero_()
    return probe_policy(policy)


def steps_of(probe: PolicyProbe, *, blank: bool = False) -> StepBatch:
    rng = np.random.default_rng(3)
    count = EPISODES * STEPS
    frames = rng.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)
    frames = np.zeros_like(frames) if blank else frames
    actions, percept = probe.act(frames)
    assert percept is not None
    things = np.zeros((count, SIZE, SIZE), np.uint8)
    things[: count // 2, 5:11, 20:29] = 4
    return StepBatch(
        frames,
        maps=probe_maps(percept, probe),
        weights=np.full(probe.num_heads, 1 / probe.num_heads),
        actions=actions,
        rewards=np.zeros(count),
        masks=None,
        episode=np.repeat(np.arange(EPISODES), STEPS),
        step=np.tile(np.arange(STEPS), EPISODES),
        things=things,
    )


def probe_maps(percept: Percept, probe: PolicyProbe) -> object:
    from robot_attn import AttentionMaps

    return AttentionMaps(percept.attention.numpy(force=True), probe.grid)


@pytest.mark.parametrize("space", [BOX, DISCRETE], ids=["continuous", "discrete"])
def test_all_passes_through_maps_of_which_the_features_are_made(space: spaces.Space) -> None:
    probe = probe_of(space)
    found = run_mediation(probe, steps_of(probe), distractors=[4])
    # The features of keypoints are their places: with the same weights, they are the same.
    assert found.mediated() == pytest.approx((1.0, 1.0, 1.0))
    assert found.follows("borrowed") == pytest.approx((1.0, 1.0, 1.0))
    assert found.relative_size("borrowed").value == pytest.approx(1.0)
    assert set(found.effects) == set(FORCED)
    assert found.effects["distracted"].frames.sum() == EPISODES * STEPS // 2
    assert found.relative_size("uniform").value > 0 and len(found.heads) == 3
    assert all(0 <= found.mediated(head).value < 1 for head in range(3))
    assert found.map_rows.sum(axis=0) == pytest.approx(np.full(2, found.map_rows[:, 1].sum()))


def test_nothing_passes_through_a_map_that_is_only_shown() -> None:
    probe = probe_of(BOX, honest=False)
    found = run_mediation(probe, steps_of(probe))
    assert found.mediated() == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert all(found.relative_size(name).value == pytest.approx(0, abs=1e-6) for name in ("uniform", "moved"))
    assert "distracted" not in found.effects and found.heads == ()


def test_the_episodes_are_the_unit() -> None:
    probe = probe_of(BOX)
    steps = steps_of(probe)
    assert run_mediation(probe, steps).total.frames.tolist() == [STEPS] * EPISODES
    assert run_mediation(probe, steps, frames=EPISODES).total.frames.sum() == EPISODES


def test_what_cannot_be_forced_is_refused() -> None:
    probe = probe_of(BOX, perception="cnn")
    with pytest.raises(ValueError, match="expected a policy with attention, got maps of the kind 'causal'"):
        run_mediation(probe, steps_of(probe))
    probe = probe_of(BOX)
    with pytest.raises(InsensitivePolicyError):
        run_mediation(probe, steps_of(probe, blank=True))
