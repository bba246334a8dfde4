"""The commands on a policy with two cameras of somebody's own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_module import registered  # noqa: E402

from robot_attn.drawing import Replay  # noqa: E402
from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode  # noqa: E402
from robot_attn_policies.sb3.act import act  # noqa: E402
from robot_attn_policies.sb3.extractor import find_extractor  # noqa: E402
from robot_attn_policies.sb3.policy import policy_weights  # noqa: E402
from robot_attn_policies.training.run_folder import load_policy  # noqa: E402
from robot_attn_scripts.cli import main  # noqa: E402

STEPS = 5
TWO = '''
import gymnasium
import numpy as np
from gymnasium import spaces

SIZES = {"left": (40, 52), "wrist": (36, 36)}


class Two(gymnasium.Env):
    """A spot that the left camera and the wrist camera see at different places; only one has its mask."""

    metadata = {"render_modes": [], "render_fps": 10}
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, masked=("left", "wrist")):
        self.masked = masked
        self.observation_space = spaces.Dict(
            {name: spaces.Box(0, 255, (*size, 3), np.uint8) for name, size in SIZES.items()}
            | {"state": spaces.Box(-1, 1, (2,), np.float32)}
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0.1, 0.9, 2)
        return self.observe(), self.info()

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * action, 0, 1)
        return self.observe(), float(1 - self.place[0]), False, False, self.info()

    def mask(self, name):
        height, width = SIZES[name]
        y, x = (self.place if name == "left" else self.place[::-1]) * (height - 6, width - 6)
        mask = np.zeros((height, width), bool)
        mask[int(y) : int(y) + 6, int(x) : int(x) + 6] = True
        return mask

    def observe(self):
        frames = {name: np.full((*size, 3), 60, np.uint8) for name, size in SIZES.items()}
        for name, frame in frames.items():
            frame[self.mask(name)] = (220, 40, 40)
        return frames | {"state": self.place.astype(np.float32)}

    def info(self):
        return {f"target_mask/{name}": self.mask(name) for name in self.masked}


gymnasium.register("Two-v0", Two, max_episode_steps=5)
'''


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with registered(tmp_path_factory.mktemp("two") / "two_env.py", TWO, "Two-v0") as module:
        yield module


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(two: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "two"
    small = ["--ppo", "n_envs=2", "n_steps=8", "batch_size=8", "n_epochs=1", "net_arch=[8]"]
    options = [
        "--option",
        "num_heads=2",
        "--steps",
        16,
        "--eval-every",
        16,
        "--eval-episodes",
        2,
        "--threads",
        1,
    ]
    assert run("train", "two_env:Two-v0", "--out", out, *options, *small) == 0
    return out


LOAD = ["--module", "two_env", "--which", "last"]


@pytest.fixture
def played(folder: Path, two: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Frames, and attention by `act`, of each camera at the first step of the first evaluation episode."""
    env = gymnasium.make("Two-v0")
    observation, _ = env.reset(seed=EVALUATION_SEED)
    env.close()
    policy, _ = load_policy(folder, "last", modules=["two_env"])
    maps = {
        name: act(policy, {key: entry[None] for key, entry in observation.items()}, image=name)[1].attention
        for name in ("left", "wrist")
    }
    return {name: observation[name] for name in maps} | {
        f"attention.{name}": found[0].numpy() for name, found in maps.items()
    }


def test_a_lerobot_dataset_has_the_frames_and_maps_of_both(
    folder: Path, played: dict[str, Any], tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "two"
    assert run("record", folder, *LOAD, "--lerobot", out, "--episodes", 2, "--at-once", 1) == 0
    first = parquet.read_table(out / "data" / "chunk-000" / "file-000.parquet").to_pylist()[0]
    about = json.loads((out / "meta" / "robot-attn.json").read_text())
    for name in ("left", "wrist"):
        image = np.frombuffer(first[f"observation.images.{name}"]["bytes"], np.uint8)
        assert np.array_equal(cv2.imdecode(image, cv2.IMREAD_COLOR_RGB), played[name])
        shape = about[f"attention.{name}"]["shape"]
        found = np.reshape(first[f"attention.{name}"], shape)
        np.testing.assert_allclose(found, played[f"attention.{name}"], rtol=0, atol=1e-6)
    assert "attention" not in first


def test_a_minari_dataset_has_the_frames_and_maps_of_both(
    folder: Path, played: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert run("record", folder, *LOAD, "--minari", "two/test-v0", "--episodes", 2, "--at-once", 1) == 0
    dataset = minari.load_dataset("two/test-v0")
    episode = dataset[0]
    for name in ("left", "wrist"):
        assert np.array_equal(episode.observations[name][0], played[name])
        found = episode.infos[f"attention.{name}"][0]
        np.testing.assert_allclose(found, played[f"attention.{name}"], rtol=0, atol=1e-6)
        centers = dataset.storage.metadata[f"token_centers.{name}"]
        assert (len(centers["ys"]), len(centers["xs"])) == found.shape[1:]


def test_the_exported_policy_has_the_maps_of_both(
    folder: Path, played: dict[str, Any], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert run("export", folder, *LOAD, "--onnx", tmp_path / "two.onnx") == 0
    session = onnxruntime.InferenceSession(tmp_path / "two.onnx", providers=["CPUExecutionProvider"])
    env = gymnasium.make("Two-v0")
    observation, _ = env.reset(seed=EVALUATION_SEED)
    env.close()
    names = ["attention.left", "attention.wrist"]
    found = session.run(names, {name: entry[None] for name, entry in observation.items()})
    for name, maps in zip(names, found, strict=True):
        np.testing.assert_allclose(maps[0], played[name], rtol=0, atol=1e-5)


def test_training_uses_both_cameras_and_resumes(folder: Path, two: Any) -> None:
    policy, _ = load_policy(folder, which="last")
    assert find_extractor(policy).image_keys == ("left", "wrist")
    assert run("train", "two_env:Two-v0", "--out", folder, "--resume", "--steps", 32, "--threads", 1) == 0


def test_the_cameras_to_use_can_be_named_on_the_command_line(
    two: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--ppo", "n_envs=2", "n_steps=8", "batch_size=8", "n_epochs=1", "--steps", 16, "--eval-every", 0]
    one = tmp_path / "one"
    assert run("train", "two_env:Two-v0", "--out", one, "--option", "image=wrist", *small) == 0
    warning = "robot-attn: warning: the policy does not see the images ['left'], since image='wrist'"
    assert capsys.readouterr().err.count(warning) == 1
    with pytest.warns(UserWarning, match="does not see"):
        policy, _ = load_policy(one, which="last")
    assert find_extractor(policy).image_keys == ("wrist",)
    both = tmp_path / "both"
    assert run("train", "two_env:Two-v0", "--out", both, "--option", 'image=["wrist", "left"]', *small) == 0
    policy, _ = load_policy(both, which="last")
    assert find_extractor(policy).image_keys == ("wrist", "left")


def test_a_replay_shows_both_cameras(folder: Path, two: Any, tmp_path: Path) -> None:
    video = tmp_path / "replay.mp4"
    assert (
        run("replay", folder, *LOAD, "--out", video, "--png", "--seed", 3, "--calibration-episodes", 2) == 0
    )
    names = ["replay-left.hdf5", "replay-left.html", "replay-wrist.hdf5", "replay-wrist.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "replay.mp4", "replay.png"]
    left, wrist = (load_episode(tmp_path / f"replay-{name}.hdf5") for name in ("left", "wrist"))
    env = two.Two()
    observation, _ = env.reset(seed=3)
    for step in range(STEPS):
        for name, episode in {"left": left, "wrist": wrist}.items():
            assert np.array_equal(episode.images[step], observation[name])
            assert episode.target_masks is not None
            assert np.array_equal(episode.target_masks[step], env.mask(name))
        observation, *_ = env.step(left.actions[step])
    capture = cv2.VideoCapture(str(video))
    width = sum(Replay(episode).layout.width for episode in (left, wrist))
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == width
    assert "replay-wrist.html" in (tmp_path / "replay-left.html").read_text()
    assert "Camera wrist" in (tmp_path / "replay-left.html").read_text()
    # And again from the files.
    again = tmp_path / "again.mp4"
    sources = [tmp_path / "replay-left.hdf5", "--compare", tmp_path / "replay-wrist.hdf5"]
    assert run("replay", *sources, "--out", again) == 0
    assert cv2.VideoCapture(str(again)).get(cv2.CAP_PROP_FRAME_WIDTH) == width


def test_focus_is_scored_at_every_camera_that_has_masks(
    folder: Path, two: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores.json"
    arguments = ["--episodes", 2, "--envs", 2, "--calibration-episodes", 2, "--json", scores]
    assert run("evaluate", folder, *LOAD, *arguments) == 0
    figures = json.loads(scores.read_text())
    assert figures["focus"] is None
    chances = {name: focus["chance"]["value"] for name, focus in figures["focus_by_camera"].items()}
    assert chances == pytest.approx({"left": 36 / (40 * 52), "wrist": 36 / (36 * 36)})
    out = capsys.readouterr().out
    assert "camera left" in out and "camera wrist" in out

    assert run("evaluate", folder, *LOAD, *arguments, "--env", 'masked=["wrist"]', "--force") == 0
    figures = json.loads(scores.read_text())
    assert figures["focus_by_camera"]["left"] is None and figures["focus_by_camera"]["wrist"] is not None
    told = " ".join(capsys.readouterr().out.split())
    assert "Localisation at the camera left is not scored" in told


def test_an_explanation_has_both_cameras(folder: Path, two: Any, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    out = tmp_path / "explained.html"
    arguments = ["--episodes", 2, "--envs", 2, "--calibration-episodes", 2, "--no-curves"]
    assert run("explain", folder, *LOAD, "--out", out, *arguments) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["facts"]["Cameras"] == "left, wrist"
    assert {"camera-1-focus", "camera-2-focus", "camera-1-faithful", "camera-2-faithful"} <= set(
        told["sections"]
    )


def test_episodes_are_recorded_at_both_cameras(folder: Path, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "episodes"
    arguments = ["--episodes", 2, "--seed", 5, "--calibration-episodes", 2, "--at-once", 1]
    assert run("record", folder, *LOAD, "--out", out, *arguments) == 0
    names = [f"episode-{seed}-{camera}.hdf5" for seed in (5, 6) for camera in ("left", "wrist")]
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "film.mp4", "RUN", "--module", "two_env"],
        ["replay", "RUN", *LOAD, "--compare", "RUN", "--out", "OUT"],
        ["compare", "RUN", "--episodes", 2, "--out", "OUT", "--module", "two_env"],
    ],
    ids=["watch", "replay --compare", "compare"],
)
def test_commands_for_one_camera_refuse_two(
    arguments: list[Any],
    folder: Path,
    two: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    writer = cv2.VideoWriter("film.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    given = [{"RUN": folder, "OUT": tmp_path / "out.mp4"}.get(each, each) for each in arguments]
    if arguments[0] == "watch":
        given += ["--out", tmp_path / "out.mp4"]
    assert run(*given) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "expected a policy with one camera for this command" in told
    assert "left, wrist: use replay, explain or evaluate" in told


def test_cameras_of_a_mujoco_model_are_explained_and_scored_each(tmp_path: Path) -> None:
    """Frames, masks and counterfactuals of `robot_attn_envs.anymujoco`, which knows nothing of policies."""
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    run_folder, cameras = tmp_path / "run", 'camera=["track", "free"]'
    scene = ["--env", cameras, "target=ffoot", 'distractors=["bfoot"]', "max_episode_steps=12"]
    small = ["--ppo", "n_envs=2", "n_steps=8", "batch_size=8", "n_epochs=1", "net_arch=[8]", "--threads", 1]
    training = ["--out", run_folder, "--steps", 16, "--eval-every", 0, "--option", "num_heads=2"]
    assert run("train", "HalfCheetah-v5", *training, *small, *scene) == 0
    few = ["--which", "last", "--episodes", 2, "--calibration-episodes", 2]
    scores = tmp_path / "scores.json"
    assert run("evaluate", run_folder, *few, "--json", scores) == 0
    chance = {
        name: focus["chance"]["value"]
        for name, focus in json.loads(scores.read_text())["focus_by_camera"].items()
    }
    assert set(chance) == {"track", "free"} and chance["track"] != chance["free"]
    out = tmp_path / "explained.html"
    assert run("explain", run_folder, *few, "--out", out, "--no-curves") == 0
    sections = json.loads(out.with_suffix(".json").read_text())["sections"]
    tested = {
        name: bool(sections[f"camera-{number}-interventions"]["tables"])
        for number, name in enumerate(("free", "track"), 1)
    }
    assert tested == {
        "free": False,
        "track": True,
    }  # counterfactuals have the masks of the first camera alone


def test_a_resumed_training_with_two_cameras_has_the_same_bits(tmp_path: Path) -> None:
    """A picture and its depth are two images of one camera, both used."""
    small = ["--ppo", "n_envs=2", "n_steps=16", "batch_size=16", "n_epochs=1", "net_arch=[8]", "--threads", 1]
    training = ["train", "track", "--env", "depth=true", "--eval-every", 0, *small]
    assert run(*training, "--out", tmp_path / "whole", "--steps", 64) == 0
    assert run(*training, "--out", tmp_path / "parts", "--steps", 32) == 0
    assert run("train", "track", "--out", tmp_path / "parts", "--resume", "--steps", 64) == 0
    policies = [load_policy(tmp_path / name, which="last")[0] for name in ("whole", "parts")]
    assert find_extractor(policies[0]).image_keys == ("depth", "image")
    one, other = (policy_weights(policy) for policy in policies)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_image_that_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--ppo",
        "n_envs=2",
        "n_steps=16",
        "batch_size=16",
        "n_epochs=1",
        "--threads",
        1,
        "--eval-every",
        0,
    ]
    arguments = ["--env", "depth=true", "--option", "image=image", "--out", tmp_path / "run", "--steps", 32]
    assert run("train", "track", *arguments, *small) == 0
    assert "does not see the images ['depth'], since image='image'" in capsys.readouterr().err
