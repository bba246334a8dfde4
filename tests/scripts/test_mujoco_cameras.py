"""The commands on Gymnasium's MuJoCo environments, drawn by our renderer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

from robot_attn_envs import CameraVectorEnv  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode  # noqa: E402
from robot_attn_policies.training.run_folder import read_config  # noqa: E402
from robot_attn_scripts._tasks import make_batch, with_masks  # noqa: E402
from robot_attn_scripts.cli import main  # noqa: E402

SMALL = ["--ppo", "n_envs=2", "n_steps=32", "batch_size=32", "n_epochs=1", "net_arch=[8]"]
STEPS = 16
# Closer than Pusher's own camera, in whose frames of 64 x 64 pixels the object is a pixel.
CLOSE = '{"distance": 1.2, "elevation": -60, "lookat": [0.5, -0.2, -0.3]}'
PUSHER = [
    *(f"max_episode_steps={STEPS}", f"default_camera_config={CLOSE}"),
    *("target=object", 'distractors=["goal"]', "backdrop=table"),
]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pusher"
    budget = ["--steps", 64, "--eval-every", 64, "--eval-episodes", 2, "--threads", 1]
    assert run("train", "Pusher-v5", "--out", out, *budget, "--env", *PUSHER, *SMALL) == 0
    return out


def test_a_training_sees_frames_and_the_environments_own_state(folder: Path) -> None:
    config = read_config(folder).config
    assert config.env["target"] == "object"
    batch: Any = make_batch("Pusher-v5", config.env, 2)
    assert isinstance(batch, CameraVectorEnv)
    spaces = batch.single_observation_space.spaces
    assert {name: space.shape for name, space in spaces.items()} == {"image": (64, 64, 3), "state": (23,)}
    assert (batch.single_action_space.low == -1.0).all()
    assert (batch.single_action_space.high == 1.0).all()
    assert (batch.horizon, batch.dt) == (STEPS, 0.05)
    assert "target_mask" not in batch.reset(seed=0)[1]  # nothing needs it in training
    batch.close()
    assert with_masks("Pusher-v5", config.env)["masks"]


def test_an_evaluation_measures_attention_on_the_target(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    episodes = ["--episodes", 3, "--calibration-episodes", 2, "--json", out]
    assert run("evaluate", folder, *episodes) == 0
    figures = json.loads(out.read_text())
    assert figures["normalised_score"] is None
    focus = figures["focus"]
    assert 0.002 < focus["chance"]["value"] < 0.05  # the object's share of the frame
    assert focus["frames_scored"]["value"] == 3 * STEPS
    assert focus["references"]["uniform"]["mass_over_chance"]["value"] == pytest.approx(1.0)


def test_a_replay_has_the_targets_masks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay.mp4"
    assert run("replay", folder, "--out", out, "--seed", 7, "--which", "last") == 0
    episode = load_episode(out.with_suffix(".hdf5"))
    config = read_config(folder).config
    batch: Any = make_batch("Pusher-v5", {**config.env, "masks": True}, 1)
    observation, infos = batch.reset(seed=[7])
    for step in range(STEPS):
        np.testing.assert_array_equal(episode.images[step], observation["image"][0])
        assert episode.target_masks is not None
        np.testing.assert_array_equal(episode.target_masks[step], infos["target_mask"][0])
        observation, _, _, _, infos = batch.step(episode.actions[step][None])
    batch.close()


def test_an_explanation_intervenes_in_the_picture(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    out = tmp_path / "report.html"
    assert run("explain", folder, "--episodes", 2, "--out", out) == 0
    sections = json.loads(out.with_suffix(".json").read_text())["sections"]
    checks = sections["interventions"]["verdict"]["checks"]
    moved = next(check for check in checks if "attention with the target moved" in check["text"])
    assert 0.0 < moved["value"] < 1.0


def test_a_comparison_under_a_suite_compares_returns_and_names_what_is_left_out(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    episodes = ["--episodes", 2, "--calibration-episodes", 2, "--jobs", 1, "--envs", 2]
    assert run("compare", folder, "--suite", "medium", "--out", tmp_path, *episodes) == 0
    told = capfd.readouterr()
    assert told.err.count("left out: distractors (needs a task that can place more objects") == 1
    assert "The environment has no oracle, so scores are returns" in " ".join(told.out.split())
    figures = json.loads((tmp_path / "comparison.json").read_text())
    assert figures["score"] == "return"
    (arm,) = figures["scenes"]["medium"]
    trained, shifted = (figures["scenes"][scene][arm] for scene in ("trained", "medium"))
    assert "normalised_score" not in trained
    assert trained["return"]["value"] < 0
    assert trained["mass_over_chance"]["value"] != shifted["mass_over_chance"]["value"]
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_cameras_draws_a_sheet_and_lists_what_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, out = tmp_path / "cameras.png", tmp_path / "cameras.json"
    arguments = ["--out", sheet, "--json", out, "--size", 128]
    assert run("cameras", "Humanoid-v5", *arguments) == 0
    told = capsys.readouterr().out
    assert "track" in told
    assert "right_thigh" in told
    figures = json.loads(out.read_text())
    assert figures["cameras"] == ["track", "camera1", "free"]
    covers = {(thing["kind"], thing["name"]): thing["cover"] for thing in figures["things"]}
    assert 0.001 < covers["body", "torso"]["free"]["value"] < 0.2
    assert covers["body", "torso"]["free"]["value"] > covers["geom", "head"]["free"]["value"] > 0.0
    assert cv2.imread(str(sheet)).std() > 20.0
    for task, message in (
        ("CartPole-v1", "expected an environment with a MuJoCo `model` and `data`"),
        ("track", "not one of robot-attn's tasks"),
    ):
        assert run("cameras", task, "--out", tmp_path / "x.png") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("Pusher-v5", ["target=objct"], "did you mean 'object'"),
        ("Pusher-v5", ["camera=track"], "expected a camera among free, got 'track'"),
        ("Pusher-v5", ["renderer=opngl"], "did you mean 'opengl'"),
        ("Pusher-v5", ["renderer=opengl", "target=object"], "for target, got Pusher-v5 with renderer=opengl"),
        ("CartPole-v1", ["target=pole"], "for target, got CartPole-v1 without a MuJoCo model"),
        ("Pusher-v5", ["shift=distractors"], "needs a task that can place more objects"),
    ],
)
def test_what_cannot_be_drawn_so_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, options: list[str], message: str
) -> None:
    assert run("train", task, "--out", tmp_path / "run", "--env", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
