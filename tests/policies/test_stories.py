"""The report's section on captures, on steps made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_attn import AttentionGrid, AttentionMaps
from robot_attn_policies.pages.report import Report, write_report
from robot_attn_policies.probing.steps import StepBatch
from robot_attn_policies.probing.stories import states_table, stories_section
from robot_attn_policies.rollouts.thing_words import ThingWords

SIZE = HEIGHT, WIDTH = 32, 48
EPISODES, STEPS, START, LOST = 3, 24, 7, 16
SEEDS = [70, 80, 90]


class Named:
    """As much of an environment as names its things."""

    thing_names = ("backdrop", "target", "distractor 1")

    @property
    def unwrapped(self) -> Named:
        return self

    def describe_things(self) -> list[tuple[str, ...]]:
        raise AssertionError("no step is taken")


@pytest.fixture
def words() -> ThingWords:
    return ThingWords(Named(), EPISODES)


@pytest.fixture
def steps() -> StepBatch:
    """Head 0 leaves the target for a red square at START, but in the first episode; head 1 is uniform."""
    things = np.zeros((EPISODES, STEPS, *SIZE), np.uint8)
    things[:, :LOST, 4:8, 4:8] = 1
    things[:, :, 20:28, 36:44] = 2
    weights = np.full((EPISODES, STEPS, 2, 8, 12), 1 / 96, np.float32)
    weights[:, :, 0] = 0
    weights[:, :, 0, 1, 1] = 1
    weights[1:, START:, 0] = 0
    weights[1:, START:, 0, 5:7, 9:11] = 0.25
    rows = EPISODES * STEPS
    things = things.reshape(rows, *SIZE)
    return StepBatch(
        np.array([(90, 90, 90), (30, 200, 30), (220, 20, 20)], np.uint8)[things],
        AttentionMaps(weights.reshape(rows, 2, 8, 12), AttentionGrid.even((8, 12), SIZE)),
        np.array([1.0, 0.0]),
        np.zeros((rows, 2), np.float32),
        np.zeros(rows),
        things == 1,
        np.repeat(np.arange(EPISODES), STEPS),
        np.tile(np.arange(STEPS), EPISODES),
        things=things,
    )


def test_the_section_names_what_took_attention_with_frames(
    steps: StepBatch, words: ThingWords, tmp_path: Path
) -> None:
    words.descriptions = [("backdrop", "green box", "red cup")] * EPISODES
    section = stories_section(steps, np.asarray(steps.observation), SEEDS, words)
    assert section.text[0] == (
        "Attention was captured in 2 of 3 episodes: by the red cup in 2; median step 7. The target was "
        "lost 3 times, 2 of them during a capture, 9 steps after its start."
    )
    groups, colors = section.tables
    assert groups.rows == (("the red cup", 2, 2, 7.0, 2, 9.0, 0),)
    shares = {row[0]: row[1:] for row in colors.rows}
    assert set(shares) == {"red", "grey"}
    red, pixels = (figure.value for figure in shares["red"])  # type: ignore[union-attr]
    assert red == pytest.approx(1.0, abs=1e-6)
    assert pixels == pytest.approx(64 / (HEIGHT * WIDTH))
    assert [picture.caption.split(":")[0] for picture in section.pictures] == [
        f"Seed {seed}, step {START}" for seed in SEEDS[1:]
    ]
    assert section.pictures[0].caption.endswith(
        "captured by the red cup at the bottom right at step 7, target lost 9 steps later, not back."
    )
    write_report(tmp_path / "report.html", Report("t", (), (), (section,)))


def test_without_labels_it_is_named_by_its_color(steps: StepBatch, words: ThingWords) -> None:
    section = stories_section(replace(steps, things=None), np.asarray(steps.observation), SEEDS, words)
    assert section.tables[0].rows[0][:3] == ("a red region", 2, 2)


def test_the_states_of_every_map_sum_to_one(steps: StepBatch, words: ThingWords) -> None:
    assert steps.masks is not None
    rows = states_table(steps, steps.masks, words).rows
    shares = {row[0]: [figure.value for figure in row[1:]] for row in rows}  # type: ignore[union-attr]
    hidden = 1 - LOST / STEPS
    attended = (LOST + 2 * START) / (EPISODES * STEPS)
    assert shares == {
        "head 0": pytest.approx([attended, 1 - attended - hidden, hidden]),
        "head 1": pytest.approx([0.0, 1 - hidden, hidden]),
        "combined": pytest.approx([attended, 1 - attended - hidden, hidden]),
    }


def test_without_masks_or_captures_it_says_so(steps: StepBatch, words: ThingWords) -> None:
    pictures = np.asarray(steps.observation)
    section = stories_section(replace(steps, masks=None), pictures, SEEDS, words)
    assert section.text == ("This environment gives no target masks.",)
    first = steps.take(np.arange(STEPS))
    section = stories_section(first, pictures[:STEPS], SEEDS, words)
    assert section.text[0] == "Attention was captured in 0 of 1 episode. The target was lost 1 time."
    assert (section.tables, section.pictures) == ((), ())
