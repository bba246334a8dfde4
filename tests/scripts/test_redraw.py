"""Stored episodes rendered again from their simulator states."""

import sys
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import robot_attn_envs  # noqa: F401  (registers the tasks)
from robot_attn import AttentionGrid, Percept
from robot_attn.episode import Episode
from robot_attn_policies.recording.episode_file import record_episode
from robot_attn_scripts._redraw import MOST_WORLDS, redraw

SCENES: dict[str, dict[str, Any]] = {
    "plain": {"image_size": 32},
    "hard": {"image_size": [32, 44], "suite": "hard", "occluders": 1, "instruction": True},
}


def record(task: str, scene: str) -> Episode:
    """The oracle's episode, whose attention says nothing."""
    options = {"masks": True, **SCENES[scene]}
    env: Any = gymnasium.make_vec(f"RobotAttn/{task}-v0", num_envs=1, **options)
    percept = Percept(torch.zeros(1, 0), torch.full((1, 1, 2, 2), 0.25))
    centers = np.array([8.0, 24.0], np.float32)
    episode = record_episode(
        lambda observation: (env.unwrapped.oracle_actions(), percept),
        env.unwrapped,
        3,
        AttentionGrid(centers, centers, env.single_observation_space["image"].shape[:2]),
        env_args={"env_name": f"RobotAttn/{task}-v0", "env_kwargs": options},
    )
    env.close()
    return episode


def first_steps(episode: Episode, steps: int) -> Episode:
    by_step = ("images", "actions", "rewards", "dones", "attention", "target_masks", "things")
    parts: dict[str, Any] = {name: getattr(episode, name)[:steps] for name in (*by_step, "states", "state")}
    simulator = {name: part[:steps] for name, part in episode.simulator.items()}
    return replace(episode, **parts, simulator=simulator, cut=len(episode))


@pytest.fixture(scope="module")
def track() -> Episode:
    return first_steps(record("Track", "plain"), 5)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("task", ["Track", "Navigate", "Reach", "Push"])
def test_the_stored_frames_are_drawn_again_bit_for_bit(task: str, scene: str) -> None:
    episode = record(task, scene)
    assert len(episode) % MOST_WORLDS  # in the last batch some worlds are too many
    again = redraw(episode)
    np.testing.assert_array_equal(again.images, episode.images, strict=True)
    np.testing.assert_array_equal(again.target_masks, episode.target_masks, strict=True)


def test_what_of_the_scene_is_not_is_left_to_this_machine(track: Episode) -> None:
    options = {**track.env_args["env_kwargs"], "threads": 1, "device": "cuda:7", "num_envs": 9}
    elsewhere = replace(track, env_args={**track.env_args, "env_kwargs": options})
    np.testing.assert_array_equal(redraw(elsewhere).images, track.images)


def test_the_first_steps_of_an_episode_from_elsewhere(track: Episode) -> None:
    seen = redraw(track, image_size=(48, 64), camera="overview")
    assert seen.images.shape == (5, 48, 64, 3)
    assert seen.target_masks.shape == (5, 48, 64)
    env: Any = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=1, **SCENES["plain"])
    env.reset(seed=3)
    np.testing.assert_array_equal(env.unwrapped.view("overview", (48, 64))[0][0], seen.images[0])
    env.close()


def with_args(episode: Episode, **changes: Any) -> Episode:
    return replace(episode, env_args={**episode.env_args, **changes})


def with_part(episode: Episode, name: str, change: Any) -> Episode:
    return replace(episode, simulator={**episode.simulator, name: change(episode.simulator[name])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: with_args(e, env_name="ALE/Pong-v5"), "'ALE/Pong-v5', is not registered here"),
        (lambda e: with_args(e, env_name="CartPole-v1"), "'CartPole-v1', cannot return to a state"),
        (lambda e: with_args(e, env_name="this:RobotAttn/Track-v0"), "is not registered here"),
        (lambda e: with_args(e, env_name=["RobotAttn/Track-v0"]), "is not registered here"),
        (lambda e: replace(e, env_args={}), "None, is not registered here"),
        (lambda e: with_args(e, env_name="RobotAttn/Reach-v0"), "are not those of RobotAttn/Reach-v0"),
        (
            lambda e: with_args(e, env_kwargs={"colours": 3}),
            "expected an option of the task Track among .*, got 'colours'",
        ),
        (lambda e: with_args(e, env_kwargs={"image_size": 32, "distractors": 3}), "are not those of"),
        (lambda e: with_args(e, env_kwargs={"image_size": 48}), "renders other frames here"),
        (lambda e: replace(e, simulator={}), "no states of the simulator"),
        (lambda e: replace(e, simulator={"steps": e.simulator["steps"]}), "are not those of"),
        (lambda e: replace(e, simulator={**e.simulator, "steps": np.zeros(5)}), "are not those of"),
        (lambda e: with_part(e, "objects/target", lambda part: part + 99), "are not those of"),
        (lambda e: with_part(e, "generators", lambda part: part | np.uint64(1 << 63)), "are not those of"),
        (lambda e: with_part(e, "geom_rgba", lambda part: 1 - part), "renders other frames here"),
    ],
)
def test_what_cannot_be_drawn_again_says_why_and_what_can(track: Episode, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        redraw(change(track))
    assert str(caught.value).endswith("draw its stored frames, without --camera and --image-size")
    assert "this" not in sys.modules  # what a file names is not imported


def test_a_camera_or_a_size_that_there_is_not(track: Episode) -> None:
    with pytest.raises(ValueError, match=r"expected a camera of the model among overview, eye, got 'wrist'$"):
        redraw(track, camera="wrist")
    with pytest.raises(ValueError, match="from 32 to 2048, got 4000"):
        redraw(track, image_size=4000)
    with pytest.raises(ValueError, match="from 32 to 2048"):
        redraw(track, image_size=(64, 0))
