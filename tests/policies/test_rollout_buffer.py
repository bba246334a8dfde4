"""FrameRolloutBuffer holds and yields what SB3's buffers do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from robot_attn_policies.sb3.rollout_buffer import FrameRolloutBuffer

STEPS, ENVS, C, H, W = 5, 3, 2, 37, 41
IMAGE = spaces.Box(0, 255, (C, H, W), np.uint8)
SPACES = {
    "image": IMAGE,
    "vectors": spaces.Box(-1, 1, (7,), np.float32),
    "dict": spaces.Dict(image=IMAGE, state=spaces.Box(-1, 1, (2,), np.float32), word=spaces.Discrete(4)),
}
ACTIONS = {"box": spaces.Box(-1, 1, (2,), np.float32), "discrete": spaces.Discrete(5)}


def filled(buffer: RolloutBuffer, seed: int = 0) -> RolloutBuffer:
    """The buffer after a rollout of random numbers."""
    rng = np.random.default_rng(seed)
    buffer.observation_space.seed(seed)
    buffer.action_space.seed(seed)
    buffer.reset()
    for _ in range(STEPS):
        samples = [buffer.observation_space.sample() for _ in range(ENVS)]
        if isinstance(buffer.observation_space, spaces.Dict):
            observation: Any = {key: np.stack([one[key] for one in samples]) for key in samples[0]}
        else:
            observation = np.stack(samples)
        buffer.add(
            observation,
            np.stack([buffer.action_space.sample() for _ in range(ENVS)]),
            rng.normal(size=ENVS),
            rng.random(ENVS) < 0.3,
            torch.from_numpy(rng.normal(size=(ENVS, 1))),
            torch.from_numpy(rng.normal(size=ENVS)),
        )
    buffer.compute_returns_and_advantage(torch.ones(ENVS), np.array([False, True, False]))
    return buffer


def built(kind: type[RolloutBuffer], space: spaces.Space[Any], action: str = "box") -> RolloutBuffer:
    return kind(STEPS, space, ACTIONS[action], "cpu", gae_lambda=0.9, gamma=0.95, n_envs=ENVS)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", SPACES)
def test_samples_are_those_of_sb3_in_their_order(name: str, action: str) -> None:
    space = SPACES[name]
    theirs = built(DictRolloutBuffer if name == "dict" else RolloutBuffer, space, action)
    ours = built(FrameRolloutBuffer, space, action)
    for seed in (0, 1):  # the second rollout overwrites the first
        filled(theirs, seed)
        filled(ours, seed)
        for batch_size in (4, None):
            np.random.seed(seed)
            expected = list(theirs.get(batch_size))
            np.random.seed(seed)
            found = list(ours.get(batch_size))
            assert [len(batch.returns) for batch in found] == ([4, 4, 4, 3] if batch_size else [15])
            for one, other in zip(found, expected, strict=True):
                for field in other._fields:
                    ours_part, their_part = getattr(one, field), getattr(other, field)
                    if field == "observations" and name == "dict":
                        assert ours_part.keys() == their_part.keys()
                        for key in their_part:
                            assert ours_part[key].dtype == their_part[key].dtype
                            assert torch.equal(ours_part[key], their_part[key])
                    else:
                        assert ours_part.dtype == their_part.dtype
                        assert torch.equal(ours_part, their_part), field


def test_frames_keep_the_memory_order_of_the_camera_and_arrays_are_reused() -> None:
    buffer = filled(built(FrameRolloutBuffer, SPACES["dict"]))
    frames = buffer.observations["image"]
    assert frames.shape == (STEPS, ENVS, C, H, W)
    assert np.moveaxis(frames, -3, -1).flags.c_contiguous
    for batch in buffer.get(4):
        assert batch.observations["image"].movedim(-3, -1).is_contiguous()
    buffer.reset()
    assert buffer.pos == 0 and not buffer.full
    assert filled(buffer, 1).observations["image"] is frames


def test_a_rollout_that_is_not_full_has_no_samples() -> None:
    buffer = built(FrameRolloutBuffer, SPACES["vectors"])
    with pytest.raises(AssertionError, match="expected a full rollout buffer"):
        next(buffer.get(4))
