"""What every pixel of a task's frame shows, and what the labels are called."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

pytest.importorskip("warp")

from robot_attn_envs.env import BatchEnv
from robot_attn_envs.labels import MAX_THINGS, color_word, label_of_slots, thing_names
from robot_attn_envs.render.pixels import PATCH_ID
from robot_attn_envs.tasks.navigate import Navigate
from robot_attn_envs.tasks.push import Push
from robot_attn_envs.tasks.reach import Reach
from robot_attn_envs.tasks.track import Track

OPTIONS: list[tuple[type[Any], dict[str, Any]]] = [
    (Track, {"suite": "hard", "occluders": 3}),
    (Navigate, {"instruction": True, "suite": "hard"}),
    (Reach, {"shift": "distractors"}),
    (Push, {"shift": "camera"}),
]


@pytest.mark.parametrize(("task", "options"), OPTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_labels_agree_with_the_target_mask_and_with_the_geoms(
    task: type[Any], options: dict[str, Any]
) -> None:
    env = BatchEnv(task, 3, image_size=(37, 53), masks=True, threads=1, **options)
    env.reset(seed=5)
    found = set()
    for _ in range(12):
        infos = env.step(env.oracle_actions())[-1]
        labels = infos["things"]
        assert labels.dtype == np.uint8 and labels.shape == (3, 37, 53)
        assert np.array_equal(labels == 1, infos["target_mask"])
        ids, objects, model = env.worlds.camera.geom_id, env.worlds.task.objects, env.worlds.model
        for world in range(3):
            slots = [slot for slot in range(len(objects.names)) if slot != objects.target[world]]
            for number, slot in enumerate(slots):
                assert np.array_equal(labels[world] == 4 + number, ids[world] == objects.geoms[slot])
            for label, names in (
                (2, ROBOT.get(task, ())),
                (3, ("screen",) if "occluders" in options else ()),
            ):
                geoms = [model.geom(name).id for name in names]
                shown = np.isin(ids[world], [*geoms, PATCH_ID] if label == 3 else geoms)
                assert np.array_equal(labels[world] == label, shown)
        found |= set(np.unique(labels).tolist())
    assert {0, 1} < found and (2 in found) == (task in ROBOT)
    env.close()


ARM = ("base", "column", "upper_arm", "forearm", "palm", "finger_left", "finger_right")
ROBOT = {Reach: ARM, Push: (*ARM, "wing_left", "wing_right")}
"""The robot's geoms, of the tasks whose camera shows it."""


def test_names_follow_the_labels_and_descriptions_the_episode() -> None:
    env = gymnasium.make("RobotAttn/Push-v0", masks=True, distractors=2, image_size=32).unwrapped
    assert env.thing_names == (
        "backdrop",
        "target",
        "robot",
        "occluder",
        "distractor 1",
        "distractor 2",
        "goal",
    )
    _, info = env.reset(seed=0)
    goal = [env.worlds.model.geom(name).id for name in ("rim", "mark")]
    assert np.array_equal(info["things"] == 6, np.isin(env.worlds.camera.geom_id[0], goal))
    (described,) = env.describe_things()
    assert described[1] == "red box" and described[5].split()[1] == "box"
    assert described[4].split()[1] == "cylinder" and described[4].split()[0] != "red"
    env.close()


def test_pillars_can_matter_and_are_no_backdrop() -> None:
    env = BatchEnv(Navigate, 2, image_size=48, threads=1, masks=True, obstacles=3)
    assert env.thing_names[-1] == "obstacles"
    _, infos = env.reset(seed=1)
    pillars = [env.worlds.model.geom(f"obstacle{i}").id for i in range(3)]
    shown = np.isin(env.worlds.camera.geom_id, pillars)
    assert shown.any() and np.array_equal(infos["things"] == len(env.thing_names) - 1, shown)
    env.close()
    none = BatchEnv(Navigate, 1, image_size=32, threads=1, obstacles=0)
    assert "obstacles" not in none.thing_names
    none.close()


def test_more_things_than_labels_are_refused() -> None:
    assert len(thing_names(MAX_THINGS - 4)) == MAX_THINGS
    with pytest.raises(ValueError, match="expected at most 256 things, got 257"):
        thing_names(MAX_THINGS - 4, ["goal"])


def test_absent_distractors_have_no_description() -> None:
    env = BatchEnv(Track, 2, image_size=32, threads=1, shift={"distractors": 0.1}, distractors=1)
    env.reset(seed=0)
    for world, described in enumerate(env.describe_things()):
        present = env.worlds.task.objects.present[world, 1:]
        assert [text != "" for text in described[4:]] == present.tolist()
    env.close()


def test_the_target_may_be_any_slot() -> None:
    assert label_of_slots(np.array([0, 2]), 4).tolist() == [[1, 4, 5, 6], [4, 5, 1, 6]]


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((0.9, 0.1, 0.1), "red"),
        ((0.2, 0.03, 0.03), "red"),
        ((0.1, 0.3, 0.12), "green"),
        ((0.5, 0.5, 0.52), "grey"),
        ((0.97, 0.97, 0.95), "white"),
        ((0.05, 0.1, 0.1), "black"),
    ],
)
def test_a_color_has_the_word_of_its_hue(rgb: tuple[float, float, float], word: str) -> None:
    assert color_word(rgb) == word


def test_objects_of_other_environments_are_labelled_by_the_names_that_they_were_given() -> None:
    from robot_attn_envs.anymujoco import CameraObservation

    env = CameraObservation(
        gymnasium.make("Pusher-v5"), camera=None, target="object", distractors=["goal"], image_size=48
    )
    _, info = env.reset(seed=0)
    assert env.thing_names == ("backdrop", "target", "robot", "occluder", "distractor 1")
    assert env.describe_things()[0][1:] == ("object", "robot", "occluder", "goal")
    model, ids = env.unwrapped.model, env.frames.geom_id[0, 0]
    arm = [g for g in range(model.ngeom) if "r_" in mujoco.mj_id2name(model, 1, model.geom_bodyid[g])]
    seen = np.isin(ids, arm)
    assert seen.any() and (info["things"][seen] == 2).all()
    assert np.array_equal(info["things"] == 1, info["target_mask"])
    env.close()
