"""`robot-attn replay` of a stored episode at another size and from another camera."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

import robot_attn_envs  # noqa: E402, F401
from robot_attn import AttentionGrid, Percept  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode, record_episode, save_episode  # noqa: E402
from robot_attn_scripts import cli  # noqa: E402
from robot_attn_scripts.replay import Options, _shown  # noqa: E402

STEPS = 4


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first steps of an episode of Track, whose maps have all their weight in one cell."""
    options = {"image_size": 32}
    env: Any = gymnasium.make_vec("RobotAttn/Track-v0", num_envs=1, masks=True, **options)
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 2] = 1
    act = lambda observation: (env.unwrapped.oracle_actions(), Percept(torch.zeros(1, 0), maps))  # noqa: E731
    centers = [3.5, 11.5, 19.5, 27.5]
    args = {"env_name": "RobotAttn/Track-v0", "env_kwargs": options}
    whole = record_episode(act, env, 5, AttentionGrid(centers, centers, (32, 32)), env_args=args)
    env.close()
    arrays = ("images", "actions", "rewards", "dones", "attention", "target_masks", "things")
    start = replace(
        whole,
        **{name: getattr(whole, name)[:STEPS] for name in (*arrays, "state", "states")},
        simulator={name: part[:STEPS] for name, part in whole.simulator.items()},
        cut=len(whole),
    )
    path = tmp_path_factory.mktemp("stored") / "episode.hdf5"
    save_episode(path, start)
    return path


def shown(path: Path, **options: Any) -> tuple[Episode, Any]:
    from rich.console import Console

    episode = load_episode(path)
    return episode, _shown(Options(path, **options), episode, Console(stderr=True))


def test_places_scale_with_the_frame() -> None:
    # Cells of 8 pixels in 32 are cells of 24 in 96: their centres are those of 24 pixels.
    grid = AttentionGrid([3.5, 11.5, 19.5, 27.5], [15.5], (32, 32))
    assert grid.resized((96, 32)) == AttentionGrid([11.5, 35.5, 59.5, 83.5], [15.5], (96, 32))
    assert grid.resized((32, 32)) == grid


def test_sharper_frames_carry_the_same_maps(stored: Path) -> None:
    episode, sharp = shown(stored, image_size=96)
    assert sharp.view is None
    assert sharp.notes == [
        "The policy's frames have 32 × 32 pixels; they are rendered again here at 96 × 96."
    ]
    again = sharp.episode
    assert again.images.shape == (STEPS, 96, 96, 3)
    assert again.grid.xs.tolist() == [11.5, 35.5, 59.5, 83.5]
    assert np.array_equal(again.attention, episode.attention)
    # The same scene: made small, it is the frame that was stored, but for its edges.
    small = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in again.images])
    assert np.median(np.abs(small.astype(int) - episode.images)) <= 2
    assert again.target_masks is not None
    assert episode.target_masks is not None
    assert again.target_masks.mean() == pytest.approx(episode.target_masks.mean(), rel=0.2)


def test_another_camera_comes_beside_the_frames_of_the_policy(stored: Path) -> None:
    episode, both = shown(stored, camera="overview")
    assert np.array_equal(both.episode.images, episode.images)
    assert both.view is not None
    assert both.view.name == "overview"
    assert both.view.images.shape == (STEPS, 256, 256, 3)
    small = cv2.resize(both.view.images[0], (32, 32), interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(small.astype(int) - episode.images[0])) > 5


def test_without_either_nothing_is_drawn_again(stored: Path) -> None:
    episode, plain = shown(stored)
    assert (plain.view, plain.notes) == (None, [])
    assert np.array_equal(plain.episode.images, episode.images)


def test_the_command_writes_both(stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    options = ["--camera", "overview", "--image-size", "64", "--size", "600", "--out", str(out)]
    assert cli.main(["replay", str(stored), *options]) == 0
    found = re.search(r'id="data">(.*?)</script>', out.with_suffix(".html").read_text(), re.S)
    assert found is not None
    data = json.loads(found[1])
    assert (data["size"], data["view"]["size"], data["view"]["name"]) == ([64, 64], [64, 64], "overview")
    capture = cv2.VideoCapture(str(out))
    _, frame = capture.read()
    assert frame.shape[0] == 600
    assert frame.shape[1] > 900  # the other camera's panel is 300 pixels and more
    assert cli.main(["replay", str(stored), "--camera", "none", "--out", str(tmp_path / "b.mp4")]) == 2
    error = capsys.readouterr().err
    assert "expected a camera of the model among" in error and "got 'none'" in error
