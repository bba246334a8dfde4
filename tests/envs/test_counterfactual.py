"""Counterfactual frames: one object changes in the image, and nothing else, then or later."""

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401


@pytest.mark.parametrize("task", ["Track", "Reach", "Navigate"])
def test_a_counterfactual_changes_one_object_and_has_no_side_effects(task: str) -> None:
    env = gymnasium.make_vec(f"RobotAttn/{task}-v0", num_envs=6, image_size=48, masks=True)
    worlds = env.unwrapped
    observation, info = env.reset(seed=3)
    state = worlds.get_state()
    visible = info["target_mask"].sum(axis=(1, 2)) >= 8
    assert visible.any()
    for thing in ("target", "distractor"):
        moved = worlds.render_counterfactual(thing, shift=(0.25, 0.0))
        for edit in ({"rgba": (0.45, 0.45, 0.5, 1.0)}, {"removed": True}):
            counterfactual = worlds.render_counterfactual(thing, **edit)
            assert np.array_equal(counterfactual["target"], info["target_mask"])
            changed = (counterfactual["image"] != observation["image"]).any(axis=-1)
            assert not (changed & ~counterfactual["before"])[counterfactual["before"].any(axis=(1, 2))].any()
            assert counterfactual["after"].any() == ("rgba" in edit)
        if thing == "target":
            first = (moved[name][visible][0] for name in ("before", "after"))
            at = [np.argwhere(mask).mean(axis=0) for mask in first]
            if moved["after"][visible][0].sum() == moved["before"][visible][0].sum():
                assert at[1] - at[0] == pytest.approx([0.0, 12.0], abs=1.0)  # a quarter of 48 pixels
    after = worlds.get_state()
    assert all(np.array_equal(values, after[name]) for name, values in state.items())
    assert np.array_equal(worlds.observe()["image"], observation["image"])
    plain = gymnasium.make_vec(f"RobotAttn/{task}-v0", num_envs=6, image_size=48)
    plain.reset(seed=3)
    actions = np.full(env.action_space.shape, 0.3, np.float32)
    for _ in range(3):
        worlds.render_counterfactual("target", rgba=(0.45, 0.45, 0.5, 1.0))
        ours, theirs = env.step(actions), plain.step(actions)
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])
    env.close()
    plain.close()
