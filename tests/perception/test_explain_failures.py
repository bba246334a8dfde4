"""Frames in which a policy fails, and focus on the target by condition, on planted episodes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_attn.explain import focus_by_condition, worst_frames

NAN = float("nan")
STEPS, EPISODES = 30, 5
EPISODE, STEP = np.repeat(np.arange(EPISODES), STEPS), np.tile(np.arange(STEPS), EPISODES)
SEEDS = np.arange(70, 70 + EPISODES)


def steps(**changes: Any) -> dict[str, Any]:
    """Rollout steps of episodes without a failure."""
    return {
        "rewards": np.ones(EPISODE.size),
        "episode": EPISODE,
        "step": STEP,
        "mass": np.full(EPISODE.size, 0.5),
        "chance": np.full(EPISODE.size, 0.02),
        "successes": np.ones(EPISODES, bool),
        "seeds": SEEDS,
    } | changes


def at(episode: int, step: int) -> int:
    return episode * STEPS + step


def test_without_a_failure_no_frame_is_returned_and_the_summary_says_so() -> None:
    found = worst_frames(**steps())
    assert found.frames == ()
    assert found.counts == {"missed": 0, "lost": 0, "reward": 0, "failed": 0}
    assert str(found) == (
        "No failures in 5 episodes; checked: target visible but not attended, "
        "target lost from view, drop in reward, episode without success."
    )


def test_each_failure_is_shown_at_its_clearest_frame() -> None:
    data = steps()
    # Missed: for 7 steps in episode 1, most of the target in view at step 13; for 4 in episode 0, too few.
    data["mass"][at(1, 10) : at(1, 17)] = 0.03
    data["chance"][at(1, 13)] = 0.05
    data["mass"][at(0, 2) : at(0, 6)] = 0.03
    # Lost: from step 21 to the end of episode 2. Not visible before step 8 of episode 3: not lost.
    for rows in (slice(at(2, 21), at(3, 0)), slice(at(3, 0), at(3, 8))):
        data["chance"][rows], data["mass"][rows] = 0, NAN
    # The reward of episode 3 drops for a while; that of episode 0 by less than a quarter.
    data["rewards"][at(3, 12) : at(3, 20)] = 0.25
    data["rewards"][at(0, 12) : at(0, 20)] = 0.8
    data["successes"][4] = False
    found = worst_frames(**data)
    assert [(one.index, one.failure, one.caption) for one in found.frames] == [
        (
            at(1, 13),
            "missed",
            "Seed 71, step 13: the target is visible but not attended from step 10 to 16; "
            "the attention on it here is 0.6 × chance.",
        ),
        (at(2, 20), "lost", "Seed 72, step 20: the target is then out of view until the end."),
        (at(3, 12), "reward", "Seed 73, step 12: the reward has dropped from 1.00 to 0.25 since step 11."),
        (
            at(4, 29),
            "failed",
            "Seed 74, step 29: the episode ends without success, with a return of 30 (median 30).",
        ),
    ]
    assert str(found) == (
        "Failures in 5 episodes: target visible but not attended in 1, target lost from view in 1, "
        "drop in reward in 1, episode without success in 1."
    )


def test_the_worst_come_first_each_from_a_different_episode() -> None:
    data = steps()
    for episode, stop in ((0, 11), (1, 20), (2, 16), (3, 14)):
        data["mass"][at(episode, 5) : at(episode, stop)] = 0
    data["rewards"][at(1, 20)], data["rewards"][at(3, 20)] = -4, -2
    chosen = [(one.failure, one.index // STEPS) for one in worst_frames(**data, count=4).frames]
    # The reward drops most in episode 1, but a frame of that episode is already selected.
    assert chosen == [("missed", 1), ("reward", 3), ("missed", 2), ("missed", 0)]
    assert [one.failure for one in worst_frames(**data, count=1).frames] == ["missed"]
    # With a single episode each type is selected once.
    rows = EPISODE == 1
    alone = {name: data[name][rows] for name in ("rewards", "step", "mass", "chance")}
    found = worst_frames(**alone, episode=np.zeros(STEPS, int))
    assert [one.failure for one in found.frames] == ["missed", "reward"]
    assert found.frames[0].caption.startswith("Episode 0, step 5: ")
    assert found.counts == {"missed": 1, "lost": 0, "reward": 1}
    # Unless it would be nearly the same frame.
    alone["rewards"] = np.where(np.arange(STEPS) == 9, -4.0, 1.0)
    (one,) = worst_frames(**alone, episode=np.zeros(STEPS, int)).frames
    assert one.failure == "missed"
    alone["rewards"] = np.where(np.arange(STEPS) == 10, -4.0, 1.0)
    assert len(worst_frames(**alone, episode=np.zeros(STEPS, int)).frames) == 2


def test_among_failed_episodes_the_lowest_return_comes_first() -> None:
    data = steps(successes=np.array([True, False, False, False, True]))
    data["rewards"] = 1.0 + 0.01 * np.array([0, 3, 1, 2, 0])[EPISODE]
    found = worst_frames(**data)
    assert [one.index for one in found.frames] == [at(2, 29), at(3, 29), at(1, 29)]
    assert found.frames[0].caption.endswith("with a return of 30.3 (median 30.3).")


def test_a_target_that_reappears_was_lost_until_then() -> None:
    data = steps()
    data["chance"][at(1, 7) : at(1, 12)] = 0
    data["chance"][at(2, 7) : at(2, 11)] = 0  # too short
    (one,) = worst_frames(**data).frames
    assert one.caption == "Seed 71, step 6: the target is then out of view until step 12."


def test_failures_that_need_missing_data_are_not_searched() -> None:
    data = steps(mass=None, chance=None, successes=None)
    assert worst_frames(**data).counts == {"reward": 0}
    data["rewards"][at(2, 5) :][:5] = NAN
    assert worst_frames(**data).frames == ()
    none = np.zeros(0)
    assert worst_frames(none, none.astype(int), none.astype(int)).episodes == 0
    # With an unusable map it is unknown whether attention was on the target.
    assert worst_frames(**steps(mass=np.full(EPISODE.size, NAN))).frames == ()


def test_a_gap_between_episodes_is_not_a_failure() -> None:
    data = steps()
    for episode in (0, 1):  # three steps at the end of one, three at the beginning of the next
        data["mass"][at(episode, 27) : at(episode + 1, 3)] = 0
    data["rewards"] += 9.0 * (EPISODE == 0)
    assert worst_frames(**data).frames == ()


@given(st.integers(0, 2**31), st.integers(0, 9))
def test_frames_match_their_captions(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    on = rng.random((2, EPISODE.size)).repeat(6, axis=1)[:, : EPISODE.size]
    data = steps(
        rewards=rng.normal(size=EPISODE.size),
        mass=on[0] * 0.08,
        chance=np.where(on[1] < 0.3, 0, 0.02),
        successes=rng.random(EPISODES) < 0.5,
    )
    found = worst_frames(**data, count=count)
    assert len(found.frames) <= count
    assert len({(one.failure, one.index // STEPS) for one in found.frames}) == len(found.frames)
    for one in found.frames:
        assert one.caption.startswith(f"Seed {SEEDS[EPISODE[one.index]]}, step {STEP[one.index]}: ")
        if one.failure == "missed":
            assert 0 <= data["mass"][one.index] < 2 * data["chance"][one.index]
        elif one.failure == "lost":
            assert data["chance"][one.index] > 0
            assert data["chance"][one.index + 1 : one.index + 6].tolist() == [0] * 5
        elif one.failure == "failed":
            assert not data["successes"][EPISODE[one.index]]


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 150 rows of chance, one per frame, got 149"):
        worst_frames(**steps(chance=np.zeros(149)))
    with pytest.raises(ValueError, match="both mass and chance, or neither"):
        worst_frames(**steps(mass=None))
    with pytest.raises(ValueError, match="expected 3 rows of masks"):
        focus_by_condition(np.zeros(3), np.zeros((2, 4, 4), bool), np.zeros(3, int), np.zeros(3, int))


def masks_at(*boxes: tuple[int, int, int] | None) -> np.ndarray:
    """Masks [N, 30, 60] with a box of 1 x `size` pixels from (y, x) on."""
    masks = np.zeros((len(boxes), 30, 60), bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box is not None:
            mask[box[0], box[1] : box[1] + box[2]] = True
    return masks


def test_focus_by_size_position_and_time() -> None:
    # Sizes 1 to 6 pixels; y 14 is the frame's middle, x 29.
    masks = masks_at((14, 29, 1), (14, 28, 2), (14, 44, 3), (22, 30, 4), None, (1, 30, 5), (14, 54, 6))
    hits = np.array([0, 1, 1, 0, 1, NAN, 1])
    episode, step = np.array([0, 0, 0, 2, 2, 2, 2]), np.array([18, 19, 20, 0, 1, 2, 21])
    found = {(c.name, c.level): c.means for c in focus_by_condition(hits, masks, episode, step)}
    # Counted are sizes 1, 2, 3, 4 and 6: thirds at 2.33 and 3.33.
    assert {key: (m.numerator.tolist(), m.denominator.tolist()) for key, m in found.items()} == {
        ("target's size", "small (up to 2 pixels)"): ([1, 0, 0], [2, 0, 0]),
        ("target's size", "medium (up to 3 pixels)"): ([1, 0, 0], [1, 0, 0]),
        ("target's size", "large (over 3 pixels)"): ([0, 0, 1], [0, 0, 2]),
        ("target's position", "centre"): ([1, 0, 0], [2, 0, 0]),
        # 45 - 29.5 of 30 across; 22 - 14.5 of 15 down.
        ("target's position", "middle"): ([1, 0, 0], [1, 0, 1]),
        # 56.5 - 29.5 of 30.
        ("target's position", "edge"): ([0, 0, 1], [0, 0, 1]),
        ("time", "first 20 steps"): ([1, 0, 0], [2, 0, 1]),
        ("time", "later"): ([1, 0, 1], [1, 0, 1]),
    }
    assert found["time", "later"].value == 1.0


def test_the_centre_of_the_frame_lies_between_pixels() -> None:
    # Of 30 rows, 10 to 19 are within a third of the way, 5 to 24 within two.
    zero = np.zeros(30, int)
    masks = masks_at(*((y, 29, 2) for y in range(30)))
    found = focus_by_condition(np.ones(30), masks, zero, zero)
    counts = {c.level: c.means.denominator.sum() for c in found if c.name == "target's position"}
    assert counts == {"centre": 10, "middle": 10, "edge": 10}


def test_levels_without_a_frame_are_omitted() -> None:
    masks = masks_at((14, 29, 2), (14, 29, 2))
    zero = np.zeros(2, int)
    found = focus_by_condition(np.array([True, False]), masks, zero, zero)
    assert [(c.level, c.means.value) for c in found] == [
        ("small (up to 2 pixels)", 0.5),
        ("centre", 0.5),
        ("first 20 steps", 0.5),
    ]
    assert focus_by_condition(np.ones(2), np.zeros((2, 4, 4), bool), zero, zero) == ()
    assert focus_by_condition(np.ones(0), np.zeros((0, 4, 4), bool), zero[:0], zero[:0]) == ()


def test_frames_that_are_not_attended_by_another_criterion_are_missed() -> None:
    chance = np.full(20, 0.1)
    attended = np.ones(20, np.bool_)
    attended[8:14] = False
    arguments = {"mass": np.full(20, 0.5), "chance": chance}
    rows = np.zeros(20), np.zeros(20, int), np.arange(20)
    assert worst_frames(*rows, **arguments).counts["missed"] == 0
    (frame,) = worst_frames(*rows, **arguments, attended=attended).frames
    assert (frame.failure, frame.index) == ("missed", 8)
    assert "from step 8 to 13" in frame.caption
