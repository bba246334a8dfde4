"""Every family, as a person uses it: trained on Track with the command, and a replay of it drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")
pytest.importorskip("stable_baselines3")

from robot_attn import FAMILIES  # noqa: E402
from robot_attn.drawing import Replay  # noqa: E402
from robot_attn.episode import Episode  # noqa: E402
from robot_attn_envs.env import BatchEnv  # noqa: E402
from robot_attn_envs.tasks.track import Track  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode  # noqa: E402
from robot_attn_policies.training.run_folder import load_policy, read_config, read_trainer  # noqa: E402
from robot_attn_scripts.cli import main  # noqa: E402

ID = "RobotAttn/ShortTrack-v0"
STEPS = 256
SMALL = [
    "--threads",
    "1",
    "--eval-episodes",
    "2",
    "--ppo",
    "n_envs=4",
    "n_steps=16",
    "batch_size=32",
    "n_epochs=1",
]


class ShortTrack(Track):
    """Track, with episodes that end before their videos get long."""

    horizon = 10


def make_short_track(num_envs: int, **options: Any) -> BatchEnv:
    return BatchEnv(ShortTrack, num_envs=num_envs, **options)


@pytest.fixture(autouse=True)
def _short_track() -> None:
    if ID not in gymnasium.registry:
        gymnasium.register(ID, vector_entry_point=make_short_track)


def last_picture(episode: Episode, *, uniform: bool) -> Any:
    return Replay(replace(episode, uniform=uniform, target_masks=None), size=600).large(len(episode) - 1)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_trains_and_its_replay_draws(family: str, tmp_path: Path) -> None:
    folder, video = tmp_path / "run", tmp_path / "replay.mp4"
    train = ["train", "shorttrack", "--perception", family, "--steps", str(STEPS), "--out", str(folder)]
    assert main([*train, *SMALL]) == 0
    assert read_config(folder).config.perception == family
    trainer = read_trainer(folder)
    assert trainer["steps"] == STEPS
    names = [name for name, _ in load_policy(folder, "last")[0].named_parameters()]
    means = [state["exp_avg"] for state in trainer["optimizer"]["state"].values()]
    assert [name for name, mean in zip(names, means, strict=True) if not mean.any()] == []

    replay = ["replay", str(folder), "--calibration-episodes", "2", "--size", "600", "--png"]
    assert main([*replay, "--out", str(video)]) == 0
    episode = load_episode(video.with_suffix(".hdf5"))
    assert len(episode) == ShortTrack.horizon
    assert episode.attention.sum(axis=(2, 3)) == pytest.approx(1, abs=1e-4)
    # Heat over the camera's frame: of causal maps where there is no attention to show.
    assert episode.maps == ("causal" if FAMILIES[family].uniform else "attention")
    heat, plain = (last_picture(episode, uniform=uniform) for uniform in (episode.uniform, True))
    assert not np.array_equal(heat, plain)
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(episode)
    shown, picture = capture.read()
    capture.release()
    assert shown and picture.std() > 20
    assert cv2.imread(str(video.with_suffix(".png"))).std() > 20
