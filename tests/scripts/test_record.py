"""`robot-attn record` from run folders of small tasks: files, and Minari datasets."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import RescaleAction

pytest.importorskip("h5py")

sys.path.insert(0, str(Path(__file__).parent))
from toy_lamp import ToyLamp
from toy_run import ToyTask, run_of

import robot_attn_envs  # noqa: F401
from robot_attn_policies.evaluation.evaluate import EVALUATION_SEED
from robot_attn_policies.probing.probe import probe_policy
from robot_attn_policies.recording.episode_file import load_episode
from robot_attn_policies.rollouts.rollout import rollout_episodes
from robot_attn_policies.training.run_folder import load_policy
from robot_attn_scripts._episodes import RecordedEpisode
from robot_attn_scripts._minari import DatasetInfo, new_dataset, recoverable_env
from robot_attn_scripts._third_party import OwnContext
from robot_attn_scripts.record import Options, RecordJob, record_job, run

FIRST = EVALUATION_SEED


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari's datasets go."""
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def load(name: str) -> tuple[Any, list[tuple[int, Any]]]:
    import minari

    dataset = minari.load_dataset(name)
    about = dataset.storage.get_episode_metadata(dataset.episode_indices)
    return dataset, [(row["seed"], episode) for row, episode in zip(about, dataset, strict=True)]


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, the type of number included."""
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# ---- Files ----


def test_each_episode_is_a_file_that_replay_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "episodes"
    figures = run(Options(folder, episodes=3, out=out, at_once=1, calibration_episodes=2))
    names = [f"episode-{FIRST + i}.hdf5" for i in range(3)]
    assert sorted(path.name for path in out.iterdir()) == names
    assert f"3 of 3 episodes in {out}" in capsys.readouterr().out
    for i, told in enumerate(figures["episodes"]):  # type: ignore[arg-type, var-annotated]
        episode = load_episode(out / names[i])
        assert episode.seed == told["seed"] == FIRST + i
        assert told["steps"]["value"] == len(episode)
        assert told["return"]["value"] == pytest.approx(episode.rewards.sum())
        assert told["success"] == episode.success
        # The toy's frames are in its state: what was seen is where the target was.
        assert np.array_equal(episode.images[..., 0] == 250, episode.target_masks)  # type: ignore[arg-type]


def test_another_process_records_the_same(folder: Path, tmp_path: Path) -> None:
    options = Options(
        folder, episodes=2, seed=7, out=tmp_path / "a", env=("box=false",), calibration_episodes=2
    )
    run(options)
    best = load_episode(tmp_path / "a" / "episode-7.hdf5").best_head
    (tmp_path / "b").mkdir()
    steps: list[int] = []
    told = record_job(RecordJob(options, tmp_path / "b", [8, 7], {"image": best}), steps.append)
    for seed in (7, 8):
        one, other = (load_episode(tmp_path / name / f"episode-{seed}.hdf5") for name in "ab")
        assert same(one.images, other.images) and same(one.actions, other.actions)
        assert same(one.attention, other.attention) and same(one.rewards, other.rewards)
        assert (one.env_args, one.best_head, one.policy) == (other.env_args, other.best_head, other.policy)
        assert told[seed]["steps"] == {"value": len(one), "unit": "steps"}
    assert steps == [1] * sum(told[seed]["steps"]["value"] for seed in (7, 8))  # type: ignore[index]


def test_what_is_there_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    present = tmp_path / f"episode-{FIRST + 1}.hdf5"
    present.write_bytes(b"precious")
    with pytest.raises(ValueError, match=f"episode-{FIRST + 1}.hdf5, which exists"):
        run(Options(folder, episodes=2, out=tmp_path))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


@pytest.mark.parametrize(
    "change", [{"episodes": 0}, {"at_once": 0}, {"calibration_episodes": 0}, {"seed": -1}]
)
def test_numbers_out_of_range_are_refused(folder: Path, tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected --[a-z-]+ from [01] to [0-9,]+, got (0|-1)$"):
        run(Options(folder, out=tmp_path / "a", **change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ---- Minari ----


def test_a_dataset_holds_what_the_environment_gave_to_the_bit(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run(Options(folder, episodes=5, minari="toy/query-v0", at_once=2, env=("box=false",)))
    dataset, episodes = load("toy/query-v0")
    assert [seed for seed, _ in episodes] == [FIRST + i for i in range(5)]
    assert f"5 of 5 episodes in the Minari dataset toy/query-v0, at {root / 'toy' / 'query-v0'}" in " ".join(
        capsys.readouterr().out.split()
    )
    assert [told["steps"]["value"] for told in figures["episodes"]] == [  # type: ignore[attr-defined]
        len(episode) for _, episode in episodes
    ]
    probe = probe_policy(load_policy(folder)[0])
    assert dataset.storage.metadata["token_centers"]["ys"] == probe.grid.ys.tolist()
    ends = set()
    for number, (seed, episode) in enumerate(episodes):
        env = ToyTask(1)
        observation, info = env.reset(seed=[seed])
        for t in range(len(episode) + 1):
            for name in ("image", "state"):
                assert same(episode.observations[name][t], observation[name][0]), (seed, t, name)
            for name in ("success", "target_visible", "target_mask"):
                assert same(episode.infos[name][t], info[name][0]), (seed, t, name)
            # Rounding depends on the batch size, so the maps are made again in a batch of the same size: two
            # at once, but for an episode's last observation, which is looked at alone.
            at_once = 1 if t == len(episode) else 2
            batch = {name: np.repeat(entry, at_once, axis=0) for name, entry in observation.items()}
            looked = probe.act(batch)[1].attention[number % at_once].numpy()  # type: ignore[union-attr]
            assert same(episode.infos["attention"][t], looked), (seed, t)
            if t == len(episode):
                break
            observation, reward, terminated, truncated, info = env.step(episode.actions[t][None])
            assert same(episode.rewards[t], reward[0])
            ended = t == len(episode) - 1
            assert (episode.terminations[t], episode.truncations[t]) == (terminated[0], truncated[0])
            assert bool(terminated[0] | truncated[0]) == ended
            if ended:
                ends.add((bool(terminated[0]), bool(truncated[0])))
                observation, info = info["final_obs"], info["final_info"]
    assert ends, "every episode ends"
    assert not list(root.glob(".*")), "nothing but the dataset is left"


def test_what_the_policy_did_is_what_a_fresh_rollout_of_the_same_batch_does(folder: Path, root: Path) -> None:
    run(Options(folder, episodes=4, minari="query-v3", at_once=4))
    _, episodes = load("query-v3")
    actions: list[list[Any]] = [[] for _ in range(4)]
    maps: list[list[Any]] = [[] for _ in range(4)]

    def see(step: Any) -> None:
        for i in np.flatnonzero(step.running):
            actions[i].append(step.actions[i])
            maps[i].append(step.percept.attention[i].numpy())

    seeds = [seed for seed, _ in episodes]
    rollouts = rollout_episodes(probe_policy(load_policy(folder)[0]).act, ToyTask(4), seeds, on_step=see)
    for i, (_, episode) in enumerate(episodes):
        assert same(episode.actions, np.stack(actions[i]))
        assert same(episode.infos["attention"][:-1], np.stack(maps[i]))
        assert episode.rewards.sum() == pytest.approx(rollouts.returns[i])


def test_the_environment_of_a_task_of_ours_is_recovered(tmp_path: Path, root: Path) -> None:
    folder = run_of(tmp_path / "run", "track", image_size=32)
    run(Options(folder, episodes=1, seed=11, minari="track/small-v1", env=("distractors=2",)))
    dataset, [(seed, episode)] = load("track/small-v1")
    assert dataset.spec.total_episodes == 1
    assert dataset.storage.metadata["algorithm_name"] == "PPO, perception query"
    env = dataset.recover_environment()
    assert env.observation_space == dataset.observation_space
    observation, info = env.reset(seed=seed)
    for t in range(len(episode) + 1):
        for name, entry in observation.items():
            assert same(episode.observations[name][t], entry)
        assert same(episode.infos["target_mask"][t], info["target_mask"])
        if t < len(episode):
            observation, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert episode.rewards[t] == reward
            assert (episode.terminations[t], episode.truncations[t]) == (terminated, truncated)
    env.close()


def test_a_third_partys_environment_is_recovered(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(tmp_path / "run", "toy_lamp:ToyLamp-v0", glow=200)
    with pytest.raises(ValueError, match="--module toy_lamp"):
        run(Options(folder, minari="lamp/query-v0"))
    run(Options(folder, episodes=3, minari="lamp/query-v0", at_once=2, module=("toy_lamp",)))
    assert "without it" not in capsys.readouterr().out
    dataset, episodes = load("lamp/query-v0")
    env = dataset.recover_environment()
    assert env.unwrapped.glow == 200
    for seed, episode in episodes:
        observation, info = env.reset(seed=seed)
        assert set(episode.infos) == {"attention", "is_success"}  # the others are words, or not in every step
        for t in range(len(episode)):
            assert same(episode.observations[t], observation)
            assert bool(episode.infos["is_success"][t]) == info["is_success"]
            observation, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert episode.rewards[t] == reward
            assert (episode.terminations[t], episode.truncations[t]) == (terminated, truncated)
        assert same(episode.observations[-1], observation)


def test_of_the_wrappers_those_that_json_can_hold_are_recovered() -> None:
    def make() -> gymnasium.Env[Any, Any]:
        # As `_third_party` wraps Gymnasium's MuJoCo tasks.
        env = OwnContext(gymnasium.make("ToyLamp-v0", glow=170, pushed=True))
        return RescaleAction(env, np.float32(-1), np.float32(1))

    batch = SyncVectorEnv([make])
    env = recoverable_env(batch, {})
    assert env is not None
    assert env.unwrapped.glow == 170  # type: ignore[attr-defined]
    assert env.action_space == batch.single_action_space
    one, other = env.reset(seed=4)[0], batch.reset(seed=[4])[0]
    for action in (0.7, -0.2, 0.1):
        assert same(one, other[0])
        given = np.array([action], np.float32)
        one, other = env.step(given)[0], batch.step(given[None])[0]


def test_an_environment_that_json_cannot_hold_is_left_out(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gymnasium.register("ToyLamp/Code-v0", ToyLamp, max_episode_steps=12)
    run(Options(run_of(tmp_path / "run", "ToyLamp/Code-v0"), episodes=1, minari="lamp/code-v0"))
    assert "cannot be described in JSON: the dataset is without it" in capsys.readouterr().out
    assert load("lamp/code-v0")[0].env_spec is None


@pytest.mark.parametrize(
    "name",
    [
        "query",
        "query-v",
        "a/query-v0",
        "track//query-v0",
        "../query-v0",
        "data/query-v0",
        "qu ery-v0",
        "/x-v0",
    ],
)
def test_a_name_that_minari_does_not_take_is_refused_at_once(tmp_path: Path, root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a Minari dataset such as track/query-v0"):
        run(Options(tmp_path / "no run", minari=name))


def test_a_dataset_that_is_there_stays_as_it_is(folder: Path, root: Path) -> None:
    run(Options(folder, episodes=1, minari="toy/query-v0"))
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name, message in (
        ("toy/query-v0", "got toy/query-v0, which exists at"),
        ("toy/query-v0/more-v0", "got the Minari dataset toy/query-v0: name another namespace"),
    ):
        with pytest.raises(ValueError, match=message):
            run(Options(folder, episodes=1, minari=name))
    with pytest.raises(ValueError, match="and --lerobot, got --out and --minari"):
        run(Options(folder, episodes=1, minari="toy/query-v1", out=root / "a"))
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == files


class Interrupting(ToyTask):
    """Someone presses Ctrl-C while a batch is played."""

    def __init__(self, num_envs: int, training: bool = False, *, at: int = -1, **options: Any) -> None:
        super().__init__(num_envs, training, **options)
        self.at = at

    def step(self, actions: Any) -> Any:
        if self.steps == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(actions)


class Broken(ToyTask):
    """Its rewards turn to NaN in the third batch."""

    resets = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.resets += 1
        return super().reset(seed=seed, options=options)

    def step(self, actions: Any) -> Any:
        observation, rewards, *rest = super().step(actions)
        return observation, np.where(self.resets > 2, np.nan, rewards), *rest


for _task in (Interrupting, Broken):
    gymnasium.register(f"RobotAttn/{_task.__name__}-v0", vector_entry_point=_task)


def test_ctrl_c_keeps_the_episodes_that_have_ended(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it
    try:
        run_folder = run_of(tmp_path / "run", "interrupting")
        # Episodes have 13 steps at most, so that by then the first two are over and the next two are not.
        with pytest.raises(KeyboardInterrupt):
            run(Options(run_folder, episodes=20, minari="toy/cut-v0", at_once=2, env=("at=14",)))
        # Some of these have 10 steps, and some 13.
        with pytest.raises(KeyboardInterrupt):
            run(Options(run_folder, episodes=20, minari="toy/part-v0", at_once=20, env=("at=11",)))
        # In the first step no episode has ended.
        with pytest.raises(KeyboardInterrupt):
            run(Options(run_folder, episodes=20, minari="none/cut-v0", at_once=2, env=("at=0",)))
    finally:
        signal.signal(signal.SIGINT, before)
    dataset, episodes = load("toy/cut-v0")
    count = dataset.total_episodes
    assert 2 <= count < 20
    assert all(bool(episode.terminations[-1] | episode.truncations[-1]) for _, episode in episodes)
    part, episodes = load("toy/part-v0")
    assert 0 < part.total_episodes < 20
    assert all(bool(episode.terminations[-1] | episode.truncations[-1]) for _, episode in episodes)
    seeds = [seed for seed, _ in episodes]
    assert seeds == sorted(seeds)
    told = capsys.readouterr().out
    assert f"{count} of 20 episodes in the Minari dataset toy/cut-v0" in " ".join(told.split())
    assert "no episode was written" in told
    assert sorted(path.name for path in root.iterdir()) == ["toy"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder: Path, root: Path, tmp_path: Path) -> None:
    # The largest file a process may write stands in for a full disk: the write fails in the same way.
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_run import register
from robot_attn_scripts import cli
register()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(cli.main(["record", {str(folder)!r}, "--minari", "toy/full-v0", "--episodes", "4"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    expected = (
        f"robot-attn: error: cannot write {root / 'toy' / 'full-v0'}: File too large: nothing was written"
    )
    assert done.stderr.splitlines()[-1].startswith(expected)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(("steps", "side"), [(1, 4), (1, 64), (13, 64), (150, 64), (1000, 16)])
def test_more_space_is_asked_for_than_a_dataset_takes(
    steps: int, side: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    reserve = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *place: (asked.append(place[2]), reserve(*place)))
    episode = RecordedEpisode(
        seed=0,
        instruction=None,
        observations=np.ones((steps + 1, side, side, 3), np.uint8),
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, bool),
        truncations=np.zeros(steps, bool),
        infos={"attention": np.zeros((steps + 1, 8, 15, 15), np.float32)},
    )
    info = DatasetInfo(
        env=None,
        observation_space=spaces.Box(0, 255, (side, side, 3), np.uint8),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
        algorithm="none",
        description="zeros",
        more={},
    )
    with new_dataset("zeros-v0", info) as add:
        add([episode])
        add([episode] * 3)
    written = (root / "zeros-v0" / "data" / "main_data.hdf5").stat().st_size
    assert sum(asked) / 3 < written < sum(asked)


def test_an_error_keeps_the_episodes_that_have_ended(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected finite rewards"):
        run(Options(run_of(tmp_path / "run", "broken"), episodes=9, minari="toy/cut-v0", at_once=3))
    _, episodes = load("toy/cut-v0")
    assert [seed for seed, _ in episodes] == [FIRST + i for i in range(6)]
    assert all(np.isfinite(episode.rewards).all() for _, episode in episodes)
    assert sorted(path.name for path in root.iterdir()) == ["toy"]
