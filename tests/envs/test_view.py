"""Views: the current scene from other cameras and at other sizes."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest

import robot_attn_envs  # noqa: F401  (registers the tasks)

TASKS = ("Track", "Navigate", "Reach", "Push")


def make(task: str, steps: int = 7, **options: Any) -> Any:
    """A batch of three worlds some steps into their episodes, and its observation."""
    env: Any = gymnasium.make_vec(f"RobotAttn/{task}-v0", num_envs=3, masks=True, **options)
    observation, infos = env.reset(seed=11)
    for _ in range(steps):
        observation, _, _, _, infos = env.step(np.full(env.action_space.shape, 0.4, np.float32))
    return env.unwrapped, observation["image"], infos["target_mask"]


@pytest.mark.parametrize("task", TASKS)
def test_the_policys_own_view_equals_its_observation(task: str) -> None:
    env, image, mask = make(task, suite="hard", occluders=1, image_size=(32, 40))
    for view in (env.view(), env.view(env.worlds.task.camera, (32, 40))):
        np.testing.assert_array_equal(view[0], image)
        np.testing.assert_array_equal(view[1], mask)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_larger_view_equals_the_observation_at_that_size(task: str) -> None:
    small, image, _ = make(task, image_size=32)
    large, expected, mask = make(task, image_size=72)
    for _ in range(2):  # the second time with the same camera
        view = small.view(image_size=72)
        np.testing.assert_array_equal(view[0], expected)
        np.testing.assert_array_equal(view[1], mask)
    np.testing.assert_array_equal(small.view(image_size=[72, 72])[0], expected)
    np.testing.assert_array_equal(small.observe()["image"], image)
    small.close()
    large.close()


@pytest.mark.parametrize(("one", "other"), [("fixed", "wrist"), ("wrist", "fixed")])
def test_another_camera_equals_the_observation_of_a_policy_that_has_it(one: str, other: str) -> None:
    env, _, _ = make("Reach", view=one, image_size=40)
    theirs, expected, mask = make("Reach", view=other, image_size=40)
    images, masks = env.view(other)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(masks, mask)
    expected = theirs.view(image_size=72)[0]
    assert (env.view(image_size=72)[0] != expected).any()
    np.testing.assert_array_equal(env.view(other, 72)[0], expected)
    env.close()
    theirs.close()


@pytest.mark.parametrize("task", ["Track", "Navigate"])
def test_the_overview_has_the_target_where_its_position_projects_to(task: str) -> None:
    env, _, _ = make(task)
    worlds, size = env.worlds, 240
    _, masks = env.view("overview", size)
    camera = worlds.model.camera("overview")
    axes = worlds.batch.bind("cam_xmat")[0, camera.id].reshape(3, 3)
    for world in range(3):
        target = worlds.batch.bind("geom_xpos")[world, worlds.task.objects.target_geoms()[world]]
        x, y, z = axes.T @ (target - camera.pos)
        scale = size / 2 / math.tan(math.radians(camera.fovy[0]) / 2)
        where = [size / 2 - 0.5 - scale * y / -z, size / 2 - 0.5 + scale * x / -z]
        assert np.argwhere(masks[world]).mean(axis=0) == pytest.approx(where, abs=1.5)
    env.close()


def test_other_cameras_see_the_robot() -> None:
    env, _, _ = make("Navigate", steps=0)
    before = env.view("overview", 128)[0]
    for _ in range(10):
        env.step(np.tile(np.array([1.0, 0.0], np.float32), (3, 1)))
    # Nothing else moves.
    assert (env.view("overview", 128)[0] != before).any(axis=-1).sum(axis=(1, 2)).min() > 10
    env.close()


def test_occluding_patches_affect_the_policys_camera_only() -> None:
    dirty, image, _ = make("Track", shift={"occlusion": 1.0}, image_size=48)
    clean, plain, _ = make("Track", image_size=48)
    assert (image != plain).any()
    np.testing.assert_array_equal(dirty.view("overview")[0], clean.view("overview")[0])
    assert (dirty.view(image_size=96)[0] != clean.view(image_size=96)[0]).any()
    np.testing.assert_array_equal(dirty.observe()["image"], image)
    np.testing.assert_array_equal(dirty.view()[0], image)
    dirty.close()
    clean.close()


def test_an_unknown_camera_or_invalid_size_raises() -> None:
    env, _, _ = make("Push", steps=0)
    with pytest.raises(
        ValueError, match=r"expected a camera of the model among fixed, wrist, got 'overhead'$"
    ):
        env.view("overhead")
    with pytest.raises(ValueError, match="from 32 to 2048, got 16"):
        env.view(image_size=16)
    with pytest.raises(ValueError, match="got 4096"):
        env.view("wrist", 4096)
    env.close()
