"""`robot-attn replay` from run folders of a small task, and from the episodes it records."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import make_run  # noqa: E402

from robot_attn.video import ffmpeg_path  # noqa: E402
from robot_attn_policies.episodes import load_episode  # noqa: E402
from robot_attn_policies.evaluate import EVALUATION_SEED  # noqa: E402
from robot_attn_scripts import cli  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return make_run(tmp_path_factory.mktemp("runs") / "query")


def run(*arguments: object) -> int:
    return cli.main(["replay", *map(str, arguments)])


def decode(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame[..., ::-1])


@pytest.fixture(scope="module")
def replayed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "replay.mp4"
    assert run(folder, "--out", out, "--png", "--calibration-episodes", 4) == 0
    return out


def test_video_episode_and_contact_sheet_lie_side_by_side(replayed: Path) -> None:
    assert sorted(path.name for path in replayed.parent.iterdir()) == [
        "replay.hdf5",
        "replay.mp4",
        "replay.png",
    ]
    episode = load_episode(replayed.with_suffix(".hdf5"))
    frames = decode(replayed)
    assert len(frames) == len(episode)
    assert frames[0].shape[0] == 720
    assert episode.seed == EVALUATION_SEED
    assert episode.action_names == ("up", "left")
    assert episode.dones.tolist() == [False] * (len(episode) - 1) + [True]
    told = subprocess.run([ffmpeg_path(), "-hide_banner", "-i", replayed], capture_output=True, text=True)
    assert "12.50 fps" in told.stderr  # a step lasts 0.08 s
    sheet = cv2.imread(str(replayed.with_suffix(".png")))
    assert sheet.shape[0] > 300
    assert sheet.shape[1] > 600


def test_what_is_recorded_is_what_the_policy_saw_and_did(replayed: Path, folder: Path) -> None:
    from robot_attn_policies.extractor import perceive
    from robot_attn_policies.run_folder import load_policy

    episode = load_episode(replayed.with_suffix(".hdf5"))
    assert episode.state is not None
    assert episode.target_masks is not None
    red = episode.images[..., 0] == 250
    assert np.array_equal(red, episode.target_masks)
    policy, _ = load_policy(folder)
    seen = {"image": episode.images, "state": episode.state}
    assert perceive(policy, seen).attention.numpy() == pytest.approx(episode.attention, abs=1e-5)
    actions, _ = policy.predict(seen, deterministic=True)
    assert actions == pytest.approx(episode.actions, abs=1e-4)


def test_the_same_seed_replays_the_same_episode(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert (
            run(folder, "--out", tmp_path / f"{name}.mp4", "--seed", seed, "--calibration-episodes", 2) == 0
        )
    a, b, c = (load_episode(tmp_path / f"{name}.hdf5") for name in "abc")
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert a.seed == b.seed == 5
    assert not np.array_equal(a.states, c.states) or not np.array_equal(a.images, c.images)


def test_an_episode_under_a_suite_says_so(folder: Path, tmp_path: Path) -> None:
    assert (
        run(folder, "--out", tmp_path / "a.mp4", "--suite", "hard", "--env", "box=false", "--size", 600) == 0
    )
    episode = load_episode(tmp_path / "a.hdf5")
    assert episode.env_args["env_kwargs"] == {"box": False, "suite": "hard"}
    assert (episode.images[..., 0] == 250).all()


def test_an_episode_is_drawn_again_at_another_size_without_the_run(replayed: Path, tmp_path: Path) -> None:
    recorded = replayed.with_suffix(".hdf5")
    before = recorded.read_bytes()
    # Without the packages of simulation and learning: nothing but the file is needed.
    code = (
        "import sys\n"
        "for name in ('mujoco', 'mujoco_warp', 'robot_attn_envs'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from robot_attn_scripts.replay import Options, run\n"
        f"run(Options(Path({str(recorded)!r}), out=Path({str(tmp_path / 'again.mp4')!r}), size=640))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    frames = decode(tmp_path / "again.mp4")
    assert len(frames) == len(decode(replayed))
    assert frames[0].shape[0] == 640
    assert [path.name for path in tmp_path.iterdir()] == ["again.mp4"]
    assert recorded.read_bytes() == before


def test_the_json_holds_the_figures_that_are_printed(
    replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, out, path = replayed.with_suffix(".hdf5"), tmp_path / "a.mp4", tmp_path / "figures.json"
    assert run(recorded, "--out", out, "--size", 600, "--json", path) == 0
    episode = load_episode(recorded)
    figures = json.loads(path.read_text())
    assert figures == {
        "source": str(recorded),
        "environment": "RobotAttn/Toy-v0",
        "seed": episode.seed,
        "steps": {"value": len(episode), "unit": "steps"},
        "return": {"value": pytest.approx(float(episode.rewards.sum())), "unit": "reward an episode"},
        "success": episode.success,
        "files": [str(out)],
    }
    outcome = "success" if figures["success"] else "no success"
    told = " ".join(capsys.readouterr().out.split())
    assert (
        f"RobotAttn/Toy-v0, seed {figures['seed']}: {figures['steps']['value']} steps, "
        f"return {figures['return']['value']:.1f}, {outcome}"
    ) in told


def test_a_policy_without_attention_is_drawn_without_heat(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "cnn", "cnn")
    assert run(folder, "--out", tmp_path / "a.mp4") == 0
    assert load_episode(tmp_path / "a.hdf5").uniform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.avi"], "ends in .mp4"),
        (["--size", 700 + 1], "even number"),
        (["--size", 100], "from 600"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    folder: Path,
    tmp_path: Path,
    arguments: list[object],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(folder, *arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing", "--out", tmp_path / "a.mp4") == 2
    assert "neither a run folder nor a recorded episode" in capsys.readouterr().err
    (tmp_path / "e.hdf5").write_bytes(b"not an episode")
    assert run(tmp_path / "e.hdf5", "--out", tmp_path / "a.mp4") == 2
    assert "not an HDF5 file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["e.hdf5"]


def test_a_missing_ffmpeg_is_one_clear_sentence_and_keeps_the_episode(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    assert run(folder, "--out", tmp_path / "a.mp4", "--calibration-episodes", 2) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert "ffmpeg" in told[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]
