"""`robot-attn gallery`: the sheets show what the policy sees, and of the episodes what they say."""

from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")

import cv2

from robot_attn_envs.shifts import SHIFTS, SUITES
from robot_attn_scripts import cli
from robot_attn_scripts.gallery import (
    Moment,
    Options,
    everything,
    hiding,
    in_sight,
    record_episodes,
    run,
    typical,
)

TRACK, NAVIGATE = "RobotAttn/Track-v0", "RobotAttn/Navigate-v0"


def moments(areas: Sequence[int], screened: Sequence[int] = ()) -> list[Moment]:
    """An episode whose target has these areas, with the step's number as its words."""
    target = [np.arange(12).reshape(3, 4) < area for area in areas]
    frame = np.zeros((3, 4, 3), np.uint8)
    return [Moment(frame, mask, str(step), step in screened) for step, mask in enumerate(target)]


def read(path: Path) -> NDArray[np.int64]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(np.int64)


def test_of_an_episode_the_moment_of_middling_size_is_shown() -> None:
    assert typical(moments([0, 9, 0, 3, 5])).words == "4"
    assert typical(moments([0, 0, 7])).words == "2"
    assert typical(moments([0, 0])).words == "0"


def test_the_longest_hiding_is_shown_from_before_to_after() -> None:
    short = moments([1] * 40, screened=range(10, 12))
    long = moments([1] * 40, screened=[3, *range(12, 24)])
    shown = hiding([short, long], 4)
    # Hidden from 12 to 23, and 5 steps on each side: 7 to 28.
    assert [moment.words for moment in shown] == ["7", "14", "21", "28"]
    assert [moment.screened for moment in shown] == [False, True, True, False]
    # Of two, the one that the episode does not end with, though that is longer.
    last = moments([1] * 40, screened=[*range(10, 12), *range(20, 40)])
    assert [moment.words for moment in hiding([last], 2)] == ["5", "16"]
    early = moments([1] * 10, screened=[0, 1, 2])
    assert [moment.words for moment in hiding([early], 2)] == ["0", "7"]
    assert [moment.words for moment in hiding([moments([1] * 9), early[3:]], 3)] == ["0", "4", "8"]


def test_a_recorded_episode_is_what_the_environment_shows() -> None:
    (episode,) = record_episodes(TRACK, [5], 3, 48, {})
    env = gymnasium.make(TRACK, masks=True, image_size=48)
    observation, info = env.reset(seed=5)
    for moment in episode:
        np.testing.assert_array_equal(moment.frame, observation["image"])
        np.testing.assert_array_equal(moment.target, info["target_mask"])
        observation, _, _, _, info = env.step(env.unwrapped.oracle_action())  # type: ignore[attr-defined]
    env.close()
    assert len(episode) == 4


def test_a_recording_stops_at_the_end_of_its_episode() -> None:
    assert [len(episode) for episode in record_episodes(TRACK, [0, 1], None, 32, {})] == [150, 150]
    assert [len(episode) for episode in record_episodes(TRACK, [0], 200, 32, {})] == [150]


def test_the_words_are_those_of_the_episode_and_the_screen_hides_its_target() -> None:
    env = gymnasium.make(TRACK, image_size=32, instruction=True)
    words = [env.reset(seed=seed)[1]["instruction"] for seed in (3, 4)]
    env.close()
    episodes = record_episodes(TRACK, [3, 4], 0, 32, {"instruction": True})
    assert [episode[0].words for episode in episodes] == words
    (episode,) = record_episodes(TRACK, [0], None, 32, {"occluders": 3})
    assert 3 <= sum(moment.screened for moment in episode) < 120
    assert not any(moment.target.any() for moment in episode if moment.screened)
    assert not any(moment.screened for moment in record_episodes(TRACK, [0], 5, 32, {})[0])


def test_episodes_that_do_not_show_the_target_are_passed_over() -> None:
    seeds = in_sight(NAVIGATE, 3, 0, 0, False)
    tried = record_episodes(NAVIGATE, range(max(seeds) + 1), 0, 32, {})
    assert [seed for seed, (moment,) in enumerate(tried) if moment.target.any()] == list(seeds)


def test_a_sheet_has_a_row_for_every_way_a_task_can_look(tmp_path: Path) -> None:
    options = Options(("track",), out=tmp_path, intensities=(0.5, 1.0), size=32, steps=2, seed=7)
    assert run(options) == [tmp_path / "track.png", tmp_path / "index.png"]
    sheet, index = (read(tmp_path / name) for name in ("track.png", "index.png"))
    # No shift, shifts, suites, two kinds of instructions, screen; 30 for a caption, 40 for the title.
    rows = 1 + len(SHIFTS) + len(SUITES) + 2 + 1
    assert sheet.shape == (40 + rows * (256 + 30) + 12, 2 * (256 + 12) + 12, 3)
    assert index.shape == (40 + 256 + 30 + 12, 2 * (256 + 12) + 12, 3)
    frame = typical(record_episodes(TRACK, [7], 2, 32, {})[0]).frame
    np.testing.assert_array_equal(index[40:296:8, 12:268:8], frame)
    np.testing.assert_array_equal(sheet[40:296], index[40:296])
    last = len(SHIFTS) - 1
    for column, intensity in enumerate((0.5, 1.0)):
        shifted = record_episodes(TRACK, [7], 2, 32, {"shift": list(SHIFTS)[last], "intensity": intensity})[0]
        top, left = 40 + (1 + last) * 286, 12 + column * 268
        np.testing.assert_array_equal(
            sheet[top : top + 256 : 8, left : left + 256 : 8], typical(shifted).frame
        )


def test_scenes_are_named_by_what_they_show() -> None:
    scenes = everything((0.25, 1.0))
    named = {scene.caption: scene.options for scene in scenes}
    assert len(named) == len(scenes)
    assert named["no shift"] == {}
    assert {suite: named[suite] for suite in SUITES} == {suite: {"suite": suite} for suite in SUITES}
    for shift in SHIFTS:
        assert named[f"{shift} 0.25"] == {"shift": shift, "intensity": 0.25}
        assert named[f"{shift} 1"] == {"shift": shift, "intensity": 1.0}
    assert {scene.views for scene in scenes if "shift" not in scene.options} == {2}


def test_the_compact_sheet_has_a_row_a_task_and_an_outline_where_asked_for(tmp_path: Path) -> None:
    pictures = []
    for outline in (False, True):
        path = tmp_path / "new" / f"{outline}.png"
        options = Options(("track", "track"), sheet=path, size=112, steps=0, outline=outline)
        assert run(options) == [path]
        pictures.append(read(path))
    plain, outlined = pictures
    assert plain.shape == (40 + 112 + 30 + 12, (2 + len(SHIFTS)) * (112 + 12) + 12, 3)
    moment = record_episodes(TRACK, [0], 0, 112, {})[0][0]
    np.testing.assert_array_equal(plain[40:152, 12:124], moment.frame)
    y, x = (round(float(place.mean())) for place in np.nonzero(moment.target))
    changed = np.abs(outlined - plain)[40:152, 12:124].any(axis=-1)
    assert changed.any() and not changed[y, x]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--tasks", "trak"], "'trak': did you mean 'track'?"),
        (["--sheet", "gallery.jpg"], "expected --sheet with a name that ends in .png, got gallery.jpg"),
        (
            ["--tasks", "track", "--intensities", "--size", "32"],
            "expected --intensities with at least one value, got none",
        ),
        (["--steps", "-1"], "--steps from 0 to 1,000,000, got -1"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gallery", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("robot-attn: error: ") and error in told.err
    assert told.err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "taken"
    file.write_text("")
    assert cli.main(["gallery", "--out", str(file / "gallery")]) == 2
    assert capsys.readouterr().err == (
        f"robot-attn: error: cannot write {file / 'gallery'}: Not a directory: name another place\n"
    )
