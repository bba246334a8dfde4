"""The registry: tasks and shifts of other packages, and random streams that do not depend on order."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import robot_attn_envs
from robot_attn_envs import SHIFTS, TASKS, Shift, Worlds, register_shift, register_task, registry
from robot_attn_envs.shifts import chosen_shifts
from robot_attn_envs.tasks.track import Track

OURS = ["distractors", "colors", "lookalikes", "background", "lighting", "camera", "noise", "occlusion"]


class Still(Shift):
    """Changes nothing, and keeps what it sampled."""

    stream = 4711

    def __init__(self, num_worlds: int, intensity: float) -> None:
        super().__init__(num_worlds, intensity)
        self.episode = {"number": np.zeros(num_worlds)}

    def reset(self, world: int, rng: np.random.Generator) -> None:
        self.episode["number"][world] = rng.random()


class Again(Still):
    pass


class Small(Still):
    stream = 8


class Nameless(Still):
    stream = "mine"  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shifts, tasks, ids = dict(registry._shifts), dict(registry._tasks), dict(gymnasium.registry)
    yield
    for held, before in ((registry._shifts, shifts), (registry._tasks, tasks), (gymnasium.registry, ids)):
        held.clear()
        held.update(before)  # type: ignore[arg-type]
    SHIFTS._loaded.clear()  # type: ignore[attr-defined]


def frames(**options: Any) -> np.ndarray:
    """The first frames of two episodes of Track, and those after three steps."""
    worlds = Worlds(Track, 2, image_size=32, threads=1, **options)
    worlds.seed([3, 4])
    worlds.reset(np.arange(2))
    images = [worlds.observe()["image"]]
    for _ in range(3):
        worlds.step(np.full((2, 2), 0.3))
    images.append(worlds.observe()["image"])
    worlds.close()
    return np.stack(images)


@pytest.mark.parametrize("suite", ["easy-v0", "medium-v0", "hard-v0"])
def test_inserting_a_shift_at_the_front_keeps_the_frames_of_suites(suite: str) -> None:
    before = frames(suite=suite)
    ours = dict(registry._shifts)
    registry._shifts.clear()
    register_shift("still", Still)
    registry._shifts.update(ours)
    assert [*SHIFTS] == ["still", *OURS]
    np.testing.assert_array_equal(frames(suite=suite), before)


def test_our_shifts_keep_the_streams_of_the_published_suites() -> None:
    assert {name: SHIFTS[name].stream for name in OURS} == {name: i for i, name in enumerate(OURS)}


def test_a_registered_shift_is_chosen_by_name_and_samples_from_its_own_stream() -> None:
    register_shift("still", Still)
    register_shift("still", Still)
    assert chosen_shifts({"still": 1, "noise": 0.5, "colors": 1}, 0.5, None) == {
        "colors": 1.0, "noise": 0.5, "still": 1.0,
    }  # fmt: skip
    np.testing.assert_array_equal(frames(shift="still"), frames())
    worlds = Worlds(Track, 1, image_size=32, shift=["still", "noise"])
    worlds.seed([5])
    worlds.reset(np.arange(1))
    entropy = [int(worlds._entropy[0]), 1, 2]
    assert worlds.shifts.episode["still/number"][0] == np.random.default_rng([*entropy, 4711]).random()
    worlds.close()


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (
            Small,
            r"the shift 'mine' to have a `stream` from 100 to 2\^32 - 1, got 8: give its class an",
        ),
        (Nameless, r"got 'mine': give its class an unused number"),
        (Track, "to be a subclass of Shift, got <class"),
        ("json:loads", "to be a subclass of Shift, got <function"),
        ("nothing_there:Fog", r"got 'nothing_there:Fog' .* put its folder in PYTHONPATH"),
        ("json:Fog", r"got 'json:Fog' \(module 'json' has no attribute 'Fog'\)"),
    ],
)
def test_an_unusable_shift_raises_when_it_is_first_used(shift: Any, message: str) -> None:
    register_shift("mine", shift)
    assert "mine" in SHIFTS and chosen_shifts("noise", 1.0, None) == {"noise": 1.0}
    with pytest.raises(ValueError, match=message):
        chosen_shifts("mine", 1.0, None)


def test_two_shifts_with_one_stream() -> None:
    register_shift("still", Still)
    register_shift("again", Again)
    with pytest.raises(
        ValueError, match="different streams for shifts, got 4711 for both 'still' and 'again'"
    ):
        chosen_shifts(["still", "again"], 1.0, None)


@pytest.mark.parametrize(
    ("name", "shift", "message"),
    [
        ("noise", Still, "an unused name for a shift, got 'noise', which is robot_attn_envs"),
        ("a b", Still, "a shift name of letters, digits"),
        ("fog", "fog", "expected a shift as \"module:Class\", got 'fog'"),
    ],
)
def test_a_shift_that_cannot_be_registered(name: str, shift: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_shift(name, shift)
    assert [*SHIFTS] == OURS


def test_a_registered_task_is_made_like_the_built_in_ones() -> None:
    register_task("Mine/Pan-v0", Track)
    register_task("Mine/Pan-v0", f"{Track.__module__}:Track")  # the same again
    assert TASKS["Mine/Pan-v0"].endswith("track:Track")
    one = gymnasium.make("Mine/Pan-v0", image_size=32, masks=True)
    many = gymnasium.make_vec("Mine/Pan-v0", num_envs=2, image_size=32)
    np.testing.assert_array_equal(one.reset(seed=7)[0]["image"], many.reset(seed=[7, 8])[0]["image"][0])
    one.close()
    many.close()


@pytest.mark.parametrize(
    ("task_id", "task", "message"),
    [
        ("RobotAttn/Track-v0", "json:loads", "an unused id for a task, got 'RobotAttn/Track-v0'"),
        ("CartPole-v1", Track, "an unused id for a task, got 'CartPole-v1'"),
        ("Mine/Pan v0", Track, "a task id such as 'Mine/Dot-v0', got 'Mine/Pan v0'"),
        ("Mine/Pan-v0", "track", "expected a task as \"module:Class\", got 'track'"),
    ],
)
def test_a_task_that_cannot_be_registered(task_id: str, task: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_task(task_id, task)
    assert "Mine/Pan-v0" not in TASKS and TASKS["RobotAttn/Track-v0"].endswith(":Track")


def test_a_class_that_is_not_a_task_raises_when_it_is_made() -> None:
    register_task("Mine/Not-v0", "json:loads")
    with pytest.raises(
        ValueError, match=r"'json:loads' to be a subclass of robot_attn_envs\.Task, got <function"
    ):
        gymnasium.make_vec("Mine/Not-v0", num_envs=1)


def test_an_installed_package_adds_tasks_and_shifts_without_being_imported(tmp_path: Path) -> None:
    about = tmp_path / "strange-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[robot_attn.tasks]\nStrange/Dot-v0 = strange:Dot\nRobotAttn/Track-v0 = strange:Track\n"
        "[robot_attn.shifts]\nfog = strange:Fog\nnoise = strange:Noise\n"
    )
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(tmp_path)!r})\n"
        "with warnings.catch_warnings(record=True) as caught:\n    import robot_attn_envs\n"
        "print(robot_attn_envs.TASKS['Strange/Dot-v0'], robot_attn_envs.TASKS['RobotAttn/Track-v0'])\n"
        "print(*robot_attn_envs.registry.SHIFT_PLACES)\n"
        "print(len(caught), *(str(each.message).split(':')[0] for each in caught))\n"
        "print([name for name in ('strange', 'mujoco', 'torch', 'warp') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tasks, shifts, caught, heavy = done.stdout.splitlines()
    assert tasks == f"strange:Dot {TASKS['RobotAttn/Track-v0']}"
    assert shifts == " ".join([*OURS, "fog"])
    assert caught.startswith("2 the entry point 'RobotAttn/Track-v0' of strange is ignored")
    assert heavy == "[]"


def test_the_public_names() -> None:
    assert sorted(robot_attn_envs.__all__) == [
        "BatchCamera",
        "BatchEnv",
        "CameraObservation",
        "CameraVectorEnv",
        "FreeCamera",
        "Objects",
        "SHIFTS",
        "SUITES",
        "Shift",
        "SpaceRow",
        "TASKS",
        "Task",
        "TaskEnv",
        "Worlds",
        "linear_falloff",
        "object_names",
        "register_shift",
        "register_task",
    ]
    assert all(hasattr(robot_attn_envs, name) for name in robot_attn_envs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Tsak'"):
        robot_attn_envs.Tsak  # noqa: B018
