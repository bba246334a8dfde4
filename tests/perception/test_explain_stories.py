"""States of attention in every frame, and captures, on planted maps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn.explain import (
    ATTENDED,
    ELSEWHERE,
    HIDDEN,
    MIN_CAPTURE,
    NOWHERE,
    Captures,
    attention_states,
    captures,
    frame_states,
)

SIZE = HEIGHT, WIDTH = 37, 51
TARGET, THIEF = (18, 9), (8, 40)
GREEN, RED, GREY = (30, 180, 40), (220, 20, 20), (120, 120, 120)


def blob(at: tuple[float, float], sigma: float = 2.0) -> NDArray[np.float64]:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    values = np.exp(-((ys - at[0]) ** 2 + (xs - at[1]) ** 2) / (2 * sigma**2))
    return np.asarray(values / values.sum())


def disc(at: tuple[int, int], radius: int = 2) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((ys - at[0]) ** 2 + (xs - at[1]) ** 2 <= radius**2)


MAPS = {
    "t": blob(TARGET),
    "x": 0.2 * blob(TARGET) + 0.8 * blob(THIEF),
    "u": np.full(SIZE, 1 / (HEIGHT * WIDTH)),
    "n": np.full(SIZE, np.nan),
}
"""On the target, on the thief, uniform, and no map."""


def episode_of(*episodes: str) -> dict[str, NDArray]:
    """Frames from letters: a map of MAPS with the target in view, or a capital with it out of view."""
    letters = "".join(episodes)
    frame = np.full((*SIZE, 3), GREY, np.uint8)
    frame[disc(TARGET)], frame[disc(THIEF, 4)] = GREEN, RED
    label = np.zeros(SIZE, np.uint8)
    label[disc(THIEF, 4)], label[disc(TARGET)] = 4, 1
    maps = np.stack([MAPS[letter.lower()] for letter in letters])
    visible = np.array([letter.islower() for letter in letters])
    return {
        "maps": AttentionMaps(maps, AttentionGrid.even(SIZE, SIZE)),
        "masks": disc(TARGET) & visible[:, None, None],
        "frames": np.repeat(frame[None], len(letters), axis=0),
        "labels": np.where(visible[:, None, None] | (label != 1), label, 0).astype(np.uint8),
        "episode": np.repeat(np.arange(len(episodes)), [len(own) for own in episodes]),
        "step": np.concatenate([np.arange(len(own)) for own in episodes]),
    }


def found_in(*episodes: str, labelled: bool = False) -> Captures:
    rows = episode_of(*episodes)
    words = [("backdrop", "red sphere", "robot", "occluder", "blue cylinder")] * len(episodes)
    states = frame_states(
        rows["maps"], rows["masks"], frames=rows["frames"], labels=rows["labels"] if labelled else None
    )
    return captures(states, rows["episode"], rows["step"], descriptions=words if labelled else ())


def test_each_frame_has_one_state() -> None:
    rows = episode_of("txunTX")
    states = attention_states(rows["maps"], rows["masks"])
    assert states.tolist() == [ATTENDED, ELSEWHERE, NOWHERE, NOWHERE, HIDDEN, HIDDEN]


def test_heads_have_states_each() -> None:
    rows = episode_of("tx")
    both = AttentionMaps(np.stack([rows["maps"].weights, rows["maps"].weights[::-1]], 1), rows["maps"].grid)
    assert attention_states(both, rows["masks"]).tolist() == [[ATTENDED, ELSEWHERE], [ELSEWHERE, ATTENDED]]


@pytest.mark.parametrize("shape", [(5, 7), (11, 13), (37, 51)])
@pytest.mark.parametrize("off", [0, 3])
def test_a_coarse_or_blurred_map_near_the_target_is_on_it(shape: tuple[int, int], off: int) -> None:
    """Neither the size of a cell nor a few pixels decide: there is no other place to look at."""
    for sigma in (2.0, 4.0, 7.0):
        pixels = blob((TARGET[0] + off, TARGET[1]), sigma)[None]
        maps = AttentionMaps.pooled(pixels, AttentionGrid.even(shape, SIZE))
        assert attention_states(maps, disc(TARGET)[None]).tolist() == [ATTENDED], sigma


def test_much_more_than_chance_on_the_target_is_not_enough() -> None:
    rows = episode_of("x")
    mass = rows["maps"].weights[0][rows["masks"][0]].sum()
    assert mass > 5 * rows["masks"].mean()
    assert attention_states(rows["maps"], rows["masks"]).tolist() == [ELSEWHERE]


@pytest.mark.parametrize("radius", [1, 6, 14, 40])
def test_a_target_of_any_size_can_be_attended(radius: int) -> None:
    mask = disc(TARGET, radius)
    inside = AttentionMaps((mask / mask.sum())[None], AttentionGrid.even(SIZE, SIZE))
    assert attention_states(inside, mask[None]).tolist() == [ATTENDED]


def test_a_thing_next_to_the_target_takes_attention_by_its_label() -> None:
    beside = (TARGET[0], TARGET[1] + 5)
    labels = np.where(disc(beside), 4, disc(TARGET).astype(int)).astype(np.uint8)[None]
    masks, others = labels == 1, labels == 4
    maps = AttentionMaps(others / others.sum(), AttentionGrid.even(SIZE, SIZE))
    assert attention_states(maps, masks).tolist() == [ATTENDED]  # its place includes what is around it
    assert attention_states(maps, masks, labels=labels).tolist() == [ELSEWHERE]
    assert attention_states(maps, masks, labels=labels, allowed=[4]).tolist() == [ATTENDED]


def test_attention_on_the_robot_is_not_elsewhere() -> None:
    rows = episode_of("x")
    thief = rows["labels"] == 4
    maps = AttentionMaps(thief / thief.sum(), AttentionGrid.even(SIZE, SIZE))
    assert attention_states(maps, rows["masks"], labels=rows["labels"]).tolist() == [ELSEWHERE]
    assert attention_states(maps, rows["masks"], labels=rows["labels"], allowed=[4]).tolist() == [NOWHERE]


def test_a_capture_has_its_step_thing_delay_and_return() -> None:
    story = found_in("t" * 7 + "x" * 6 + "T" * 8 + "x" * 2 + "t" * 9)
    (capture,) = story.captures
    assert (capture.start, capture.row, capture.lost, capture.back) == (7, 7, 6, 16)
    assert (capture.thing, capture.what, capture.where) == (0, "red region", "at the top right")
    assert capture.mass == pytest.approx(0.8, abs=0.05)
    assert str(capture) == (
        "captured by a red region at the top right at step 7, target lost 6 steps later, back after 16 steps"
    )
    assert story.lost == 1
    assert str(story) == (
        "Attention was captured in 1 of 1 episode: by a red region in 1; median step 7. The target was lost "
        "1 time, 1 of them during a capture, 6 steps after its start."
    )


def test_with_labels_the_thing_is_named() -> None:
    (capture,) = found_in("t" * 6 + "x" * 9, labelled=True).captures
    assert (capture.thing, capture.what, capture.lost, capture.back) == (4, "blue cylinder", None, None)
    assert str(capture) == (
        "captured by the blue cylinder at the top right at step 6, target stayed in view, not back"
    )


def test_without_frames_a_capture_has_no_color() -> None:
    rows = episode_of("t" * 6 + "x" * 9)
    story = captures(frame_states(rows["maps"], rows["masks"]), rows["episode"], rows["step"])
    assert [capture.what for capture in story.captures] == ["region without a colour"]


@pytest.mark.parametrize(
    "episode",
    [
        "t" * 30,
        "u" * 30,
        "n" * 30,
        "X" * 30,
        "t" * 9 + "T" * 12 + "t" * 9,
        "tttttx" * 6,  # flicker
        ("t" * 6 + "x" * (MIN_CAPTURE - 1)) * 4,
        "x",
    ],
)
def test_no_capture(episode: str) -> None:
    assert found_in(episode).captures == ()


def test_single_frames_neither_end_nor_begin_a_capture() -> None:
    (capture,) = found_in("t" * 8 + "xxxtxxxxnxxxTxx" + "t" * 8).captures
    assert (capture.start, capture.lost, capture.back) == (8, None, 15)


def test_an_interruption_in_which_attention_does_not_come_back_ends_nothing() -> None:
    (capture,) = found_in("t" * 6 + "x" * 6 + "u" * 7 + "x" * 6 + "T" * 6).captures
    assert (capture.start, capture.lost, capture.back) == (6, 19, None)


def test_episodes_are_apart_and_counted() -> None:
    story = found_in("t" * 8 + "x" * 3, "x" * 3 + "t" * 8, "x" * 9, "T" * 9, "t" * 6 + "x" * 6 + "T" * 6)
    assert [(capture.episode, capture.start, capture.lost) for capture in story.captures] == [
        (2, 0, None),
        (4, 6, 6),
    ]
    assert (story.episodes, story.seen, story.captured, story.lost) == (5, 4, 2, 1)
    assert [capture.episode for capture in story.worst()] == [4, 2]  # first the one that lost the target
    (group,) = story.groups()
    assert (group.episodes, group.start, group.lost, group.back) == (2, 3.0, (6,), ())


def test_a_target_never_in_view_has_no_story() -> None:
    assert str(found_in("T" * 9)) == "The target was never in view: no capture could be found."


def test_steps_that_were_not_kept_count() -> None:
    rows = episode_of("t" * 6 + "x" * 6 + "T" * 6)
    states = frame_states(rows["maps"], rows["masks"])
    (capture,) = captures(states, rows["episode"], 3 * rows["step"]).captures
    assert (capture.start, capture.lost) == (18, 18)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros((2, *SIZE), np.uint8)}, "masks bool"),
        ({"masks": np.zeros((3, *SIZE), np.bool_)}, "masks bool"),
        ({"labels": np.zeros((2, *SIZE), np.int64)}, "labels uint8"),
        ({"frames": np.zeros((2, *SIZE), np.uint8)}, "frames uint8"),
        ({"maps": AttentionMaps(np.ones((2, 1, *SIZE)), AttentionGrid.even(SIZE, SIZE))}, "one head"),
    ],
)
def test_arrays_of_other_frames_are_refused(change: dict[str, NDArray], message: str) -> None:
    rows = {name: episode_of("tx")[name] for name in ("maps", "masks", "frames", "labels")} | change
    with pytest.raises(ValueError, match=message):
        frame_states(rows.pop("maps"), rows.pop("masks"), **rows)


def test_rows_of_other_lengths_are_refused() -> None:
    rows = episode_of("tx")
    with pytest.raises(ValueError, match="expected 2 rows of step"):
        captures(frame_states(rows["maps"], rows["masks"]), rows["episode"], np.arange(3))
