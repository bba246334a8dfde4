"""`robot-attn replay` from run folders of a small task, and from the episodes it records."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ToyTask, make_run  # noqa: E402

from robot_attn.video import ffmpeg_path  # noqa: E402
from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED  # noqa: E402
from robot_attn_policies.recording.episode_file import load_episode, save_episode  # noqa: E402
from robot_attn_policies.training.presets import TrainConfig  # noqa: E402
from robot_attn_scripts import cli  # noqa: E402
from robot_attn_scripts.replay import Options, _scene, _title  # noqa: E402


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


def page_of(path: Path) -> Any:
    """What a page says, as its script reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert found is not None
    return json.loads(found[1])


def test_video_page_episode_and_contact_sheet_lie_side_by_side(replayed: Path) -> None:
    assert sorted(path.name for path in replayed.parent.iterdir()) == [
        "replay.hdf5",
        "replay.html",
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
    page = page_of(replayed.with_suffix(".html"))
    assert page["steps"] == len(episode)
    assert page["rewards"] == pytest.approx(episode.rewards.tolist(), rel=1e-5)
    assert page["notes"] == []
    assert "seed 1000000000" in replayed.with_suffix(".html").read_text().partition("</title>")[0]


def test_what_is_recorded_is_what_the_policy_saw_and_did(replayed: Path, folder: Path) -> None:
    from robot_attn_policies.sb3.extractor import perceive
    from robot_attn_policies.training.run_folder import load_policy

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
    values = policy.predict_values(policy.obs_to_tensor(seen)[0])[:, 0]
    assert episode.values == pytest.approx(values.numpy(force=True), abs=1e-4)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "again.mp4"]
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
        "episodes": [
            {
                "environment": "RobotAttn/Toy-v0",
                "policy": episode.policy,
                "seed": episode.seed,
                "steps": {"value": len(episode), "unit": "steps"},
                "cut": None,
                "return": {"value": pytest.approx(float(episode.rewards.sum())), "unit": "reward an episode"},
                "success": episode.success,
            }
        ],
        "files": [str(out), str(out.with_suffix(".html"))],
    }
    (played,) = figures["episodes"]
    outcome = "success" if played["success"] else "no success"
    told = " ".join(capsys.readouterr().out.split())
    assert (
        f"RobotAttn/Toy-v0, seed {played['seed']}: {played['steps']['value']} steps, "
        f"return {played['return']['value']:.1f}, {outcome}"
    ) in told


@pytest.mark.parametrize(("maps", "kind"), [((), "causal"), (("--maps", "gradient"), "gradient")])
def test_a_policy_without_attention_is_drawn_with_other_maps_and_says_so(
    maps: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "cnn", "cnn")
    assert run(folder, *maps, "--out", tmp_path / "a.mp4") == 0
    episode = load_episode(tmp_path / "a.hdf5")
    assert (episode.maps, episode.uniform) == (kind, False)
    note = page_of(tmp_path / "a.html")["notes"][0]
    assert note.startswith(
        f"The maps are {'causal maps' if kind == 'causal' else 'gradients'}, not attention"
    )


class Impatient(ToyTask):
    """Interrupts like a person, in the episode of seed 7."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if seed == [7]:
            raise KeyboardInterrupt
        return super().reset(seed=seed, options=options)


@pytest.fixture
def impatient() -> Iterator[str]:
    gymnasium.register("RobotAttn/Impatient-v0", vector_entry_point=Impatient)
    yield "impatient"
    del gymnasium.registry["RobotAttn/Impatient-v0"]


def test_an_interruption_keeps_the_episodes_that_are_finished(
    folder: Path, impatient: str, tmp_path: Path
) -> None:
    out, figures = tmp_path / "a.mp4", tmp_path / "a.json"
    options = ("--task", impatient, "--seed", 5, "--episodes", 4, "--size", 600, "--calibration-episodes", 2)
    assert run(folder, "--out", out, *options, "--png", "--json", figures) == 130
    names = [f"a-{seed}{ending}" for seed in (5, 6) for ending in (".hdf5", ".mp4", ".html", ".png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "a.json"])
    told = json.loads(figures.read_text())
    assert [Path(path).name for path in told["files"]] == names
    assert [episode["seed"] for episode in told["episodes"]] == [5, 6]
    episode = load_episode(tmp_path / "a-6.hdf5")
    assert episode.env_args["env_name"] == "RobotAttn/Impatient-v0"
    run(folder, "--out", tmp_path / "b.mp4", "--seed", 6, "--size", 600, "--calibration-episodes", 2)
    assert np.array_equal(load_episode(tmp_path / "b.hdf5").images, episode.images)


def test_two_policies_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "cnn")
    out = tmp_path / "out" / "both.mp4"
    assert run(folder, "--compare", other, "--out", out, "--seed", 5, "--calibration-episodes", 2) == 0
    names = ["both-a.hdf5", "both-a.html", "both-b.hdf5", "both-b.html", "both.mp4"]
    assert sorted(path.name for path in out.parent.iterdir()) == names
    a, b = (load_episode(out.parent / f"both-{one}.hdf5") for one in "ab")
    assert a.seed == b.seed == 5
    assert np.array_equal(a.images[0], b.images[0])  # the same start
    assert (a.maps, b.maps) == ("attention", "causal")
    frames = decode(out)
    assert len(frames) == max(len(a), len(b))
    assert frames[0].shape[0] == 720
    assert page_of(out.parent / "both-a.html")["links"] == [[f"Compare with {other} (best)", "both-b.html"]]
    # The same again from the two files, which are of one seed; and not with one of another.
    files = (out.parent / "both-a.hdf5", "--compare", out.parent / "both-b.hdf5")
    assert run(*files, "--out", tmp_path / "again.mp4") == 0
    assert (tmp_path / "again.mp4").read_bytes() == out.read_bytes()


def test_episodes_of_two_seeds_are_not_compared(
    folder: Path, replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episode = load_episode(replayed.with_suffix(".hdf5"))
    save_episode(tmp_path / "other.hdf5", replace(episode, seed=3))
    sources = (replayed.with_suffix(".hdf5"), "--compare", tmp_path / "other.hdf5")
    assert run(*sources, "--out", tmp_path / "a.mp4") == 2
    assert "RobotAttn/Toy-v0 with seed 1000000000 and RobotAttn/Toy-v0 with seed 3" in capsys.readouterr().err
    assert run(folder, *sources[1:], "--out", tmp_path / "a.mp4") == 2
    assert "expected two policies or two recorded episodes for --compare" in capsys.readouterr().err


def test_the_error_for_a_policy_that_does_not_fit_the_task_lists_the_differences(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--env", "discrete=true", "--out", tmp_path / "out" / "a.mp4") == 2
    told = capsys.readouterr().err
    assert "got RobotAttn/Toy-v0 with action Discrete(4) where the policy has float32 [2]:" in told
    assert run(folder, "--env", "box=true", "--out", tmp_path / "out" / "a.mp4") == 2
    told = capsys.readouterr().err
    for difference in (
        "image nothing where the policy has uint8 [3, 36, 44]",
        "observation uint8 [3, 36, 44] where the policy has nothing",
        "state nothing where the policy has float32 [2]",
    ):
        assert difference in told
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_left_of_a_file_that_was_cut_is_drawn_and_says_so(
    replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load_episode(replayed.with_suffix(".hdf5"))
    steps = len(whole)
    left = replace(whole, dones=np.zeros(steps, dtype=bool), cut=150)
    save_episode(tmp_path / "cut.hdf5", left)
    assert run(tmp_path / "cut.hdf5", "--out", tmp_path / "a.mp4", "--json", tmp_path / "a.json") == 0
    assert f"the file was cut after step {steps} of 150: what follows is lost" in capsys.readouterr().out
    note = f"The file was cut after step {steps} of 150: what follows is lost."
    assert page_of(tmp_path / "a.html")["notes"] == [note]
    assert json.loads((tmp_path / "a.json").read_text())["episodes"][0]["cut"]["value"] == 150
    assert f"   cut after step {steps} of 150   " in _title(left)
    # It is in the picture, too: the first rows of the first frame, where the title stands.
    assert run(replayed.with_suffix(".hdf5"), "--out", tmp_path / "b.mp4") == 0
    cut, uncut = decode(tmp_path / "a.mp4")[0][:40], decode(tmp_path / "b.mp4")[0][:40]
    assert (np.abs(cut.astype(int) - uncut).max(axis=2) > 60).sum() > 50


CONFIG = TrainConfig("track", env={"shift": "noise", "image_size": 48, "distractors": 3})


@pytest.mark.parametrize(
    ("options", "scene"),
    [
        ({}, {"shift": "noise", "image_size": 48, "distractors": 3}),
        ({"suite": "hard"}, {"suite": "hard", "image_size": 48, "distractors": 3}),
        (
            {"shift": ("colors", "lighting=0.25")},
            {"shift": {"colors": 1, "lighting": 0.25}, "image_size": 48, "distractors": 3},
        ),
        ({"task": "track"}, {"shift": "noise", "image_size": 48, "distractors": 3}),
        ({"task": "push", "env": ("clutter=2",)}, {"image_size": 48, "clutter": 2}),
    ],
)
def test_the_scene_is_that_of_training_but_for_what_is_asked(
    options: dict[str, Any], scene: dict[str, Any]
) -> None:
    assert _scene(Options(Path("run"), **options), CONFIG, CONFIG) == scene


def test_a_shift_takes_the_place_of_the_suite_of_training() -> None:
    config = TrainConfig("track", env={"suite": "hard", "intensity": 0.5})
    assert _scene(Options(Path("run"), shift=("colors",)), config, config) == {"shift": {"colors": 1}}


def test_whoever_is_compared_sees_frames_of_their_own_size() -> None:
    other = TrainConfig("push", env={"image_size": 96, "clutter": 2})
    expected = {"shift": "noise", "image_size": 96, "distractors": 3}
    assert _scene(Options(Path("run")), CONFIG, other) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.avi"], "ends in .mp4, got a.avi"),
        (["--size", 700 + 1], "even number"),
        (["--size", 100], "from 600"),
        (["--rerun", "a.mp4"], "ends in .rrd, got a.mp4"),
        (["--episodes", 0], "--episodes from 1 to 1,000,000, got 0"),
        (["--suite", "hard", "--shift", "colors"], "expected --suite or --shift, got both"),
        (["--compare", "nothing"], "expected a run folder, a .zip or a recorded episode, got nothing"),
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
    assert (
        f"expected a run folder, a .zip or a recorded episode, got {tmp_path / 'nothing'}"
        in capsys.readouterr().err
    )
    (tmp_path / "e.hdf5").write_bytes(b"not an episode")
    assert run(tmp_path / "e.hdf5", "--out", tmp_path / "a.mp4") == 2
    assert "expected an HDF5 file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["e.hdf5"]


@pytest.mark.parametrize("option", [("--task", "toy"), ("--seed", 3), ("--shift", "colors"), ("--live",)])
def test_what_has_been_played_is_not_played_again(
    replayed: Path, tmp_path: Path, option: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(replayed.with_suffix(".hdf5"), *option, "--out", tmp_path / "a.mp4") == 2
    assert f"expected a policy with {option[0]}, got" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_ffmpeg_is_one_clear_sentence_and_keeps_the_episode(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    assert run(folder, "--out", tmp_path / "a.mp4", "--calibration-episodes", 2) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert "ffmpeg" in told[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]
