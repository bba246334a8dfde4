"""`robot-attn record --lerobot`: a LeRobotDataset with what the environment and the policy gave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

sys.path.insert(0, str(Path(__file__).parent))
from toy_run import ToyTask, make_run, run_of

import robot_attn_envs  # noqa: F401
from robot_attn.video import VideoReader
from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED
from robot_attn_scripts._episodes import RecordedEpisode
from robot_attn_scripts._lerobot import DatasetInfo, new_dataset
from robot_attn_scripts._lerobot_stats import aggregate, image_stats, vector_stats
from robot_attn_scripts.record import Options, run

parquet = pytest.importorskip("pyarrow.parquet")
cv2 = pytest.importorskip("cv2")

FIRST = EVALUATION_SEED
FPS = 12.5


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted((folder / kind).glob("chunk-*/file-*.parquet"))
    assert [str(file.relative_to(folder / kind)) for file in files] == [
        f"chunk-000/file-{i:03d}.parquet" for i in range(len(files))
    ]
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def meta(folder: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "meta" / f"{name}.json").read_text())
    return read


def decoded(image: dict[str, Any]) -> Any:
    return cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]


def test_every_step_is_there_to_the_bit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "toy"
    figures = run(Options(folder, episodes=5, lerobot=out, at_once=2))
    assert f"5 of 5 episodes in the LeRobot dataset, at {out}" in " ".join(capsys.readouterr().out.split())
    steps, episodes = rows(out, "data"), rows(out, "meta/episodes")
    assert [told["steps"]["value"] for told in figures["episodes"]] == [  # type: ignore[attr-defined]
        row["length"] for row in episodes
    ]
    assert [step["index"] for step in steps] == list(range(sum(row["length"] for row in episodes)))
    for number, row in enumerate(episodes):
        part = steps[row["dataset_from_index"] : row["dataset_to_index"]]
        assert row["episode_index"] == number and row["tasks"] == ["RobotAttn/Toy-v0"]
        place = {"chunk_index": 0, "file_index": number // 2}
        assert {kind: row[f"data/{kind}"] for kind in place} == place
        assert {kind: row[f"meta/episodes/{kind}"] for kind in place} == place
        env = ToyTask(1)
        observation, _ = env.reset(seed=[FIRST + number])
        for t, step in enumerate(part):
            assert (step["episode_index"], step["frame_index"], step["task_index"]) == (number, t, 0)
            assert step["timestamp"] == np.float32(t / FPS)
            assert np.array_equal(decoded(step["observation.images.image"]), observation["image"][0])
            assert np.array_equal(np.float32(step["observation.state"]), observation["state"][0])
            maps = np.reshape(step["attention"], (3, 8, 10))
            assert maps.sum(axis=(1, 2)) == pytest.approx([1, 1, 1], abs=1e-5)
            observation, rewards, terminated, truncated, infos = env.step(np.float32([step["action"]]))
            assert step["next.reward"] == rewards[0]
            assert (step["next.terminated"], step["next.truncated"]) == (terminated[0], truncated[0])
            assert step["next.done"] == (terminated[0] or truncated[0]) == (t == len(part) - 1)
            last = infos["final_info"] if step["next.done"] else infos
            assert step["next.success"] == last["success"][0]
    assert [file.name for file in out.parent.iterdir()] == ["toy"]


def test_the_metadata_is_what_the_format_asks_for(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    run(Options(folder, episodes=3, lerobot=out, env=("discrete=false",)))
    info, steps = meta(out, "info"), rows(out, "data")
    assert info["codebase_version"] == "v3.0" and info["fps"] == FPS
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, len(steps), 1)
    assert info["splits"] == {"train": "0:3"} and info["video_path"] is None
    path = info["data_path"].format(chunk_index=0, file_index=0)
    assert list(info["features"]) == parquet.read_schema(out / path).names == list(steps[0])
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in info["features"].items()} == {
        "observation.images.image": ("image", [36, 44, 3]),
        "observation.state": ("float32", [2]),
        "action": ("float32", [2]),
        "next.reward": ("float64", [1]),
        "next.terminated": ("bool", [1]),
        "next.truncated": ("bool", [1]),
        "next.done": ("bool", [1]),
        "next.success": ("bool", [1]),
        "attention": ("float32", [240]),
        "timestamp": ("float32", [1]),
        **{name: ("int64", [1]) for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    assert info["features"]["action"]["names"] == ["up", "left"]
    tasks = parquet.read_table(out / "meta" / "tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "__index_level_0__": "RobotAttn/Toy-v0"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    ours = meta(out, "robot-attn")
    assert ours["seeds"] == [FIRST, FIRST + 1, FIRST + 2] and ours["version"] == "0.1.0"
    assert ours["environment"] == {"id": "RobotAttn/Toy-v0", "options": {"discrete": False}}
    assert ours["attention"]["shape"] == [3, 8, 10] and len(ours["attention"]["ys"]) == 8
    stats = meta(out, "stats")
    actions = np.array([step["action"] for step in steps])
    assert stats["action"]["min"] == actions.min(axis=0).tolist()
    assert stats["action"]["mean"] == pytest.approx(actions.mean(axis=0))
    assert stats["action"]["std"] == pytest.approx(actions.std(axis=0))
    assert stats["action"]["count"] == [len(steps)]
    assert np.shape(stats["observation.images.image"]["mean"]) == (3, 1, 1)
    assert "attention" not in stats and set(stats) < set(info["features"])


def test_frames_as_video_are_where_the_episodes_say(folder: Path, tmp_path: Path) -> None:
    png, video = tmp_path / "png", tmp_path / "video"
    for out in (png, video):
        run(Options(folder, episodes=3, lerobot=out, at_once=2, lerobot_video=out == video))
    info, key = meta(video, "info"), "observation.images.image"
    assert info["features"][key]["dtype"] == "video" and key not in rows(video, "data")[0]
    frames = [decoded(step[key]) for step in rows(png, "data")]
    for row in rows(video, "meta/episodes"):
        place = {kind: row[f"videos/{key}/{kind}"] for kind in ("chunk_index", "file_index")}
        with VideoReader(video / info["video_path"].format(video_key=key, **place)) as reader:
            assert reader.fps == FPS
            found = list(reader)
        start, stop = (round(row[f"videos/{key}/{end}_timestamp"] * FPS) for end in ("from", "to"))
        assert stop - start == row["length"]
        expected = frames[row["dataset_from_index"] : row["dataset_to_index"]]
        difference = np.abs(np.int16(found[start:stop]) - np.int16(expected))
        assert difference.mean() < 3 and np.percentile(difference, 99) < 40
        # The dot moves: frames of other steps differ by more.
        moved = np.abs(np.int16(found[start:stop][1:]) - np.int16(expected[:-1]))
        assert difference.mean() < moved.mean()


def test_an_instruction_is_the_task_of_its_episode(tmp_path: Path) -> None:
    out = tmp_path / "reach"
    run(Options(run_of(tmp_path / "run", "reach", image_size=32, instruction=True), episodes=6, lerobot=out))
    tasks = [row["__index_level_0__"] for row in parquet.read_table(out / "meta/tasks.parquet").to_pylist()]
    env = gymnasium.make("RobotAttn/Reach-v0", image_size=32, instruction=True)
    told = [env.reset(seed=FIRST + i)[1]["instruction"] for i in range(6)]
    env.close()
    assert len(set(told)) > 1 and tasks == list(dict.fromkeys(told))
    assert [row["tasks"] for row in rows(out, "meta/episodes")] == [[text] for text in told]
    step = rows(out, "data")[-1]
    assert tasks[step["task_index"]] == told[-1] and meta(out, "info")["total_tasks"] == len(tasks)


def test_a_third_partys_discrete_actions_and_plain_frames(tmp_path: Path) -> None:
    out = tmp_path / "lamp"
    run(
        Options(
            run_of(tmp_path / "run", "toy_lamp:ToyLamp-v0"), episodes=2, lerobot=out, module=("toy_lamp",)
        )
    )
    info = meta(out, "info")
    assert info["fps"] == 10 and isinstance(info["fps"], int)
    assert info["features"]["action"] == {"dtype": "int64", "shape": [1], "names": None}
    assert list(info["features"])[:2] == ["observation.image", "action"]
    env = gymnasium.make("ToyLamp-v0")
    observation, _ = env.reset(seed=FIRST)
    for step in rows(out, "data"):
        if step["episode_index"] == 0:
            assert np.array_equal(decoded(step["observation.image"]), observation)
            observation, reward, *_ = env.step(step["action"])
            assert step["next.reward"] == reward
    env.close()


def test_the_control_without_attention_has_no_maps(tmp_path: Path) -> None:
    out = tmp_path / "cnn"
    run(Options(make_run(tmp_path / "run", perception="cnn"), episodes=1, lerobot=out))
    assert "attention" not in rows(out, "data")[0] and "attention" not in meta(out, "robot-attn")


# ---- Statistics ----


def test_statistics_of_vectors_and_images_by_hand() -> None:
    stats = vector_stats(np.array([[0.0], [1.0], [2.0], [5.0]]))
    assert {name: value.tolist() for name, value in stats.items()} == {
        "min": [0],
        "max": [5],
        "mean": [2],
        "std": [np.sqrt(14 / 4)],
        "count": [4],
        "q01": [pytest.approx(0.03)],
        "q10": [pytest.approx(0.3)],
        "q50": [1.5],
        "q90": [pytest.approx(4.1)],
        "q99": [pytest.approx(4.91)],
    }
    frames = np.zeros((2, 2, 5, 2), np.uint8)
    frames[0, 0, :, 1] = 255  # a quarter of the second channel
    stats = image_stats(frames)
    assert stats["mean"].tolist() == [[[0]], [[0.25]]] and stats["max"].tolist() == [[[0]], [[1]]]
    assert stats["std"].ravel() == pytest.approx([0, np.sqrt(3) / 4])
    assert stats["q50"].tolist() == [[[0]], [[0]]] and stats["q90"].tolist() == [[[0]], [[1]]]
    assert stats["count"].tolist() == [2]


def test_statistics_of_episodes_add_up_to_those_of_the_dataset() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    parts = [{"a": vector_stats(part)} for part in (values[:7], values[7:])]
    together, whole = aggregate(parts)["a"], vector_stats(values)
    for name in ("min", "max", "mean", "std", "count"):
        assert together[name] == pytest.approx(whole[name].tolist())
    assert together["q50"][0] == pytest.approx(
        (7 * parts[0]["a"]["q50"][0] + 23 * parts[1]["a"]["q50"][0]) / 30
    )


# ---- Refused, interrupted, full ----


def episode(observations: Any, steps: int = 2) -> RecordedEpisode:
    flags = np.zeros(steps, bool)
    return RecordedEpisode(
        0, None, observations, np.zeros((steps, 1), np.float32), np.zeros(steps), flags, flags, {}
    )


def described(space: spaces.Space[Any], seconds: float | None = 0.1, video: bool = False) -> DatasetInfo:
    return DatasetInfo(space, spaces.Box(-1, 1, (1,), np.float32), None, seconds, "none", (), video, {})


FRAME = spaces.Box(0, 255, (36, 33, 3), np.uint8)


@pytest.mark.parametrize(
    ("info", "match"),
    [
        (
            described(FRAME, seconds=None),
            "states the duration of a step for --lerobot, got one that does not",
        ),
        (described(spaces.Dict({"a/b": FRAME})), "without '/' for --lerobot, got 'a/b'"),
        (described(spaces.Box(0, 1, (2,) * 6)), r"at most 5 axes for --lerobot, got 'observation' of shape"),
        (described(FRAME, video=True), r"even sides for --lerobot-video, got 'frames' of \[36, 33, 3\]"),
        (
            described(spaces.Dict(wrist=spaces.Box(0, 255, (36, 32, 1), np.uint8)), video=True),
            r"expected RGB frames .* got 'wrist' of \[36, 32, 1\]",
        ),
    ],
)
def test_what_has_no_place_in_the_format_is_refused(info: DatasetInfo, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match), new_dataset(tmp_path / "a", info):
        pass
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_any_shape_keep_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    observations = {
        "grey": rng.integers(0, 256, (3, 36, 32, 1), dtype=np.uint8),
        "stack": rng.integers(0, 256, (3, 4, 5, 3, 2), dtype=np.uint8),
        "flags": rng.random((3, 6)) > 0.5,
        "gear": np.array([2, 0, 1]),
    }
    space = spaces.Dict(
        grey=spaces.Box(0, 255, (36, 32, 1), np.uint8),
        stack=spaces.Box(0, 255, (4, 5, 3, 2), np.uint8),
        flags=spaces.MultiBinary(6),
        gear=spaces.Discrete(3),
    )
    with new_dataset(tmp_path / "a", described(space)) as add:
        add([episode(observations)])
    steps, features = rows(tmp_path / "a", "data"), meta(tmp_path / "a", "info")["features"]
    for t, step in enumerate(steps):
        grey = cv2.imdecode(
            np.frombuffer(step["observation.images.grey"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert np.array_equal(grey, observations["grey"][t, :, :, 0])
        for name in ("stack", "flags", "gear"):
            assert np.array_equal(step[f"observation.{name}"], observations[name][t])
    assert features["observation.stack"] == {"dtype": "uint8", "shape": [4, 5, 3, 2], "names": None}
    assert features["observation.gear"] == {"dtype": "int64", "shape": [1], "names": None}


def test_a_folder_with_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    with pytest.raises(ValueError, match=r"expected a new folder for --lerobot, got .*, which exists"):
        Options(folder, lerobot=tmp_path).check_files()
    with pytest.raises(ValueError, match="expected --lerobot-video with --lerobot, got it alone"):
        Options(folder, lerobot_video=True)
    with pytest.raises(ValueError, match="got --minari and --lerobot"):
        Options(folder, lerobot=tmp_path, minari="a-v0")


class LerobotInterrupting(ToyTask):
    """Someone presses Ctrl-C in step `at`."""

    def __init__(self, num_envs: int, training: bool = False, *, at: int = -1, **options: Any) -> None:
        super().__init__(num_envs, training, **options)
        self.at = at

    def step(self, actions: Any) -> Any:
        if self.steps == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(actions)


gymnasium.register("RobotAttn/LerobotInterrupting-v0", vector_entry_point=LerobotInterrupting)


@pytest.mark.parametrize(("at", "kept"), [(14, True), (0, False)])
def test_ctrl_c_keeps_the_episodes_that_have_ended(at: int, kept: bool, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
    out = tmp_path / "new" / "cut"
    run_folder = run_of(tmp_path / "run", "lerobotinterrupting")
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Options(run_folder, episodes=20, lerobot=out, at_once=2, env=(f"at={at}",)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["new", "run"] if kept else ["run"])
    if kept:
        steps, episodes = rows(out, "data"), rows(out, "meta/episodes")
        assert 2 <= len(episodes) < 20 and len(episodes) == meta(out, "info")["total_episodes"]
        assert all(steps[row["dataset_to_index"] - 1]["next.done"] for row in episodes)


@pytest.mark.parametrize("more", [[], ["--lerobot-video"]])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    more: Sequence[str], folder: Path, tmp_path: Path
) -> None:
    # The largest file a process may write stands in for a full disk: the write fails in the same way.
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_run import register
from robot_attn_scripts import cli
register()
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
sys.exit(cli.main(["record", {str(folder)!r}, "--lerobot", {str(tmp_path / "a")!r}, *{list(more)}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"robot-attn: error: cannot write {tmp_path / 'a'}: ")
    assert last.endswith("nothing was written; free some space, or name another place")
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_error_names_the_install_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # how Python marks what cannot be imported
    with pytest.raises(
        ModuleNotFoundError, match=r'needs pyarrow, .*: run pip install "robot-attn\[lerobot\]"$'
    ):
        run(Options(folder, lerobot=tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []
